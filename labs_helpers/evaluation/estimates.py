"""A measured number and how far to trust it.

Arrays of measurements come in, an `Estimate` with its 95 % interval goes out. Answers
to one prompt are not independent: give `clusters`, the prompt's number of every value,
where there are several.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

Z = ndtri(0.975)


@dataclass(frozen=True)
class Estimate:
    """A value, its 95 % interval and the number of measurements behind it."""

    value: float
    low: float
    high: float
    n: int

    @property
    def ci(self) -> tuple[float, float]:
        """The interval as a pair."""
        return self.low, self.high

    def __str__(self) -> str:
        half = (self.high - self.low) / 2
        digits = 2
        if 0 < half < math.inf:
            digits = max(2, math.ceil(-math.log10(half)))
        return (
            f"{self.value:.{digits + 1}f} (95 % {self.low:.{digits}f} to "
            f"{self.high:.{digits}f}, n = {self.n})"
        )


def mean(values: ArrayLike, clusters: ArrayLike | None = None) -> Estimate:
    """Average with a t interval, robust to clusters where these are given.

    The values of a cluster count as one measurement: their summed deviations make the
    standard error, and the clusters less one its degrees of freedom.

    >>> print(mean([0.2, 0.4, 0.6, 0.8]))
    0.500 (95 % 0.09 to 0.91, n = 4)
    """
    values = _values(values)
    value, deviations = float(values.mean()), values - values.mean()
    if clusters is not None:
        deviations = np.bincount(_cluster_numbers(clusters, values), deviations)
    count, half = len(deviations), math.nan
    if count > 1:
        error = math.sqrt(count / (count - 1) * float(deviations @ deviations))
        half = stdtrit(count - 1, 0.975) * error / len(values)
    return Estimate(value, value - half, value + half, len(values))


def paired_difference(
    a: ArrayLike, b: ArrayLike, clusters: ArrayLike | None = None
) -> Estimate:
    """Average of a - b, measured on the same items: what they share cancels.

    >>> print(paired_difference([0.9, 0.5, 0.7], [0.8, 0.3, 0.4]))
    0.200 (95 % -0.05 to 0.45, n = 3)
    """
    a, b = _values(a), _values(b)
    if len(a) != len(b):
        raise ValueError(
            f"a paired difference needs the same items on both sides; a has {len(a)} "
            f"values and b has {len(b)}"
        )
    return mean(a - b, clusters)


def across_seeds(
    runs: Sequence[Estimate], bounds: tuple[float, float] = (-math.inf, math.inf)
) -> Estimate:
    """Average runs of several seeds, measured on the same held-out items.

    Two things vary. The items are common to all runs, so what they contribute does not
    shrink with the number of runs: it is the mean square of the runs' own half-widths.
    What the training contributes does: it is the t interval of the k values, with k - 1
    degrees of freedom. The two half-widths add up in squares, each side by itself (Zou
    and Donner, 2008). As runs also differ by noise that their own intervals hold, the
    result errs on the wide side.

    Args:
        runs: each with the 95 % interval of its items, or with both ends at the value.
            A single run keeps its interval, for it tells nothing about other seeds.
        bounds: what the quantity cannot pass, such as 0 and 1; the interval ends there.
    """
    values = _values([run.value for run in runs])
    value, seeds = float(values.mean()), 0.0
    if len(runs) > 1:
        seeds = mean(values).high - value
    low, high = (
        math.hypot(seeds, *(values - ends) / math.sqrt(len(runs)))
        for ends in ([run.low for run in runs], [run.high for run in runs])
    )
    least, most = bounds
    return Estimate(value, max(value - low, least), min(value + high, most), len(runs))


def difference(a: Estimate, b: Estimate) -> Estimate:
    """Subtract estimates: a - b, their half-widths added up in squares.

    Zou and Donner (2008), for independent estimates. Of two that were measured on the
    same items it says less than `paired_difference` of their values.
    """
    value = a.value - b.value
    low = value - math.hypot(a.value - a.low, b.high - b.value)
    high = value + math.hypot(a.high - a.value, b.value - b.low)
    return Estimate(value, low, high, min(a.n, b.n))


def proportion(successes: float, n: int) -> Estimate:
    """Share of successes with Wilson's interval, which holds near 0 and 1 too.

    >>> print(proportion(120, 120))
    1.000 (95 % 0.97 to 1.00, n = 120)
    """
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = float(successes / n)
    return Estimate(value, *_wilson(value, n), int(n))


def rate(values: ArrayLike, clusters: ArrayLike | None = None) -> Estimate:
    """Average of values between 0 and 1 with an interval that stays between them.

    Wilson's, for as many independent outcomes as would have the same standard error:
    the effective sample size of Korn and Graubard (1998), with Wilson's interval as
    Dean and Pagano (2015) recommend. Where all values are the same, the clusters count.

    >>> print(rate([1, 1, 1, 1], clusters=[0, 0, 1, 1]))
    1.000 (95 % 0.34 to 1.00, n = 4)
    """
    values = np.asarray(values, dtype=float)
    n = worth = len(values)
    if n == 0:
        return proportion(0, 0)
    # Shares of probability may pass 1 by a rounding error.
    if values.min() < -1e-6 or values.max() > 1 + 1e-6:
        raise ValueError(
            "a rate averages values between 0 and 1; these reach from "
            f"{values.min():g} to {values.max():g}"
        )
    values = values.clip(0, 1)
    value, variance = float(values.mean()), float(values.var())
    if clusters is not None:
        found = mean(values, clusters)
        error = (found.high - found.low) / 2 / Z
        worth = len(np.unique(np.asarray(clusters)))
        if 0 < error < math.inf:
            worth = round(min(max(variance / error**2, 1), n))
    less = max(0.0, value * (1 - value) - variance)
    return Estimate(value, *_wilson(value, worth, less), n)


def bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    clusters: ArrayLike | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Percentile interval of any statistic of arrays that share their items.

    Clusters are resampled whole.
    """
    columns = [_values(array) for array in arrays]
    n = len(columns[0])
    if any(len(column) != n for column in columns):
        raise ValueError(
            f"the arrays must share their items; they have {[*map(len, columns)]}"
        )
    numbers = np.arange(n)
    if clusters is not None:
        numbers = _cluster_numbers(clusters, columns[0])
    order, counts = np.argsort(numbers, kind="stable"), np.bincount(numbers)
    members = np.split(order, np.cumsum(counts)[:-1])
    random = np.random.default_rng(seed)
    resampled = []
    for _ in range(samples):
        drawn = random.integers(len(members), size=len(members))
        if clusters is not None:
            drawn = np.concatenate([members[i] for i in drawn])
        resampled.append(statistic(*(column[drawn] for column in columns)))
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(statistic(*columns)), float(low), float(high), n)


def _wilson(value: float, n: int, less: float = 0.0) -> tuple[float, float]:
    """Wilson's interval of a share of n outcomes, some of which are ties.

    Ties that count half take a quarter of their share from the variance p (1 - p) of an
    outcome: that is `less`. A sample of nothing but ties must not look certain, so it
    is shrunk as Wilson shrinks p.
    """
    width, less = Z**2 / n, less * n / (n + Z**2)
    centre = (value + width / 2) / (1 + width)
    half = math.sqrt(max(0.0, centre**2 - (value**2 + width * less) / (1 + width)))
    return min(max(0.0, centre - half), value), max(min(1.0, centre + half), value)


def _values(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(
            "expected one row of at least one value, got an array of shape "
            f"{array.shape}"
        )
    return array


def _cluster_numbers(clusters: ArrayLike, values: np.ndarray) -> np.ndarray:
    _, numbers = np.unique(np.asarray(clusters), return_inverse=True)
    if numbers.shape != values.shape:
        raise ValueError(
            f"clusters must name one for each of the {len(values)} values; its shape "
            f"is {np.shape(clusters)}"
        )
    return numbers
