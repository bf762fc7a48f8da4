"""Results in nbgrader's hands: restoring, scoring, its database, corrections by hand.

nbgrader restores locked cells from the source, turns outputs into scores and keeps the
gradebook, one student at a time. Of its steps only the one that runs a notebook in a
kernel is replaced: the outputs of the checks come from results that exist already.
Needs the extra `grade`; no submission's code runs here.
"""

import contextlib
import os
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbformat import NotebookNode
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    CheckCellMetadata,
    NbGraderPreprocessor,
    SaveAutoGrades,
)
from traitlets.config import Config

from labs_helpers.common.files import write_atomically
from labs_tools.grading.assignment import ORDINARY, Assignment
from labs_tools.grading.scoring import Result

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


class Book:
    """A course of nbgrader in a folder; `nbgrader formgrader` can open it."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.url = f"sqlite:///{self.folder / 'gradebook.db'}"
        self.folder.mkdir(parents=True, exist_ok=True)
        config = Config()
        config.CourseDirectory.root = str(self.folder)
        config.CourseDirectory.db_url = self.url
        config.Autograde.autograde_preprocessors = [
            RecordedOutputs,
            ClearMetadataPreprocessor,
            SaveAutoGrades,
            CheckCellMetadata,
        ]
        config.ClearMetadataPreprocessor.preserve_nb_metadata_mask = {"kernelspec"}
        config.ClearMetadataPreprocessor.preserve_cell_metadata_mask = {"nbgrader"}
        config.OverwriteCells.add_missing_cells = True
        self._api = NbGraderAPI(CourseDirectory(config=config), config=config)

    def prepare(self, assignment: Assignment) -> None:
        """Give nbgrader the source of a lab, where it has another or none."""
        name = assignment.name
        known = self.folder / "known" / name
        if known.exists() and known.read_text() == assignment.digest:
            return
        cells = [
            _cell(cell.source, cell.grade_id, assignment)
            for cell in assignment.cells
            if cell.kind != ORDINARY
        ]
        self._write("source", ".", assignment, cells)
        with _commands(), _quiet():
            done = self._api.generate_assignment(name, force=True, create=True)
        _succeeded(done, name)
        known.parent.mkdir(exist_ok=True)
        write_atomically(known, assignment.digest)

    def record(
        self,
        student: str,
        name: str,
        assignment: Assignment,
        result: Result,
        key: str,
    ) -> None:
        """Have nbgrader score a submission, unless it has done so already.

        Args:
            student: an identifier that can be a folder's name.
            name: as people write it.
            assignment: that was handed in.
            result: what came of it.
            key: changes when the result does.
        """
        known = self.folder / "known" / f"{student} {assignment.name}"
        if known.exists() and known.read_text() == key:
            return
        cells = [
            _cell(result.answers.get(cell.grade_id, ""), cell.grade_id, assignment)
            if cell.grade_id in result.answers
            else _cell(cell.released, cell.grade_id, assignment)
            for cell in assignment.cells
            if cell.kind != ORDINARY
        ]
        self._write("submitted", student, assignment, cells)
        points = {s.grade_id: s.points for s in result.scores if s.points is not None}
        RecordedOutputs.points = points
        with _commands(), _quiet():
            done = self._api.autograde(assignment.name, student)
        _succeeded(done, f"{name}, {assignment.name}")
        with Gradebook(self.url) as book:
            book.update_or_create_student(student, last_name=name)
        write_atomically(known, key)

    def points(self, student: str, assignment: Assignment) -> dict[str, float | None]:
        """Points by grade_id, with those that people gave; None where they have to."""
        found: dict[str, float | None] = {}
        with Gradebook(self.url) as book:
            try:
                name = assignment.name
                submission = book.find_submission_notebook(name, name, student)
            except MissingEntry:
                return {}
            for grade in submission.grades:
                open_ = grade.auto_score is None and grade.manual_score is None
                found[grade.name] = None if open_ else float(grade.score)
        return found

    def _write(
        self, step: str, student: str, assignment: Assignment, cells: list[NotebookNode]
    ) -> None:
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata["kernelspec"] = dict(KERNEL)
        folder = self.folder / step / student / assignment.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        nbformat.write(notebook, folder / f"{assignment.name}.ipynb")


class RecordedOutputs(NbGraderPreprocessor):
    """Stands in for nbgrader's Execute: puts the points of each check below it."""

    points: Mapping[str, float] = {}

    def preprocess_cell(
        self, cell: NotebookNode, resources: Any, cell_index: int
    ) -> tuple[NotebookNode, Any]:
        """Give a graded code cell its output."""
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("grade") and not marks.get("solution"):
            points = self.points.get(marks["grade_id"], 0.0)
            data = {"text/plain": f"{points:g}"}
            cell.outputs = [nbformat.v4.new_output("execute_result", data)]
        return cell, resources


def _cell(source: str, grade_id: str, assignment: Assignment) -> NotebookNode:
    own = next(cell for cell in assignment.cells if cell.grade_id == grade_id)
    new = nbformat.v4.new_code_cell if own.code else nbformat.v4.new_markdown_cell
    cell = new(source)
    cell.id = own.id
    graded, solution = own.kind in ("check", "written"), own.kind != "check"
    marks = {
        "grade": graded,
        "grade_id": grade_id,
        "locked": not solution,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    cell.metadata["nbgrader"] = marks | ({"points": own.points} if graded else {})
    return cell


def _succeeded(done: Mapping[str, Any], what: str) -> None:
    if not done["success"]:
        words = str(done.get("error") or done.get("log") or "").strip()[-1500:]
        raise RuntimeError(f"nbgrader failed on {what}:\n{words}")


@contextlib.contextmanager
def _commands() -> Iterator[None]:
    """Let nbgrader find alembic, which it starts by name."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep libraries' notes on each other to themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
