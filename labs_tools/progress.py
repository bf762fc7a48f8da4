"""A progress bar over the cells of a notebook, with the heading and the time left.

In go the cells and how long each took last time; nothing is known of kernels.
"""

import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tqdm.auto import tqdm

from labs_helpers.common.printable import one_line

FORMAT = "{desc} {percentage:3.0f}% |{bar:24}| {elapsed}{postfix}"


class CellProgress:
    """Counts cells by the time that they took last time, as far as that is known.

    Draws on terminals only; elsewhere a lab is one line, written when it ends.
    """

    def __init__(self, name: str, cells: Sequence[Any], seconds: Mapping[str, float]):
        self.name = name
        self._cells = [i for i, cell in enumerate(cells) if cell.cell_type == "code"]
        self._headings = headings(cells)
        known = [seconds[c.id] for c in cells if c.get("id") in seconds]
        usual = sum(known) / len(known) if known else 1.0
        self._weights = [seconds.get(cell.get("id"), usual) for cell in cells]
        self._done = 0.0
        self._heading = ""
        expected = sum(self._weights[i] for i in self._cells)
        self._left = expected if known else None
        self._started = self._since = time.monotonic()
        self._stop = threading.Event()

    def __enter__(self) -> "CellProgress":
        total = sum(self._weights[i] for i in self._cells)
        self._bar = tqdm(
            total=total,
            desc=self.name,
            bar_format=FORMAT,
            disable=None,
            leave=False,
            dynamic_ncols=True,
        )
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._clock.join()
        self._bar.close()
        seconds = time.monotonic() - self._started
        print(f"{self.name}: {seconds:.0f} s", file=sys.stderr)

    def cell_starts(self, index: int) -> None:
        """Show the heading that a cell stands under."""
        self._heading = self._headings[index]
        self._draw()

    def cell_ends(self, index: int) -> None:
        """Advance by a cell and estimate anew."""
        self._done += self._weights[index]
        left = sum(self._weights[i] for i in self._cells if i > index)
        self._since = time.monotonic()
        elapsed = self._since - self._started
        self._left = left * elapsed / self._done if self._done else None
        self._bar.update(self._weights[index])
        self._draw()

    def _tick(self) -> None:
        while not self._stop.wait(1.0):
            self._draw()

    def _draw(self) -> None:
        left = ""
        if self._left is not None:
            seconds = max(0.0, self._left - (time.monotonic() - self._since))
            left = f"{tqdm.format_interval(seconds)} left · "
        self._bar.set_postfix_str(f"{left}{one_line(self._heading, 40)}")


def headings(cells: Sequence[Any]) -> list[str]:
    """Return for each cell the last Markdown heading above it."""
    found, current = [], ""
    for cell in cells:
        if cell.cell_type == "markdown":
            lines = [line for line in cell.source.splitlines() if line.startswith("#")]
            current = lines[-1].lstrip("# ").strip() if lines else current
        found.append(current)
    return found
