"""What a lab showed: claims, the table at its end, and the file of all labs' results.

A claim is a sentence about a measured value and the bound that it must clear. Knows
nothing of notebooks, tasks or checks.
"""

import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labs_helpers.common.files import ROOT, write_atomically
from labs_helpers.common.html import render, table
from labs_helpers.common.printable import printable, text_table

RESULTS = "results.json"
COLOURS = {
    "holds": "#1b7837",
    "does not hold": "#b2182b",
    "goal not reached": "#b35806",
    "correct": "#1b7837",
}
Table = tuple[Sequence[str], Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Claim:
    """A measured statement: the sentence, its value, its 95 % interval, its bound.

    Attributes:
        judged: whether the bound is meant for the profile that it was measured in.
        goal: the bound is where the labs want to be and are not yet: a miss is shown
            as one, and does not fail the run.
    """

    id: str
    text: str
    value: float
    ci: tuple[float, float] | None = None
    at_least: float | None = None
    at_most: float | None = None
    judged: bool = True
    goal: bool = False

    def __post_init__(self) -> None:
        if self.at_least is None and self.at_most is None:
            raise ValueError(
                f"claim {self.id!r} has no bound: give at_least=... or at_most=..."
            )
        # Of nothing that was measured both ends are NaN, and the claim does not hold.
        if self.ci is not None and self.ci[0] > self.ci[1]:
            raise ValueError(
                f"claim {self.id!r}: an interval is (low, high), got {self.ci}"
            )

    @property
    def holds(self) -> bool | None:
        """Whether the interval's near end clears the bound; None if not judged."""
        if not self.judged:
            return None
        low, high = self.ci or (self.value, self.value)
        # NaN clears nothing.
        enough = self.at_least is None or low >= self.at_least
        little = self.at_most is None or high <= self.at_most
        return enough and little and not math.isnan(self.value)

    @property
    def fails(self) -> bool:
        """Whether it was judged and missed, and is no goal."""
        return self.holds is False and not self.goal

    @property
    def verdict(self) -> str:
        """The outcome in words."""
        missed = "goal not reached" if self.goal else "does not hold"
        return {None: "not judged", True: "holds", False: missed}[self.holds]

    @property
    def measured(self) -> str:
        """The value with its interval, for people."""
        if self.ci is None:
            return number(self.value)
        low, high = self.ci
        return f"{number(self.value)} (95 % {number(low)} to {number(high)})"

    @property
    def bound(self) -> str:
        """The bound, for people."""
        bounds = [("at least", self.at_least), ("at most", self.at_most)]
        return ", ".join(f"{word} {number(x)}" for word, x in bounds if x is not None)

    def to_json(self) -> dict[str, Any]:
        """The claim as results.json has it; numbers that JSON lacks are text there."""
        bounds = {"at_least": self.at_least, "at_most": self.at_most}
        return {
            "id": self.id,
            "text": self.text,
            "value": _json_number(self.value),
            "ci": None if self.ci is None else [_json_number(x) for x in self.ci],
            **{name: bound for name, bound in bounds.items() if bound is not None},
            "holds": self.holds,
            **({"goal": True} if self.goal else {}),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "Claim":
        """Read a claim back from results.json."""
        ci = row.get("ci")
        return cls(
            row["id"],
            row["text"],
            float(row["value"]),
            None if ci is None else (float(ci[0]), float(ci[1])),
            row.get("at_least"),
            row.get("at_most"),
            judged=row["holds"] is not None,
            goal=row.get("goal", False),
        )


def claims_table(claims: Sequence[Claim]) -> Table:
    """Return headings and one row for each claim."""
    return (
        ("claim", "measured", "bound", "verdict"),
        [(c.text, c.measured, c.bound, c.verdict) for c in claims],
    )


def number(value: float) -> str:
    """Write a number for people, as long as it needs to be.

    >>> number(0.95318), number(1 / 3e6), number(12345.6), number(2)
    ('0.9532', '3.333e-07', '12,346', '2')
    """
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def words(value: Any) -> str:
    """A prediction or an outcome for people: a number, yes or no, an estimate, text."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    try:
        return str(value) if hasattr(value, "ci") else number(float(value))
    except (TypeError, ValueError):
        return str(value)


def difference(predicted: Any, outcome: Any) -> str:
    """How far a prediction was off, where that makes sense."""
    if isinstance(predicted, bool | str) or isinstance(outcome, bool | str):
        return ": as you said" if predicted == outcome else ""
    try:
        value = float(getattr(outcome, "value", outcome))
        return f", {number(abs(float(predicted) - value))} away"
    except (TypeError, ValueError):
        return ""


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


# The table at a lab's end


@dataclass(frozen=True)
class ExerciseResult:
    """What an exercise earned, and what its check said last."""

    id: str
    title: str
    points: float
    max_points: float
    diagnosis: str

    def to_json(self) -> dict[str, Any]:
        """The row of results.json."""
        return {name: x for name, x in asdict(self).items() if name != "title"}


@dataclass(frozen=True)
class Report:
    """What a lab showed and what the student did, as text and as HTML."""

    title: str
    claims: Sequence[Claim]
    exercises: Sequence[ExerciseResult]
    predictions: Sequence[tuple[str, str, str]]
    closing: str

    def tables(self) -> dict[str, Table]:
        """Headings and rows by caption, without the empty tables."""
        points = sum(row.points for row in self.exercises)
        max_points = sum(row.max_points for row in self.exercises)
        exercises = [
            (x.id, x.title, f"{x.points:g} of {x.max_points:g}", x.diagnosis)
            for x in self.exercises
        ]
        headings = ("", "exercise", "points", "check")
        tables = {
            "Claims": claims_table(self.claims),
            f"Exercises: {points:g} of {max_points:g} points": (headings, exercises),
            "Predictions": (("", "you said", "it was"), self.predictions),
        }
        return {caption: table for caption, table in tables.items() if table[1]}

    def __repr__(self) -> str:
        tables = [f"{name}\n{text_table(*x)}" for name, x in self.tables().items()]
        return printable("\n\n".join([self.title, *tables, self.closing]))

    def _repr_html_(self) -> str:
        tables = {
            caption: table(headings, [[*map(_coloured, row)] for row in rows])
            for caption, (headings, rows) in self.tables().items()
        }
        return render(
            "<h3>{{ title }}</h3>{% for caption, table in tables.items() %}"
            "<h4>{{ caption }}</h4>{{ table }}{% endfor %}<p>{{ closing }}</p>",
            title=self.title,
            tables=tables,
            closing=self.closing,
        )


def _coloured(text: str) -> str:
    if text not in COLOURS:
        return text
    return render('<b style="color:{{ c }}">{{ t }}</b>', c=COLOURS[text], t=text)


# Where results are


def peak_memory_gb() -> float | None:
    """The most memory that this process has held, in GB; None where nobody counts."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e9, 2)


def results_folder() -> Path:
    """Where labs leave their results: `LABS_OUT`, or build/labs of the project."""
    if os.environ.get("LABS_OUT"):
        return Path(os.environ["LABS_OUT"])
    project = ROOT if (ROOT / "pyproject.toml").exists() else Path.cwd()
    return project / "build" / "labs"


def require_writable(folder: Path) -> None:
    """Make a folder and write to it, before hours of work are to be saved there.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0")


def read_results(folder: Path) -> dict[str, Any]:
    """Read the results in a folder; empty where there are none.

    Raises:
        ValueError: the file holds something else; the message says what to do.
    """
    try:
        results = json.loads((folder / RESULTS).read_bytes())
        labs = results.get("labs", {}) if isinstance(results, dict) else None
        if not isinstance(labs, dict) or not all(
            isinstance(entry, dict) for entry in labs.values()
        ):
            raise ValueError("expected an object with the entry of every lab in 'labs'")
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{folder / RESULTS} is not readable ({error}). Delete it and run the "
            "labs again."
        ) from None
    return results


def merge_results(
    folder: Path, lab: int | str, entry: Mapping[str, Any], header: Mapping[str, Any]
) -> Path:
    """Put one lab's results beside the other labs'.

    Results of another profile are not comparable and make way. A broken file does not
    cost the lab that has just run: it is set aside as results.json.broken.

    Args:
        folder: holds results.json, or will.
        lab: whose entry is replaced.
        entry: its seconds, claims and exercises.
        header: profile, versions and device.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        before = _read_or_set_aside(folder)
        same = before.get("profile") == header["profile"]
        labs = before.get("labs", {}) if same else {}
        labs = dict(sorted({**labs, str(lab): dict(entry)}.items()))
        return _write(folder, {**header, "labs": labs})


def forget_results(folder: Path, lab: int | str) -> None:
    """Remove a lab's entry, so that none is left over from an earlier run."""
    if not folder.is_dir():
        return
    with _alone_in(folder):
        results = _read_or_set_aside(folder)
        if results.get("labs", {}).pop(str(lab), None) is not None:
            _write(folder, results)


def _read_or_set_aside(folder: Path) -> dict[str, Any]:
    try:
        return read_results(folder)
    except ValueError:
        os.replace(folder / RESULTS, folder / f"{RESULTS}.broken")
        return {}


def _write(folder: Path, results: Mapping[str, Any]) -> Path:
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / RESULTS, text)
    return folder / RESULTS


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process changes the results in a folder."""
    try:
        import fcntl
    except ImportError:  # Windows: labs that end in the same instant are on their own
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network disks have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
