"""Every figure has labelled axes, keeps out of pyplot and draws what it is given."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from labs_helpers import plots
from labs_helpers.evaluation import (
    Estimate,
    OveroptimisationFit,
    optimum_from_samples,
    reliability,
    win_rate,
    win_rate_power,
)
from labs_helpers.fit import History
from labs_helpers.safety import AttackTable

ESTIMATES = [Estimate(0.2 * i, 0.2 * i - 0.1, 0.2 * i + 0.1, 50) for i in range(3)]
RUN = History([{"step": i, "loss": 1 / i, "accuracy": 0.5} for i in range(1, 9)])
PREFERENCE_RUN = History(
    [
        {"step": i, "chosen_logratio": -0.1 * i, "rejected_logratio": -3.0 * i}
        for i in range(1, 9)
    ]
)
SAMPLES = np.random.default_rng(0).uniform(size=(4, 16))
VALUES = np.linspace(0, 1, 40)
LABELS = (VALUES > 0.4).astype(float)
METHODS = ("SFT", "PPO", "RL-CAI", "best of n", "optimum")
BY_METHOD = [
    {"method": method, "seed": seed, "n": n, "kl": 0.2 * n, "gold": 0.5 + 0.1 * n}
    for method in METHODS
    for seed in (0, 1)
    for n in (1, 2)
]
ATTACKS = AttackTable(
    ("no attack", "role_play"), ("x", "y"), np.array([[[0.0], [1]], [[1], [np.nan]]])
)

FIGURES = {
    "training_curve": lambda: plots.training_curve(
        {"one": RUN, "two": RUN}, reference=(0.69, "ln 2")
    ),
    "one_training_curve": lambda: plots.training_curve(RUN, "accuracy", "accuracy"),
    "reliability_diagram": lambda: plots.reliability_diagram(
        {"a": reliability(VALUES, LABELS)}
    ),
    "bars_with_intervals": lambda: plots.bars_with_intervals(
        ["a", "b", "c"], ESTIMATES, (0.5, "chance"), "win rate"
    ),
    "best_of_n_curves": lambda: plots.best_of_n_curves(
        [1, 2, 4], {"gold": ESTIMATES, "proxy": ESTIMATES[::-1]}
    ),
    "agreement_heatmap": lambda: plots.agreement_heatmap(
        ["a", "b"], [[1, 0.3], [np.nan, 1]]
    ),
    "histograms": lambda: plots.histograms(
        {"a": VALUES, "b": VALUES**2}, "reward", reference=(0.5, "half")
    ),
    "against_size": lambda: plots.against_size(
        [10, 100, 1000], {"a": ESTIMATES}, "pairs", "accuracy", (0.8, "ceiling")
    ),
    "scatter_against_truth": lambda: plots.scatter_against_truth(
        VALUES, {"a": VALUES**2, "b": VALUES}, diagonal=True
    ),
    "overoptimisation": lambda: plots.overoptimisation(
        [0, 1, 2], ESTIMATES, ESTIMATES, OveroptimisationFit("rl", 0.5, 0.4, 0.9)
    ),
    "answer_probabilities": lambda: plots.answer_probabilities(
        ["yes", "a longer answer"],
        {"before": [0.5, 0.5], "after": [0.9, 0.1]},
        "KL 0.4",
    ),
    "gold_against_kl": lambda: plots.gold_against_kl(
        {"SFT": tuple(ESTIMATES[:2]), "DPO, beta = 0.05": tuple(ESTIMATES[1:])},
        [optimum_from_samples(SAMPLES, weight) for weight in (0.03, 0.1, 0.3)],
        {"best of n": ([0.0, 0.3], [0.2, 0.5])},
    ),
    "gold_against_kl_by_method": lambda: plots.gold_against_kl_by_method(BY_METHOD),
    "win_rates": lambda: plots.win_rates(
        {"DPO": win_rate([1, 1, 0.5, 0]), "a longer name": win_rate([0.5, 0.5])}
    ),
    "ratings": lambda: plots.ratings(dict(zip("abc", ESTIMATES, strict=True)), "a"),
    "preference_logprobs": lambda: plots.preference_logprobs(PREFERENCE_RUN),
    "gain_and_tax": lambda: plots.gain_and_tax(
        {"alone": tuple(ESTIMATES[:2]), "averaged": tuple(ESTIMATES[1:])}
    ),
    "comparisons_for_proof": lambda: plots.comparisons_for_proof(
        [5, 50, 500], {0.6: win_rate_power(0.6, [5, 50, 500])}
    ),
    "clipped_surrogate": plots.clipped_surrogate,
    "bias_and_variance": lambda: plots.bias_and_variance(
        [0.0, 0.5, 1.0], [0.2, 0.1, 0.0], [0.0, 0.1, 0.4], averaged=16
    ),
    "variance_by_baseline": lambda: plots.variance_by_baseline(
        [-1.0, 0.0, 1.0], [2.5, 1.0, 0.8], 0.5, (0.9, "other answers")
    ),
    "trust_region_step": lambda: plots.trust_region_step(
        [0.0, 0.5, 1.0],
        [0.0, 0.003, 0.012],
        [0.0, 0.04, 0.07],
        [0.0, 0.05, 0.1],
        0.01,
        ("plain gradient", [0.0, 0.005, 0.02], [0.0, 0.02, 0.03]),
    ),
    "runs_with_alarms": lambda: plots.runs_with_alarms(
        {"one": RUN, "two": RUN},
        {"loss": "loss", "accuracy": "accuracy"},
        {"one": [(3, "learning rate too high")]},
    ),
    "hacking": lambda: plots.hacking(
        [0, 10, 20], ESTIMATES, ESTIMATES, alarm=12, second=ESTIMATES
    ),
    "one_hacking": lambda: plots.hacking(
        [0, 10, 20], ESTIMATES, ESTIMATES, witness="win rate by the judge"
    ),
    "trials": lambda: plots.trials({0: RUN, 1: RUN}, "loss", "objective"),
    "by_seed": lambda: plots.by_seed(
        {"PPO": [0.8, 0.82, 0.9], "one seed": [0.6]}, "way covered", (0.75, "bar")
    ),
    "attack_heatmaps": lambda: plots.attack_heatmaps({"SFT": ATTACKS, "RL": ATTACKS}),
    "helpful_and_harmless": lambda: plots.helpful_and_harmless(
        {"SFT": tuple(ESTIMATES[:2]), "RL": tuple(ESTIMATES[1:])}
    ),
    "rates_by_policy": lambda: plots.rates_by_policy(
        {"SFT": {"refusal": ESTIMATES[0]}, "RL": {"refusal": ESTIMATES[1]}}, "rate"
    ),
    "label_agreement": lambda: plots.label_agreement(
        {"AI": ESTIMATES[1], "coin": ESTIMATES[2]}, highlighted=["AI"]
    ),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_labelled_and_renders(name):
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    axes = figure.axes[0]
    assert axes.get_xlabel() or name == "attack_heatmaps"  # columns have names
    assert axes.get_ylabel() or axes.get_yticklabels()
    assert figure._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", FIGURES)
def test_text_stays_inside_the_figure(name):
    figure = FIGURES[name]()
    figure.draw_without_rendering()
    edge = figure.bbox
    for text in figure.findobj(mpl.text.Text):
        if text.get_text() and text.get_visible() and text.axes in figure.axes:
            box = text.get_window_extent()
            if box.width:
                assert box.x0 >= -1, text
                assert box.x1 <= edge.x1 + 1, text


def test_drawing_leaves_no_trace_in_pyplot():
    before = dict(mpl.rcParams)
    for draw in FIGURES.values():
        draw()
    assert dict(mpl.rcParams) == before
    assert pyplot.get_fignums() == []


def test_series_differ_in_colour_and_marker():
    lines = FIGURES["training_curve"]().axes[0].get_lines()[:2]
    assert lines[0].get_color() != lines[1].get_color()
    assert lines[0].get_marker() != lines[1].get_marker()


def test_intervals_are_drawn_where_they_are():
    axes = FIGURES["against_size"]().axes[0]
    segments = axes.containers[0].lines[2][0].get_segments()
    np.testing.assert_allclose(
        [segment[:, 1] for segment in segments], [e.ci for e in ESTIMATES]
    )


def test_an_unknown_interval_is_no_error():
    figure = plots.bars_with_intervals(["a"], [Estimate(0.5, np.nan, np.nan, 1)])
    assert isinstance(figure, Figure)


def test_steps_without_the_column_are_passed_over():
    run = History([{"step": 1, "loss": 1.0}, {"step": 2}, {"step": 3, "loss": 0.5}])
    line = plots.training_curve(run).axes[0].get_lines()[0]
    np.testing.assert_array_equal(line.get_xdata(), [1, 3])


def test_a_peak_beyond_the_data_is_not_drawn():
    fit = OveroptimisationFit("bon", 1.0, 0.01, 1.0)
    axes = plots.overoptimisation([0, 1, 2], ESTIMATES, fit=fit).axes[0]
    assert "peak of the fit" not in axes.get_legend_handles_labels()[1]


def test_every_figure_is_tested():
    drawn = {name.removeprefix("one_") for name in FIGURES}
    offered = {
        name
        for name, value in vars(plots).items()
        if callable(value) and not name.startswith("diagram_")  # test_diagrams
    }
    assert drawn == offered


def test_policies_lie_where_they_were_measured():
    axes = FIGURES["gold_against_kl"]().axes[0]
    points = [c.lines[0].get_xydata()[0] for c in axes.containers]
    expected = [(kl.value, gold.value) for kl, gold in (ESTIMATES[:2], ESTIMATES[1:])]
    np.testing.assert_allclose(points, expected)


def test_every_method_is_on_the_figure():
    figure = FIGURES["gold_against_kl_by_method"]()
    said = [text.get_text() for text in figure.findobj(mpl.text.Text)]
    for method in METHODS:
        assert any(text.startswith(method) for text in said), method


def test_the_frontier_rises_with_kl():
    line = FIGURES["gold_against_kl"]().axes[0].get_lines()[0]
    assert (np.diff(line.get_xydata(), axis=0) > 0).all()


def test_the_best_rated_is_on_top():
    axes = FIGURES["ratings"]().axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["c", "b", "a"]
    assert axes.yaxis_inverted()
