"""Win rates, and accuracies of pairs against the Bayes ceiling.

Arrays of outcomes, reward margins and probabilities come in, numbers with 95 %
intervals go out. Everywhere `clusters` are the prompts' numbers, where there are
several answers (or pairs) to a prompt.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from labs_helpers.evaluation.estimates import Estimate, bootstrap, rate


@dataclass(frozen=True)
class WinRate(Estimate):
    """How often the first side wins, ties half; and the rate among non-ties."""

    without_ties: Estimate

    def __str__(self) -> str:
        return f"{super().__str__()}; without ties {self.without_ties}"


def win_rate(outcomes: ArrayLike, clusters: ArrayLike | None = None) -> WinRate:
    """Average outcomes of comparisons, as a judge gives them: 1, 0.5 (a tie) or 0.

    >>> print(win_rate([1] * 60 + [0.5] * 20 + [0] * 20))
    0.700 (95 % 0.61 to 0.77, n = 100); without ties 0.750 (95 % 0.65 to 0.83, n = 80)
    """
    outcomes = np.asarray(outcomes, float)
    unknown = sorted(set(outcomes.tolist()) - {0.0, 0.5, 1.0})
    if unknown:
        raise ValueError(f"outcomes are 1, 0.5 or 0; got also {unknown[:5]}")
    overall, decided = rate(outcomes, clusters), outcomes != 0.5
    of_decided = None if clusters is None else np.asarray(clusters)[decided]
    return WinRate(**vars(overall), without_ties=rate(outcomes[decided], of_decided))


def outcomes_of(margins: ArrayLike, tie_margin: float = 0.0) -> np.ndarray:
    """Outcomes of comparisons by score: 1 and 0, and 0.5 within the tie margin.

    >>> outcomes_of([0.3, -2.0, 0.0])
    array([1. , 0. , 0.5])
    """
    margins = np.asarray(margins, float)
    wins = (margins > tie_margin).astype(float)
    return 0.5 + 0.5 * (wins - (margins < -tie_margin))


def pairs_right(margins: ArrayLike, outcomes: ArrayLike = 1.0) -> np.ndarray:
    """Say of each pair whether its margin points the right way; a margin of 0 is half.

    Margins are rewards of first answers less those of the second; outcomes 1 where the
    first is better (by default always, as for chosen and rejected), 0 where the second.
    """
    outcomes = np.asarray(outcomes, float)
    if not np.isin(outcomes, (0.0, 1.0)).all():
        raise ValueError(
            "an accuracy needs pairs that differ: outcomes are 1 or 0. Leave ties out"
        )
    return expected_right(margins, outcomes)


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
    return rate(pairs_right(margins, outcomes), clusters)


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
