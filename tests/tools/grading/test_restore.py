"""A lab's source is read, and submissions are put back into it."""

import json

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from labs_tools.grading.assignment import read_assignment
from labs_tools.grading.restore import restore
from labs_tools.grading.submissions import Notebook, Submitted

from .conftest import SOURCES


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


def put_back(cells, assignment):
    return restore(Notebook(tuple(cells)), [assignment])


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ('lab.check("1.1", f)\nassert f(1) == 2', "holds more than"),
        ('lab.check("7.7", f)', "expected one of the lab's exercises, 1.1"),
        ('lab.points("1.1")', "checks 1.1"),
    ],
)
def test_checks_are_checks_and_nothing_else(assignment, tmp_path, check, words):
    path = tmp_path / "1_a.ipynb"
    path.write_text(path.read_text().replace('f = lab.check(\\"1.1\\", f)', "CHECK"))
    content = json.loads(path.read_text())
    cell = next(c for c in content["cells"] if "CHECK" in c["source"])
    cell["source"] = check
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        read_assignment(path, 1)


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
    assert check.seeds == (1, 9)


def test_restoring_keeps_what_an_answer_uses(assignment, handed_in):
    cells = handed_in(f="def f(x):\n    return scale * g(x)")
    helper = Submitted(True, "def g(x):\n    return json.dumps(x)\nexpensive()")
    cells.insert(2, helper)
    restored = put_back(cells, assignment)
    sources = [piece.source for piece in restored.pieces if piece.check is None]
    assert sources == [
        "import json\nscale = 2",
        "def g(x):\n    return json.dumps(x)",
        "def f(x):\n    return scale * g(x)",
    ]
    assert restored.pieces[-1].check.grade_id == "check_f"
    assert restored.flags == {"": []}


def test_restoring_takes_the_check_of_the_source(assignment, handed_in):
    restored = put_back(handed_in(check_f="2.0"), assignment)
    assert restored.pieces[-1].check.seeds == (1, 9)
    assert restored.flags == {"": [], "1.1": ["test edited"]}


def test_doubled_cell_is_taken_once(assignment, handed_in):
    cells = handed_in(f="def f(x):\n    return 1")
    released = next(c for c in assignment.cells if c.grade_id == "f").released
    cells.append(Submitted(True, released, "new", {"grade_id": "f"}))
    restored = put_back(cells, assignment)
    assert restored.answers["f"] == "def f(x):\n    return 1"
    assert restored.flags["1.1"] == ["cell duplicated"]


def test_answer_is_found_without_metadata(assignment, handed_in):
    cells = handed_in(f="def f(x):\n    return 1")
    bare = [Submitted(c.code, c.source) for c in cells]
    restored = put_back(bare, assignment)
    assert restored.answers["f"] == "def f(x):\n    return 1"
    assert "metadata lost" in restored.flags["1.1"]
    assert "test's metadata lost" in restored.flags["1.1"]


def test_long_answer_is_whole_or_refused_in_words(assignment, handed_in):
    notes = "\n".join(f"    # {i:08d}" for i in range(3_000))  # 48,000 characters
    long = f"def f(x):\n{notes}\n    return 1"
    restored = put_back(handed_in(f=long), assignment)
    assert restored.answers["f"] == long
    assert "1.1" not in restored.flags
    restored = put_back(handed_in(f=long + 3 * notes), assignment)
    assert "f" not in restored.answers
    assert restored.flags["1.1"] == ["answer longer than 100,000 characters"]


def test_missing_answer_is_flagged(assignment, handed_in):
    cells = [c for c in handed_in() if c.marks.get("grade_id") != "f"]
    restored = put_back(cells, assignment)
    assert "cell missing" in restored.flags["1.1"]
    assert "f" not in restored.answers


@SOURCES
def test_every_lab_can_be_restored(path):
    assignment = read_assignment(path, int(path.stem[0]))
    cells = [
        Submitted(
            c.code, c.source, c.id, {"grade_id": c.grade_id} if c.grade_id else {}
        )
        for c in assignment.cells
    ]
    restored = put_back(cells, assignment)
    checks = [piece.check for piece in restored.pieces if piece.check is not None]
    assert [c.exercise for c in checks] == [
        c.exercise for c in assignment.graded if c.kind == "check"
    ]
    assert len({c.exercise for c in checks}) == len(checks)
    code = "\n".join(piece.source for piece in restored.pieces)
    for slow in ("trl", "peft", "transformers", "matplotlib"):
        assert f"import {slow}" not in code
        assert f"from {slow}" not in code
