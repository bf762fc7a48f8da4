"""A class is graded: honest, unfinished, damaged, broken and hostile notebooks."""

import csv
import json
import os
import time

import pytest

from labs_helpers.common.files import ROOT
from labs_tools.grading import sandbox
from labs_tools.grading.session import Limits

from .conftest import cell_of
from .hostile import CHEATS, DAMAGED, REFUSED

pytest.importorskip("nbgrader", reason="nbgrader is not installed (extra grade)")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(sandbox.wall().reason), reason=sandbox.wall().reason),
]
LIMITS = Limits(exercise_seconds=10.0, total_seconds=40.0)
EVIL = CHEATS | DAMAGED | REFUSED


@pytest.fixture(scope="module")
def secret(small_lab):
    """A file beside the source, which only the grader may see."""
    path = small_lab.parent / "secret.txt"
    path.write_text("the solution")
    return path


@pytest.fixture(scope="module")
def classroom(tmp_path_factory, solved, secret):
    """Hand everything in."""
    folder = tmp_path_factory.mktemp("class")
    for kind, (spoil, _) in EVIL.items():
        notebook = solved()
        content = spoil(notebook)
        path = folder / f"{kind}.ipynb"
        if content is None:
            path.write_text(json.dumps(notebook))
        else:
            path.write_bytes(content)
    (folder / "honest.ipynb").write_text(json.dumps(solved()))
    (folder / "half.ipynb").write_text(json.dumps(solved(["bayes_ceiling"])))
    (folder / "unsolved.ipynb").write_text(json.dumps(solved([])))
    reader = solved()
    cell_of(reader, "bradley_terry_loss").source = reading(
        [
            secret,
            folder,
            *(ROOT / name for name in ("labs_helpers", "notebooks", "data")),
        ]
    )
    (folder / "reader.ipynb").write_text(json.dumps(reader))
    for i, name in enumerate(("Twin Lab 1.ipynb", "Twin_lab1 (1).ipynb")):
        (folder / name).write_text(json.dumps(solved(["bayes_ceiling"] if i else [])))
        os.utime(folder / name, (time.time(), 1e9 + i))
    return folder


def reading(paths):
    """An answer that raises what it finds in files."""
    tried = [str(path) for path in paths]
    return (
        "import os\n"
        "def bradley_terry_loss(\n"
        "    chosen_rewards, rejected_rewards, margin=None, center_weight=0.0\n"
        "):\n"
        f"    found = [path for path in {tried!r} if os.path.exists(path)]\n"
        "    raise ValueError(f'{len(found)} found: {found}')\n"
    )


@pytest.fixture(scope="module")
def graded(tmp_path_factory, classroom, small_lab):
    """Grade the class; rows of the CSV by student and exercise."""
    from labs_tools.grading.grade import grade

    out = tmp_path_factory.mktemp("grades") / "grades.csv"
    assert grade(classroom, out, {1: small_lab}, limits=LIMITS) == 0
    with out.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(row["student"], row["exercise"]): row for row in rows}
    assert len(found) == len(rows)
    return out, found


@pytest.fixture
def rows(graded):
    return graded[1]


@pytest.mark.parametrize("kind", CHEATS)
def test_cheat_earns_nothing_and_is_flagged(rows, kind):
    row = rows[kind, "1.2"]
    assert float(row["points"]) == 0, row
    assert row["max_points"] == "3"
    assert CHEATS[kind][1] in row["flags"], row
    assert row["diagnosis"] != "correct"


@pytest.mark.parametrize("kind", CHEATS)
def test_cheat_costs_no_other_exercise(rows, kind):
    assert rows[kind, "1.1"]["points"] == "2", rows[kind, "1.1"]


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_flagged_and_costs_nothing(rows, kind):
    for exercise, points in (("1.1", "2"), ("1.2", "3")):
        assert rows[kind, exercise]["points"] == points, rows[kind, exercise]
    assert DAMAGED[kind][1] in rows[kind, "1.2"]["flags"], rows[kind, "1.2"]


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused(rows, kind):
    row = rows[kind, "1.2"]
    assert row["points"] == "0"
    assert row["diagnosis"] == REFUSED[kind][1]
    assert REFUSED[kind][1] in row["flags"]


@pytest.mark.parametrize(
    ("student", "points"), [("honest", (2, 3)), ("half", (2, 0)), ("unsolved", (0, 0))]
)
def test_honest_work_gets_its_points(rows, student, points):
    earned = [float(rows[student, exercise]["points"]) for exercise in ("1.1", "1.2")]
    assert earned == list(points)
    assert rows[student, "1.1"]["flags"] == ""


@pytest.mark.parametrize("student", ["honest", "unsolved", "endless loop"])
def test_question_without_an_answer_earns_nothing_and_is_no_correction(rows, student):
    row = rows[student, "written_1"]
    assert row["points"] == "0", row
    assert "by hand" not in row["flags"], row


def test_files_are_out_of_sight(graded):
    row = graded[1]["reader", "1.2"]
    assert row["diagnosis"] == "raises an error"
    assert "reads files" in row["flags"]
    page = (graded[0].with_suffix("") / "feedback" / "reader.html").read_text()
    assert "0 found: []" in page


def test_of_two_submissions_the_later_counts(rows):
    assert rows["Twin", "1.1"]["points"] == "2"
    assert "2 submissions" in rows["Twin", "1.1"]["flags"]
    assert "Twin Lab 1.ipynb" in rows["Twin", "1.1"]["flags"]


def test_everybody_has_feedback_and_the_class_a_report(graded):
    workspace = graded[0].with_suffix("")
    students = {student for student, _ in graded[1]}
    assert len(list((workspace / "feedback").glob("*.html"))) == len(students)
    report = (workspace / "report.html").read_text()
    assert "not written yet" in report
    assert "data:image/png" in report
    assert "<script" not in report


def test_gradebook_has_every_student(graded):
    from nbgrader.api import Gradebook

    database = graded[0].with_suffix("") / "nbgrader" / "gradebook.db"
    with Gradebook(f"sqlite:///{database}") as book:
        scores = {s.last_name: s.score for s in book.students}
    assert scores["honest"] == 5
    assert scores["endless loop"] == 2
    assert len(scores) == len({student for student, _ in graded[1]})
