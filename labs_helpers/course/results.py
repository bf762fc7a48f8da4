"""Claims, and the file that the results of all labs are gathered in.

A claim is a sentence about a measured value and the bound that it must clear. Knows
nothing of notebooks, tasks or checks.
"""

import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labs_helpers.course.profile import ROOT

RESULTS = "results.json"


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
        low, high = self.ci if self.ci is not None else (self.value, self.value)
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
        """Return the claim as results.json has it."""
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
            id=row["id"],
            text=row["text"],
            value=_from_json_number(row["value"]),
            ci=None if ci is None else tuple(map(_from_json_number, ci)),
            at_least=row.get("at_least"),
            at_most=row.get("at_most"),
            judged=row["holds"] is not None,
            goal=row.get("goal", False),
        )


def number(value: float) -> str:
    """Write a number for people, as long as it needs to be.

    >>> number(0.95318), number(1 / 3e6), number(12345.6), number(2)
    ('0.9532', '3.333e-07', '12,346', '2')
    """
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


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
        return _parsed((folder / RESULTS).read_bytes())
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{folder / RESULTS} is not readable ({error}). Delete it and run the "
            "labs again."
        ) from None


def _parsed(content: bytes) -> dict[str, Any]:
    results = json.loads(content)
    labs = results.get("labs", {}) if isinstance(results, dict) else None
    if not isinstance(labs, dict) or not all(
        isinstance(x, dict) for x in labs.values()
    ):
        raise ValueError("expected an object with the entry of every lab in 'labs'")
    return results


def merge_results(
    folder: Path, lab: int, entry: Mapping[str, Any], header: Mapping[str, Any]
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


def forget_results(folder: Path, lab: int) -> None:
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


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process changes the results in a folder."""
    try:
        import fcntl
    except (
        ImportError
    ):  # Windows: two labs that end in the same instant are on their own
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network disks have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(folder: Path, results: Mapping[str, Any]) -> Path:
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / RESULTS, text)
    return folder / RESULTS


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees it before or after, never in between."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".labs.")
    try:
        # Half a surrogate pair, which models come up with, is no text.
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        mode = path.stat().st_mode if path.exists() else 0o644
        os.chmod(temporary, mode & 0o777)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _json_number(value: float) -> float | str:
    # JSON has no NaN and no infinity.
    value = float(value)
    return value if math.isfinite(value) else str(value)


def _from_json_number(value: float | str) -> float:
    return float(value)
