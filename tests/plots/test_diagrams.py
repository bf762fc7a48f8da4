"""Diagrams can be read: text fits its box and meets no other text and no arrow."""

import itertools

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from labs_helpers import plots
from labs_helpers.advantages import gae
from labs_helpers.course.alt_text import described

DIAGRAMS = {
    name: value for name, value in vars(plots).items() if name.startswith("diagram_")
}
DIAGRAMS |= {
    f"diagram_course({lab})": lambda lab=lab: plots.diagram_course(lab)
    for lab in (0, 3)
}
PHONE = 390  # pixels
SMALLEST = 9  # pixels of a letter's size there


@pytest.fixture(scope="module", params=DIAGRAMS)
def figure(request):
    drawn = DIAGRAMS[request.param]()
    drawn.draw_without_rendering()
    return drawn


def texts(figure):
    """Each text that is drawn, and where."""
    found = [t for t in figure.axes[0].texts if t.get_text().strip()]
    return [(t, t.get_window_extent()) for t in found]


def said(figure) -> list[str]:
    return [text.get_text() for text, _ in texts(figure)]


def test_text_is_on_the_sheet(figure):
    width, height = figure.bbox.size
    for text, place in texts(figure):
        assert place.x0 >= 2, text
        assert place.y0 >= 2, text
        assert place.x1 <= width - 2, text
        assert place.y1 <= height - 2, text


def test_no_text_meets_another(figure):
    for (one, here), (other, there) in itertools.combinations(texts(figure), 2):
        assert not here.overlaps(there), (one.get_text(), other.get_text())


def test_text_is_inside_its_box_or_outside_of_every_box(figure):
    boxes = [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
    for box in (patch.get_window_extent() for patch in boxes):
        for text, place in texts(figure):
            inside = (
                box.x0 <= place.x0 - 2
                and place.x1 + 2 <= box.x1
                and box.y0 <= place.y0 - 2
                and place.y1 + 2 <= box.y1
            )
            assert inside or not box.overlaps(place), text.get_text()


def test_no_box_meets_another(figure):
    boxes = [p for p in figure.axes[0].patches if isinstance(p, FancyBboxPatch)]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.get_window_extent().overlaps(other.get_window_extent())


def test_no_arrow_runs_through_text(figure):
    axes = figure.axes[0]
    arrows = [p for p in axes.patches if isinstance(p, FancyArrowPatch)]
    for patch in arrows:
        path = patch.get_path()
        drawn = path.codes != Path.CLOSEPOLY  # that one has no place of its own
        way = Path(path.vertices[drawn], path.codes[drawn])
        way = axes.transData.transform_path(way)
        for text, place in texts(figure):
            assert not way.intersects_bbox(place, filled=False), text.get_text()


def test_letters_are_high_enough_on_a_phone(figure):
    width = figure.get_size_inches()[0]
    for text, _ in texts(figure):
        assert text.get_fontsize() / 72 * PHONE / width >= SMALLEST, text


def test_its_words_are_all_the_description_has(figure):
    assert described(figure, "Boxes and arrows.") == "Boxes and arrows."


def test_the_kinds_of_models_differ_without_colour():
    boxes = plots.diagram_four_models().axes[0].patches
    borders = {
        (box.get_linewidth(), str(box.get_linestyle()))
        for box in boxes
        if isinstance(box, FancyBboxPatch)
    }
    assert len(borders) >= 3


def test_the_lab_that_is_read_is_marked():
    def thick(here):
        boxes = plots.diagram_course(here).axes[0].patches
        return sum(
            b.get_linewidth() > 2 for b in boxes if isinstance(b, FancyBboxPatch)
        )

    assert thick(None) == 0
    assert [thick(lab) for lab in range(5)] == [1] * 5


def test_every_prediction_has_its_mask():
    figure = plots.diagram_mask(("a",), ("b", "c"), padding=2)
    words = said(figure)
    assert words.count("<pad>") == 2 + 1 + 2  # sequence, input, predicted
    assert [x for x in words if x in "01"] == list("11100")


def test_the_advantages_are_those_of_the_library():
    rewards, values = (0.0, -0.5, 1.0), (0.1, 0.3, 0.2)
    words = said(plots.diagram_gae(rewards, values, gamma=0.9, lam=0.8))
    r, v = torch.tensor([rewards]), torch.tensor([values])
    advantages, returns = gae(r, v, torch.ones_like(r), 0.9, 0.8)
    numbers = torch.cat([advantages, returns], dim=1)[0].tolist()
    shown = [f"{number:.2f}".replace("-", "−") for number in numbers]
    first = words.index("advantage $A_t$") + 1
    assert words[first : first + 3] + words[first + 4 : first + 7] == shown
    # By hand: the last surprise is 1 - 0.2, the one before -0.5 + 0.9 * 0.2 - 0.3.
    errors = words.index(r"surprise $\delta_t$") + 1
    assert words[errors + 1 : errors + 3] == ["−0.62", "0.80"]


def test_a_comparison_has_the_numbers_of_bradley_terry():
    words = " ".join(said(plots.diagram_bradley_terry(2.0, 0.0)))
    assert f"{1 / (1 + np.exp(-2)):.2f}" in words
    assert f"{np.log(1 + np.exp(-2)):.2f}" in words


def test_drawing_leaves_the_settings_alone():
    before = dict(mpl.rcParams)
    for draw in DIAGRAMS.values():
        draw()
    assert dict(mpl.rcParams) == before
