"""Win rates and accuracies against what is attainable, and all other measures.

Arrays of outcomes come in, numbers with 95 % intervals go out; no model is run here.
Intervals are made in `estimates`, the other rooms are `agreement`, `calibration`,
`comparisons`, `frontier` and `optimum`; every name of theirs can be imported from here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from labs_helpers.evaluation.agreement import cohen_kappa, krippendorff_alpha
from labs_helpers.evaluation.calibration import (
    ReliabilityBin,
    brier,
    brier_floor,
    fit_temperature,
    probability_gap,
    reliability,
)
from labs_helpers.evaluation.comparisons import (
    bradley_terry_ratings,
    comparisons_needed,
    length_controlled_win_rate,
    win_rate_power,
)
from labs_helpers.evaluation.estimates import (
    Estimate,
    bootstrap,
    mean,
    paired_difference,
    proportion,
    rate,
)
from labs_helpers.evaluation.frontier import (
    distance_covered,
    kl_per_answer,
    optimal_frontier,
)
from labs_helpers.evaluation.optimum import (
    Optimum,
    OveroptimisationFit,
    best_of_n,
    best_of_n_kl,
    optimal_policy,
    optimum_from_samples,
    overoptimisation_fit,
)

__all__ = [
    "Estimate",
    "Optimum",
    "OveroptimisationFit",
    "ReliabilityBin",
    "WinRate",
    "bayes_ceiling",
    "best_of_n",
    "best_of_n_kl",
    "bootstrap",
    "bradley_terry_ratings",
    "brier",
    "brier_floor",
    "cohen_kappa",
    "comparisons_needed",
    "distance_covered",
    "expected_right",
    "fit_temperature",
    "kl_per_answer",
    "krippendorff_alpha",
    "length_controlled_win_rate",
    "mean",
    "optimal_frontier",
    "optimal_policy",
    "optimum_from_samples",
    "overoptimisation_fit",
    "pair_accuracy",
    "paired_difference",
    "pairs_right",
    "probability_gap",
    "proportion",
    "rate",
    "reliability",
    "toward_ceiling",
    "win_rate",
    "win_rate_power",
]


@dataclass(frozen=True)
class WinRate(Estimate):
    """How often the first side wins, ties half; and the rate among non-ties."""

    without_ties: Estimate

    def __str__(self) -> str:
        return f"{super().__str__()}; without ties {self.without_ties}"


def win_rate(outcomes: ArrayLike, clusters: ArrayLike | None = None) -> WinRate:
    """Average outcomes of comparisons: 1 a win, 0.5 a tie, 0 a loss.

    Args:
        outcomes: what a judge's `compare` gives.
        clusters: the prompt's number, where there are several answers to a prompt.

    >>> print(win_rate([1] * 60 + [0.5] * 20 + [0] * 20))
    0.700 (95 % 0.61 to 0.77, n = 100); without ties 0.750 (95 % 0.65 to 0.83, n = 80)
    """
    outcomes = np.asarray(outcomes, float)
    unknown = sorted(set(outcomes.tolist()) - {0.0, 0.5, 1.0})
    if unknown:
        raise ValueError(f"outcomes are 1, 0.5 or 0; got also {unknown[:5]}")
    if clusters is not None and np.shape(clusters) != outcomes.shape:
        raise ValueError(
            f"clusters must name one for each of the {outcomes.size} outcomes; their "
            f"shape is {np.shape(clusters)}"
        )
    decided = outcomes != 0.5
    overall = rate(outcomes, clusters)
    of_decided = None if clusters is None else np.asarray(clusters)[decided]
    rest = rate(outcomes[decided], of_decided)
    return WinRate(overall.value, overall.low, overall.high, overall.n, rest)


def pairs_right(margins: ArrayLike, outcomes: ArrayLike = 1.0) -> np.ndarray:
    """Say of each pair whether its margin points the right way; a margin of 0 is half.

    Args:
        margins: reward of the first answer less that of the second.
        outcomes: 1 where the first is better, 0 where the second is. By default the
            first always is, as for chosen and rejected.
    """
    margins, outcomes = np.broadcast_arrays(
        np.asarray(margins, float), np.asarray(outcomes, float)
    )
    if not np.isin(outcomes, (0.0, 1.0)).all():
        raise ValueError(
            "an accuracy needs pairs that differ: outcomes are 1 or 0. Leave ties out"
        )
    return 0.5 + 0.5 * np.sign(margins) * np.sign(outcomes - 0.5)


def expected_right(margins: ArrayLike, probabilities: ArrayLike) -> np.ndarray:
    """The chance that each pair's label agrees with its margin; 1/2 for a margin of 0.

    Where the probabilities of preference are known, its mean is the accuracy that
    drawn labels only estimate.

    >>> expected_right([2.0, -1.0, 0.0], [0.9, 0.9, 0.9])
    array([0.9, 0.1, 0.5])
    """
    margins = np.asarray(margins, float)
    return 0.5 + np.sign(margins) * (np.asarray(probabilities, float) - 0.5)


def pair_accuracy(
    margins: ArrayLike,
    outcomes: ArrayLike = 1.0,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """Share of pairs that are ordered rightly, equal rewards counting half."""
    right = pairs_right(margins, outcomes)
    return rate(right, clusters)


def bayes_ceiling(probabilities: ArrayLike) -> float:
    """Accuracy of knowing every probability of preference: E[max(p, 1 - p)].

    >>> bayes_ceiling([0.9, 0.4, 0.5])
    0.666...
    """
    p = np.asarray(probabilities, float)
    return float(np.maximum(p, 1 - p).mean())


def toward_ceiling(
    right: ArrayLike,
    probabilities: ArrayLike,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """Accuracy on the scale from chance (0) to the Bayes ceiling (1).

    Args:
        right: what `pairs_right` gives for labels drawn with these probabilities, or
            `expected_right` for the probabilities themselves.
        probabilities: the true ones, pair by pair.
        clusters: the prompt's number, where it has several pairs.
    """

    def scaled(right: np.ndarray, probabilities: np.ndarray) -> float:
        return (right.mean() - 0.5) / (bayes_ceiling(probabilities) - 0.5)

    if bayes_ceiling(probabilities) == 0.5:
        raise ValueError("every probability is 1/2: there is nothing to predict")
    return bootstrap(scaled, right, probabilities, clusters=clusters)
