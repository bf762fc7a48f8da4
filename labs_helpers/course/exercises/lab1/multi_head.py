"""Exercise 1.4: Bradley-Terry with one head for each dimension."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of, integers, normal
from labs_helpers.course.exercises.exercise import Exercise, Inputs, Mistake


def multi_head_loss(
    chosen: Float[Tensor, "B H"],
    rejected: Float[Tensor, "B H"],
    dimension: Int[Tensor, " B"],
) -> Float[Tensor, ""]:
    """Bradley-Terry loss on the head of the dimension that each pair was judged on."""
    difference = (chosen - rejected)[torch.arange(len(dimension)), dimension]
    return -F.logsigmoid(difference).mean()


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Rewards of every head, and the head that each pair was judged on."""
    heads = 1 if flavour == "one head" else int(rng.integers(3, 5))
    scale = 200.0 if "large" in flavour else 1.5
    shape, dtype = (size, heads), dtype_of(flavour)
    return {
        "chosen": normal(rng, *shape, scale=scale, dtype=dtype),
        "rejected": normal(rng, *shape, scale=scale, dtype=dtype),
        "dimension": integers(rng, size, 0, heads - 1),
    }


def _own(rewards: Tensor, dimension: Tensor) -> Tensor:
    return rewards[torch.arange(len(rewards)), dimension % rewards.shape[1]]


def _nll(difference: Tensor) -> Tensor:
    return -F.logsigmoid(difference)


def _one_hot(chosen: Tensor, dimension: Tensor) -> Tensor:
    return F.one_hot(dimension, chosen.shape[1]).to(chosen.dtype)


def _mean_of_heads(chosen: Tensor, rejected: Tensor, dimension: Tensor) -> Tensor:
    losses = _nll(_own(chosen - rejected, dimension))
    heads = dimension.unique()
    return torch.stack([losses[dimension == head].mean() for head in heads]).mean()


MISTAKES = (
    Mistake(
        "all heads",
        lambda chosen, rejected, dimension: _nll(chosen - rejected).mean(),
        "every head learns from every pair. A pair that was judged on humour says "
        "nothing about honesty: `dimension` is never used.",
    ),
    Mistake(
        "sum of the heads",
        lambda chosen, rejected, dimension: _nll((chosen - rejected).sum(1)).mean(),
        "the heads are added up to one scalar reward, so none of them learns its own "
        "dimension.",
    ),
    Mistake(
        "mean of the heads",
        lambda chosen, rejected, dimension: _nll((chosen - rejected).mean(1)).mean(),
        "the heads are averaged to one scalar reward, so none of them learns its own "
        "dimension.",
    ),
    Mistake(
        "first head",
        lambda chosen, rejected, dimension: _nll((chosen - rejected)[:, 0]).mean(),
        "all pairs train the first head, whatever they were judged on.",
    ),
    Mistake(
        "divided by all entries",
        lambda chosen, rejected, dimension: (
            _nll(chosen - rejected) * _one_hot(chosen, dimension)
        ).mean(),
        "the right terms are added up, and then divided by B times H: the zeros of "
        "the mask are counted as pairs.",
    ),
    Mistake(
        "masked before the sigmoid",
        lambda chosen, rejected, dimension: (
            _nll((chosen - rejected) * _one_hot(chosen, dimension)).sum(1).mean()
        ),
        "a masked difference is 0, and its loss is ln 2, not 0: every head that was "
        "not asked adds that much.",
    ),
    Mistake(
        "sum for mean",
        lambda chosen, rejected, dimension: _nll(
            _own(chosen - rejected, dimension)
        ).sum(),
        "the value grows with the number of pairs. The mean over pairs is asked for.",
    ),
    Mistake(
        "mean of the heads' means",
        _mean_of_heads,
        "you average within each head first. A head with two pairs then weighs as "
        "much as one with two hundred: the mean over pairs is asked for.",
    ),
    Mistake(
        "columns of all rows",
        lambda chosen, rejected, dimension: _nll(
            (chosen - rejected)[:, dimension]
        ).mean(),
        "`x[:, dimension]` has shape (B, B): each pair is judged on every other "
        "pair's dimension too. Each row needs its own column.",
    ),
    Mistake(
        "chosen and rejected swapped",
        lambda chosen, rejected, dimension: _nll(
            _own(rejected - chosen, dimension)
        ).mean(),
        "the loss falls when the rejected answer scores higher on its dimension.",
    ),
    Mistake(
        "log-likelihood, not its negative",
        lambda chosen, rejected, dimension: (
            -_nll(_own(chosen - rejected, dimension)).mean()
        ),
        "the value is below 0 and rises as the model gets better. Training goes "
        "downhill.",
    ),
    Mistake(
        "next head",
        lambda chosen, rejected, dimension: _nll(
            _own(chosen - rejected, dimension + 1)
        ).mean(),
        "each pair trains the head after its own. Heads are counted from 0.",
    ),
    Mistake(
        "rejected from the first head",
        lambda chosen, rejected, dimension: _nll(
            _own(chosen, dimension) - rejected[:, 0]
        ).mean(),
        "the chosen reward comes from the pair's own head and the rejected one always "
        "from the first. Both are read on the same scale, or the difference means "
        "nothing.",
    ),
    Mistake(
        "best head of each answer",
        lambda chosen, rejected, dimension: _nll(
            chosen.amax(1) - rejected.amax(1)
        ).mean(),
        "each answer is judged by the head that likes it best, not by the dimension "
        "that the annotator judged.",
    ),
    Mistake(
        "overflow",
        lambda chosen, rejected, dimension: (
            -torch.log(torch.sigmoid(_own(chosen - rejected, dimension))).mean()
        ),
        "it is right for moderate rewards and inf where the sigmoid rounds to 0. "
        "torch has one function for the logarithm of the sigmoid.",
    ),
)

EXERCISE = Exercise(
    id="1.4",
    title="A loss for many heads",
    reference=multi_head_loss,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=("plain", "float64", "large rewards", "one head"),
    gradients=("chosen", "rejected"),
    difficulty=3,
    minutes=15,
    points=3,
)
