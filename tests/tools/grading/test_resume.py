"""A killed grader loses nothing; points of unsolved, half-solved and solved labs."""

import copy
import csv
import json
import os
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

from labs_tools.grading import sandbox
from labs_tools.grading.assignment import read_assignment
from labs_tools.grading.scoring import score
from labs_tools.grading.session import Limits
from labs_tools.release import student_version

from .conftest import KEPT, SOURCES, cell_of

pytest.importorskip("nbgrader", reason="nbgrader is not installed (extra grade)")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
WALL = pytest.mark.skipif(bool(sandbox.wall().reason), reason=sandbox.wall().reason)
STUDENTS = 5
COMMAND = "import labs_tools.cli as cli; raise SystemExit(cli.main())"


@pytest.fixture
def classroom(tmp_path, solved):
    folder = tmp_path / "submissions"
    folder.mkdir()
    for i in range(STUDENTS):
        notebook = solved(KEPT[: i % 3])
        cell_of(notebook, KEPT[0]).source += f"\n# {i}"  # no two files are the same
        path = folder / f"student-{i} lab_1.ipynb"
        path.write_text(json.dumps(notebook))
    (tmp_path / "roster.csv").write_text(
        "id,name\n" + "".join(f"s{i},Student {i}\n" for i in range(STUDENTS + 1))
    )
    return folder


def start_grading(tmp_path, lab):
    return subprocess.Popen(
        [
            *(sys.executable, "-c", COMMAND),
            *("grade", str(tmp_path / "submissions")),
            *("--out", str(tmp_path / "grades.csv")),
            *("--roster", str(tmp_path / "roster.csv"), "--jobs", "2"),
        ],
        cwd=lab.parent.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@WALL
def test_killed_grader_goes_on_where_it_was(tmp_path, classroom, small_lab):
    results = tmp_path / "grades" / "results"
    grader = start_grading(tmp_path, small_lab)
    while grader.poll() is None and len(list(results.glob("*.json"))) < 2:
        time.sleep(0.05)
    children = psutil.Process(grader.pid).children(recursive=True)
    grader.send_signal(signal.SIGKILL)
    grader.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive, alive
    before = {path: path.stat().st_mtime_ns for path in results.glob("*.json")}
    assert 2 <= len(before) < STUDENTS
    assert not (tmp_path / "grades.csv").exists()

    printed, _ = start_grading(tmp_path, small_lab).communicate()
    assert f"{len(before)} of {STUDENTS} submissions were graded before" in printed
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    with (tmp_path / "grades.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    points = {(row["student"], row["exercise"]): row["points"] for row in rows}
    for i in range(STUDENTS):
        assert points[f"s{i}", "1.1"] == ("2" if i % 3 > 0 else "0")
        assert points[f"s{i}", "1.2"] == ("3" if i % 3 > 1 else "0")
    absent = [row for row in rows if row["student"] == f"s{STUDENTS}"]
    assert {row["diagnosis"] for row in absent} == {"no submission"}


def solved_lab(source, released, names):
    notebook = copy.deepcopy(released)
    for name in names:
        cell_of(notebook, name).source = cell_of(source, name).source
    return notebook


@WALL
@SOURCES
def test_points_are_none_half_and_all(tmp_path, path):
    assignment = read_assignment(path, int(path.stem[0]))
    source = nbformat.read(path, as_version=4)
    released = student_version(source, path.name)
    checks = [cell for cell in assignment.graded if cell.kind == "check"]
    half = checks[::2]  # what an answer calls may be among the others
    for some in ([], half, checks):
        notebook = solved_lab(source, released, [cell.solution for cell in some])
        file = tmp_path / "submission.ipynb"
        file.write_text(json.dumps(notebook))
        scores = score(file, [assignment], Limits()).scores
        earned = {s.exercise: s.points for s in scores if s.points}
        assert earned == {cell.exercise: cell.points for cell in some}


def test_without_bubblewrap_it_still_grades_and_says_so(
    tmp_path, small_lab, solved, monkeypatch, capsys
):
    from labs_tools.grading import grade

    monkeypatch.setattr(sandbox, "wall", lambda: sandbox.Wall(None, "no bwrap"))
    monkeypatch.setattr(grade, "_score_all", in_this_process)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.ipynb").write_text(json.dumps(solved([KEPT[0]])))
    forker = solved()
    cell_of(forker, KEPT[1]).source = (
        "import os, socket\ntry:\n    os.fork()\nexcept PermissionError:\n"
        "    socket.socket()\n"
    )
    (folder / "b.ipynb").write_text(json.dumps(forker))
    out = tmp_path / "grades.csv"
    assert grade.grade(folder, out, {1: small_lab}) == 0
    assert "do NOT run apart: no bwrap" in capsys.readouterr().out
    rows = list(csv.DictReader(out.read_text().splitlines()))
    # An unwritten question earns its 0 at once.
    assert [row["points"] for row in rows] == ["2", "0", "0", "2", "0", "0"]
    page = (out.with_suffix("") / "feedback" / "b.html").read_text()
    if sys.platform.startswith("linux"):
        assert "PermissionError in `socket.socket()`" in page
    assert "no bwrap" in (out.with_suffix("") / "report.html").read_text()


def in_this_process(jobs, scored, processes):
    for job in jobs:
        job.save(scored(job.submission.path))


def test_workers_see_no_environment_of_ours(monkeypatch):
    monkeypatch.setitem(os.environ, "SECRET", "x")
    assert "SECRET" not in sandbox.environment()
