"""Figures about policies: how good, how far from where they began, who beats whom.

As in `plots`, from which every name can be imported: one function each, data in,
matplotlib Figure out, nothing shown.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from labs_helpers.evaluation import Estimate, Optimum, WinRate, win_rate_power
from labs_helpers.fit import History
from labs_helpers.plots.style import GREY, distances, level, new_figure, style

LINES = ("-", "--", "-.", ":")


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
    with style():
        figure, axes = new_figure(8.0, 4.8)
        if frontier:
            ends = sorted(
                (float(o.kl.mean()), float(o.reward.mean())) for o in frontier
            )
            kls, rewards = np.array(ends).T
            axes.plot(kls, rewards, color="black", marker="", label="optimum")
        for i, (name, (kls, rewards)) in enumerate((curves or {}).items()):
            line = LINES[1 + i % 3]
            axes.plot(kls, rewards, color=GREY, ls=line, marker="", label=name)
        for name, (kl, reward) in policies.items():
            axes.errorbar(
                kl.value,
                reward.value,
                xerr=distances([kl]),
                yerr=distances([reward]),
                ls="none",
                markersize=8,
                label=name,
            )
        axes.set(xlabel="KL from the reference (nats per answer)", ylabel=ylabel)
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def win_rates(
    rates: Mapping[str, WinRate], xlabel: str = "win rate against the SFT policy"
) -> Figure:
    """Draw win rates with their intervals, with ties as halves and without ties.

    Args:
        rates: by name of the policy, first on top.
        xlabel: of what, against whom.
    """
    with style():
        figure, axes = new_figure(7.5, 1.7 + 0.55 * len(rates))
        level(axes, 0.5, "no better", vertical=True)
        rows = np.arange(len(rates))
        kinds = {
            "ties half": [*rates.values()],
            "without ties": [rate.without_ties for rate in rates.values()],
        }
        for (label, estimates), offset in zip(
            kinds.items(), (-0.14, 0.14), strict=True
        ):
            _row_of_points(axes, rows + offset, estimates, label)
        _name_rows(axes, rates)
        axes.set(xlabel=xlabel, xlim=(-0.02, 1.02))
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3)
    return figure


def ratings(estimates: Mapping[str, Estimate], baseline: str | None = None) -> Figure:
    """Draw Bradley-Terry ratings with their intervals, the best on top.

    Args:
        estimates: by name, as `bradley_terry_ratings` gives them.
        baseline: the policy rated 0, to be named at the axis.
    """
    ordered = dict(sorted(estimates.items(), key=lambda item: -item[1].value))
    against = "the mean" if baseline is None else baseline
    with style():
        figure, axes = new_figure(7.5, 1.5 + 0.45 * len(ordered))
        level(axes, 0.0, against, vertical=True)
        _row_of_points(axes, np.arange(len(ordered)), [*ordered.values()], None)
        _name_rows(axes, ordered)
        axes.set(xlabel=f"rating: log odds of winning against {against}")
    return figure


def preference_logprobs(history: History) -> Figure:
    """Draw the mean log-probs of chosen and rejected answers in the course of training.

    Their distance is what a preference loss asks for; both may fall.

    Args:
        history: of a run with pairs (`chosen_logprob`, `rejected_logprob`).
    """
    with style():
        figure, axes = new_figure()
        for side in ("chosen", "rejected"):
            values = history[f"{side}_logprob"]
            logged = np.isfinite(values)
            (line,) = axes.plot(history["step"][logged], values[logged], label=side)
            line.set_markersize(5 if logged.sum() <= 15 else 0)
            start = values[logged][0]
            axes.axhline(start, color=line.get_color(), ls=":", lw=1.4, marker="")
        axes.set(
            xlabel="optimiser step (dotted: where each began)",
            ylabel="mean log-prob of an answer (nats)",
        )
        axes.legend()
    return figure


def comparisons_for_proof(
    rates: Sequence[float] = (0.55, 0.6, 0.65, 0.75),
    most: int = 1000,
    ties: float = 0.0,
) -> Figure:
    """Draw the chance that n comparisons prove a true win rate to differ from 1/2.

    Args:
        rates: true win rates, a line each.
        most: the largest n.
        ties: share of ties, which count half.
    """
    ns = np.unique(np.geomspace(5, most, 200).round())
    with style():
        figure, axes = new_figure(8.0, 4.2)
        for i, rate in enumerate(rates):
            power, line = win_rate_power(rate, ns, ties), LINES[i % 4]
            axes.plot(ns, power, ls=line, marker="", label=f"true win rate {rate:g}")
        level(axes, 0.8, "power 0.8")
        axes.set_xscale("log")
        ticks = [n for n in (5, 10, 20, 50, 100, 200, 500, 1000, 2000) if n <= most]
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axes.set(
            xlabel="number of comparisons",
            ylabel="chance of a conclusion (5 % level)",
            ylim=(0, 1.02),
        )
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def _row_of_points(
    axes: Axes, rows: np.ndarray, estimates: Sequence[Estimate], label: str | None
) -> None:
    values = [estimate.value for estimate in estimates]
    axes.errorbar(values, rows, xerr=distances(estimates), ls="none", label=label)


def _name_rows(axes: Axes, names: Mapping[str, Estimate]) -> None:
    axes.set_yticks(np.arange(len(names)), [*names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
