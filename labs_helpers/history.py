"""What a training run measured, row by row.

A row is a dict of numbers logged at one step. Rows may differ in what they hold: a
column reads NaN where a row has no such value. Knows nothing of what is trained.
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class History:
    """The log of a run; `history["loss"]` is one column as an array."""

    rows: list[dict[str, float]] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Every name that some row holds, in order of appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def __getitem__(self, column: str) -> np.ndarray:
        if column not in self.columns:
            raise KeyError(
                f"the history has no column {column!r}; it has "
                f"{', '.join(self.columns) or 'none, for nothing was logged'}"
            )
        return np.array([row.get(column, np.nan) for row in self.rows], dtype=float)

    def __contains__(self, column: str) -> bool:
        return column in self.columns

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
        """Write the rows as CSV."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    @classmethod
    def load(cls, path: str | Path) -> "History":
        """Read what `save` wrote; every number comes back as a float."""
        with Path(path).open(newline="", encoding="utf-8") as file:
            return cls(
                [
                    {name: float(cell) for name, cell in row.items() if cell}
                    for row in csv.DictReader(file)
                ]
            )
