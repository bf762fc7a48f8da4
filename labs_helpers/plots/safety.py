"""Figures about safety: attacks by category, refusals, the trade with helpfulness."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from labs_helpers.evaluation import Estimate
from labs_helpers.plots.style import (
    ABOVE,
    BESIDE,
    COLOURS,
    GREY,
    MARKERS,
    Figure,
    across,
    heat_map,
    level,
    name_rows,
    new_figure,
    new_panels,
    point,
    styled,
)


@styled
def attack_heatmaps(
    tables: Mapping[str, "labs_helpers.safety.AttackTable"],  # noqa: F821
) -> Figure:
    """Draw how often each attack succeeds in each category, a panel a policy.

    All tables are over one suite and one list of attacks.
    """
    first = next(iter(tables.values()))
    names, attacks = first.by_category()[0], first.attacks
    width = 2.2 + len(tables) * (0.52 * len(names) + 0.3)
    height = 1.6 + 0.42 * len(attacks)
    figure, panels = new_panels(width, height, len(tables), sharey=True)
    for panel, (title, table) in zip(panels, tables.items(), strict=True):
        look = {"size": 9, "rotation": 45, "aspect": "auto", "number": _short}
        image = heat_map(panel, table.by_category()[1], names, **look)
        panel.set_title(title)
    labels = [name.replace("_", " ") for name in attacks]
    panels[0].set_yticks(np.arange(len(labels)), labels)
    figure.colorbar(image, ax=list(panels), label="share of attacks that succeed")
    return figure


def _short(rate: float) -> str:
    """A rate in two characters: 0, .3, 1."""
    return f"{rate:.1f}".removesuffix(".0").removeprefix("0") or "0"


@styled
def helpful_and_harmless(
    policies: Mapping[str, tuple[Estimate, Estimate]],
    ylabel: str = "harmlessness under attack",
) -> Figure:
    """Draw policies by helpfulness and harmlessness, joined in the given order."""
    figure, axes = new_figure(7.6, 4.8)
    path = np.array([(x.value, y.value) for x, y in policies.values()])
    axes.plot(*path.T, color=GREY, ls=":", marker="", lw=1.4)
    for i, (name, (x, y)) in enumerate(policies.items()):
        size = 12 - 6 * i / max(len(policies) - 1, 1)  # none covers another
        point(axes, x, y, label=name, markersize=size)
    axes.set(xlabel="helpfulness on harmless prompts", ylabel=ylabel)
    axes.legend(**BESIDE)
    return figure


@styled
def rates_by_policy(
    rates: Mapping[str, Mapping[str, Estimate]],
    xlabel: str,
    bound: tuple[float, str] | None = None,
    lower_is_better: Collection[str] | None = None,
) -> Figure:
    """Draw several rates, one to a line, of several policies side by side.

    They stand by policy, then by what is measured, the same for every policy. Where it
    is said of which rates a lower one is better, an arrow says so at every name.
    """
    names = list(next(iter(rates.values())))
    offsets = np.linspace(-0.25, 0.25, len(rates)) if len(rates) > 1 else [0.0]
    figure, axes = new_figure(7.5, 1.6 + 0.5 * len(names))
    for i, (policy, found) in enumerate(rates.items()):
        rows = np.arange(len(names)) + offsets[i]
        look = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        across(axes, rows, [found[name] for name in names], **look, label=policy)
    level(axes, bound, vertical=True)
    arrows = ["" for _ in names]
    if lower_is_better is not None:
        arrows = [" ←" if name in lower_is_better else " →" for name in names]
        xlabel = f"{xlabel}; arrow: better"
    titles = [name.replace("_", " ") for name in names]
    name_rows(axes, [a + b for a, b in zip(titles, arrows, strict=True)])
    axes.set(xlabel=xlabel)
    axes.legend(**ABOVE, ncols=4)
    return figure


@styled
def label_agreement(
    agreements: Mapping[str, Estimate],
    highlighted: Sequence[str] = (),
) -> Figure:
    """Draw how often judges and people agree with the truth, best on top.

    What is highlighted has another colour and a hollow square.
    """
    ordered = dict(sorted(agreements.items(), key=lambda item: -item[1].value))
    figure, axes = new_figure(7.5, 1.4 + 0.42 * len(ordered))
    level(axes, (0.5, "a coin"), vertical=True)
    for row, (name, estimate) in enumerate(ordered.items()):
        look = {"marker": "s", "color": COLOURS[1], "mfc": "none", "mew": 2}
        look = look if name in highlighted else {"marker": "o", "color": COLOURS[0]}
        across(axes, row, [estimate], **look)
    name_rows(axes, ordered)
    axes.set(xlabel="share of pairs on which the truth agrees")
    axes.legend(**ABOVE)
    return figure
