"""A figure in words, for whoever cannot see it.

In go a matplotlib figure and a sentence on what it shows; out comes the sentence with
what can be read off the figure: axes with the range of their data or the names along
them, and what is drawn with its values at both ends. Knows nothing of what the figures
are about.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

MOST_NAMES = 12
MOST_VALUES = 4


def described(figure: Figure, text: str) -> str:
    """Return the sentence, and the figure's axes, ranges, names and values.

    >>> figure = Figure()
    >>> _ = figure.subplots().plot([0, 5], [0.7, 0.4], label="a run")
    >>> described(figure, "The loss by step.")
    'The loss by step. Across: 0 to 5. Up: 0.4 to 0.7. Drawn: a run (0.7 to 0.4).'
    """
    if not text.strip():
        raise ValueError(
            "a figure needs a sentence for whoever cannot see it, such as "
            '"The loss of training by step."'
        )
    panels = [axes for axes in figure.axes if axes.has_data() and not _is_scale(axes)]
    parts = [text.strip()]
    for axes in panels:
        title = axes.get_title() if len(panels) > 1 else ""
        parts += [f"Panel {title}."] if title else []
        rows = bool(_names(axes.yaxis))
        points = {} if _names(axes.xaxis) else _points_by_row(axes)
        parts += [_axis("Across", axes.xaxis), _axis("Up", axes.yaxis, points)]
        parts += [_colours(image, axes) for image in axes.images]
        unnamed = [line for line in axes.lines if line.get_label().startswith("_")]
        alone = len(unnamed) == 1 and not rows
        drawn = [f"a line{_ends(unnamed[0])}"] if alone else []
        drawn += [
            f"{name}{_ends(handle, rows)}"
            for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)
        ]
        parts += [f"Drawn: {_listed(dict.fromkeys(drawn))}."] if drawn else []
    return " ".join(" ".join(parts).split())


def _is_scale(axes: Axes) -> bool:
    # What explains the colours is no panel.
    return axes.get_label() == "<colorbar>"


def _axis(side: str, axis: Axis, points: dict[float, list[float]] | None = None) -> str:
    names = _names(axis)
    if names:
        values = [(points or {}).get(round(position), []) for position in names]
        named = zip(names.values(), values, strict=True)
        span = _listed(f"{name} {_several(x)}".strip() for name, x in named)
    elif not axis.get_label_text() and not any(
        label.get_text() for label in axis.get_ticklabels()
    ):
        return ""  # as the panel beside it
    else:
        low, high = axis.get_data_interval()
        span = f"{_short(low)} to {_short(high)}"
    return f"{side}: {' '.join(filter(None, [axis.get_label_text(), span]))}."


def _colours(image: AxesImage, axes: Axes) -> str:
    """The least and the greatest value of a table in colours, and where they are."""
    values = np.ma.filled(np.ma.asarray(image.get_array(), dtype=float), np.nan)
    if values.ndim != 2 or not np.isfinite(values).any():
        return ""  # a picture
    rows, columns = _names(axes.yaxis), _names(axes.xaxis)
    ends = []
    for place in (np.nanargmin(values), np.nanargmax(values)):
        row, column = np.unravel_index(place, values.shape)
        named = ", ".join(filter(None, [rows.get(row), columns.get(column)]))
        ends.append(_short(values[row, column]) + (f" ({named})" if named else ""))
    return f"In colours: {' to '.join(ends)}."


def _names(axis: Axis) -> dict[float, str]:
    """Names along an axis by their place; none where it is one of numbers."""
    ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=False)
    found = {float(place): label.get_text().strip() for place, label in ticks}
    return {place: name for place, name in found.items() if _is_name(name)}


def _is_name(text: str) -> bool:
    digits = text.replace("\N{MINUS SIGN}", "-").strip("%$ ").replace(",", "")
    if not digits or "mathdefault" in digits:
        return False
    try:
        float(digits)
    except ValueError:
        return True
    return False


def _points_by_row(axes: Axes) -> dict[float, list[float]]:
    """How far the bars and points of each row reach, names being down the side."""
    found: dict[float, list[float]] = {}
    for bar in (patch for patch in axes.patches if isinstance(patch, Rectangle)):
        middle = round(bar.get_y() + bar.get_height() / 2)
        found.setdefault(middle, []).append(bar.get_width())
    for line in axes.lines:
        if line.get_marker() in ("o", "s", "D", "^", "v"):
            for x, y in zip(*line.get_data(), strict=True):
                found.setdefault(round(float(y)), []).append(float(x))
    return found


def _several(values: list[float]) -> str:
    if len(values) <= MOST_VALUES:
        return " ".join(map(_short, values))
    low, high = _short(min(values)), _short(max(values))
    return f"{len(values)} points from {low} to {high}"


def _ends(handle: Any, rows: bool = False) -> str:
    """The values of a line at its two ends, of a level or point its own.

    Where the rows of a figure have names, only a level has a value beside theirs.
    """
    line = handle[0] if isinstance(handle, ErrorbarContainer) else handle
    if not isinstance(line, Line2D) or len(line.get_ydata()) == 0:
        return ""
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    if rows and (len(set(x)) > 1 or list(y) != [0, 1]):
        return ""
    if len(x) == 1:
        return f" ({_short(x[0])}, {_short(y[0])})"
    ends = x if len(set(x)) == 1 else y  # an upright line marks a place
    first, last = map(_short, (ends[0], ends[-1]))
    return f" ({first} to {last})" if first != last else f" ({first})"


def _short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{0.0 if abs(value) < 1e-6 else value:.3g}"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
