"""What comparisons prove: power, ratings, win rates at equal length, agreement.

Outcomes of comparisons come in as arrays, 1 a win of the first side, 0.5 a tie, 0 a
loss; ratings by annotators with NaN for what is missing.
"""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit, ndtr, ndtri

from labs_helpers.evaluation.estimates import Estimate, Z, bootstrap


def win_rate_power(rate: float, n: ArrayLike, ties: float = 0.0) -> np.ndarray:
    """The chance that n comparisons prove a true win rate to differ from 1/2.

    By the two-sided z test at 5 %, of outcomes in which ties count half.

    >>> print(win_rate_power(0.6, [50, 100, 200, 400]).round(2))
    [0.29 0.52 0.81 0.98]
    """
    null, true = _deviations(rate, ties)
    gap = abs(rate - 0.5) * np.sqrt(np.asarray(n, float))
    return np.asarray(ndtr((gap - Z * null) / true))


def comparisons_needed(rate: float, power: float = 0.8, ties: float = 0.0) -> int:
    """How many comparisons prove a true win rate to differ from 1/2, with that power.

    Ties tell nothing, but win rates near 1/2 hold more of them.

    >>> comparisons_needed(0.65), comparisons_needed(0.55)
    (85, 783)
    """
    null, true = _deviations(rate, ties)
    if rate == 0.5:
        raise ValueError("no number of comparisons proves 1/2 to differ from 1/2")
    if not 0 < power < 1:
        raise ValueError(f"power is a probability between 0 and 1, got {power}")
    needed = Z * null + ndtri(power) * true
    return math.ceil((needed / (rate - 0.5)) ** 2)


def _deviations(rate: float, ties: float) -> tuple[float, float]:
    """Deviation of an outcome where neither side is better, and at the true rate."""
    if not (0 <= ties < 1 and ties / 2 <= rate <= 1 - ties / 2):
        raise ValueError(
            f"with a share of ties of {ties}, which count half, a win rate lies "
            f"between {ties / 2:.3g} and {1 - ties / 2:.3g}; got {rate}"
        )
    true = max(rate * (1 - rate) - ties / 4, 1e-12)
    return math.sqrt((1 - ties) / 4), math.sqrt(true)


def length_controlled_win_rate(
    outcomes: ArrayLike,
    lengths: ArrayLike,
    other_lengths: ArrayLike,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """The win rate that is expected where both answers have the same length.

    A logistic regression of the outcome on tanh(length difference / its standard
    deviation), read at a difference of 0, as in AlpacaEval 2 (arXiv 2404.04475, section
    3), of which this leaves out the instructions' difficulty. It takes away whatever
    goes with length, quality included.
    """
    outcomes = np.asarray(outcomes, float)
    difference = np.asarray(lengths, float) - np.asarray(other_lengths, float)
    if difference.shape != outcomes.shape:
        raise ValueError(
            f"each outcome needs the lengths of its two answers; there are "
            f"{outcomes.size} outcomes and {difference.size} pairs of lengths"
        )
    spread = difference.std()
    if spread == 0 and difference.any():
        raise ValueError(
            "all answers differ in length by the same amount: what length does cannot "
            "be told from what they say"
        )
    size = np.tanh(difference / (spread or 1.0))
    return bootstrap(_rate_at_zero, outcomes, size, clusters=clusters, samples=1000)


def _rate_at_zero(outcomes: np.ndarray, x: np.ndarray) -> float:
    """Fit sigmoid(a + b x) to outcomes by Newton's method; gives sigmoid(a).

    A normal prior of standard deviation 10 on a and b keeps them finite where one side
    always wins.
    """
    design = np.stack([np.ones_like(x), x], axis=1)
    coefficients, prior = np.zeros(2), np.eye(2) / 100
    for _ in range(30):
        expected = expit(design @ coefficients)
        gradient = design.T @ (outcomes - expected) - prior @ coefficients
        curvature = (design.T * (expected * (1 - expected))) @ design + prior
        step = np.linalg.solve(curvature, gradient)
        coefficients += np.clip(step, -2, 2)  # far from the optimum it overshoots
        if np.abs(step).max() < 1e-8:
            break
    return float(expit(coefficients[0]))


def bradley_terry_ratings(
    outcomes: Mapping[tuple[str, str], ArrayLike],
    baseline: str | None = None,
    samples: int = 1000,
) -> dict[str, Estimate]:
    """Rate policies so that sigmoid(rating difference) is the chance to win.

    The most likely ratings under Bradley and Terry (1952), from all comparisons at
    once, which are over the same prompts in one order. A tie is half a win for each.
    Every pair that was compared counts one tie more, without which a policy that never
    lost would be infinitely good. The baseline is rated 0, without one the mean is;
    times 173.7 (400 / ln 10) the ratings are those of Elo. Intervals are by bootstrap
    over prompts.
    """
    import choix
    from scipy.cluster.hierarchy import DisjointSet

    names = list(dict.fromkeys(name for pair in outcomes for name in pair))
    if baseline is not None and baseline not in names:
        raise ValueError(
            f"no comparison names the baseline {baseline!r}; there are "
            f"{', '.join(names)}"
        )
    groups = DisjointSet(names)
    for pair in outcomes:
        groups.merge(*pair)
    if groups.n_subsets > 1:
        parts = (", ".join(sorted(x, key=names.index)) for x in groups.subsets())
        raise ValueError(
            "ratings need comparisons that join all policies; none joins "
            + " with ".join(f"({part})" for part in parts)
        )
    table = [np.asarray(column, float) for column in outcomes.values()]
    if len({column.shape for column in table}) != 1 or table[0].ndim != 1:
        raise ValueError(
            "all comparisons are over the same prompts; their numbers are "
            f"{ {pair: np.size(o) for pair, o in outcomes.items()} }"
        )
    wins = np.stack(table, axis=1)
    prompts = len(wins)
    first, second = np.array([[names.index(n) for n in pair] for pair in outcomes]).T

    def ratings(points: np.ndarray) -> np.ndarray:
        won = np.zeros((len(names), len(names)))
        np.add.at(won, (first, second), points + 0.5)
        np.add.at(won, (second, first), prompts - points + 0.5)
        found = choix.ilsr_pairwise_dense(won)
        return found - (found[names.index(baseline)] if baseline else found.mean())

    random = np.random.default_rng(0)
    drawn = random.multinomial(prompts, np.full(prompts, 1 / prompts), size=samples)
    resampled = [ratings(counts @ wins) for counts in drawn]
    ends = np.quantile(resampled, [0.025, 0.975], axis=0)
    columns = np.stack([ratings(wins.sum(axis=0)), *ends], axis=1).tolist()
    counts = prompts * np.bincount(np.concatenate([first, second]))
    return {
        name: Estimate(*column, int(n))
        for name, column, n in zip(names, columns, counts, strict=True)
    }


def krippendorff_alpha(
    ratings: ArrayLike,
    level: Literal["nominal", "ordinal", "interval", "ratio"] = "nominal",
) -> float:
    """Agreement of any number of raters (rows) on items: 1 is perfect, 0 is chance.

    NaN where all ratings are alike and chance cannot be told apart.
    """
    import krippendorff

    ratings = np.asarray(ratings, float)
    if ratings.ndim != 2:
        raise ValueError(
            "ratings have one row a rater and one column an item; got an array of "
            f"shape {ratings.shape}"
        )
    shared = ratings[:, (~np.isnan(ratings)).sum(0) > 1]
    if len(np.unique(shared[~np.isnan(shared)])) < 2:
        return float("nan")
    return float(krippendorff.alpha(shared, level_of_measurement=level))


def cohen_kappa(a: ArrayLike, b: ArrayLike) -> float:
    """Agreement of two raters on the items that both rated.

    NaN where no item is shared or both gave one and the same rating.
    """
    from sklearn.metrics import cohen_kappa_score

    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"both rate the same items; shapes are {a.shape}, {b.shape}")
    both = ~(np.isnan(a) | np.isnan(b))
    values, classes = np.unique(np.stack([a[both], b[both]]), return_inverse=True)
    if len(values) < 2:
        return float("nan")
    return float(cohen_kappa_score(*classes.reshape(2, -1)))
