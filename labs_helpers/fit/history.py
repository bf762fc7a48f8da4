"""What a training run measured, row by row.

A row is a dict of numbers logged at one step. Rows may differ in what they hold: a
column reads NaN where a row has no such value. On disk it is a CSV whose first row says
how many there are, so that a file that was cut is known.
"""

import csv
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from labs_helpers.common.files import write_atomically
from labs_helpers.data import BadFile
from labs_helpers.data.files import read_text

COUNT = "rows_in_file"
_AGAIN = "It was not written to its end, or changed since: save the history again"


@dataclass
class History:
    """The log of a run; `history["loss"]` is one column as an array."""

    rows: list[dict[str, float]] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Every name that some row holds, in order of appearance."""
        return list(self.last)

    def __getitem__(self, column: str) -> np.ndarray:
        if column not in self:
            raise KeyError(
                f"the history has no column {column!r}; it has "
                f"{', '.join(self.columns) or 'none, for nothing was logged'}"
            )
        return np.array([row.get(column, np.nan) for row in self.rows], dtype=float)

    def __contains__(self, column: str) -> bool:
        return any(column in row for row in self.rows)

    @property
    def last(self) -> dict[str, float]:
        """The newest value of every column."""
        return {name: value for row in self.rows for name, value in row.items()}

    @property
    def seconds(self) -> float:
        """Time spent in training steps, without evaluation and saving."""
        return self.last.get("seconds", 0.0)

    @property
    def tokens_per_second(self) -> float:
        """Tokens trained on, padding not counted, by the second."""
        return self.last.get("tokens", 0) / max(self.seconds, 1e-9)

    def save(self, path: str | Path) -> None:
        """Write the rows as CSV, whole or not at all."""
        text, columns = io.StringIO(), [*self.columns, COUNT]
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, COUNT: len(self.rows)} for row in self.rows[:1])
        writer.writerows(self.rows[1:])
        write_atomically(Path(path), text.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Read what `save` wrote; every number comes back as a float.

        Raises:
            BadFile: it is no such file, or not whole.
        """
        text = read_text(path)
        if not text.endswith("\n"):
            raise BadFile(path, text.count("\n") + 1, "is cut off", _AGAIN)
        rows: list[dict[str, float]] = []
        try:
            reader = csv.DictReader(text.splitlines(keepends=True))
            for line, row in enumerate(reader, 2):
                if None in row or None in row.values():
                    problem = "has not as many cells as the first line"
                    raise BadFile(path, line, problem, _AGAIN)
                rows.append({name: float(cell) for name, cell in row.items() if cell})
        except (csv.Error, ValueError) as error:
            if isinstance(error, BadFile):
                raise
            raise BadFile(path, None, f"is no history: {error}", _AGAIN) from None
        names = {*(reader.fieldnames or ())} - {COUNT}
        count = rows[0].pop(COUNT, len(rows)) if rows else len(names)
        if count != len(rows):
            problem = f"holds {len(rows)} of its {count:.0f} rows"
            raise BadFile(path, None, problem if rows else "is cut off", _AGAIN)
        return cls(rows)
