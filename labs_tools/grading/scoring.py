"""Score one submission: its answers are observed behind walls and judged out here.

References and mistakes are in this process; what is checked is a proxy for a function
in the submission's process. So a submission can change what its functions return, and
not what is made of that.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from labs_helpers.course.exercises import check, exercises_of
from labs_tools.grading.assignment import WRITTEN, Assignment, Cell
from labs_tools.grading.restore import ANSWER, Piece, Restored, restore
from labs_tools.grading.session import Limits, Session, Stopped
from labs_tools.grading.submissions import OwnRun, Refused, read

NOT_HANDED_IN = "not handed in"
BY_HAND = "to be graded by hand"
LENT = "calls the course's own function"
LENT_MESSAGE = (
    "the answer calls a function of labs_helpers. Write the computation yourself, with "
    "Python, torch and NumPy; the course's functions are not there when you are graded."
)
CELL_FAILS = "the cell raises an error"


@dataclass
class Score:
    """What an exercise earned.

    Attributes:
        grade_id: of the cell that earns the points.
        points: earned; None for people to say.
        diagnosis: in a few words; `message` says more to the student.
        flags: what deserves a look.
        solution: grade_id of the cell with the answer.
    """

    exercise: str
    grade_id: str
    title: str
    points: float | None
    max_points: float
    diagnosis: str
    message: str = ""
    flags: list[str] = field(default_factory=list)
    solution: str = ""


@dataclass
class Result:
    """What came of a submission; plain enough for JSON.

    Attributes:
        lab: of the notebook; 0 where that cannot be told.
        refused: why it was not graded, in a few words; `message` says more.
        flags: of the notebook as a whole.
        answers: of the student, by grade_id.
    """

    lab: int
    refused: str = ""
    message: str = ""
    flags: list[str] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    own: OwnRun | None = None


def score(
    path: Path,
    assignments: Sequence[Assignment],
    limits: Limits,
    hidden: Sequence[Path] = (),
) -> Result:
    """Grade a file against its lab, without sight of the folders in `hidden`."""
    try:
        notebook = read(path)
        restored = restore(notebook, assignments)
    except Refused as refused:
        return Result(0, refused.name, refused.message, [refused.name])
    with contextlib.closing(_Run(restored, limits, hidden)) as run:
        scores = list(run.scores())
    return Result(
        restored.assignment.lab,
        flags=restored.flags[""],
        scores=scores,
        answers=restored.answers,
        own=notebook.own,
    )


def nothing_of(assignment: Assignment, diagnosis: str, message: str) -> list[Score]:
    """Scores of a submission that was refused."""
    return [_score(cell, 0.0, diagnosis, message) for cell in assignment.graded]


def _score(cell: Cell, points: float | None, diagnosis: str, message: str) -> Score:
    solution = cell.solution or cell.grade_id
    worth = (cell.exercise, cell.grade_id, cell.title, points, cell.points)
    return Score(*worth, diagnosis, message, solution=solution)


class _Run:
    """The exercises of one submission, one after another, over as many processes."""

    def __init__(self, restored: Restored, limits: Limits, hidden: Sequence[Path]):
        self._restored, self._limits, self._hidden = restored, limits, hidden
        self._exercises = exercises_of(restored.assignment.lab)
        self._session: Session | None = None
        self._done: list[Piece] = []
        self._lent: dict[str, Callable[..., Any]] = {}
        self._left = limits.total_seconds

    def close(self) -> None:
        """End the process that is left."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def scores(self) -> Iterator[Score]:
        """Score one exercise after another."""
        pending: list[Piece] = []
        for piece in self._restored.pieces:
            if piece.check is None:
                pending.append(piece)
                continue
            score = self._exercise(piece.check, pending)
            if score.diagnosis != "correct":  # later answers may call the reference
                reference = self._exercises[score.exercise].reference
                self._lent[piece.check.answer] = reference
            yield score
        for cell in self._restored.assignment.graded:
            if cell.kind == WRITTEN:
                yield self._written(cell)

    def _exercise(self, cell: Cell, pending: list[Piece]) -> Score:
        """Score an exercise; what was run leaves `pending`."""
        flags = list(self._restored.flags.get(cell.exercise, []))
        if cell.solution not in self._restored.answers:
            score = _score(cell, 0.0, NOT_HANDED_IN, "there is no cell with an answer.")
            score.flags = flags
            return score
        began = time.monotonic()
        try:
            score = self._checked(cell, pending)
        except Stopped as stopped:
            self.close()
            score = _score(cell, 0.0, stopped.name, stopped.message)
            flags.append(stopped.name)
        self._left -= time.monotonic() - began
        pending.clear()
        if "allocate memory" in score.message or "MemoryError" in score.message:
            flags.append("memory limit")
        if self._session is not None and self._session.printed > self._limits.printed:
            flags.append(f"prints {self._session.printed >> 20} MB")
        if score.diagnosis == LENT:
            flags.append(LENT)
        score.flags = list(dict.fromkeys(flags))
        return score

    def _checked(self, cell: Cell, pending: Sequence[Piece]) -> Score:
        if self._left <= 0:
            raise Stopped("time limit", "the exercises before it took all the time.")
        session = self._running()
        session.allow(min(self._limits.exercise_seconds, self._left))
        session.seen_errors.clear()
        new = {k: v for k, v in self._lent.items() if k not in session.lent}
        library = {name.rpartition(".")[2]: resolve_name(name) for name in cell.lends}
        session.lend(new, library)
        errors: list[dict[str, Any]] = []
        for piece in pending:
            found = session.define(piece.label, piece.source)
            self._done.append(piece)
            errors += found if piece.kind == ANSWER else []
        try:
            answer = session.find(cell.answer)
            for seed in cell.seeds:
                diagnosis = check(self._exercises[cell.exercise], answer, seed=seed)
                if not diagnosis.correct:
                    break
        except Exception as error:  # an answer that does not get as far as its check
            own = {"type": type(error).__name__, "text": str(error)}
            return self._broken(cell, [*errors, own])
        if diagnosis.correct:
            points = min(diagnosis.points, cell.points)
            return _score(cell, points, diagnosis.name, str(diagnosis))
        if "LentFunction" in session.seen_errors:
            return _score(cell, 0.0, LENT, LENT_MESSAGE)
        return _score(cell, 0.0, diagnosis.name, str(diagnosis))

    def _broken(self, cell: Cell, errors: Sequence[dict[str, Any]]) -> Score:
        if any(error.get("type") == "LentFunction" for error in errors):
            return _score(cell, 0.0, LENT, LENT_MESSAGE)
        first = {key: str(value)[:300] for key, value in errors[0].items()}
        where = f" in `{first['line']}`" if first.get("line") else ""
        message = f"{first.get('type')}{where}: {first.get('text')}"
        return _score(cell, 0.0, CELL_FAILS, message)

    def _running(self) -> Session:
        """Return the process, or a new one with what was defined so far."""
        if self._session is None:
            self._session = Session(self._limits, self._hidden)
            self._session.allow(self._limits.exercise_seconds)
            again, self._done = self._done, []
            for piece in again:
                self._session.define(piece.label, piece.source)
                self._done.append(piece)
        return self._session

    def _written(self, cell: Cell) -> Score:
        answer = self._restored.answers.get(cell.grade_id, cell.released)
        if answer.strip() == cell.released.strip():
            score = _score(cell, 0.0, NOT_HANDED_IN, "there is no answer.")
        else:
            score = _score(cell, None, BY_HAND, "This answer is graded by hand.")
        score.flags = list(self._restored.flags.get(cell.exercise, []))
        return score
