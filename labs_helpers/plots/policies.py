"""Figures about policies: how good, how far from where they began, who beats whom."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from labs_helpers.evaluation import Estimate, Optimum, WinRate
from labs_helpers.fit import History
from labs_helpers.plots.style import (
    ABOVE,
    BESIDE,
    COLOURS,
    GREY,
    LINES,
    MARKERS,
    Figure,
    across,
    level,
    name_rows,
    new_figure,
    new_panels,
    point,
    styled,
)

KL = "KL from the reference (nats per answer)"
# What learnt from the same has the same colour; every method has a marker of its own.
FAMILIES = {
    "start": {"SFT": "*"},
    "offline, 400 comparisons": {"DPO": "o", "IPO": "s", "KTO": "^", "SLiC": "D"},
    "on-policy, gold itself": {
        **{"REINFORCE": "v", "actor-critic": "<", "TRPO": ">", "PPO": "p"}
    },
    "principles, by a critic that\nlearned from the truth": {
        **{"SL-CAI": "P", "RL-CAI": "X"}
    },
}


@styled
def gold_against_kl(
    policies: Mapping[str, tuple[Estimate, Estimate]],
    frontier: Sequence[Optimum] = (),
    curves: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    ylabel: str = "mean gold reward",
) -> Figure:
    """Draw policies on the plane of KL and gold, under the best that is attainable.

    Args:
        policies: by name, KL from the reference and reward.
        frontier: optima for several KL weights; no policy can lie above their line.
        curves: by name, KL and reward of what is no trained policy (best of n).
        ylabel: what the reward is.
    """
    figure, axes = new_figure(8.0, 4.8)
    if frontier:
        optima = [(o.kl.mean(), o.reward.mean(), o.objective.mean()) for o in frontier]
        axes.plot(*_frontier(optima), color="black", marker="", label="optimum")
    for i, (name, curve) in enumerate((curves or {}).items()):
        axes.plot(*curve, color=GREY, ls=LINES[1 + i % 3], marker="", label=name)
    for name, (kl, reward) in policies.items():
        point(axes, kl, reward, label=name, markersize=8)
    axes.set(xlabel=KL, ylabel=ylabel)
    axes.legend(**BESIDE)
    return figure


def _frontier(optima: Sequence[tuple[float, float, float]]) -> np.ndarray:
    """KL and reward along a smooth curve through optima (KL, reward, objective).

    Straight lines between them would run below what is attainable. By the envelope
    theorem the slope in an optimum is its price of KL, w, and w KL is the reward less
    the objective. In the root of KL the curve is nearly straight at 0, where no slope
    is known: there, two points and one slope give a parabola.
    """
    kl, reward, objective = np.array(sorted(set(optima))).T
    root = np.sqrt(np.maximum(kl, 0))
    slope = 2 * (reward - objective) / np.maximum(root, 1e-9)
    if root[0] < 1e-6 and len(root) > 1:
        slope[0] = 2 * (reward[1] - reward[0]) / (root[1] - root[0]) - slope[1]
    pieces = [np.array([[kl[0]], [reward[0]]])]
    for i in np.flatnonzero(np.diff(root) > 1e-9):
        width, t = root[i + 1] - root[i], np.linspace(0, 1, 25)[1:]
        bend = t * (1 - t) * ((1 - t) * slope[i] - t * slope[i + 1]) * width
        ends = t * t * (3 - 2 * t)
        along = reward[i] * (1 - ends) + reward[i + 1] * ends + bend
        pieces.append(np.array([(root[i] + width * t) ** 2, along]))
    return np.concatenate(pieces, axis=1)


@styled
def gold_against_kl_by_method(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw every method of the labs; large points are means, small ones single seeds.

    Rows have `method`, `n`, `kl` and `gold`; the methods "optimum" (n: its price of KL)
    and "best of n" are drawn as lines. The KL of best of n is an upper bound, and it
    chooses by the gold of the very prompts that are tested.
    """

    def of(method: str, **kept: Any) -> np.ndarray:
        found = [x for x in rows if {"method": method, **kept}.items() <= x.items()]
        return np.array([(row["kl"], row["gold"]) for row in found])

    figure, axes = new_figure(8.4, 5.0)
    optima = [
        (row["kl"], row["gold"], row["gold"] - float(row["n"]) * row["kl"])
        for row in rows
        if row["method"] == "optimum"
    ]
    axes.plot(*_frontier(optima), color="black", marker="", label="optimum")
    ns = sorted({row["n"] for row in rows if row["method"] == "best of n"})
    line = np.array([of("best of n", n=n).mean(axis=0) for n in ns])
    label = "best of n by gold\n(KL at most this)"
    axes.plot(*line.T, color=GREY, ls="--", marker="", label=label)
    colours = ("#000000", *COLOURS)
    for colour, (family, methods) in zip(colours, FAMILIES.items(), strict=False):
        axes.plot([], [], ls="none", marker="", label=family)
        for method, marker in methods.items():
            points = of(method)
            if len(points):
                same = {"ls": "none", "marker": marker, "color": colour}
                axes.plot(*points.T, markersize=4, alpha=0.5, mew=0, **same)
                hollow = {"mfc": "none", "mew": 2, "label": method}
                axes.plot(*points.mean(axis=0), markersize=10, **same, **hollow)
    small = {"color": GREY, "marker": "o", "markersize": 4, "alpha": 0.5, "mew": 0}
    axes.plot([], [], ls="none", label="small: single seeds", **small)
    axes.set(xlabel=KL, ylabel="mean gold reward")
    legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=10)
    for text in legend.get_texts():
        if text.get_text() in FAMILIES:
            text.set_fontweight("bold")
    return figure


@styled
def answer_probabilities(
    answers: Sequence[str], distributions: Mapping[str, ArrayLike], title: str
) -> Figure:
    """Draw distributions over a few answers, a bar each, side by side.

    Args:
        answers: what the rows are called, likely ones first.
        distributions: by name, the answers' probabilities.
        title: what is measured of them.
    """
    figure, axes = new_figure(8.4, 1.2 + 0.5 * len(answers))
    height = 0.8 / len(distributions)
    for i, (name, shares) in enumerate(distributions.items()):
        rows = np.arange(len(answers)) + (i + 0.5) * height - 0.4
        axes.barh(rows, np.asarray(shares), height, color=COLOURS[i], label=name)
    name_rows(axes, answers)
    axes.set(xlabel="probability of the answer", xlim=(0, 1), title=title)
    axes.legend(loc="lower right")  # the likely answers come first
    return figure


@styled
def win_rates(
    rates: Mapping[str, WinRate], xlabel: str = "win rate against the SFT policy"
) -> Figure:
    """Draw win rates with their intervals, with ties as halves and without ties."""
    figure, axes = new_figure(7.5, 1.7 + 0.55 * len(rates))
    level(axes, (0.5, "no better"), vertical=True)
    rows = np.arange(len(rates))
    across(axes, rows - 0.14, [*rates.values()], label="ties half")
    without = [rate.without_ties for rate in rates.values()]
    across(axes, rows + 0.14, without, label="without ties")
    name_rows(axes, rates)
    least = min([0.4, *(r.low for r in [*rates.values(), *without] if r.low >= 0)])
    axes.set(xlabel=xlabel, xlim=(np.floor(10 * least) / 10 - 0.02, 1.02))
    axes.legend(**ABOVE, ncols=3)
    return figure


@styled
def ratings(estimates: Mapping[str, Estimate], baseline: str | None = None) -> Figure:
    """Draw `bradley_terry_ratings` with their intervals, the best on top."""
    ordered = dict(sorted(estimates.items(), key=lambda item: -item[1].value))
    against = "the mean" if baseline is None else baseline
    figure, axes = new_figure(7.5, 1.5 + 0.45 * len(ordered))
    level(axes, (0.0, against), vertical=True)
    across(axes, np.arange(len(ordered)), [*ordered.values()])
    name_rows(axes, ordered)
    axes.set(xlabel=f"rating: log odds of winning against {against}")
    return figure


@styled
def preference_logprobs(history: History) -> Figure:
    """Draw how far chosen and rejected answers moved from the reference in training.

    A panel each, for one may move a hundred times as far as the other: their distance
    is what a preference loss asks for, and both may fall.
    """
    figure, panels = new_panels(9.0, 4.0, 2)
    for i, (side, axes) in enumerate(zip(("chosen", "rejected"), panels, strict=True)):
        logged = np.isfinite(history[f"{side}_logratio"])
        look = {"color": COLOURS[i], "marker": MARKERS[i], "label": side}
        look["markersize"] = 5 if logged.sum() <= 15 else 0
        steps, moved = history["step"][logged], history[f"{side}_logratio"][logged]
        axes.plot(steps, moved, **look)
        level(axes, (0.0, "the reference"))
        axes.set(xlabel="optimiser step", title=f"{side} answers")
        axes.legend()
    panels[0].set_ylabel("mean log-prob, less the reference's (nats)")
    return figure


@styled
def gain_and_tax(policies: Mapping[str, tuple[Estimate, Estimate]]) -> Figure:
    """Draw policies by their gain in a goal, across, and their alignment tax, up."""
    figure, axes = new_figure(8.0, 4.8)
    level(axes, (0.0, "as before"))
    level(axes, (0.0, "_no gain"), vertical=True)
    for name, (gain, tax) in policies.items():
        point(axes, gain, tax, label=name, markersize=8)
    axes.set(xlabel="gain in the goal: win rate over the start, less one half")
    axes.set_ylabel("tax: fall in the share of tasks done right")
    axes.legend(**BESIDE)
    return figure


@styled
def comparisons_for_proof(ns: ArrayLike, power: Mapping[float, ArrayLike]) -> Figure:
    """Draw the chance that n comparisons prove a true win rate to differ from 1/2.

    The power stands by true win rate, a chance for each n, as `win_rate_power` gives.
    """
    figure, axes = new_figure(8.0, 4.2)
    for i, (rate, chances) in enumerate(power.items()):
        label = f"true win rate {rate:g}"
        axes.plot(ns, chances, ls=LINES[i % 4], marker="", label=label)
    level(axes, (0.8, "power 0.8"))
    axes.set_xscale("log")
    ticks = [n for n in (5, 10, 20, 50, 100, 200, 500, 1000, 2000) if n <= np.max(ns)]
    axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
    axes.set(
        xlabel="number of comparisons",
        ylabel="chance of a conclusion (5 % level)",
        ylim=(0, 1.02),
    )
    axes.legend(**BESIDE)
    return figure
