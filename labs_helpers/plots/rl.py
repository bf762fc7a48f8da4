"""Figures about reinforcement learning: estimates, steps, and how runs go wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from labs_helpers.evaluation import Estimate
from labs_helpers.fit import History
from labs_helpers.plots.style import (
    ABOVE,
    ABOVE_LEFT,
    COLOURS,
    GREY,
    MARKERS,
    Axes,
    Figure,
    errorbar,
    level,
    name_rows,
    new_figure,
    new_panels,
    styled,
    values,
)


@styled
def clipped_surrogate(clip: float = 0.2) -> Figure:
    """Draw what PPO maximises against the ratio, for a good token and a bad one."""
    ratio = np.linspace(0.4, 1.6, 241)
    figure, axes = new_figure(7.0, 3.8)
    for advantage, name in ((1.0, "advantage 1"), (-1.0, "advantage −1")):
        clipped = np.clip(ratio, 1 - clip, 1 + clip) * advantage
        lower = np.minimum(ratio * advantage, clipped)
        axes.plot(ratio, lower, marker="", label=name)
        axes.plot(ratio, ratio * advantage, color=GREY, ls=":", marker="", lw=1.4)
    axes.lines[2].set_linestyle("-.")  # told from the other without colour
    axes.lines[-1].set_label("without the clip")
    for edge, label in ((1 - clip, f"1 ± {clip:g}, the clip"), (1 + clip, None)):
        axes.axvline(edge, color=GREY, ls="--", lw=1.2, marker="", label=label)
    axes.axvline(1, color="black", lw=1, marker="", label="the old policy")
    axes.set(
        xlabel="ratio: new over old probability",
        ylabel="surrogate, to be made large",
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


@styled
def variance_by_baseline(
    baselines: ArrayLike,
    variance: ArrayLike,
    mean_reward: float,
    other: tuple[float, str] | None = None,
) -> Figure:
    """Draw a gradient's variance against the constant that is taken off the reward.

    It is a share of that without a baseline; `other` is that of another baseline.
    """
    figure, axes = new_figure(7.0, 3.9)
    axes.plot(baselines, variance, marker="", label="a constant")
    axes.axvline(mean_reward, color=GREY, ls=":", marker="", label="mean reward")
    axes.axvline(0, color="black", lw=1, marker="", label="nothing")
    if other is not None:
        axes.axhline(other[0], color=COLOURS[1], ls="--", marker="", label=other[1])
    axes.set(
        xlabel="taken off the reward",
        ylabel="variance (1: nothing taken off)",
        ylim=(0, None),
    )
    axes.legend()
    return figure


@styled
def bias_and_variance(
    lambdas: Sequence[float],
    squared_bias: ArrayLike,
    variance: ArrayLike,
    averaged: int = 1,
) -> Figure:
    """Draw the two parts of an advantage estimate's error against GAE's lambda.

    The variance is that of one estimate; a mean of so many `averaged` divides it.
    """
    bias, spread = np.asarray(squared_bias, float), np.asarray(variance, float)
    spread = spread / averaged
    of_mean = f" of the mean of {averaged}" if averaged > 1 else ""
    figure, axes = new_figure(7.0, 3.9)
    axes.plot(lambdas, bias, label="bias, squared")
    axes.plot(lambdas, spread, label=f"variance{of_mean}")
    axes.plot(lambdas, bias + spread, color="black", ls="--", label="both")
    axes.set(
        xlabel="λ (0: trust the values, 1: trust the rewards)",
        ylabel="squared error of the advantage",
        ylim=(0, None),
    )
    axes.legend()
    return figure


@styled
def trust_region_step(
    scales: ArrayLike,
    kl: ArrayLike,
    gain: ArrayLike,
    expected_gain: ArrayLike,
    bound: float,
    other: tuple[str, ArrayLike, ArrayLike] | None = None,
) -> Figure:
    """Draw KL and gain along a step, measured and as its expansion predicts.

    Args:
        scales: how much of the step is taken; 1 is where the quadratic model of the KL
            meets the bound.
        kl: measured, nats a token.
        gain: of the surrogate, measured.
        expected_gain: by the gradient.
        bound: of the KL.
        other: name, KL and gain of a step in another direction, to compare with.
    """
    scales, kl = np.asarray(scales, float), np.asarray(kl, float)
    figure, (left, right) = new_panels(9.5, 3.9, 2)
    left.plot(scales, kl, label="measured")
    left.plot(scales, bound * scales**2, color=GREY, ls="--", marker="")
    left.plot([], [], color=GREY, ls="--", marker="", label="quadratic model")
    left.axhline(bound, color=COLOURS[1], ls=":", marker="", label="bound")
    left.set(xlabel="share of the step", ylabel="KL from before (nats a token)")
    left.legend(**ABOVE_LEFT, ncols=2)
    right.plot(kl, gain, label="natural gradient")
    label = "if the slope held"
    right.plot(kl, expected_gain, color=GREY, ls="--", marker="", label=label)
    if other is not None:
        name, other_kl, other_gain = other
        right.plot(other_kl, other_gain, color=COLOURS[2], label=name)
    right.axvline(bound, color=COLOURS[1], ls=":", marker="", label="bound")
    right.set(xlabel="KL from before (nats a token)", ylabel="surrogate gained")
    right.set_xlim(-0.03 * kl.max(), 1.05 * kl.max())
    right.locator_params(axis="x", nbins=4)
    right.legend(**ABOVE_LEFT, ncols=2)
    return figure


@styled
def runs_with_alarms(
    histories: Mapping[str, History],
    columns: Mapping[str, str],
    alarms: Mapping[str, Sequence[tuple[float, str]]],
) -> Figure:
    """Draw columns of several runs, and when the monitor raised which alarm.

    A panel a column, by the label of its axis; alarms by the run's name, each with its
    update and its name. Names stand under the panels, by the numbers over the lines.
    """
    figure, panels = new_panels(4.9 * len(columns), 4.6, len(columns))
    raised = [mark for name in histories for mark in alarms.get(name, ())]
    numbers = {name: i for i, name in enumerate(dict(x[::-1] for x in raised), 1)}
    for axes, (column, label) in zip(panels, columns.items(), strict=True):
        for i, (name, history) in enumerate(histories.items()):
            look = {"color": COLOURS[i % len(COLOURS)], "mfc": "none"}
            look |= {"ms": 4 + 4 * (i == 0), "marker": MARKERS[i % len(MARKERS)]}
            axes.plot(history["step"], history[column], label=name, **look)
        _number_alarms(axes, raised, numbers)
        axes.set(xlabel="update (dotted: an alarm, by number)", ylabel=label)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper left", ncols=3)
    listed = [f"{number} {name}" for name, number in numbers.items()]
    rows = [";  ".join(listed[i : i + 3]) for i in range(0, len(listed), 3)]
    if rows:
        figure.supxlabel("\n".join(rows), fontsize=11)
    return figure


def _number_alarms(
    axes: Axes, raised: Sequence[tuple[float, str]], numbers: Mapping[str, int]
) -> None:
    """A dotted line at each update with an alarm, their numbers over it."""
    at: dict[float, set[int]] = {}
    for step, name in raised:
        at.setdefault(step, set()).add(numbers[name])
    over = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
    for step, found in at.items():
        axes.axvline(step, color=GREY, ls=":", lw=1.4, marker="")
        axes.text(step, 1.01, "\n".join(map(str, sorted(found))), **over, fontsize=10)


@styled
def hacking(
    updates: ArrayLike,
    gold: Sequence[Estimate],
    proxy: Sequence[Estimate],
    alarm: float | None = None,
    second: Sequence[Estimate] = (),
    witness: str = "gold",
) -> Figure:
    """Draw gold and the proxy that is optimised against the updates, each on its scale.

    A second opinion, of a judge that is not optimised, is on the proxy's scale; the
    alarm is the update of the monitor's first; the witness is what stands for gold.
    """
    figure, left = new_figure(7.5, 4.2)
    right = left.twinx()
    errorbar(left, updates, gold, f"{witness}, not optimised (left axis)")
    look = {"color": COLOURS[1], "marker": "s", "ls": "--"}
    right.plot(updates, values(proxy), **look, label="proxy, optimised (right)")
    if second:
        look = {"color": COLOURS[2], "marker": "^", "ls": "--"}
        right.plot(updates, values(second), **look, label="second opinion (right)")
    right.spines["right"].set_visible(True)
    right.grid(visible=False)
    if alarm is not None:
        left.axvline(alarm, color="black", ls=":", marker="", label="first alarm")
    left.set(xlabel="update", ylabel=f"{witness}, held-out answers (solid)")
    right.set_ylabel("score, deviations of the start (dashed)")
    handles, labels = left.get_legend_handles_labels()
    more, names = right.get_legend_handles_labels()
    above = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    left.legend(handles + more, labels + names, **above, ncols=2)
    return figure


@styled
def by_seed(
    groups: Mapping[str, Sequence[float]],
    xlabel: str,
    bar: tuple[float, str] | None = None,
) -> Figure:
    """Draw every run of every group as a point, and each group's mean.

    The axis spans a quarter of the largest value at least, or noise would look large.
    """
    figure, axes = new_figure(7.5, 1.6 + 0.45 * len(groups))
    look = {"ls": "none", "marker": "o", "ms": 5, "alpha": 0.6, "color": COLOURS[0]}
    for row, found in enumerate(groups.values()):
        spread = np.linspace(-0.16, 0.16, len(found)) if len(found) > 1 else [0.0]
        axes.plot(found, row + np.array(spread), **look)
        mean = np.mean(found)
        axes.plot([mean, mean], [row - 0.3, row + 0.3], color="black", marker="")
    level(axes, bar, vertical=True)
    if bar:
        axes.legend(**ABOVE)
    name_rows(axes, groups)
    low, high = axes.get_xlim()
    missing = max(np.max(np.abs([low, high])) / 4 - (high - low), 0)
    axes.set(xlabel=xlabel, xlim=(low - missing / 2, high + missing / 2))
    return figure


@styled
def trials(histories: Mapping[Any, History], column: str, ylabel: str) -> Figure:
    """Draw the trials of a search, the best in colour; stopped ones end early."""
    longest = max(len(history.rows) for history in histories.values())
    finished = [h for h in histories.values() if len(h.rows) == longest]
    best = max(finished, key=lambda history: history[column][-1])
    figure, axes = new_figure()
    other = {"color": GREY, "alpha": 0.5, "marker": "o", "ms": 4}
    for history in histories.values():
        axes.plot(history["step"], history[column], **other, lw=1.4)
    look = {"color": COLOURS[1], "marker": "o", "label": "best"}
    axes.plot(best["step"], best[column], **look)
    axes.plot([], [], **other, label="other trials")
    axes.set(xlabel="update", ylabel=ylabel)
    axes.legend()
    return figure
