"""How far annotators agree beyond chance. NaN stands for a missing rating."""

from typing import Literal

import krippendorff
import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import cohen_kappa_score


def krippendorff_alpha(
    ratings: ArrayLike,
    level: Literal["nominal", "ordinal", "interval", "ratio"] = "nominal",
) -> float:
    """Agreement of any number of raters: 1 is perfect, 0 is chance.

    Args:
        ratings: one row a rater, one column an item.
        level: what the ratings' numbers mean.

    Returns:
        Alpha, or NaN where all ratings are alike and chance cannot be told apart.
    """
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

    Returns:
        Kappa, or NaN where no item is shared or both gave one and the same rating.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise ValueError(f"both rate the same items; shapes are {a.shape}, {b.shape}")
    both = ~(np.isnan(a) | np.isnan(b))
    values, classes = np.unique(np.stack([a[both], b[both]]), return_inverse=True)
    if len(values) < 2:
        return float("nan")
    return float(cohen_kappa_score(*classes.reshape(2, -1)))
