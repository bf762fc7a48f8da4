"""Results in nbgrader's hands: restoring, scoring, its database, corrections by hand.

Of nbgrader's steps only the one that runs a notebook in a kernel is left out: the
outputs of the checks come from results that exist already. Needs the extra `grade`.
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
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.apps import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import CheckCellMetadata, OverwriteCells, SaveAutoGrades
from traitlets.config import Config

from labs_helpers.common.files import write_atomically
from labs_tools.grading.assignment import Assignment
from labs_tools.grading.scoring import Result
from labs_tools.release import WRITE_HERE


class Book:
    """A course of nbgrader in a folder; `nbgrader formgrader` can open it."""

    def __init__(self, folder: Path):
        self.folder = folder.resolve()
        self.url = f"sqlite:///{self.folder / 'gradebook.db'}"
        (self.folder / "known").mkdir(parents=True, exist_ok=True)
        config = Config()
        config.CourseDirectory.root = str(self.folder)
        config.CourseDirectory.db_url = self.url
        config.ClearSolutions.text_stub = WRITE_HERE  # unchanged it earns 0
        config.Autograde.sanitize_preprocessors = [OverwriteCells]  # keeps outputs
        config.Autograde.autograde_preprocessors = [
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
        if not self._is_known(name, assignment.digest):
            texts = {cell.grade_id: cell.source for cell in assignment.cells}
            self._write("source", ".", assignment, texts, {})
            with _nbgrader():
                done = self._api.generate_assignment(name, force=True, create=True)
            _require_success(done, name)
            write_atomically(self.folder / "known" / name, assignment.digest)

    def record(
        self, student: str, name: str, assignment: Assignment, result: Result, key: str
    ) -> None:
        """Have nbgrader score a submission, unless it has done so already.

        Args:
            student: an identifier that can be a folder's name.
            name: as people write it.
            key: changes when the result does.
        """
        file = f"{student} {assignment.name}"
        if self._is_known(file, key):
            return
        points = {s.grade_id: s.points for s in result.scores if s.points is not None}
        texts = {c.grade_id: c.released for c in assignment.cells} | result.answers
        self._write("submitted", student, assignment, texts, points)
        with _nbgrader():
            done = self._api.autograde(assignment.name, student)
        _require_success(done, f"{name}, {assignment.name}")
        with Gradebook(self.url) as book:
            book.update_or_create_student(student, last_name=name)
        write_atomically(self.folder / "known" / file, key)

    def points(self, student: str, assignment: Assignment) -> dict[str, float | None]:
        """Points by grade_id, with those that people gave; None where they have to."""
        name = assignment.name
        with Gradebook(self.url) as book:
            try:
                grades = book.find_submission_notebook(name, name, student).grades
            except MissingEntry:
                return {}
            scores = {g.name: (g.auto_score, g.manual_score) for g in grades}
            points = {g.name: g.score for g in grades}
        return {k: None if scores[k] == (None, None) else points[k] for k in points}

    def _is_known(self, name: str, content: str) -> bool:
        file = self.folder / "known" / name
        return file.exists() and file.read_text() == content

    def _write(
        self,
        step: str,
        student: str,
        assignment: Assignment,
        texts: Mapping[str, str],
        points: Mapping[str, float],
    ) -> None:
        """Write a notebook where nbgrader looks for it: what it knows, with points."""
        notebook = nbformat.read(assignment.path, as_version=4)
        marked = [c for c in notebook.cells if "nbgrader" in c.metadata]
        notebook.cells = [c for c in marked if c.metadata.nbgrader.grade_id in texts]
        for cell in notebook.cells:
            grade_id = cell.metadata.nbgrader.grade_id
            cell.source = texts[grade_id]
            if cell.cell_type == "code":
                data = {"text/plain": f"{points.get(grade_id, 0.0):g}"}
                cell.outputs = [nbformat.v4.new_output("execute_result", data)]
        folder = self.folder / step / student / assignment.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        nbformat.write(notebook, folder / f"{assignment.name}.ipynb")


def _require_success(done: Mapping[str, Any], what: str) -> None:
    if not done["success"]:
        words = str(done.get("error") or done.get("log") or "").strip()[-1500:]
        raise RuntimeError(f"nbgrader failed on {what}:\n{words}")


@contextlib.contextmanager
def _nbgrader() -> Iterator[None]:
    """Let it find alembic, which it starts by name; keep libraries' notes quiet."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        os.environ["PATH"] = before
