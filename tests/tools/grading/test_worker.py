"""Grading without processes: names, reading, restoring, flags, messages, tables."""

import csv
import json
import os

import numpy as np
import pytest
import torch
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from labs_helpers.course.lab import start
from labs_helpers.course.profile import ROOT
from labs_tools import cli
from labs_tools.grading import (
    executed,
    protocol,
    reports,
    submissions,
    suspicions,
    worker,
)
from labs_tools.grading.assignment import read_assignment
from labs_tools.grading.reports import Entry
from labs_tools.grading.restore import Submitted, restore
from labs_tools.grading.scoring import Result, Score
from labs_tools.grading.statements import definitions, without_magics

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]_*.ipynb"))
SOURCES = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


# Whose it is

NAMES = {
    "anna.ipynb": "anna",
    "1_reward_model_anna.ipynb": "anna",
    "anna/1_reward_model.ipynb": "anna",
    "Anna Berg - Lab 1 (2).ipynb": "Anna Berg",
    "Ada Lovelace_123456_assignsubmission_file_/1_reward_model.ipynb": "Ada Lovelace",
    "1_reward_model-Copy1.ipynb": "1_reward_model-Copy1",
    "lab1/lab_1_østergård.ipynb": "østergård",
    "zip/嘉/solved.ipynb": "嘉",
}


@pytest.fixture
def folder(tmp_path):
    def build(*names):
        for name in names:
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        return tmp_path / "in"

    return build


@pytest.mark.parametrize(("name", "student"), NAMES.items())
def test_student_comes_from_any_name(folder, name, student):
    [found] = submissions.collect(folder(name), lab_names=["1_reward_model"])
    assert found.student == student
    assert found.known


def test_roster_knows_aliases(folder, tmp_path):
    roster = tmp_path / "roster.csv"
    roster.write_text("id,name,mail\nab1,Anna Berg,a.berg@x.org\nab2,Anna Bergmann,\n")
    students = submissions.read_roster(roster)
    names = ["ANNA_BERG.ipynb", "annabergmann-7.ipynb", "a.berg@x.org.ipynb", "z.ipynb"]
    found = {s.name: s for s in submissions.collect(folder(*names), students)}
    assert found["ANNA_BERG.ipynb"].student == "ab1"
    assert found["annabergmann-7.ipynb"].student == "ab2"
    assert found["a.berg@x.org.ipynb"].student == "ab1"
    assert not found["z.ipynb"].known


def test_roster_without_students_is_an_error(tmp_path):
    roster = tmp_path / "roster.csv"
    roster.write_text("id,name\n")
    with pytest.raises(submissions.BadRoster, match="names no students"):
        submissions.read_roster(roster)


def test_names_that_are_no_text_are_read(tmp_path):
    for name in (b"caf\xe9.ipynb", b"a\x1b[2J.ipynb", "zo\u00eb\n.ipynb".encode()):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
            pass
    found = submissions.collect(tmp_path)
    assert sorted(s.student for s in found) == [
        "a\ufffd[2J",
        "caf\ufffd",
        "zo\u00eb\ufffd",
    ]
    assert all(s.path.exists() for s in found)


def test_only_what_was_handed_in_is_collected(folder, tmp_path):
    names = [
        "a/lab.ipynb",
        "a/figure.png",
        ".hidden",
        "b.pdf",
        "x/.ipynb_checkpoints/y",
    ]
    found = folder(*names, "grades.csv")
    (found / "link.ipynb").symlink_to(found / "a" / "lab.ipynb")
    collected = submissions.collect(found, ignored=[found / "grades.csv"])
    assert [s.name for s in collected] == ["a/lab.ipynb", "b.pdf"]


# What it holds


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "empty file"),
        (b"  \n", "empty file"),
        (b"\x89PNG", "not a notebook"),
        (b"[]", "not a notebook"),
        (b'{"cells": [', "bad JSON"),
        (b'{"cells": ' + b"[" * 100_000, "bad JSON"),
        (b'{"metadata": {}}', "not a notebook"),
    ],
)
def test_what_is_no_notebook_is_refused(tmp_path, content, name):
    path = tmp_path / "x.ipynb"
    path.write_bytes(content)
    with pytest.raises(submissions.Refused) as refused:
        submissions.read(path)
    assert refused.value.name == name


def test_notebook_of_odd_fields_is_read(tmp_path):
    path = tmp_path / "x.ipynb"
    cells = [
        {"cell_type": "code", "source": ["a\n", 3, "b"], "metadata": 7, "outputs": "x"},
        {"cell_type": "code", "metadata": {"id": "colab", "nbgrader": []}},
        {"source": "half of a pair: \ud800"},
        "no cell",
    ]
    path.write_text(json.dumps({"cells": cells, "metadata": {"kernelspec": 1}}))
    notebook = submissions.read(path)
    assert [cell.source[:4] for cell in notebook.cells] == ["a\nb", "", "half"]
    assert notebook.cells[1].id == "colab"
    assert notebook.kernel == ("", "")
    assert not notebook.executed


# Restoring


@pytest.fixture
def assignment(tmp_path):
    def marked(grade_id, **more):
        marks = {"grade_id": grade_id, "grade": False, "solution": False, **more}
        return {"nbgrader": marks}

    cells = [
        new_markdown_cell("# Lab"),
        new_code_cell("import torch\nimport json\nscale = 2\nexpensive()"),
        new_code_cell("def other(x):\n    return torch.zeros(3)"),
        new_code_cell(
            "def f(x):\n    ### BEGIN SOLUTION\n    return scale * x\n"
            "    ### END SOLUTION",
            metadata=marked("f", solution=True),
        ),
        new_code_cell(
            'f = lab.check("1.1", f)\n### BEGIN HIDDEN TESTS\n'
            'lab.check("1.1", f, seed=9)\n### END HIDDEN TESTS\nlab.points("1.1")',
            metadata=marked("check_f", grade=True, locked=True, points=2),
        ),
        new_markdown_cell(
            "YOUR ANSWER", metadata=marked("why", grade=True, solution=True, points=1)
        ),
    ]
    for i, cell in enumerate(cells):
        cell.id = f"cell-{i}"
    path = tmp_path / "1_a.ipynb"
    path.write_text(json.dumps(new_notebook(cells=cells)))
    return read_assignment(path, 1)


@pytest.fixture
def handed_in(assignment):
    """The released notebook with an answer."""

    def build(**changed):
        cells = []
        for cell in assignment.cells:
            marks = {} if not cell.grade_id else {"grade_id": cell.grade_id}
            if cell.kind == "check":
                marks |= {"grade": True, "points": cell.points}
            source = changed.get(cell.grade_id, cell.released)
            cells.append(Submitted(cell.code, source, cell.id, marks))
        return cells

    return build


def test_assignment_knows_its_exercises(assignment):
    check, written = assignment.graded
    assert (check.exercise, check.answer, check.solution) == ("1.1", "f", "f")
    assert check.points == 2
    assert "HIDDEN" not in check.released
    assert (written.kind, written.points) == ("written", 1)
    assert assignment.max_points == 3


def test_restoring_keeps_what_an_answer_uses(assignment, handed_in):
    cells = handed_in(f="def f(x):\n    return scale * g(x)")
    helper = Submitted(True, "def g(x):\n    return json.dumps(x)\nexpensive()")
    cells.insert(2, helper)
    restored = restore(cells, assignment)
    sources = [piece.source for piece in restored.pieces if piece.check is None]
    assert sources == [
        "import json\nscale = 2",
        "def g(x):\n    return json.dumps(x)",
        "def f(x):\n    return scale * g(x)",
    ]
    assert restored.pieces[-1].check.grade_id == "check_f"
    assert restored.flags == {}


def test_restoring_takes_the_check_of_the_source(assignment, handed_in):
    restored = restore(handed_in(check_f="2.0"), assignment)
    assert "seed=9" in restored.pieces[-1].check.source
    assert restored.flags == {"1.1": ["test edited"]}


def test_doubled_cell_is_taken_once(assignment, handed_in):
    cells = handed_in(f="def f(x):\n    return 1")
    released = next(c for c in assignment.cells if c.grade_id == "f").released
    cells.append(Submitted(True, released, "new", {"grade_id": "f"}))
    restored = restore(cells, assignment)
    assert restored.answers["f"] == "def f(x):\n    return 1"
    assert restored.flags["1.1"] == ["cell duplicated"]


def test_answer_is_found_without_metadata(assignment, handed_in):
    cells = handed_in(f="def f(x):\n    return 1")
    bare = [Submitted(c.code, c.source) for c in cells]
    restored = restore(bare, assignment)
    assert restored.answers["f"] == "def f(x):\n    return 1"
    assert "metadata lost" in restored.flags["1.1"]
    assert "test's metadata lost" in restored.flags["1.1"]


def test_missing_answer_is_flagged(assignment, handed_in):
    cells = [c for c in handed_in() if c.marks.get("grade_id") != "f"]
    restored = restore(cells, assignment)
    assert "cell missing" in restored.flags["1.1"]
    assert "f" not in restored.answers


def test_only_definitions_are_kept():
    source = "x = 3\ny = f()\nfor i in x:\n    pass\nclass A: ...\nz = y = [1, (2,)]"
    assert definitions(source).splitlines() == [
        "x = 3",
        "class A:",
        "    ...",
        "z = y = [1, (2,)]",
    ]


def test_lines_of_ipython_are_left_out():
    source = "%timeit f()\ndef f(x):\n    !ls\n    return x % 2"
    assert definitions(source) == "def f(x):\n    pass\n    return x % 2"
    assert without_magics("x = 5 % 3") == "x = 5 % 3"


@SOURCES
def test_every_lab_can_be_restored(path):
    assignment = read_assignment(path, int(path.stem[0]))
    cells = [
        Submitted(
            c.code, c.source, c.id, {"grade_id": c.grade_id} if c.grade_id else {}
        )
        for c in assignment.cells
    ]
    restored = restore(cells, assignment)
    checks = [piece.check for piece in restored.pieces if piece.check is not None]
    assert [c.exercise for c in checks] == [
        c.exercise for c in assignment.graded if c.kind == "check"
    ]
    assert len({c.exercise for c in checks}) == len(checks)
    code = "\n".join(piece.source for piece in restored.pieces)
    for slow in ("trl", "peft", "transformers", "matplotlib"):
        assert f"import {slow}" not in code
        assert f"from {slow}" not in code


# Flags

ODD = {
    "import sys\nsys._getframe().f_back": "looks at the stack",
    "import subprocess": "starts processes",
    "from urllib.request import urlopen": "uses the network",
    "open('gradebook.db')": "reads files",
    "import torch\ntorch.allclose = print": "changes a module",
    "class A:\n    def __eq__(self, other): return True": "redefines operators",
    "import builtins\nbuiltins.AssertionError = int": "switches assert off",
    "from labs_helpers.losses import dpo_loss": "uses labs_helpers",
    "import os\nos._exit(0)": "ends its process",
    "exec('x = 1')": "runs text as code",
}


@pytest.mark.parametrize(("source", "name"), ODD.items())
def test_odd_code_is_named(source, name):
    assert name in suspicions.suspicions(source)


@pytest.mark.parametrize("source", ["model.eval()", "x.grad = None", "x = ("])
def test_ordinary_code_is_not_suspicious(source):
    assert suspicions.suspicions(source) == []


@SOURCES
def test_right_answers_are_not_suspicious(path):
    for cell in read_assignment(path, int(path.stem[0])).cells:
        if cell.kind == "solution":
            assert suspicions.suspicions(cell.source) == [], cell.grade_id


# Messages

VALUES = [
    *(None, True, 3, -(2**40), 0.1, float("inf"), "text", [1, [2.5, "x"]], (1, None)),
    {"a": (1.5, [2])},
]


def crossed(value):
    packed = protocol.pack({"value": value})
    header, data = protocol.lengths(packed[:8])
    content = packed[8:]
    return protocol.unpack(content[:header], content[header : header + data])["value"]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_plain_values_cross(value):
    assert crossed(value) == value
    assert type(crossed(value)) is type(value)


@pytest.mark.parametrize("dtype", protocol.DTYPES.values(), ids=str)
def test_tensors_cross(dtype):
    tensor = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).to(dtype).T
    assert crossed(tensor).dtype == dtype
    assert torch.equal(crossed(tensor), tensor)


def test_tensors_lose_their_class():
    class Mine(torch.Tensor):
        pass

    other = crossed(torch.ones(2).as_subclass(Mine))
    assert type(other) is torch.Tensor


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.float32(2), np.array([True])])
def test_arrays_cross(array):
    assert crossed(array).dtype == array.dtype
    assert np.array_equal(crossed(array), array)


def test_other_types_cross_as_their_names():
    assert crossed({1, 2}).name == "set"
    assert crossed(torch.zeros(2, dtype=torch.complex64)).name == "Tensor"


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": {"is": "tensor"}}',
        b'{"a": {"is": "array", "dtype": "O", "shape": [1], "at": [0, 8]}}',
        b'{"a": {"is": "array", "dtype": "<f8", "shape": [9], "at": [0, 8]}}',
        b'{"a": {"is": "array", "dtype": "<f8", "shape": [1], "at": [-8, 8]}}',
        b'{"a": ' + b"[" * 50_000,
        b'{"a": {"is": "float", "of": "x"}}',
        b"9" * 5000,
    ],
)
def test_broken_messages_are_refused(header):
    with pytest.raises(protocol.BadMessage):
        protocol.unpack(header, bytes(8))


def test_too_large_messages_are_refused():
    with pytest.raises(protocol.BadMessage):
        protocol.pack({"x": torch.zeros(1 << 24, dtype=torch.float64)})
    with pytest.raises(protocol.BadMessage):
        protocol.lengths(b"\xff" * 8)


def test_lent_functions_stand_in_annotations_alone():
    lent = worker.Lent("labs_helpers.losses.dpo_loss")

    def annotated(x: lent | None) -> lent[int]:
        return x

    with pytest.raises(worker.LentFunction, match=r"losses\.dpo_loss\.other"):
        lent.other(annotated(3))


# Tables


def entry(student="=1+1", diagnosis="sum for mean", points=0.0, **more):
    scores = [Score("1.1", "check_f", "a title", points, 2.0, diagnosis, "<b>why</b>")]
    result = Result(1, scores=scores, answers={"f": "<script>"})
    scores[0].solution = "f"
    return Entry(student, 1, "1_a", "x.ipynb", result, scores, **more)


def test_grades_are_a_table(tmp_path):
    text = reports.grades_csv([entry(flags=["not executed"]), entry("b", points=None)])
    rows = list(csv.DictReader(text.splitlines()))
    assert list(rows[0]) == list(reports.COLUMNS)
    assert rows[0]["student"] == "'=1+1"  # no formula for a spreadsheet
    assert rows[0]["flags"] == "not executed"
    assert rows[1]["points"] == ""


def test_pages_escape_what_students_write():
    page = reports.feedback_html("<i>", [entry()])
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<b>why" not in page


def test_report_counts_mistakes():
    entries = [entry("a"), entry("b"), entry("c", "correct", 2.0)]
    page = reports.class_html(entries, b"", "no bubblewrap")
    assert "<td>sum for mean</td><td>2</td>" in page
    assert "no bubblewrap" in page
    bars = reports.common_mistakes(entries).axes[0].patches
    assert [bar.get_width() for bar in bars] == [2]
    assert reports.common_mistakes([]).axes


def test_points_by_hand_replace_ours():
    graded = entry()
    graded.take({"check_f": 1.5})
    assert graded.scores[0].points == 1.5
    assert reports.CORRECTED in graded.scores[0].flags


def test_identifiers_differ_as_names_do():
    names = ["anna", "Anna", "Anna Ö", "Anna Ä", "../x", "a/b", "a-b"]
    found = [reports.identifier(name) for name in names]
    assert len({name.lower() for name in found}) == len(names)
    assert found[0] == "anna"
    assert all("/" not in name and not name.startswith(".") for name in found)


def test_own_run_is_read_from_the_outputs(monkeypatch, tmp_path):
    monkeypatch.setenv("LABS_OUT", str(tmp_path))
    monkeypatch.setenv("LABS_PROFILE", "tiny")
    lab = start(1)
    lab.claim("x", 0.5, at_least=0.25, ci=(0.3, 0.7), text="It works, mostly.")
    data = {"text/plain": repr(lab.report()), "text/html": "<b>"}
    own = executed.own_run([{"output_type": "stream"}, 3, {"data": data}])
    assert own.profile == "tiny"
    assert own.points == "0 of 17 points"
    measured = "0.5 (95 % 0.3 to 0.7)"
    assert own.claims == (("It works, mostly.", measured, "at least 0.25", "holds"),)
    assert executed.own_run([]) is None


# The command


def test_grade_needs_submissions(tmp_path, capsys):
    out = str(tmp_path / "grades.csv")
    assert cli.main(["grade", str(tmp_path / "none"), "--out", out]) == 1
    assert "no folder of submissions" in capsys.readouterr().err
    (tmp_path / "in").mkdir()
    assert cli.main(["grade", str(tmp_path / "in"), "--out", out]) == 1
    assert "no submissions" in capsys.readouterr().err


def test_grade_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "nbgrader", None)
    assert cli.main(["grade", str(tmp_path), "--out", "grades.csv"]) == 1
    assert "pip install -e '.[grade]'" in capsys.readouterr().err
