"""Put a submission back into its lab: the student's answers, the instructor's checks.

In go a notebook and the sources; out come the pieces to run before each check, and
flags for what was lost, doubled, edited or is odd. Of all other cells only imports,
functions, classes and constants are kept, and of these only what an answer may use:
grading needs no experiments.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from labs_tools.grading.assignment import CHECK, SOLUTION, WRITTEN, Assignment, Cell
from labs_tools.grading.code import (
    defines,
    definitions,
    named,
    statements,
    suspicions,
    used,
    without_magics,
    written,
)
from labs_tools.grading.protocol import MOST_TEXT
from labs_tools.grading.submissions import Notebook, Refused, Submitted

ANSWER, OWN, LAB = "answer", "own cell", "the lab"


@dataclass(frozen=True)
class Piece:
    """Something to run, or a check that ends what belongs to an exercise.

    Attributes:
        kind: ANSWER, OWN, LAB, or "check".
        label: where the piece comes from.
    """

    kind: str
    label: str
    source: str
    check: Cell | None = None


@dataclass
class Restored:
    """A submission in its lab.

    Attributes:
        answers: of the student, by grade_id; what is missing is not there.
        flags: by exercise; "" for the whole notebook.
    """

    assignment: Assignment
    pieces: list[Piece] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    flags: dict[str, list[str]] = field(default_factory=dict)

    def flag(self, exercise: str, text: str) -> None:
        """Add a flag once."""
        flags = self.flags.setdefault(exercise, [])
        if text not in flags:
            flags.append(text)


def restore(notebook: Notebook, assignments: Sequence[Assignment]) -> Restored:
    """Restore a submission; whatever its state, something comes out.

    Raises:
        Refused: the notebook belongs to no lab.
    """
    assignment = _which(notebook, assignments)
    restored = Restored(assignment, flags={"": list(notebook.flags)})
    exercise_of = {c.solution: c.exercise for c in assignment.graded if c.solution}
    found: dict[str, Submitted] = {}
    for cell in assignment.cells:
        if cell.kind in (SOLUTION, WRITTEN):
            exercise = exercise_of.get(cell.grade_id, cell.exercise)
            submitted = _answer(cell, notebook.cells, restored, exercise)
            if submitted is not None and len(submitted.source) > MOST_TEXT:
                restored.flag(exercise, f"answer longer than {MOST_TEXT:,} characters")
            elif submitted is not None:
                found[cell.grade_id] = submitted
                restored.answers[cell.grade_id] = submitted.source
        if cell.kind == CHECK:
            _compare_check(cell, notebook.cells, restored)
    restored.pieces = _needed(list(_pieces(assignment, notebook.cells, found)))
    _flag_code(restored)
    return restored


def _which(notebook: Notebook, assignments: Sequence[Assignment]) -> Assignment:
    """Tell the lab by its exercises: their marks, ids, texts and functions."""
    marks = {cell.grade_id for cell in notebook.cells} - {""}
    ids = {cell.id for cell in notebook.cells} - {""}
    texts = {cell.source.strip() for cell in notebook.cells} - {""}
    functions = {name for cell in notebook.cells for name in defines(cell.source)}
    shares = [
        (
            len(marks & a.grade_ids),
            len(ids & {c.id for c in a.cells if c.grade_id}),
            len(texts & {c.released.strip() for c in a.graded}),
            len(functions & {c.answer for c in a.graded}),
        )
        for a in assignments
    ]
    best = max(range(len(shares)), key=lambda i: shares[i], default=None)
    if best is None or not any(shares[best]):
        words = "the notebook has no exercise of what is graded here."
        raise Refused("not a lab", words)
    return assignments[best]


def _answer(
    cell: Cell, cells: Sequence[Submitted], restored: Restored, exercise: str
) -> Submitted | None:
    """Find the cell with an answer: by its mark, else by its id, else by its text."""
    marked = [c for c in cells if c.grade_id == cell.grade_id]
    if len(marked) > 1:
        restored.flag(exercise, "cell duplicated")
        changed = [c for c in marked if c.source.strip() != cell.released.strip()]
        marked = changed or marked
    if marked:
        return marked[-1]
    foreign = [c for c in cells if c.grade_id not in restored.assignment.grade_ids]
    same_id = [c for c in foreign if c.id and c.id == cell.id]
    defining = [c for c in foreign if defines(c.source) & defines(cell.source)]
    others = same_id or (defining if cell.kind == SOLUTION else [])
    restored.flag(exercise, "metadata lost" if others else "cell missing")
    return others[-1] if others else None


def _compare_check(cell: Cell, cells: Sequence[Submitted], restored: Restored) -> None:
    """Flag what was done to a check. The source's is used in any case."""
    marked = [c for c in cells if c.grade_id == cell.grade_id]
    if not marked:
        same = any(_same(c.source, cell.released) for c in cells)
        restored.flag(cell.exercise, "test's metadata lost" if same else "test deleted")
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


def _same(*texts: str) -> bool:
    a, b = (list(map(str.rstrip, text.strip().splitlines())) for text in texts)
    return a == b


def _pieces(
    assignment: Assignment, cells: Sequence[Submitted], found: dict[str, Submitted]
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
            if match.grade_id or _same(submitted.source, match.released):
                continue
        is_own = submitted.code and id(submitted) not in answers
        if is_own and len(submitted.source) <= MOST_TEXT:
            after.setdefault(neighbour, []).append(submitted)
    number = 0
    for cell in [None, *assignment.cells]:
        if cell is not None and cell.kind == CHECK:
            yield Piece("check", cell.exercise, "", cell)
        elif cell is not None and cell.grade_id in found:
            if cell.kind == SOLUTION:
                source = without_magics(found[cell.grade_id].source)
                yield Piece(ANSWER, cell.grade_id, source)
        elif cell is not None and cell.code and not cell.grade_id:
            yield Piece(LAB, LAB, definitions(cell.released))
        for submitted in after.get("" if cell is None else cell.id, []):
            number += 1
            yield Piece(OWN, f"{OWN} {number}", definitions(submitted.source))


def _needed(pieces: Sequence[Piece]) -> list[Piece]:
    """Keep of the definitions only those that an answer or a check may use."""
    names = {"*", *(piece.check.answer for piece in pieces if piece.check)}
    kept: list[Piece] = []
    for piece in reversed(pieces):
        if piece.kind in (LAB, OWN):
            wanted = []
            for statement in reversed(statements(piece.source)):
                if named(statement) & names:
                    wanted.append(written(statement, piece.source))
                    names |= used(wanted[-1])
            if wanted:
                source = "\n".join(reversed(wanted))
                kept.append(Piece(piece.kind, piece.label, source))
        else:
            names |= used(piece.source)
            kept.append(piece)
    return kept[::-1]


def _flag_code(restored: Restored) -> None:
    """Flag what is odd in an answer, and in the student's own cells before it."""
    sources: list[str] = []
    for piece in restored.pieces:
        if piece.check is None:
            sources += [piece.source] if piece.kind != LAB else []
            continue
        for odd in chain.from_iterable(map(suspicions, sources)):
            restored.flag(piece.check.exercise, odd)
        sources = []
