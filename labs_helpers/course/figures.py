"""Figures in a notebook: each with a text in its place, some with a slider.

In go figures and sentences; a front end shows them. Draws nothing itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

Figure = "matplotlib.figure.Figure"  # a type, by name: importing it takes a while


def show(figure: Figure, text: str) -> None:
    """Display a figure with a text in its place for whoever cannot see it.

    Args:
        figure: to display.
        text: what it shows and what it says, in a sentence or two. Axes, their ranges
            and the names of what is drawn are read off the figure.
    """
    from IPython.display import display

    display(figure, metadata=_in_words(figure, text))


def slide(
    name: str, values: Sequence[float], draw: Callable[[float], Figure], text: str
) -> None:
    """Display the figure of a number, and a slider that draws it for others.

    On a page without a kernel the figure of the middle value is what remains.

    Args:
        name: of the number.
        values: to choose from, in order.
        draw: makes the figure of a value.
        text: as in `show`.
    """
    from IPython.display import display
    from ipywidgets import SelectionSlider

    slider = SelectionSlider(
        options=values,
        value=values[len(values) // 2],
        description=name,
        style={"description_width": "initial"},
    )
    figure = draw(slider.value)
    shown = display(figure, metadata=_in_words(figure, text), display_id=True)

    def redraw(_: Any) -> None:
        figure = draw(slider.value)
        shown.update(figure, metadata=_in_words(figure, text))

    slider.observe(redraw, names="value")
    display(slider)


def _in_words(figure: Figure, text: str) -> dict[str, dict[str, str]]:
    from labs_helpers.course.alt_text import described

    return {"image/png": {"alt": described(figure, text)}}
