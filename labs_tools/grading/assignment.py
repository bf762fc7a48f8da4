"""What is to be graded: a lab's notebook, cell by cell, as the instructor has it.

Says for every exercise which cell holds the answer, which cell checks it and what it is
worth. Reads sources only; submissions are others' business.
"""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat

from labs_helpers.course.exercises import exercises_of
from labs_tools.grading.statements import without_magics
from labs_tools.release import student_version

OURS = "labs_helpers"
ORDINARY, SOLUTION, CHECK, WRITTEN = "ordinary", "solution", "check", "written"


@dataclass(frozen=True)
class Cell:
    """A cell of the source.

    Attributes:
        kind: ordinary, solution, check, or written: an answer for people to grade.
        id: of the cell.
        code: whether it is a code cell.
        source: its text, hidden tests and all.
        released: its text as students get it.
        grade_id: by which nbgrader knows it; empty for ordinary cells.
        points: that it is worth.
        exercise: that it checks, such as "1.2".
        answer: what the check asks for: the name of a function, as a rule.
        solution: grade_id of the cell with the answer.
        title: of the exercise.
        lends: functions of labs_helpers that the source's own answer calls.
    """

    kind: str
    id: str
    code: bool
    source: str
    released: str
    grade_id: str = ""
    points: float = 0.0
    exercise: str = ""
    answer: str = ""
    solution: str = ""
    title: str = ""
    lends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Assignment:
    """One lab."""

    lab: int
    name: str
    cells: tuple[Cell, ...]

    @cached_property
    def graded(self) -> tuple[Cell, ...]:
        """The cells that earn points, in order."""
        return tuple(c for c in self.cells if c.kind in (CHECK, WRITTEN))

    @cached_property
    def grade_ids(self) -> frozenset[str]:
        """All that nbgrader knows here."""
        return frozenset(cell.grade_id for cell in self.cells if cell.grade_id)

    @cached_property
    def digest(self) -> str:
        """Changes when anything here does."""
        return hashlib.sha256(repr(self.cells).encode()).hexdigest()

    @property
    def max_points(self) -> float:
        """Points of all exercises."""
        return sum(cell.points for cell in self.graded)


def read_assignment(path: Path, lab: int) -> Assignment:
    """Read the source of a lab."""
    source = nbformat.read(path, as_version=4)
    released = {c.id: c.source for c in student_version(source, path.name).cells}
    exercises = exercises_of(lab)
    code = [cell.source for cell in source.cells if cell.cell_type == "code"]
    imported = {alias: name for text in code for alias, name in _imports(text)}
    cells: list[Cell] = []
    latest = ""  # the last cell with an answer: the one that a check belongs to
    lends: tuple[str, ...] = ()
    for cell in source.cells:
        marks = cell.metadata.get("nbgrader", {})
        kind = _kind(marks)
        known: dict[str, Any] = {}
        if kind != ORDINARY:
            known["grade_id"] = marks["grade_id"]
        if kind in (CHECK, WRITTEN):
            known["points"] = float(marks["points"])
        if kind == WRITTEN:
            known |= {"exercise": marks["grade_id"], "title": marks["grade_id"]}
        if kind == CHECK:
            exercise, answer = _checked(cell.source, f"{path.name}, cell {cell.id}")
            if exercise in exercises:
                known["title"] = exercises[exercise].title
                answer = answer or exercises[exercise].name
            known |= {"exercise": exercise, "answer": answer, "solution": latest}
            known["lends"] = lends
        if kind == SOLUTION:
            latest, lends = marks["grade_id"], _lends(cell.source, imported)
        cells.append(
            Cell(
                kind=kind,
                id=cell.id,
                code=cell.cell_type == "code",
                source=cell.source,
                released=released[cell.id],
                **known,
            )
        )
    return Assignment(lab, path.stem, tuple(cells))


def _imports(source: str) -> Iterator[tuple[str, str]]:
    """Yield the names that a cell imports from labs_helpers, with their origin."""
    for node in ast.walk(ast.parse(without_magics(source))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(OURS):
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _lends(source: str, imported: Mapping[str, str]) -> tuple[str, ...]:
    """Name the functions of labs_helpers that a cell calls."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            root, _, rest = ast.unparse(node.func).partition(".")
            if root in imported:
                found.append(".".join(filter(None, [imported[root], rest])))
    return tuple(dict.fromkeys(found))


def _kind(marks: Any) -> str:
    if marks.get("grade") and marks.get("solution"):
        return WRITTEN
    if marks.get("grade"):
        return CHECK
    return SOLUTION if marks.get("solution") else ORDINARY


def _checked(source: str, where: str) -> tuple[str, str]:
    """Read off a check cell which exercise it checks, and what it hands over if so."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "lab.check":
            id, *answer = node.args
            if isinstance(id, ast.Constant):
                return str(id.value), ast.unparse(answer[0]) if answer else ""
    raise ValueError(f'{where} is graded and has no lab.check("1.2")')
