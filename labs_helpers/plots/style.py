"""How figures look: colours, markers, sizes, and the pieces that several of them share.

Colours are those of Okabe and Ito, which colour-blind readers tell apart. matplotlib is
imported when something is drawn: who only imports figures need not wait for it.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from functools import cache, wraps
from typing import Any

import numpy as np
from jaxtyping import Float

from labs_helpers.evaluation import Estimate

Axes, Figure = "matplotlib.axes.Axes", "matplotlib.figure.Figure"  # types, by name
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":")
GREY = "#666666"
STYLE = {
    "axes.grid": True,
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
BESIDE = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0)}
ABOVE = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0)}
ABOVE_LEFT = {"loc": "lower left", "bbox_to_anchor": (0, 1)}


@cache
def _figure_class() -> type:
    from matplotlib.figure import Figure
    from PIL import Image

    class NotebookFigure(Figure):
        """A figure outside of pyplot: nothing to close, and yet a notebook shows it."""

        def _repr_png_(self) -> bytes:
            drawn, stored = io.BytesIO(), io.BytesIO()
            self.savefig(drawn, format="png")
            # 256 colours are plenty for lines, and a third of the bytes in a notebook.
            image = Image.open(drawn).convert("RGB").quantize(256)
            image.save(stored, "PNG", optimize=True)
            return stored.getvalue()

    return NotebookFigure


def style() -> Any:
    """The context to draw in: with its settings, figures look alike."""
    import matplotlib as mpl

    cycle = mpl.cycler(color=COLOURS, marker=MARKERS)
    return mpl.rc_context({**STYLE, "axes.prop_cycle": cycle})


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Let a function draw in the project's style."""

    @wraps(draw)
    def in_style(*args: Any, **named: Any) -> Figure:
        with style():
            return draw(*args, **named)

    return in_style


def new_figure(width: float = 7.0, height: float = 4.2) -> tuple[Figure, Axes]:
    """An empty figure, size in inches, and its axes."""
    figure = _figure_class()(figsize=(width, height))
    return figure, figure.subplots()


def new_panels(
    width: float, height: float, n: int, **options: Any
) -> tuple[Figure, Any]:
    """An empty figure, size in inches, and its n axes side by side."""
    figure = _figure_class()(figsize=(width, height))
    return figure, figure.subplots(1, n, squeeze=False, **options)[0]


def values(estimates: Iterable[Estimate]) -> list[float]:
    """Their values."""
    return [estimate.value for estimate in estimates]


def distances(estimates: Sequence[Estimate]) -> Float[np.ndarray, "2 n"]:
    """How far each interval reaches below and above its value."""
    pairs = [(e.value - e.low, e.high - e.value) for e in estimates]
    return np.nan_to_num(np.maximum(np.array(pairs, float), 0)).T


def level(
    axes: Axes,
    reference: tuple[float, str] | None,
    vertical: bool = False,
    ls: str = "--",
) -> None:
    """A dashed line at a level to compare with, if there is one, and its name."""
    if reference:
        draw = axes.axvline if vertical else axes.axhline
        value, label = reference
        draw(value, color=GREY, ls=ls, lw=1.6, marker="", label=label)


def errorbar(
    axes: Axes, x: Any, estimates: Sequence[Estimate], label: str, **options: Any
) -> None:
    """A line through values with their intervals."""
    drawn = {"yerr": distances(estimates), "label": label, **options}
    axes.errorbar(x, values(estimates), **drawn)


def across(
    axes: Axes, rows: Any, estimates: Sequence[Estimate], **options: Any
) -> None:
    """Points with their intervals, one to a row."""
    drawn = {"xerr": distances(estimates), "ls": "none", **options}
    axes.errorbar(values(estimates), rows, **drawn)


def point(axes: Axes, x: Estimate, y: Estimate, **options: Any) -> None:
    """A point with its intervals both ways; hollow, so that it hides no other."""
    look = {"ls": "none", "mfc": "none", "mew": 2, "elinewidth": 1.2}
    errorbar(axes, x.value, [y], xerr=distances([x]), **{**look, **options})


def name_rows(axes: Axes, names: Iterable[str]) -> None:
    """Name the rows of a figure, the first on top."""
    names = list(names)
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")


def heat_map(
    axes: Axes,
    matrix: Any,
    columns: Sequence[str],
    *,
    number: Callable[[float], str] = "{:.2f}".format,
    size: float | None = None,
    rotation: float = 35,
    **options: Any,
) -> "matplotlib.image.AxesImage":  # noqa: F821
    """A table in colours from 0 to 1, its numbers written in; NaN is left blank."""
    matrix = np.ma.masked_invalid(np.asarray(matrix, float))
    image = axes.imshow(matrix, cmap="cividis", vmin=0, vmax=1, **options)
    for i, j in zip(*np.nonzero(~np.ma.getmaskarray(matrix)), strict=True):
        colour = "white" if matrix[i, j] < 0.55 else "black"
        look = {"color": colour, "ha": "center", "va": "center"}
        axes.text(j, i, number(matrix[i, j]), fontsize=size, **look)
    turned = {"rotation": rotation, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(np.arange(len(columns)), columns, **turned)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return image
