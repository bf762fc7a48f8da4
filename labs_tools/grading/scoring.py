"""Score one submission: run its answers behind walls and the checks out here.

The instructor's check cells run in this process, which holds references and mistakes;
what they check is a proxy for a function in the submission's process. So a submission
can change what its functions return, and not what is made of that.
"""

import ast
import builtins
import contextlib
import dataclasses
import io
import pkgutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from labs_helpers.course.exercises import exercises_of
from labs_helpers.course.lab import Lab
from labs_helpers.course.profile import load_profile
from labs_tools.grading import submissions
from labs_tools.grading.assignment import WRITTEN, Assignment, Cell
from labs_tools.grading.execute import Limits, Session, Stopped
from labs_tools.grading.executed import own_run
from labs_tools.grading.restore import MISSING, Piece, Restored, restore
from labs_tools.grading.statements import defines
from labs_tools.grading.suspicions import suspicions

NOT_HANDED_IN = "not handed in"
BY_HAND = "to be graded by hand"
LENT = "calls the course's own function"
LENT_MESSAGE = (
    "the answer calls a function of labs_helpers. Write the computation yourself, with "
    "Python, torch and NumPy; the course's functions are not there when you are graded."
)
CELL_FAILS = "the cell raises an error"
LONG_PROFILES = ("small", "gpu")


@dataclasses.dataclass
class Score:
    """What an exercise earned.

    Attributes:
        exercise: such as "1.2".
        grade_id: of the cell that earns the points.
        title: of the exercise.
        points: earned; None for people to say.
        max_points: that could be earned.
        diagnosis: in a few words.
        message: for the student.
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
    flags: list[str] = dataclasses.field(default_factory=list)
    solution: str = ""


@dataclasses.dataclass
class Result:
    """What came of a submission; plain enough for JSON.

    Attributes:
        lab: of the notebook; 0 where that cannot be told.
        refused: why it was not graded, in a few words; empty where it was.
        message: the same for people.
        flags: of the notebook as a whole.
        scores: of its exercises, in order.
        answers: of the student, by grade_id.
        own: what the student's run says, see `executed`.
        seconds: that grading took.
    """

    lab: int
    refused: str = ""
    message: str = ""
    flags: list[str] = dataclasses.field(default_factory=list)
    scores: list[Score] = dataclasses.field(default_factory=list)
    answers: dict[str, str] = dataclasses.field(default_factory=dict)
    own: dict[str, Any] | None = None
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Result":
        """Read back what `to_json` wrote."""
        return cls(**{**row, "scores": [Score(**score) for score in row["scores"]]})


def score(
    path: Path,
    assignments: Sequence[Assignment],
    limits: Limits,
    hidden: Sequence[Path] = (),
) -> Result:
    """Grade a file against the lab that it belongs to.

    Args:
        path: of the submission.
        assignments: the labs that it may be of.
        limits: of time and memory.
        hidden: folders that it must not see.
    """
    began = time.monotonic()
    try:
        notebook = submissions.read(path)
        assignment = _which(notebook, assignments)
    except submissions.Refused as refused:
        return Result(0, refused.name, refused.message, [refused.name])
    restored = restore(notebook.cells, assignment)
    result = Result(assignment.lab, answers=restored.answers)
    result.flags += _of_notebook(notebook, restored)
    own = own_run(output for cell in notebook.cells for output in cell.outputs)
    if own is not None:
        result.own = own.to_json()
        if own.profile in LONG_PROFILES:
            result.flags.append(f"results of profile {own.profile} not re-executed")
    run = _Run(assignment, restored, limits, hidden)
    with contextlib.closing(run):
        result.scores = list(run.scores())
    result.seconds = round(time.monotonic() - began, 2)
    return result


def nothing_of(assignment: Assignment, diagnosis: str, message: str) -> list[Score]:
    """Scores of a submission that was refused."""
    return [_score(cell, 0.0, diagnosis, message) for cell in assignment.graded]


def _which(
    notebook: submissions.Notebook, assignments: Sequence[Assignment]
) -> Assignment:
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
        raise submissions.Refused(
            "not a lab", "the notebook has no exercise of what is graded here."
        )
    return assignments[best]


def _of_notebook(notebook: submissions.Notebook, restored: Restored) -> list[str]:
    flags = list(restored.flags.get("", []))
    language, name = notebook.kernel
    if not name:
        flags.append("kernel missing")
    elif language != "python" and (language or "py" not in name.lower()):
        flags.append(f"kernel unknown: {name}")
    if not notebook.executed:
        flags.append("not executed")
    return flags


def _score(cell: Cell, points: float | None, diagnosis: str, message: str) -> Score:
    return Score(
        exercise=cell.exercise,
        grade_id=cell.grade_id,
        title=cell.title,
        points=points,
        max_points=cell.points,
        diagnosis=diagnosis,
        message=message,
        solution=cell.solution or cell.grade_id,
    )


class _Run:
    """The exercises of one submission, one after another, over as many processes."""

    def __init__(
        self,
        assignment: Assignment,
        restored: Restored,
        limits: Limits,
        hidden: Sequence[Path],
    ):
        self._assignment, self._restored = assignment, restored
        self._limits, self._hidden = limits, hidden
        self._session: Session | None = None
        self._done: list[Piece] = []
        self._left = limits.total_seconds
        profile = dataclasses.replace(load_profile("smoke"), strict=False)
        self._lab = Lab(assignment.lab, profile)
        self._exercises = exercises_of(assignment.lab)
        self._lent: list[Cell] = []

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
            found = self._exercise(piece.check, pending)
            if found.diagnosis != "correct":
                self._lend(piece.check)
            yield found
            pending = []
        for cell in self._assignment.graded:
            if cell.kind == WRITTEN:
                yield self._written(cell)

    def _exercise(self, cell: Cell, pending: Sequence[Piece]) -> Score:
        flags = list(self._restored.flags.get(cell.exercise, []))
        if MISSING in flags:
            found = _score(cell, 0.0, NOT_HANDED_IN, "there is no cell with an answer.")
        else:
            began = time.monotonic()
            try:
                found = self._checked(cell, pending)
            except Stopped as stopped:
                self.close()
                found = _score(cell, 0.0, stopped.name, stopped.message)
                flags.append(stopped.name)
            self._left -= time.monotonic() - began
        answer = self._restored.answers.get(cell.solution, "")
        pieces = [p for p in pending if p.label.startswith("own cell")]
        flags += suspicions("\n".join([answer, *(p.source for p in pieces)]))
        if "allocate memory" in found.message or "MemoryError" in found.message:
            flags.append("memory limit")
        if self._session is not None and self._session.printed > self._limits.printed:
            flags.append(f"prints {self._session.printed >> 20} MB")
        if found.diagnosis == LENT:
            flags.append(LENT)
        found.flags = list(dict.fromkeys([*flags, *found.flags]))
        return found

    def _lend(self, cell: Cell) -> None:
        """Let later answers call the reference, as the lab does."""
        if not cell.answer.isidentifier() or cell.exercise not in self._exercises:
            return
        self._lent.append(cell)
        if self._session is None:
            return
        try:
            self._session.allow(self._limits.exercise_seconds)
            reference = self._exercises[cell.exercise].reference
            self._session.lend(cell.answer, reference)
        except Stopped:
            self.close()

    def _written(self, cell: Cell) -> Score:
        flags = self._restored.flags.get(cell.exercise, [])
        answer = self._restored.answers.get(cell.grade_id, "")
        if MISSING in flags or answer.strip() == cell.released.strip():
            found = _score(cell, 0.0, NOT_HANDED_IN, "there is no answer.")
        else:
            found = _score(cell, None, BY_HAND, "")
        found.flags = list(flags)
        return found

    def _checked(self, cell: Cell, pending: Sequence[Piece]) -> Score:
        if self._left <= 0:
            raise Stopped("time limit", "the exercises before it took all the time.")
        session = self._running()
        session.allow(min(self._limits.exercise_seconds, self._left))
        session.seen_errors.clear()
        lends = {name.rpartition(".")[2]: name for name in cell.lends}
        session.allow_calls(
            {short: pkgutil.resolve_name(name) for short, name in lends.items()}
        )
        errors: list[dict[str, Any]] = []
        for piece in pending:
            found = session.define(piece.label, piece.source)
            self._done.append(piece)
            errors += found if piece.label == cell.solution else []
        shown = io.StringIO()
        try:
            with contextlib.redirect_stdout(shown):
                value = _run_cell(cell.source, self._lab, session)
        except Exception as error:
            return self._broken(cell, error, errors)
        diagnosis = self._lab.diagnoses.get(cell.exercise)
        points = cell.points if value is None else min(max(0.0, value), cell.points)
        if diagnosis is None:
            return _score(cell, points, "correct" if points else "not yet", "")
        if not diagnosis.correct and "LentFunction" in session.seen_errors:
            return _score(cell, 0.0, LENT, LENT_MESSAGE)
        return _score(cell, points, diagnosis.name, str(diagnosis))

    def _broken(
        self, cell: Cell, error: Exception, errors: Sequence[dict[str, Any]]
    ) -> Score:
        """Score an answer that does not get as far as its check."""
        if any(found.get("type") == "LentFunction" for found in errors):
            return _score(cell, 0.0, LENT, LENT_MESSAGE)
        if errors:
            kind, text, line = (
                str(errors[0].get(key, ""))[:300] for key in ("type", "text", "line")
            )
            where = f" in `{line}`" if line else ""
            message = f"{kind}{where}: {text}"
            return _score(cell, 0.0, CELL_FAILS, message)
        message = f"{type(error).__name__}: {str(error)[:300]}"
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
            for cell in self._lent:
                reference = self._exercises[cell.exercise].reference
                self._session.lend(cell.answer, reference)
        return self._session


class _Names(dict):
    """Names in a check cell: ours, else what the submission calls so."""

    def __init__(self, own: dict[str, Any], session: Session):
        super().__init__(own)
        self._session = session

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        return self._session.find(name)


def _run_cell(source: str, lab: Lab, session: Session) -> float | None:
    """Run a check cell here; return its last value where that is a number."""
    tree = ast.parse(source)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        last = compile(ast.Expression(tree.body.pop().value), "<check>", "eval")
    names = lab.namespace = _Names({"lab": lab, "torch": torch}, session)
    exec(compile(tree, "<check>", "exec"), {}, names)
    value = None if last is None else eval(last, {}, names)
    return float(value) if isinstance(value, int | float) else None
