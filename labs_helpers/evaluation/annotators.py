"""Who of several people agrees with whom, and whom to trust, without knowing the truth.

Votes come in as one row a person and one column a pair of answers: 1 the first answer,
0 the second, 0.5 a tie, NaN where somebody has not judged.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit

from labs_helpers.evaluation.estimates import Estimate

# Of the priors: gaps of utility between two answers, and sharpness of a person.
GAP, SHARPNESS = 2.0, 1.0


def annotator_sharpness(votes: ArrayLike, samples: int = 200) -> list[Estimate]:
    """How much each person's choices follow the gaps in utility that all votes share.

    Bradley and Terry's model (1952) with a sharpness w for each person k, as in Chen et
    al. (WSDM 2013): P(k prefers the first answer of pair j) = sigmoid(w_k gap_j). The
    most likely w and gaps under normal priors, scaled so that the mean w² is 1: a coin
    has 0, somebody who wants the opposite less. Intervals are by bootstrap over pairs.

    Args:
        votes: of two people or more.
        samples: of the bootstrap.
    """
    votes = np.asarray(votes, float)
    if votes.ndim != 2 or len(votes) < 2:
        raise ValueError(
            "votes have one row a person, of two or more, and one column a pair; got "
            f"an array of shape {votes.shape}"
        )
    votes = votes[:, ~np.isnan(votes).all(axis=0)]
    if not votes.size:
        raise ValueError("nobody has judged anything: every vote is NaN")
    found = _sharpness(votes)
    draw = np.random.default_rng(0)
    drawn = draw.integers(votes.shape[1], size=(samples, votes.shape[1]))
    resampled = [_sharpness(votes[:, columns]) for columns in drawn]
    lows, highs = np.quantile(resampled, [0.025, 0.975], axis=0)
    counts = (~np.isnan(votes)).sum(axis=1)
    columns = zip(found, lows, highs, counts, strict=True)
    return [
        Estimate(*map(float, (w, low, high)), int(n)) for w, low, high, n in columns
    ]


def _sharpness(votes: np.ndarray) -> np.ndarray:
    people = len(votes)
    known = ~np.isnan(votes)
    votes = np.where(known, votes, 0.5)

    def negative_log_posterior(x: np.ndarray) -> tuple[float, np.ndarray]:
        w, gaps = x[:people], x[people:]
        logits = np.outer(w, gaps)
        value = (known * (np.logaddexp(0, logits) - votes * logits)).sum()
        value += ((w - 1) ** 2).sum() / 2 / SHARPNESS**2 + (gaps**2).sum() / 2 / GAP**2
        error = known * (expit(logits) - votes)
        of_w = error @ gaps + (w - 1) / SHARPNESS**2
        return value, np.concatenate([of_w, w @ error + gaps / GAP**2])

    start = np.concatenate([np.ones(people), (known * (votes - 0.5)).sum(axis=0)])
    found = minimize(negative_log_posterior, start, jac=True, method="L-BFGS-B")
    w = found.x[:people]
    return w / np.sqrt((w**2).mean())
