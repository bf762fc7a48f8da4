"""Figures about training and measures: curves, bars, tables, spreads.

One function each, data in, matplotlib Figure out. Nothing is shown: a notebook displays
the figure that a cell ends with.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from labs_helpers.evaluation import Estimate, OveroptimisationFit, ReliabilityBin
from labs_helpers.fit import History
from labs_helpers.plots.style import (
    ABOVE,
    ABOVE_LEFT,
    COLOURS,
    GREY,
    LINES,
    Figure,
    distances,
    errorbar,
    heat_map,
    level,
    new_figure,
    styled,
    values,
)

Level = tuple[float, str]  # to compare with, and what it is


@styled
def training_curve(
    histories: History | Mapping[str, History],
    column: str = "loss",
    ylabel: str | None = None,
    reference: Level | None = None,
    xlabel: str = "optimiser step",
) -> Figure:
    """Draw one column of one or several training runs by step; gaps are passed over."""
    if isinstance(histories, History):
        histories = {"": histories}
    figure, axes = new_figure()
    for name, history in histories.items():
        logged = np.isfinite(history[column])
        size = 5 if logged.sum() <= 15 else 0
        x, y = history["step"][logged], history[column][logged]
        axes.plot(x, y, label=name, markersize=size)
    level(axes, reference)
    axes.set(xlabel=xlabel, ylabel=ylabel or column.replace("_", " "))
    if len(histories) > 1 or reference:
        axes.legend()
    return figure


@styled
def reliability_diagram(tables: Mapping[str, Sequence[ReliabilityBin]]) -> Figure:
    """Draw what was predicted against what came: `reliability`, by predictor."""
    figure, axes = new_figure(5.6, 5.2)
    axes.plot([0, 1], [0, 1], color=GREY, ls="--", marker="", label="calibrated")
    for name, table in tables.items():
        predicted = [row.predicted for row in table]
        errorbar(axes, predicted, [row.observed for row in table], name)
    axes.set(
        xlabel="predicted probability of preference",
        ylabel="share preferred (95 % interval)",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
        aspect="equal",
    )
    axes.legend(loc="upper left")
    return figure


@styled
def bars_with_intervals(
    labels: Sequence[str],
    estimates: Sequence[Estimate],
    reference: Level | None = None,
    xlabel: str = "",
) -> Figure:
    """Draw values with their intervals, one to a line, first on top."""
    figure, axes = new_figure(7.5, 1.5 + 0.48 * len(labels))
    places, lengths = np.arange(len(labels)), values(estimates)
    axes.barh(places, lengths, 0.62, color=COLOURS[0])
    line = {"color": "black", "ls": "none", "marker": "", "lw": 1.6}
    axes.errorbar(lengths, places, xerr=distances(estimates), **line)
    at_the_edge = {"transform": axes.get_yaxis_transform(), "va": "center"}
    for place, value in enumerate(lengths):
        axes.text(1.02, place, f"{value:.2f}".replace("-", "−"), **at_the_edge)
    level(axes, reference, vertical=True)
    if reference:
        axes.legend(**ABOVE)
    axes.set(xlabel=xlabel, yticks=places, yticklabels=labels)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    return figure


@styled
def best_of_n_curves(
    ns: Sequence[int],
    curves: Mapping[str, Sequence[Estimate]],
    ylabel: str = "expected score of the chosen answer",
) -> Figure:
    """Draw what the best of n answers by a proxy is worth, a curve a proxy."""
    from matplotlib.ticker import ScalarFormatter

    figure, axes = new_figure()
    for name, curve in curves.items():
        (line,) = axes.plot(ns, values(curve), label=name)
        lows, highs = np.array([estimate.ci for estimate in curve]).T
        axes.fill_between(ns, lows, highs, color=line.get_color(), alpha=0.18, lw=0)
    axes.set_xscale("log", base=2)
    axes.set(xlabel="n answers to choose from", ylabel=ylabel, xticks=ns)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.minorticks_off()
    axes.legend()
    return figure


@styled
def agreement_heatmap(names: Sequence[str], matrix: ArrayLike) -> Figure:
    """Draw Cohen's kappa of each pair of annotators; NaN is left blank."""
    size = 2.6 + 0.72 * len(names)
    figure, axes = new_figure(size + 1.0, size)
    image = heat_map(axes, matrix, names)
    axes.set_yticks(np.arange(len(names)), names)
    axes.set(xlabel="annotator", ylabel="annotator")
    figure.colorbar(image, ax=axes, label="Cohen's kappa", shrink=0.85)
    return figure


@styled
def histograms(
    groups: Mapping[str, ArrayLike],
    xlabel: str,
    reference: Level | None = None,
) -> Figure:
    """Draw how values are spread in one or several groups, as shares of each."""
    spread = [np.asarray(group, float) for group in groups.values()]
    edges = np.histogram_bin_edges(np.concatenate(spread), 30)
    figure, axes = new_figure()
    for i, (name, group) in enumerate(zip(groups, spread, strict=True)):
        colour, line = COLOURS[i % len(COLOURS)], LINES[i % len(LINES)]
        share = np.histogram(group, edges)[0] / max(len(group), 1)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.18)
        label = f"{name} (n = {len(group)})"
        axes.stairs(share, edges, color=colour, lw=2, ls=line, label=label)
    level(axes, reference, vertical=True)
    axes.set(xlabel=xlabel, ylabel="share of its group")
    axes.legend(**ABOVE_LEFT, ncols=2)
    return figure


@styled
def against_size(
    sizes: Sequence[float],
    series: Mapping[str, Sequence[Estimate]],
    xlabel: str,
    ylabel: str,
    ceiling: Level | None = None,
) -> Figure:
    """Draw a measure against the amount of data (or parameters, or noise).

    The scale is a log scale if all sizes are above 0; nothing exceeds the ceiling.
    """
    figure, axes = new_figure()
    for name, estimates in series.items():
        errorbar(axes, sizes, estimates, name)
    level(axes, ceiling)
    if min(sizes) > 0:
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(sizes, [f"{size:,.10g}" for size in sizes])
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend(**ABOVE_LEFT, ncols=3)
    return figure


@styled
def scatter_against_truth(
    truth: ArrayLike,
    estimates: Mapping[str, ArrayLike],
    xlabel: str = "true score",
    ylabel: str = "estimated score",
    diagonal: bool = False,
) -> Figure:
    """Draw what was estimated against what is true, one point an item.

    The diagonal is the line of equality, where both have one scale.
    """
    look = {"ls": "none", "markersize": 5, "alpha": 0.45, "mew": 0}
    figure, axes = new_figure(6.2, 5.2)
    for name, found in estimates.items():
        axes.plot(truth, found, **look, label=name)
    if diagonal:
        ends = [np.min(truth), np.max(truth)]
        axes.plot(ends, ends, color=GREY, ls="--", marker="", label="equal")
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if len(estimates) > 1 or diagonal:
        for handle in axes.legend().legend_handles:
            handle.set_alpha(1)
    return figure


@styled
def overoptimisation(
    distance: ArrayLike,
    gold: Sequence[Estimate],
    proxy: Sequence[Estimate] | None = None,
    fit: OveroptimisationFit | None = None,
    witness: str = "gold (true)",
) -> Figure:
    """Draw gold, and the proxy that was optimised, against the distance travelled.

    Distances are sqrt(KL) from the start, rewards what was gained over it, on one
    scale; the fit is the curve of Gao et al., with its peak; the witness is what
    stands for gold.
    """
    figure, axes = new_figure()
    errorbar(axes, distance, gold, witness)
    if proxy is not None:
        errorbar(axes, distance, proxy, "proxy (optimised)")
    if fit is not None:
        farthest = np.max(distance)
        grid = np.linspace(0, farthest, 200)
        law = "d (a − b d)" if fit.kind == "bon" else "d (a − b log d)"
        look = {"color": "black", "ls": "--", "marker": ""}
        label = f"{law}, a = {fit.a:.2f}, b = {fit.b:.2f}"
        axes.plot(grid, fit.predict(grid), **look, label=label)
        if fit.peak <= farthest:
            axes.axvline(fit.peak, color=GREY, ls=":", label="peak of the fit")
    axes.set(xlabel="distance d = √KL from the start (√nats)")
    axes.set_ylabel("reward gained over the start")
    axes.legend()
    return figure
