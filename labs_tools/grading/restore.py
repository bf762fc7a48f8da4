"""Put a submission back into its lab: the student's answers, the instructor's checks.

In go the cells of a submission and the source; out come the pieces to run before each
check, and flags for what was lost, doubled or edited. Of all other cells only imports,
functions, classes and constants are kept, and of these only what an answer may use:
grading needs no experiments.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from labs_tools.grading.assignment import CHECK, SOLUTION, WRITTEN, Assignment, Cell
from labs_tools.grading.statements import (
    defines,
    definitions,
    named,
    statements,
    used,
    without_magics,
)

MISSING = "cell missing"


@dataclass(frozen=True)
class Submitted:
    """A cell of a submission, whatever was made of it."""

    code: bool
    source: str
    id: str = ""
    marks: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[Any, ...] = ()

    @property
    def grade_id(self) -> str:
        """By which nbgrader knows it."""
        return str(self.marks.get("grade_id", ""))


@dataclass(frozen=True)
class Piece:
    """Something to run, or a check that ends what belongs to an exercise."""

    label: str
    source: str
    check: Cell | None = None


@dataclass
class Restored:
    """A submission in its lab.

    Attributes:
        pieces: in order.
        answers: of the student, by grade_id; what is missing is not there.
        flags: by exercise; "" for the whole notebook.
    """

    pieces: list[Piece]
    answers: dict[str, str]
    flags: dict[str, list[str]]

    def flag(self, exercise: str, text: str) -> None:
        """Add a flag once."""
        flags = self.flags.setdefault(exercise, [])
        if text not in flags:
            flags.append(text)


def restore(cells: Sequence[Submitted], assignment: Assignment) -> Restored:
    """Restore a submission; whatever its state, something comes out."""
    restored = Restored([], {}, {})
    exercise_of = {c.solution: c.exercise for c in assignment.graded if c.solution}
    found: dict[str, Submitted] = {}
    for cell in assignment.cells:
        if cell.kind in (SOLUTION, WRITTEN):
            exercise = exercise_of.get(cell.grade_id, cell.exercise)
            submitted = _answer(cell, cells, assignment, restored, exercise)
            if submitted is not None:
                found[cell.grade_id] = submitted
                restored.answers[cell.grade_id] = submitted.source
        if cell.kind == CHECK:
            _compare_check(cell, cells, restored)
    pieces = list(_pieces(assignment, cells, found))
    restored.pieces = _needed(pieces, set().union(*map(used, _checks(assignment))))
    return restored


def _answer(
    cell: Cell,
    cells: Sequence[Submitted],
    assignment: Assignment,
    restored: Restored,
    exercise: str,
) -> Submitted | None:
    """Find the cell with an answer: by its mark, else by its id, else by its text."""
    marked = [c for c in cells if c.grade_id == cell.grade_id]
    if len(marked) > 1:
        restored.flag(exercise, "cell duplicated")
        changed = [c for c in marked if c.source.strip() != cell.released.strip()]
        marked = changed or marked
    if marked:
        return marked[-1]
    foreign = [c for c in cells if c.grade_id not in assignment.grade_ids]
    same_id = [c for c in foreign if c.id and c.id == cell.id]
    defining = [c for c in foreign if defines(c.source) & defines(cell.source)]
    others = same_id or (defining if cell.kind == SOLUTION else [])
    if not others:
        restored.flag(exercise, MISSING)
        return None
    restored.flag(exercise, "metadata lost")
    return others[-1]


def _compare_check(cell: Cell, cells: Sequence[Submitted], restored: Restored) -> None:
    """Flag what was done to a check. The source's is used in any case."""
    marked = [c for c in cells if c.grade_id == cell.grade_id]
    if not marked:
        same = [c for c in cells if _same(c.source, cell.released)]
        lost = "test's metadata lost" if same else "test deleted"
        restored.flag(cell.exercise, lost)
        return
    if len(marked) > 1:
        restored.flag(cell.exercise, "test duplicated")
    if not all(_same(c.source, cell.released) for c in marked):
        restored.flag(cell.exercise, "test edited")
    for submitted in marked:
        points = submitted.marks.get("points")
        if not isinstance(points, int | float) or points != cell.points:
            restored.flag(cell.exercise, "points edited")
        if not submitted.marks.get("grade") or submitted.marks.get("solution"):
            restored.flag(cell.exercise, "metadata edited")


def _checks(assignment: Assignment) -> list[str]:
    return [cell.source for cell in assignment.cells if cell.kind == CHECK]


def _same(a: str, b: str) -> bool:
    def lines(text: str) -> list[str]:
        return [line.rstrip() for line in text.strip().splitlines()]

    return lines(a) == lines(b)


def _pieces(
    assignment: Assignment,
    cells: Sequence[Submitted],
    found: dict[str, Submitted],
) -> Iterator[Piece]:
    """Yield the source's pieces, the student's own cells after the same neighbours."""
    answers = {id(submitted) for submitted in found.values()}
    known_ids = {c.id: c for c in assignment.cells}
    known_texts = {c.released.strip(): c for c in assignment.cells}
    known_marks = {c.grade_id: c for c in assignment.cells if c.grade_id}
    after: dict[str, list[Submitted]] = {}
    neighbour = ""
    for submitted in cells:
        match = (
            known_marks.get(submitted.grade_id)
            or known_ids.get(submitted.id)
            or known_texts.get(submitted.source.strip())
        )
        if match is not None:
            neighbour = match.id
        unchanged = match is not None and _same(submitted.source, match.released)
        protected = match is not None and match.kind in (CHECK, SOLUTION, WRITTEN)
        own = submitted.code and not unchanged and id(submitted) not in answers
        if own and not protected:
            after.setdefault(neighbour, []).append(submitted)
    number = 0
    for cell in [None, *assignment.cells]:
        if cell is not None and cell.kind == CHECK:
            yield Piece(f"check {cell.exercise}", "", cell)
        elif cell is not None and cell.kind == SOLUTION:
            if cell.grade_id in found:
                source = without_magics(found[cell.grade_id].source)
                yield Piece(cell.grade_id, source)
        elif cell is not None and cell.code:
            yield Piece("", definitions(cell.released))
        for submitted in after.get("" if cell is None else cell.id, []):
            number += 1
            yield Piece(f"own cell {number}", definitions(submitted.source))


def _needed(pieces: Sequence[Piece], wanted: set[str]) -> list[Piece]:
    """Keep of the definitions only those that an answer or a check may use."""
    names = set(wanted)
    kept: list[Piece] = []
    for piece in reversed(pieces):
        if piece.check is not None:
            kept.append(piece)
            continue
        if piece.label and not piece.label.startswith("own cell"):  # an answer
            names |= used(piece.source)
            kept.append(piece)
            continue
        kept_here = []
        for statement in reversed(statements(piece.source)):
            text = ast.unparse(statement)
            if named(statement) & {*names, "*"}:
                names |= used(text)
                kept_here.append(text)
        if kept_here:
            source = "\n".join(reversed(kept_here))
            kept.append(Piece(piece.label or "the lab", source))
    return kept[::-1]
