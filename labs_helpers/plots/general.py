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
    MARKERS,
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
LONG = 40  # points above which noise hides the trend


@styled
def training_curve(
    histories: History | Mapping[str, History],
    column: str = "loss",
    ylabel: str | None = None,
    reference: Level | Sequence[Level] | None = None,
    xlabel: str = "optimiser step",
) -> Figure:
    """Draw one column of one or several training runs by step; gaps are passed over.

    Of a long run the moving mean is drawn over what was logged; a reference is one
    level to compare with, or several.
    """
    if isinstance(histories, History):
        histories = {"": histories}
    levels = [reference] if isinstance(reference, tuple) else [*(reference or ())]
    figure, axes = new_figure()
    for i, (name, history) in enumerate(histories.items()):
        logged = np.isfinite(history[column])
        x, y = history["step"][logged], history[column][logged]
        look = {"color": COLOURS[i % len(COLOURS)], "ls": LINES[i % len(LINES)]}
        look["marker"] = MARKERS[i % len(MARKERS)]
        if len(x) > LONG:
            window = len(x) // 10
            axes.plot(x, y, **{**look, "lw": 1, "alpha": 0.35, "marker": ""})
            x, y = _moving_mean(x, window), _moving_mean(y, window)
            name = f"{name}, mean of {window}" if name else f"mean of {window}"
        axes.plot(x, y, label=name, ms=5 if len(x) <= 15 else 0, **look)
    for one, line in zip(levels, ("--", ":", "-."), strict=False):
        level(axes, one, ls=line)
    axes.set(xlabel=xlabel, ylabel=ylabel or column.replace("_", " "))
    if axes.get_legend_handles_labels()[0]:
        axes.legend(**ABOVE_LEFT, ncols=2)
    return figure


def _moving_mean(numbers: ArrayLike, window: int) -> np.ndarray:
    return np.convolve(numbers, np.full(window, 1 / window), "valid")


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
    digits = 3 if np.nanmax(np.abs(lengths)) < 0.2 else 2  # small ones look alike
    for place, value in enumerate(lengths):
        written = f"{value:.{digits}f}".replace("-", "−")
        axes.text(1.02, place, written, **at_the_edge)
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
    for i, (name, curve) in enumerate(curves.items()):
        look = {"ls": LINES[i % len(LINES)], "mfc": "none"}  # none hides another
        (line,) = axes.plot(ns, values(curve), label=name, **look)
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
    """Draw how values are spread in one or several groups, as shares of each.

    A triangle on the axis marks the mean of each.
    """
    spread = [np.asarray(group, float) for group in groups.values()]
    edges = np.histogram_bin_edges(np.concatenate(spread), 30)
    figure, axes = new_figure()
    for i, (name, group) in enumerate(zip(groups, spread, strict=True)):
        colour, line = COLOURS[i % len(COLOURS)], LINES[i % len(LINES)]
        share = np.histogram(group, edges)[0] / max(len(group), 1)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.18)
        mean = np.mean(group) if len(group) else np.nan
        label = f"{name} (n = {len(group)}, mean {mean:.2g})".replace("-", "−")
        axes.stairs(share, edges, color=colour, lw=2, ls=line, label=label)
        mark = {"marker": "^", "s": 90, "edgecolor": "black", "linewidth": 1.2}
        axes.scatter([mean], [0], color=colour, zorder=5, clip_on=False, **mark)
    level(axes, reference, vertical=True)
    axes.set(xlabel=f"{xlabel} (triangle: mean)", ylabel="share of its group")
    axes.legend(**ABOVE_LEFT)
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
    Series stand a little beside each other, so that every interval is seen.
    """
    figure, axes = new_figure()
    along = np.log(sizes) if min(sizes) > 0 else np.asarray(sizes, float)
    apart = 0.018 * np.ptp(along)
    for i, (name, estimates) in enumerate(series.items()):
        beside = along + apart * (i - (len(series) - 1) / 2)
        places = np.exp(beside) if min(sizes) > 0 else beside
        errorbar(axes, places, estimates, name, ls=LINES[i % len(LINES)])
    level(axes, ceiling)
    if min(sizes) > 0:
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xticks(sizes, [_size(size) for size in sizes])
    axes.set(xlabel=xlabel, ylabel=ylabel)
    short = all(len(name) <= 15 for name in series)
    axes.legend(**ABOVE_LEFT, ncols=3 if short else 2)
    return figure


def _size(number: float) -> str:
    """A size as people say it: 500, 3,000, 222 k, 3.1 M."""
    if number >= 1e6:
        return f"{number / 1e6:.2g} M"
    return f"{number / 1e3:.3g} k" if number >= 1e5 else f"{number:,.10g}"


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
    scale; the fit is the curve of Gao et al., with its peak, which need not be that of
    what was measured; the witness is what stands for gold.
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
            label = f"peak of the fit, d = {fit.peak:.2f}"
            axes.axvline(fit.peak, color=GREY, ls=":", marker="", label=label)
        highest = int(np.argmax(values(gold)))
        look = {"ls": "none", "marker": "*", "ms": 16, "color": "black"}
        label = f"highest measured, d = {np.asarray(distance)[highest]:.2f}"
        axes.plot(distance[highest], gold[highest].value, **look, label=label)
    axes.set(xlabel="distance d = √KL from the start (√nats)")
    axes.set_ylabel("reward gained over the start")
    axes.legend(**ABOVE_LEFT, ncols=2)
    return figure
