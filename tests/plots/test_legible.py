"""What was once hard to read in the figures: hidden marks, colliding or bare labels."""

import itertools

import numpy as np
import pytest

from labs_helpers import plots
from labs_helpers.evaluation import Estimate, optimum_from_samples, win_rate
from labs_helpers.fit import History

ESTIMATES = [Estimate(0.2 * i, 0.2 * i - 0.1, 0.2 * i + 0.1, 50) for i in range(3)]
LONG_RUN = History([{"step": i, "reward": float(i % 2)} for i in range(80)])


def legend_of(axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def tick_labels_collide(axis) -> bool:
    axis.figure.draw_without_rendering()
    low, high = sorted(axis.get_view_interval())
    places = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    shown = [t.get_window_extent() for at, t in places if low <= at <= high]
    return any(a.overlaps(b) for a, b in itertools.pairwise(shown))


def test_a_long_run_is_drawn_as_its_moving_mean():
    axes = plots.training_curve(LONG_RUN, "reward").axes[0]
    raw, mean = axes.get_lines()
    assert len(raw.get_xdata()) == 80
    np.testing.assert_allclose(mean.get_ydata(), 0.5)
    np.testing.assert_allclose(mean.get_xdata()[[0, -1]], [3.5, 75.5])
    assert legend_of(axes) == ["mean of 8"]


def test_a_run_has_several_levels_to_compare_with():
    levels = [(0.2, "SFT"), (0.9, "optimum")]
    axes = plots.training_curve(LONG_RUN, "reward", reference=levels).axes[0]
    assert legend_of(axes)[1:] == ["SFT", "optimum"]
    assert len({line.get_linestyle() for line in axes.get_lines()[-2:]}) == 2


def test_the_frontier_between_optima_is_no_chord():
    samples = np.random.default_rng(1).uniform(size=(20, 64))
    few = [optimum_from_samples(samples, w) for w in (0.01, 0.03, 0.1, 0.3, 1.0)]
    start = samples.mean(1)
    few.append(type(few[0])(start, start, 0 * start))
    policies = {"SFT": tuple(ESTIMATES[:2])}
    drawn = plots.gold_against_kl(policies, few).axes[0].get_lines()[0].get_xydata()
    for weight in np.geomspace(0.012, 5, 30):
        exact = optimum_from_samples(samples, weight)
        found = np.interp(exact.kl.mean(), *drawn.T)
        assert found == pytest.approx(exact.reward.mean(), abs=2e-3)


def test_every_method_has_a_marker_of_its_own():
    from labs_helpers.plots.policies import FAMILIES

    markers = [m for methods in FAMILIES.values() for m in methods.values()]
    assert len(set(markers)) == len(markers)


def test_the_frontier_says_what_its_points_are():
    rows = [
        {"method": method, "n": n, "kl": 0.1 * n, "gold": 0.5 + 0.05 * n}
        for method in ("optimum", "best of n", "SFT", "RL-CAI")
        for n in (1, 2)
    ]
    axes = plots.gold_against_kl_by_method(rows).axes[0]
    said = " ".join(text.get_text() for text in axes.get_legend().get_texts())
    assert "no label" not in said
    for part in ("KL at most", "learned from the truth", "single seeds"):
        assert part in said


def test_the_ticks_of_a_step_do_not_collide():
    kl = np.array([0.0, 0.0031, 0.0157])
    figure = plots.trust_region_step([0, 1, 2], kl, 3 * kl, 4 * kl, 0.01)
    for axes in figure.axes:
        assert not tick_labels_collide(axes.xaxis)
    assert "bound" in legend_of(figure.axes[1])


def test_alarms_are_named_by_number():
    run = History([{"step": i, "kl": 0.1 * i} for i in range(1, 17)])
    alarms = {
        "a": [(1, "learning rate too high"), (7, "repetition")],
        "b": [(7, "entropy collapse"), (9, "repetition")],
    }
    figure = plots.runs_with_alarms({"a": run, "b": run}, {"kl": "KL"}, alarms)
    listed = figure.get_supxlabel()
    assert listed == "1 learning rate too high;  2 repetition;  3 entropy collapse"
    over = {t.get_position()[0]: t.get_text() for t in figure.axes[0].texts}
    assert over == {1: "1", 7: "2\n3", 9: "2"}


def test_each_line_of_hacking_says_its_axis():
    figure = plots.hacking([0, 1, 2], ESTIMATES, ESTIMATES, second=ESTIMATES)
    said = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert sum("left axis" in text for text in said) == 1
    assert sum("(right)" in text for text in said) == 2


def test_dotted_and_dashed_lines_of_the_clip_have_names():
    said = legend_of(plots.clipped_surrogate(0.3).axes[0])
    assert {"without the clip", "1 ± 0.3, the clip", "the old policy"} <= set(said)


def test_intervals_of_several_series_stand_beside_each_other():
    series = {"a": ESTIMATES, "b": ESTIMATES}
    axes = plots.against_size([10, 100, 1000], series, "pairs", "way").axes[0]
    one, other = (c.lines[0].get_xdata() for c in axes.containers)
    assert (one < other).all()
    np.testing.assert_allclose(np.sqrt(one * other), [10, 100, 1000])


def test_sizes_are_written_short():
    sizes = [221_632, 902_272, 3_062_208]
    axes = plots.against_size(sizes, {"a": ESTIMATES}, "parameters", "gold").axes[0]
    written = [label.get_text() for label in axes.get_xticklabels()]
    assert written == ["222 k", "902 k", "3.1 M"]


def test_small_values_have_a_digit_more():
    small = [Estimate(x, 0.0, 0.1, 9) for x in (0.068, 0.071)]
    axes = plots.bars_with_intervals(["a", "b"], small).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.068", "0.071"]


def test_the_means_of_a_histogram_are_marked():
    axes = plots.histograms({"a": [0.0, 1.0, 2.0], "b": [4.0, 6.0]}, "words").axes[0]
    marked = [m.get_offsets()[0][0] for m in axes.collections]
    assert marked == [1.0, 5.0]
    assert legend_of(axes) == ["a (n = 3, mean 1)", "b (n = 2, mean 5)"]


def test_the_peak_of_a_fit_stands_beside_the_highest_measured():
    from labs_helpers.evaluation import OveroptimisationFit

    fit = OveroptimisationFit("rl", 0.5, 0.4, 0.9)
    said = legend_of(plots.overoptimisation([0, 1, 2], ESTIMATES, fit=fit).axes[0])
    assert "highest measured, d = 2.00" in said
    assert any(text.startswith("peak of the fit, d = ") for text in said)


def test_an_arrow_says_which_rates_should_fall():
    rates = {"SFT": {"honesty": ESTIMATES[1], "sycophancy": ESTIMATES[0]}}
    axes = plots.rates_by_policy(rates, "share", lower_is_better=["sycophancy"]).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["honesty →", "sycophancy ←"]
    assert "arrow: better" in axes.get_xlabel()


def test_win_rates_leave_out_where_there_is_nothing():
    won = win_rate([1] * 60 + [0.5] * 20 + [0] * 20)
    assert plots.win_rates({"DPO": won}).axes[0].get_xlim()[0] > 0.3
    lost = win_rate([0] * 60 + [1] * 20)
    assert plots.win_rates({"DPO": lost}).axes[0].get_xlim()[0] < lost.low


def test_a_narrow_spread_of_seeds_stays_narrow():
    axes = plots.by_seed({"a": [0.8, 0.82], "b": [0.76]}, "way").axes[0]
    low, high = axes.get_xlim()
    assert high - low >= 0.2


def test_who_is_highlighted_differs_without_colour():
    found = {"AI": ESTIMATES[2], "people": ESTIMATES[1]}
    containers = plots.label_agreement(found, ["AI"]).axes[0].containers
    assert len({c.lines[0].get_marker() for c in containers}) == 2
