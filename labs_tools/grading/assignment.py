"""What is to be graded: a lab's notebook, cell by cell, as the instructor has it.

Says for every exercise which cell holds the answer, which cell checks it, on which
inputs, and what it is worth. Reads sources only; submissions are others' business.
"""

import ast
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat

from labs_helpers.course.exercises import Exercise, exercises_of
from labs_tools.grading.code import without_magics
from labs_tools.release import student_version

OURS = "labs_helpers"
ORDINARY, SOLUTION, CHECK, WRITTEN = "ordinary", "solution", "check", "written"
FIRST_SEED = 1  # of a check that names none: the first attempt's in a lab
CALL = re.compile(
    r"(\w+ = )?lab\.(?P<does>check|points)\('(?P<id>[\w.]+)'"
    r"(, (?P<answer>[a-zA-Z_]\w*))?(, seed=(?P<seed>\d+))?\)"
)


@dataclass(frozen=True)
class Cell:
    """A cell of the source.

    Attributes:
        kind: ordinary, solution, check, or written: an answer for people to grade.
        source: its text, hidden tests and all; `released` is what students get.
        grade_id: by which nbgrader knows it; empty for ordinary cells.
        exercise: that it checks, such as "1.2".
        answer: the name of the function that the check asks for.
        seeds: of the inputs that the check draws, one check after another.
        solution: grade_id of the cell with the answer.
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
    seeds: tuple[int, ...] = ()
    solution: str = ""
    title: str = ""
    lends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Assignment:
    """One lab: its number, its notebook, and the cells of that."""

    lab: int
    path: Path
    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """Of the notebook."""
        return self.path.stem

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


def read_assignment(path: Path, lab: int) -> Assignment:
    """Read the source of a lab.

    Raises:
        ValueError: a check does something else than to check an exercise of the lab.
    """
    source = nbformat.read(path, as_version=4)
    released = {c.id: c.source for c in student_version(source, path.name).cells}
    exercises = exercises_of(lab)
    code = [cell.source for cell in source.cells if cell.cell_type == "code"]
    imported = {alias: name for text in code for alias, name in _imports(text)}
    cells: list[Cell] = []
    answer: dict[str, Any] = {}  # the last one: what a check belongs to
    for cell in source.cells:
        marks = cell.metadata.get("nbgrader", {})
        kind = _kind(marks)
        known = {} if kind == ORDINARY else {"grade_id": marks["grade_id"]}
        if kind in (CHECK, WRITTEN):
            known["points"] = float(marks["points"])
        if kind == WRITTEN:
            known |= {"exercise": marks["grade_id"], "title": marks["grade_id"]}
        if kind == CHECK:
            where = f"{path.name}, cell {cell.id}"
            known |= {**answer, **_check(cell.source, exercises, where)}
        if kind == SOLUTION:
            lends = _lends(cell.source, imported)
            answer = {"solution": marks["grade_id"], "lends": lends}
        about = {"id": cell.id, "code": cell.cell_type == "code"}
        texts = {"source": cell.source, "released": released[cell.id]}
        cells.append(Cell(kind, **about, **texts, **known))
    return Assignment(lab, path, tuple(cells))


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


def _check(
    source: str, exercises: Mapping[str, Exercise], where: str
) -> dict[str, Any]:
    """Read off a check cell which exercise it checks, and on which inputs."""
    calls = [CALL.fullmatch(ast.unparse(line)) for line in ast.parse(source).body]
    if None in calls:
        raise ValueError(
            f'{where} is graded and holds more than lab.check("1.2"), with or without '
            'answer and seed, and lab.points("1.2"): the checks run without the cell.'
        )
    ids = {call["id"] for call in calls}
    checks = [call for call in calls if call["does"] == "check"]
    if len(ids) != 1 or not checks or not ids <= exercises.keys():
        raise ValueError(
            f"{where} is graded and checks {', '.join(ids) or 'nothing'}: expected one "
            f"of the lab's exercises, {', '.join(exercises)}."
        )
    exercise = exercises[ids.pop()]
    return {
        "exercise": exercise.id,
        "title": exercise.title,
        "answer": checks[-1]["answer"] or exercise.name,
        "seeds": tuple(int(check["seed"] or FIRST_SEED) for check in checks),
    }
