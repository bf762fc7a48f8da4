"""What a diagram is made of: boxes with text, arrows between them, notes, a key.

A sheet is measured in inches from its upper left corner, so that a font size is a
size on the sheet. What a box is can be read without colour: its border says it.
Knows nothing of what the diagrams are about.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from labs_helpers.plots.style import COLOURS, Axes, Figure, _figure_class

WIDTH = 5.6  # inches; at 390 pixels a letter of size 11 is still 10 pixels high
FONT, SMALL = 11, 10
INK = "#222222"
# A kind of box: its filling, and a border that differs in grey as well.
KINDS: dict[str, dict[str, Any]] = {
    "data": {"facecolor": "white", "edgecolor": "#777777", "linewidth": 1.0},
    "step": {"facecolor": "#FBE3CF", "edgecolor": "#FBE3CF", "linewidth": 1.0},
    "trained": {"facecolor": "#CFE4F3", "edgecolor": COLOURS[0], "linewidth": 2.4},
    "frozen": {
        "facecolor": "#EFEFEF",
        "edgecolor": INK,
        "linewidth": 1.4,
        "linestyle": (0, (4, 2)),
    },
}
ROUNDED = ("data", "step")
Place = tuple[float, float]


class Box(NamedTuple):
    """Where a box is: the middle, and how far it reaches."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> Place:
        """The middle of its left side."""
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> Place:
        """The middle of its right side."""
        return self.x + self.width / 2, self.y

    @property
    def top(self) -> Place:
        """The middle of its upper side."""
        return self.x, self.y - self.height / 2

    @property
    def bottom(self) -> Place:
        """The middle of its lower side."""
        return self.x, self.y + self.height / 2


def sheet(height: float, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure to draw on, in inches from its upper left corner."""
    figure = _figure_class()(figsize=(width, height), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.set_axis_off()
    return figure, axes


def box(
    axes: Axes,
    text: str,
    middle: Place,
    size: tuple[float, float],
    kind: str = "data",
    **look: Any,
) -> Box:
    """Draw a box of one of `KINDS` with its text, and say where it is."""
    from matplotlib.patches import FancyBboxPatch

    (x, y), (width, height) = middle, size
    rounding = 0.09 if kind in ROUNDED else 0.0
    shape = f"round,pad=0,rounding_size={rounding}" if rounding else "square,pad=0"
    corner = (x - width / 2, y - height / 2)
    patch = FancyBboxPatch(corner, width, height, boxstyle=shape, **KINDS[kind])
    axes.add_patch(patch)
    written = {"ha": "center", "va": "center", "fontsize": FONT, "color": INK}
    axes.text(x, y, text, **{**written, "linespacing": 1.25, **look})
    return Box(x, y, width, height)


def arrow(axes: Axes, *points: Place, dashed: bool = False) -> None:
    """Draw an arrow through points, its head at the last."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    axes.add_patch(
        FancyArrowPatch(
            path=Path(points),
            arrowstyle="-|>",
            mutation_scale=13,
            color=INK,
            linewidth=1.4,
            linestyle="--" if dashed else "-",
            joinstyle="miter",
            shrinkA=0,
            shrinkB=0,
        )
    )


def note(axes: Axes, text: str, place: Place, **look: Any) -> None:
    """Write beside boxes and arrows, from the left unless `ha` says other."""
    written = {"va": "center", "fontsize": SMALL, "color": INK, "linespacing": 1.25}
    axes.text(*place, text, **{**written, **look})


def heading(axes: Axes, text: str, y: float) -> None:
    """Write the title of a part, and a line across the sheet over it."""
    axes.plot([0.1, axes.get_xlim()[1] - 0.1], [y - 0.2] * 2, color="#bbbbbb", lw=1)
    axes.lines[-1].set_marker("")
    note(axes, text, (0.1, y), fontsize=FONT, fontweight="bold")


def key(axes: Axes, kinds: Sequence[tuple[str, str]], y: float) -> None:
    """Say along one line what the kinds of boxes mean."""
    step = (axes.get_xlim()[1] - 0.2) / len(kinds)
    for i, (kind, meaning) in enumerate(kinds):
        x = 0.1 + i * step
        box(axes, "", (x + 0.16, y), (0.3, 0.18), kind)
        note(axes, meaning, (x + 0.4, y))
