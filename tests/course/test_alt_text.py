"""Figures in words."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from labs_helpers import plots
from labs_helpers.course.alt_text import described
from labs_helpers.evaluation import Estimate
from labs_helpers.fit import History


def estimate(value):
    return Estimate(value, value - 0.1, value + 0.1, 10)


def test_a_curve_is_told_by_its_axes_and_ends():
    losses = [{"step": step, "loss": 0.9 - 0.1 * step} for step in range(6)]
    figure = plots.training_curve(History(losses), reference=(np.log(2), "a coin"))
    assert described(figure, "The loss.") == (
        "The loss. Across: optimiser step 0 to 5. Up: loss 0.4 to 0.9. "
        "Drawn: a line (0.9 to 0.4), a coin (0.693)."
    )


def test_names_down_the_side_are_told_with_their_values():
    bars = plots.bars_with_intervals(["a", "b"], [estimate(0.3), estimate(0.5)])
    assert "Up: a 0.3, b 0.5." in described(bars, "Two bars.")
    seeds = plots.by_seed({"ppo": [0.5, 0.6], "trpo": [0.4]}, "way")
    assert "ppo 0.5 0.6" in described(seeds, "Points.")


def test_a_table_is_told_by_its_rows_and_columns():
    figure = plots.agreement_heatmap(["x", "y"], [[1.0, 0.5], [0.5, 1.0]])
    assert described(figure, "A table.").count("annotator x, y.") == 2


def test_a_table_in_colours_is_told_by_its_ends_and_their_places():
    figure = plots.agreement_heatmap(["x", "y"], [[0.9, 0.5], [0.4, 1.0]])
    assert "In colours: 0.4 (y, x) to 1 (y, y)." in described(figure, "A table.")


def test_thousands_are_written_for_people():
    figure = plots.against_size([100, 5000], {"s": [estimate(0.2)] * 2}, "pairs", "way")
    assert "pairs 100 to 5,000." in described(figure, "By size.")


def test_many_names_are_cut_short():
    figure = Figure()
    axes = figure.subplots()
    for i in range(20):
        axes.plot([0, 1], [i, i + 1], label=f"run {i}")
    assert "and 8 more." in described(figure, "Many runs.")


def test_a_figure_without_a_sentence_is_refused():
    with pytest.raises(ValueError, match="needs a sentence"):
        described(Figure(), " ")
