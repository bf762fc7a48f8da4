"""What comparisons of policies prove: power, ratings, and win rates at equal length.

Outcomes of comparisons come in as arrays, 1 a win of the first side, 0.5 a tie, 0 a
loss. Knows nothing of who judged and who answered.
"""

import math
from collections.abc import Mapping

import choix
import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from labs_helpers.evaluation.estimates import Estimate, Z, bootstrap


def win_rate_power(rate: float, n: ArrayLike, ties: float = 0.0) -> np.ndarray:
    """The chance that n comparisons prove a true win rate to differ from 1/2.

    By the two-sided z test at 5 %, of outcomes in which ties count half.

    >>> print(win_rate_power(0.6, [50, 100, 200, 400]).round(2))
    [0.29 0.52 0.81 0.98]
    """
    null, true = _variances(rate, ties)
    n = np.asarray(n, float)
    gap = abs(rate - 0.5) * np.sqrt(n)
    power = stats.norm.cdf((gap - Z * math.sqrt(null)) / math.sqrt(true))
    return np.asarray(power)


def comparisons_needed(rate: float, power: float = 0.8, ties: float = 0.0) -> int:
    """How many comparisons prove a true win rate to differ from 1/2.

    Args:
        rate: the true win rate, ties half.
        power: the chance of proof that is asked for.
        ties: the share of ties; they tell nothing, but win rates near 1/2 hold more.

    >>> comparisons_needed(0.65), comparisons_needed(0.55)
    (85, 783)
    """
    null, true = _variances(rate, ties)
    if rate == 0.5:
        raise ValueError("no number of comparisons proves 1/2 to differ from 1/2")
    if not 0 < power < 1:
        raise ValueError(f"power is a probability between 0 and 1, got {power}")
    needed = Z * math.sqrt(null) + stats.norm.ppf(power) * math.sqrt(true)
    return math.ceil((needed / (rate - 0.5)) ** 2)


def _variances(rate: float, ties: float) -> tuple[float, float]:
    """Variance of an outcome where neither side is better, and at the true rate."""
    true = rate * (1 - rate) - ties / 4
    if not (0 <= ties < 1 and ties / 2 <= rate <= 1 - ties / 2):
        raise ValueError(
            f"with a share of ties of {ties}, which count half, a win rate lies "
            f"between {ties / 2:.3g} and {1 - ties / 2:.3g}; got {rate}"
        )
    return (1 - ties) / 4, max(true, 1e-12)


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

    Args:
        outcomes: of the first side against the second.
        lengths: of the first side's answers, in any unit.
        other_lengths: of the second side's.
        clusters: the prompt's number, where there are several answers to a prompt.
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
    seed: int = 0,
) -> dict[str, Estimate]:
    """Rate policies so that sigmoid(rating difference) is the chance to win.

    The most likely ratings under Bradley and Terry (1952), from all comparisons at
    once. A tie is half a win for each. Every pair that was compared counts one tie
    more, without which a policy that never lost would be infinitely good. Intervals
    are by bootstrap over prompts.

    Args:
        outcomes: by the names of both sides; all over the same prompts, in one order.
        baseline: the policy rated 0; without one the mean is 0. Times 173.7 (400 / ln
            10) the ratings are those of Elo.
        samples: of the bootstrap.
        seed: of the bootstrap.
    """
    names = list(dict.fromkeys(name for pair in outcomes for name in pair))
    if baseline is not None and baseline not in names:
        raise ValueError(
            f"no comparison names the baseline {baseline!r}; there are "
            f"{', '.join(names)}"
        )
    table = [np.asarray(column, float) for column in outcomes.values()]
    if len({column.shape for column in table}) != 1 or table[0].ndim != 1:
        raise ValueError(
            "all comparisons are over the same prompts; their numbers are "
            f"{ {pair: np.size(o) for pair, o in outcomes.items()} }"
        )
    sides = np.array([[names.index(name) for name in pair] for pair in outcomes])
    _require_connected(sides, names)
    wins = np.stack(table, axis=1)
    prompts = len(wins)
    random = np.random.default_rng(seed)
    drawn = random.multinomial(prompts, np.full(prompts, 1 / prompts), size=samples)
    resampled = [
        _ratings(sides, counts @ wins, prompts, names, baseline) for counts in drawn
    ]
    lows, highs = np.quantile(resampled, [0.025, 0.975], axis=0)
    values = _ratings(sides, wins.sum(axis=0), prompts, names, baseline)
    counts = prompts * np.bincount(sides.ravel(), minlength=len(names))
    columns = zip(names, values, lows, highs, counts, strict=True)
    return {
        name: Estimate(float(value), float(low), float(high), int(count))
        for name, value, low, high, count in columns
    }


def _ratings(
    sides: np.ndarray,
    points: np.ndarray,
    prompts: int,
    names: list[str],
    baseline: str | None,
) -> np.ndarray:
    wins = np.zeros((len(names), len(names)))
    np.add.at(wins, (sides[:, 0], sides[:, 1]), points + 0.5)
    np.add.at(wins, (sides[:, 1], sides[:, 0]), prompts - points + 0.5)
    ratings = choix.ilsr_pairwise_dense(wins)
    zero = ratings.mean() if baseline is None else ratings[names.index(baseline)]
    return ratings - zero


def _require_connected(sides: np.ndarray, names: list[str]) -> None:
    compared = np.zeros((len(names), len(names)))
    compared[sides[:, 0], sides[:, 1]] = 1
    groups, group = connected_components(compared, directed=False)
    if groups > 1:
        parts = [
            ", ".join(np.array(names)[group == number]) for number in range(groups)
        ]
        raise ValueError(
            "ratings need comparisons that join all policies; none joins "
            + " with ".join(f"({part})" for part in parts)
        )
