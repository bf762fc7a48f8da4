"""What a student's own run says: profile, claims and points, read from its outputs.

Nothing of it is run again, and nothing of it earns points: outputs are text that
anybody can edit. It tells an instructor what a long run on a GPU came to.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from labs_tools.grading.submissions import joined

TITLE = re.compile(r"^Lab (\d+) · .{1,80} · profile (\w{1,20})$", re.MULTILINE)
POINTS = re.compile(r"^Exercises: ([\d.]{1,8} of [\d.]{1,8} points)$", re.MULTILINE)
MOST_TEXT = 100_000
MOST_CLAIMS = 100


@dataclass(frozen=True)
class OwnRun:
    """What the last report of a notebook says."""

    profile: str
    points: str
    claims: tuple[tuple[str, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """As results on disk have it."""
        return asdict(self)


def own_run(outputs: Iterable[Any]) -> OwnRun | None:
    """Find the last report among the outputs of a notebook."""
    found = None
    for output in outputs:
        text = _text(output)
        title = TITLE.search(text)
        if title is None:
            continue
        points = POINTS.search(text)
        found = OwnRun(title[2], points[1] if points else "", _claims(text))
    return found


def _text(output: Any) -> str:
    data = output.get("data") if isinstance(output, dict) else None
    text = data.get("text/plain") if isinstance(data, dict) else None
    return joined(text)[:MOST_TEXT]


def _claims(text: str) -> tuple[tuple[str, ...], ...]:
    """Read the table of claims: columns stand two blanks apart."""
    _, found, table = text.partition("\nClaims\n")
    rows = table.partition("\n\n")[0].splitlines()[1:] if found else []
    columns = [re.split(r"\s{2,}", row.strip()) for row in rows[:MOST_CLAIMS]]
    return tuple(tuple(row) for row in columns if len(row) == 4)
