"""Every figure of the labs: one function each, data in, matplotlib Figure out.

Nothing is computed here that a reader would want to check, and nothing is shown:
a notebook displays the figure that a cell ends with. Colours are those of Okabe and
Ito, which colour-blind readers tell apart; series differ by marker too. Those about
policies stand in `policy_plots`, those about reinforcement learning in `rl_plots`;
every name can be imported from here.
"""

import itertools
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from labs_helpers.evaluation import Estimate, OveroptimisationFit, mean, reliability
from labs_helpers.fit import History
from labs_helpers.plots.policies import (
    comparisons_for_proof,
    gold_against_kl,
    preference_logprobs,
    ratings,
    win_rates,
)
from labs_helpers.plots.rl import (
    bias_and_variance,
    by_seed,
    clipped_surrogate,
    hacking,
    runs_with_alarms,
    trials,
    trust_region_step,
    variance_by_baseline,
)
from labs_helpers.plots.style import (
    COLOURS,
    GREY,
    distances,
    errorbar,
    level,
    new_figure,
    style,
)

__all__ = [
    "against_size",
    "agreement_heatmap",
    "bars_with_intervals",
    "best_of_n_curves",
    "bias_and_variance",
    "by_seed",
    "clipped_surrogate",
    "comparisons_for_proof",
    "gold_against_kl",
    "hacking",
    "histograms",
    "overoptimisation",
    "preference_logprobs",
    "ratings",
    "reliability_diagram",
    "runs_with_alarms",
    "scatter_against_truth",
    "training_curve",
    "trials",
    "trust_region_step",
    "variance_by_baseline",
    "win_rates",
]


def training_curve(
    histories: History | Mapping[str, History],
    column: str = "loss",
    ylabel: str | None = None,
    reference: tuple[float, str] | None = None,
) -> Figure:
    """Draw one column of one or several training runs by step.

    Args:
        histories: a run, or runs by name.
        column: what to draw; steps that did not log it are passed over.
        ylabel: says what it is, with its unit.
        reference: a level to compare with, and what it is.
    """
    if isinstance(histories, History):
        histories = {"": histories}
    with style():
        figure, axes = new_figure()
        for name, history in histories.items():
            values = history[column]
            logged = np.isfinite(values)
            few = logged.sum() <= 15
            axes.plot(
                history["step"][logged],
                values[logged],
                label=name,
                markersize=5 if few else 0,
            )
        if reference:
            level(axes, *reference)
        axes.set(xlabel="optimiser step", ylabel=ylabel or column.replace("_", " "))
        if len(histories) > 1 or reference:
            axes.legend()
    return figure


def reliability_diagram(
    predictions: Mapping[str, tuple[ArrayLike, ArrayLike]], bins: int = 10
) -> Figure:
    """Draw what was predicted against what came, for one or several predictors.

    Args:
        predictions: by name, the stated probabilities and the labels (1 or 0).
        bins: groups of like predictions, equally many in each.
    """
    with style():
        figure, axes = new_figure(5.6, 5.2)
        axes.plot([0, 1], [0, 1], color=GREY, ls="--", marker="", label="calibrated")
        for name, (stated, labels) in predictions.items():
            table = reliability(stated, labels, bins)
            errorbar(
                axes,
                [row.predicted for row in table],
                [row.observed for row in table],
                label=name,
            )
        axes.set(
            xlabel="predicted probability of preference",
            ylabel="share preferred (95 % interval)",
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            aspect="equal",
        )
        axes.legend(loc="upper left")
    return figure


def bars_with_intervals(
    labels: Sequence[str],
    estimates: Sequence[Estimate],
    reference: tuple[float, str] | None = None,
    xlabel: str = "",
) -> Figure:
    """Draw values with their intervals, one to a line, first on top.

    Args:
        labels: what each is.
        estimates: their values.
        reference: a level to compare with, and what it is.
        xlabel: what is measured, with its unit.
    """
    with style():
        figure, axes = new_figure(7.5, 1.5 + 0.48 * len(labels))
        places = np.arange(len(labels))
        axes.barh(places, [e.value for e in estimates], 0.62, color=COLOURS[0])
        lows, highs = distances(estimates)
        axes.errorbar(
            [e.value for e in estimates],
            places,
            xerr=(lows, highs),
            color="black",
            ls="none",
            marker="",
            lw=1.6,
        )
        for place, estimate in zip(places, estimates, strict=True):
            axes.text(
                1.02,
                place,
                f"{estimate.value:.2f}".replace("-", "−"),
                transform=axes.get_yaxis_transform(),
                va="center",
            )
        if reference:
            level(axes, *reference, vertical=True)
            axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0))
        axes.set(xlabel=xlabel, yticks=places, yticklabels=labels)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
    return figure


def best_of_n_curves(
    ns: Sequence[int],
    curves: Mapping[str, np.ndarray],
    ylabel: str = "expected score of the chosen answer",
) -> Figure:
    """Draw what choosing the best of n answers by a proxy does to rewards.

    Args:
        ns: how many answers the proxy chooses from.
        curves: by name, a (prompts, len(ns)) array of `best_of_n`; the intervals are
            over prompts.
        ylabel: what the curves measure.
    """
    with style():
        figure, axes = new_figure()
        for name, curve in curves.items():
            estimates = [mean(column) for column in np.asarray(curve).T]
            (line,) = axes.plot(ns, [e.value for e in estimates], label=name)
            axes.fill_between(
                ns,
                [e.low for e in estimates],
                [e.high for e in estimates],
                color=line.get_color(),
                alpha=0.18,
                lw=0,
            )
        axes.set_xscale("log", base=2)
        axes.set(xlabel="n answers to choose from", ylabel=ylabel, xticks=ns)
        axes.xaxis.set_major_formatter(mpl.ticker.ScalarFormatter())
        axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        axes.legend()
    return figure


def agreement_heatmap(
    names: Sequence[str],
    matrix: ArrayLike,
    label: str = "Cohen's kappa",
    lowest: float = 0.0,
) -> Figure:
    """Draw how far each pair of annotators or judges agrees.

    Args:
        names: the annotators.
        matrix: their agreement; NaN is left blank.
        label: what the numbers are.
        lowest: end of the colour scale, which begins at 1.
    """
    matrix = np.ma.masked_invalid(np.asarray(matrix, float))
    with style():
        size = 2.6 + 0.72 * len(names)
        figure, axes = new_figure(size + 1.0, size)
        image = axes.imshow(matrix, cmap="cividis", vmin=lowest, vmax=1)
        for i, j in zip(*np.nonzero(~np.ma.getmaskarray(matrix)), strict=True):
            dark = (matrix[i, j] - lowest) / (1 - lowest) < 0.55
            axes.text(
                j,
                i,
                f"{matrix[i, j]:.2f}",
                ha="center",
                va="center",
                color="white" if dark else "black",
            )
        places = np.arange(len(names))
        axes.set_xticks(places, names, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(places, names)
        axes.grid(visible=False)
        axes.set(xlabel="annotator", ylabel="annotator")
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, label=label, shrink=0.85)
    return figure


def histograms(
    groups: Mapping[str, ArrayLike],
    xlabel: str,
    bins: int = 30,
    reference: tuple[float, str] | None = None,
) -> Figure:
    """Draw how values are spread in one or several groups, each as a share of its own.

    Args:
        groups: values by name.
        xlabel: what is measured, with its unit.
        bins: over the range of all groups.
        reference: a value to compare with, and what it is.
    """
    values = {name: np.asarray(group, float) for name, group in groups.items()}
    edges = np.histogram_bin_edges(np.concatenate([*values.values()]), bins)
    lines = itertools.cycle(("-", "--", "-.", ":"))
    with style():
        figure, axes = new_figure()
        for (name, group), colour, line in zip(
            values.items(), itertools.cycle(COLOURS), lines
        ):
            share = np.histogram(group, edges)[0] / max(len(group), 1)
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.18)
            axes.stairs(
                share,
                edges,
                color=colour,
                lw=2,
                ls=line,
                label=f"{name} (n = {len(group)})",
            )
        if reference:
            level(axes, *reference, vertical=True)
        axes.set(xlabel=xlabel, ylabel="share of its group")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return figure


def against_size(
    sizes: Sequence[float],
    series: Mapping[str, Sequence[Estimate]],
    xlabel: str,
    ylabel: str,
    ceiling: tuple[float, str] | None = None,
) -> Figure:
    """Draw a measure against the amount of data (or parameters, or noise).

    Args:
        sizes: where each series was measured; drawn on a log scale if all above 0.
        series: estimates by name.
        xlabel: what the sizes are.
        ylabel: what is measured, with its unit.
        ceiling: the level that nothing can exceed, and its name.
    """
    with style():
        figure, axes = new_figure()
        for name, estimates in series.items():
            errorbar(axes, sizes, estimates, label=name)
        if ceiling:
            level(axes, *ceiling)
        if min(sizes) > 0:
            axes.set_xscale("log")
            axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
            axes.set_xticks(sizes, [f"{size:,.10g}" for size in sizes])
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def scatter_against_truth(
    truth: ArrayLike,
    estimates: Mapping[str, ArrayLike],
    xlabel: str = "true score",
    ylabel: str = "estimated score",
    diagonal: bool = False,
) -> Figure:
    """Draw what was estimated against what is true, one point an item.

    Args:
        truth: the true values.
        estimates: by name, estimates of the same items.
        xlabel: what is true.
        ylabel: what is estimated.
        diagonal: draw the line of equality, where both have one scale.
    """
    truth = np.asarray(truth, float)
    with style():
        figure, axes = new_figure(6.2, 5.2)
        for name, values in estimates.items():
            axes.plot(
                truth, values, ls="none", markersize=5, alpha=0.45, mew=0, label=name
            )
        if diagonal:
            ends = [truth.min(), truth.max()]
            axes.plot(ends, ends, color=GREY, ls="--", marker="", label="equal")
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if len(estimates) > 1 or diagonal:
            for handle in axes.legend().legend_handles:
                handle.set_alpha(1)
    return figure


def overoptimisation(
    distance: ArrayLike,
    gold: Sequence[Estimate],
    proxy: Sequence[Estimate] | None = None,
    fit: OveroptimisationFit | None = None,
    ylabel: str = "reward gained over the start",
) -> Figure:
    """Draw gold, and the proxy that was optimised, against the distance travelled.

    Args:
        distance: sqrt(KL) from the start, point by point.
        gold: the true reward gained.
        proxy: the optimised reward gained, on the scale of gold.
        fit: the curve of Gao et al., with its peak.
        ylabel: what the rewards are.
    """
    distance = np.asarray(distance, float)
    with style():
        figure, axes = new_figure()
        errorbar(axes, distance, gold, "gold (true)")
        if proxy is not None:
            errorbar(axes, distance, proxy, "proxy (optimised)")
        if fit is not None:
            grid = np.linspace(0, distance.max(), 200)
            law = "d (a − b d)" if fit.kind == "bon" else "d (a − b log d)"
            axes.plot(
                grid,
                fit.predict(grid),
                color="black",
                ls="--",
                marker="",
                label=f"{law}, a = {fit.a:.2f}, b = {fit.b:.2f}",
            )
            if fit.peak <= distance.max():
                axes.axvline(fit.peak, color=GREY, ls=":", label="peak of the fit")
        axes.set(xlabel="distance d = √KL from the start (√nats)", ylabel=ylabel)
        axes.legend()
    return figure
