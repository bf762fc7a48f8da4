"""How figures look: colours, markers, sizes, and the pieces that several of them share.

Colours are those of Okabe and Ito, which colour-blind readers tell apart. Knows nothing
of what is drawn.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image

from labs_helpers.evaluation import Estimate

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#666666"
STYLE = {
    "axes.grid": True,
    "axes.prop_cycle": mpl.cycler(color=COLOURS, marker=MARKERS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "errorbar.capsize": 4,
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 6,
}


class _NotebookFigure(Figure):
    """A figure outside of pyplot: nothing to close, and yet a notebook shows it."""

    def _repr_png_(self) -> bytes:
        drawn, stored = io.BytesIO(), io.BytesIO()
        self.savefig(drawn, format="png")
        # 256 colours are plenty for lines, and a third of the bytes in a notebook.
        Image.open(drawn).convert("RGB").quantize(256).save(
            stored, "PNG", optimize=True
        )
        return stored.getvalue()


def style() -> Any:
    """The context to draw in: with its settings, figures look alike."""
    return mpl.rc_context(STYLE)


def new_figure(width: float = 7.0, height: float = 4.2) -> tuple[Figure, Axes]:
    """An empty figure, size in inches, and its axes."""
    figure = _NotebookFigure(figsize=(width, height))
    return figure, figure.subplots()


def distances(estimates: Sequence[Estimate]) -> np.ndarray:
    """How far each interval reaches below and above its value."""
    pairs = [(e.value - e.low, e.high - e.value) for e in estimates]
    return np.nan_to_num(np.maximum(np.array(pairs, float), 0)).T


def level(axes: Axes, value: float, label: str, vertical: bool = False) -> None:
    """A dashed line at a level to compare with."""
    draw: Callable[..., Any] = axes.axvline if vertical else axes.axhline
    draw(value, color=GREY, ls="--", lw=1.6, marker="", label=label)


def errorbar(
    axes: Axes,
    x: ArrayLike,
    estimates: Sequence[Estimate],
    label: str,
) -> None:
    """A line through values with their intervals."""
    values = [estimate.value for estimate in estimates]
    axes.errorbar(x, values, yerr=distances(estimates), label=label)
