"""Every method of the labs on one figure: gold against KL. Rows come in."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from labs_helpers.plots.style import COLOURS, GREY, MARKERS, new_figure, style

# What learnt from the same has the same colour.
FAMILIES = {
    "start": ("SFT",),
    "offline, 400 comparisons": ("DPO", "IPO", "KTO", "SLiC"),
    "on-policy, gold itself": ("REINFORCE", "actor-critic", "TRPO", "PPO"),
    "a constitution, no label": ("SL-CAI", "RL-CAI"),
}


def gold_against_kl_by_method(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Large points are means of a method, small ones single seeds.

    Args:
        rows: each with `method`, `n`, `kl` and `gold`; the methods "optimum" and "best
            of n" (by n) are drawn as lines.
    """

    def of(method: str, **kept: Any) -> np.ndarray:
        found = [row for row in rows if row["method"] == method]
        found = [row for row in found if kept.items() <= row.items()]
        return np.array([(row["kl"], row["gold"]) for row in found])

    with style():
        figure, axes = new_figure(8.4, 5.0)
        optima = sorted(map(tuple, of("optimum")))
        axes.plot(*np.array(optima).T, color="black", marker="", label="optimum")
        ns = sorted({row["n"] for row in rows if row["method"] == "best of n"})
        line = np.array([of("best of n", n=n).mean(axis=0) for n in ns])
        axes.plot(*line.T, color=GREY, ls="--", marker="", label="best of n")
        for colour, (family, methods) in zip(
            ("#000000", *COLOURS), FAMILIES.items(), strict=False
        ):
            axes.plot([], [], ls="none", marker="", label=family)
            for marker, method in zip(MARKERS, methods, strict=False):
                points = of(method)
                if not len(points):
                    continue
                same = {"ls": "none", "marker": marker, "color": colour}
                axes.plot(*points.T, markersize=4, alpha=0.4, mew=0, **same)
                axes.plot(*points.mean(axis=0), markersize=10, label=method, **same)
        axes.set(
            xlabel="KL from the reference (nats per answer)",
            ylabel="mean gold reward",
        )
        legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=10)
        for text in legend.get_texts():
            if text.get_text() in FAMILIES:
                text.set_fontweight("bold")
    return figure
