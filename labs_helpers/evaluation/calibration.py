"""Whether a probability of preference means what it says.

`margins` are reward differences, `labels` 1 where the first answer was preferred and
0 where the second was, `p_hat` stated and `p` true probabilities of the first.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from labs_helpers.evaluation.estimates import Estimate, mean, proportion


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions of like size: what they said and what came."""

    predicted: float
    observed: Estimate


def fit_temperature(margins: ArrayLike, labels: ArrayLike) -> float:
    """Find the T for which sigmoid(margin / T) is most likely, given the labels.

    Where the data want no finite T (all pairs right, or no better than chance), it
    stays within a factor of 10,000 of the margins' size.
    """
    from scipy.optimize import minimize_scalar

    margins, labels = np.asarray(margins, float), np.asarray(labels, float)
    if margins.shape != labels.shape:
        raise ValueError(
            f"one label for each margin: there are {margins.size} margins and "
            f"{labels.size} labels"
        )
    size = np.sqrt(np.mean(margins**2))
    if size == 0:
        raise ValueError("all margins are 0: no temperature changes what they say")

    def negative_log_likelihood(log_temperature: float) -> float:
        scaled = margins / (size * np.exp(log_temperature))
        return float(np.mean(np.logaddexp(0, scaled) - labels * scaled))

    span = np.log(1e4)
    best = minimize_scalar(
        negative_log_likelihood, bounds=(-span, span), options={"xatol": 1e-8}
    )
    return float(size * np.exp(best.x))


def probability_gap(p_hat: ArrayLike, p: ArrayLike) -> Estimate:
    """Mean squared distance from the true probability: E[(p_hat - p)^2]."""
    return mean((np.asarray(p_hat, float) - np.asarray(p, float)) ** 2)


def brier(p_hat: ArrayLike, labels: ArrayLike) -> Estimate:
    """Mean squared distance from the label: E[(p_hat - y)^2]."""
    return probability_gap(p_hat, labels)


def brier_floor(p: ArrayLike) -> float:
    """Brier score of the true probabilities themselves: E[p (1 - p)]."""
    p = np.asarray(p, float)
    return float(np.mean(p * (1 - p)))


def reliability(
    p_hat: ArrayLike, labels: ArrayLike, bins: int = 10
) -> list[ReliabilityBin]:
    """Group predictions by size, equally many to a bin, and count what came."""
    p_hat, labels = np.asarray(p_hat, float), np.asarray(labels, float)
    order = np.argsort(p_hat, kind="stable")
    return [
        ReliabilityBin(
            float(p_hat[members].mean()),
            proportion(float(labels[members].sum()), len(members)),
        )
        for members in np.array_split(order, min(bins, len(order)))
    ]
