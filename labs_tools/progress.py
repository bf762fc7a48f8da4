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
        known = [seconds[cell.id] for cell in cells if cell.get("id") in seconds]
        usual = sum(known) / len(known) if known else 1.0
        self._weights = [
            seconds.get(cell.get("id"), usual) if cell.cell_type == "code" else 0.0
            for cell in cells
        ]
        self._headings = headings(cells)
        self.running, self.heading = 0, ""
        self._pace = 1.0 if known else 0.0  # seconds for one of last time
        self._started = time.monotonic()
        self._stop = threading.Event()

    def __enter__(self) -> "CellProgress":
        self._bar = tqdm(
            total=sum(self._weights),
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
        print(f"{self.name}: {self._elapsed():.0f} s", file=sys.stderr)

    def cell_starts(self, index: int) -> None:
        """Show the heading that a cell stands under."""
        self.running, self.heading = index, self._headings[index]
        self._draw()

    def cell_ends(self, index: int) -> None:
        """Advance by a cell and estimate anew."""
        self._pace = self._elapsed() / sum(self._weights[: index + 1])
        self._bar.update(self._weights[index])
        self._draw()

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _tick(self) -> None:
        while not self._stop.wait(1.0):
            self._draw()

    def _draw(self) -> None:
        left = ""
        if self._pace:
            seconds = max(0.0, self._pace * sum(self._weights) - self._elapsed())
            left = f"{tqdm.format_interval(seconds)} left · "
        self._bar.set_postfix_str(f"{left}{one_line(self.heading, 40)}")


def headings(cells: Sequence[Any]) -> list[str]:
    """Return for each cell the last Markdown heading above it."""
    found, current = [], ""
    for cell in cells:
        if cell.cell_type == "markdown":
            lines = [line for line in cell.source.splitlines() if line.startswith("#")]
            current = lines[-1].lstrip("# ").strip() if lines else current
        found.append(current)
    return found
