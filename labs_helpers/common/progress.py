"""A bar with the time left, wherever somebody may wait for more than a few seconds.

Work of known length comes in, a tqdm bar goes out: a widget in notebooks, text on a
terminal, nothing in log files. Bars appear only once the work has taken a while; inside
of one that is open, others stay silent. LABS_PROGRESS=0 switches all of them off.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

AFTER = 2.0  # seconds
_open: list[tqdm] = []


@contextmanager
def bar(
    total: int, what: str, *, done: int = 0, wanted: bool = True, keep: bool = False
) -> Iterator[tqdm]:
    """Open a bar; advance it by `update()`.

    Args:
        total: steps.
        what: the work, in a word or two.
        done: steps that were done before.
        wanted: False is for callers who want silence, also within.
        keep: leave the full bar on the screen.
    """
    drawn = tqdm(
        total=total,
        initial=done,
        desc=what,
        disable=not (wanted and not _open and _somebody_looks()),
        leave=keep,
        delay=AFTER,
        mininterval=0.5,
        dynamic_ncols=True,
    )
    _open.append(drawn)
    try:
        with drawn:
            yield drawn
    finally:
        _open.remove(drawn)


def _somebody_looks() -> bool:
    """Whether there is a screen to draw on, of the first of several processes."""
    if os.environ.get("LABS_PROGRESS") == "0" or os.environ.get("RANK", "0") != "0":
        return False
    return in_notebook() or bool(sys.stderr and sys.stderr.isatty())


def in_notebook() -> bool:
    """Whether tqdm found a notebook that can show its widgets."""
    return any(kind.__module__ == "tqdm.notebook" for kind in tqdm.__mro__)
