"""Figures about safety: attacks by category, refusals, the trade with helpfulness.

As in `plots`: one function each, data in, matplotlib Figure out, nothing shown.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from labs_helpers.evaluation import Estimate
from labs_helpers.plots.style import (
    COLOURS,
    GREY,
    MARKERS,
    distances,
    level,
    new_figure,
    style,
)

if TYPE_CHECKING:
    from labs_helpers.safety import AttackTable


def attack_heatmaps(tables: Mapping[str, "AttackTable"]) -> Figure:
    """Draw how often each attack succeeds in each category, a panel a policy.

    Args:
        tables: by name of the policy, all over one suite and one list of attacks.
    """
    with style():
        first = next(iter(tables.values()))
        names, _ = first.by_category()
        width = 2.2 + len(tables) * (0.52 * len(names) + 0.3)
        height = 1.6 + 0.42 * len(first.attacks)
        figure, axes = new_figure(width, height)
        axes.remove()
        panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        for panel, (title, table) in zip(panels, tables.items(), strict=True):
            rates = np.ma.masked_invalid(table.by_category()[1])
            image = panel.imshow(rates, cmap="cividis", vmin=0, vmax=1, aspect="auto")
            for i, j in zip(*np.nonzero(~np.ma.getmaskarray(rates)), strict=True):
                panel.text(
                    j,
                    i,
                    _short(rates[i, j]),
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if rates[i, j] < 0.55 else "black",
                )
            places = np.arange(len(names))
            panel.set_xticks(
                places, names, rotation=45, ha="right", rotation_mode="anchor"
            )
            panel.grid(visible=False)
            panel.spines[:].set_visible(False)
            panel.set_title(title)
        labels = [name.replace("_", " ") for name in first.attacks]
        panels[0].set_yticks(np.arange(len(labels)), labels)
        figure.colorbar(image, ax=list(panels), label="share of attacks that succeed")
    return figure


def _short(rate: float) -> str:
    """A rate in two characters: 0, .3, 1."""
    return f"{rate:.1f}".removesuffix(".0").removeprefix("0") or "0"


def helpful_and_harmless(
    policies: Mapping[str, tuple[Estimate, Estimate]],
    xlabel: str = "helpfulness on harmless prompts",
    ylabel: str = "harmlessness under attack",
) -> Figure:
    """Draw policies on the plane of helpfulness and harmlessness, with intervals.

    Args:
        policies: by name, helpfulness and harmlessness; joined in the given order.
        xlabel: what helpfulness is.
        ylabel: what harmlessness is.
    """
    with style():
        figure, axes = new_figure(6.4, 4.8)
        path = np.array([(x.value, y.value) for x, y in policies.values()])
        axes.plot(*path.T, color=GREY, ls=":", marker="", lw=1.4)
        for name, (x, y) in policies.items():
            axes.errorbar(
                x.value,
                y.value,
                xerr=distances([x]),
                yerr=distances([y]),
                ls="none",
                markersize=9,
                label=name,
            )
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.legend(loc="best")
    return figure


def rates_by_policy(
    rates: Mapping[str, Mapping[str, Estimate]],
    xlabel: str,
    bound: tuple[float, str] | None = None,
) -> Figure:
    """Draw several rates, one to a line, of several policies side by side.

    Args:
        rates: by policy, then by what is measured; the same for every policy.
        xlabel: what the rates are.
        bound: a level to compare with, and its name.
    """
    rows = list(next(iter(rates.values())))
    offsets = np.linspace(-0.25, 0.25, len(rates)) if len(rates) > 1 else [0.0]
    with style():
        figure, axes = new_figure(7.5, 1.6 + 0.5 * len(rows))
        for i, ((name, found), offset) in enumerate(
            zip(rates.items(), offsets, strict=True)
        ):
            estimates = [found[row] for row in rows]
            axes.errorbar(
                [e.value for e in estimates],
                np.arange(len(rows)) + offset,
                xerr=distances(estimates),
                ls="none",
                color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[i % len(MARKERS)],
                label=name,
            )
        if bound:
            level(axes, *bound, vertical=True)
        axes.set_yticks(np.arange(len(rows)), [row.replace("_", " ") for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=xlabel)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4)
    return figure


def label_agreement(
    agreements: Mapping[str, Estimate],
    chance: float = 0.5,
    xlabel: str = "share of pairs on which the truth agrees",
    highlighted: Sequence[str] = (),
) -> Figure:
    """Draw how often judges and people agree with the truth, best on top.

    Args:
        agreements: by name.
        chance: what a coin would reach.
        xlabel: what is measured.
        highlighted: the names to set off in another colour.
    """
    ordered = dict(sorted(agreements.items(), key=lambda item: -item[1].value))
    with style():
        figure, axes = new_figure(7.5, 1.4 + 0.42 * len(ordered))
        level(axes, chance, "a coin", vertical=True)
        for row, (name, estimate) in enumerate(ordered.items()):
            axes.errorbar(
                estimate.value,
                row,
                xerr=distances([estimate]),
                marker="o",
                color=COLOURS[1] if name in highlighted else COLOURS[0],
            )
        axes.set_yticks(np.arange(len(ordered)), [*ordered])
        axes.set_ylim(len(ordered) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=xlabel)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0))
    return figure
