"""Exercise 3.7, the silent bug: advantages scaled too early, and over the padding.

The notebook gives `learning_targets` as a colleague wrote it. It scales the advantages
to mean 0 and variance 1, as it should for the policy's loss, and only then adds the
values to get the returns: these are no returns any more, and the values learn what a
token earns only up to an unknown shift and scale. And it takes mean and variance over
the whole rectangle, padding included, so that the policy's step depends on how much
longer than the others the longest answer is. The policy improves all the same, for
scaled advantages of badly fitted values still point uphill.

What a known answer reveals: with values of 0, lambda 1 and a reward of 1 at the end,
every return is 1.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labs_helpers.advantages import gae, whiten
from labs_helpers.course.exercises.draw import dtype_of, normal
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake
from labs_helpers.course.exercises.lab3.tokens import answer_mask


def learning_targets(
    rewards: Float[Tensor, "B T"],
    values: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    lam: float,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Whitened advantages for the policy, returns for the values; 0 where masked."""
    advantages, returns = gae(rewards, values, mask, 1.0, lam)
    return whiten(advantages, mask), returns


def buggy_learning_targets(
    rewards: Tensor, values: Tensor, mask: Tensor, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns as the notebook gives them."""
    advantages, _ = gae(rewards, values, mask, 1.0, lam)
    # mean 0, variance 1
    advantages = advantages - advantages.mean()
    advantages = advantages / (advantages.std(correction=0) + 1e-8)
    returns = advantages + values
    return advantages * mask, returns * mask


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Rewards and values of the answers' tokens."""
    mask, dtype = answer_mask(rng, size, flavour), dtype_of(flavour)
    rewards = normal(rng, *mask.shape, dtype=dtype) + 1
    values = normal(rng, *mask.shape, dtype=dtype)
    if flavour == "values of 0":
        values = torch.zeros_like(values)
    return {
        "rewards": rewards.masked_fill(~mask, 0.0),
        "values": values.masked_fill(~mask, 0.0),
        "mask": mask,
        "lam": 0.9,
    }


def _targets(
    scaled: Function = lambda a, returns, mask: whiten(a, mask),
    returns: Function = lambda a, scaled, returns, values, mask: returns,
    blank: bool = True,
) -> Function:
    """Answer with targets in which something is done otherwise."""

    def answer(rewards, values, mask, lam):
        advantages, right = gae(rewards, values, mask, 1.0, lam)
        white = scaled(advantages, right, mask)
        targets = returns(advantages, white, right, values, mask)
        return (white * mask, targets * mask) if blank else (white, targets)

    return answer


def _with_padding(a: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    centred = a - a.mean()
    return centred / (centred.std(correction=0) + 1e-8)


def _of_counted(correction: int) -> Function:
    def scaled(a: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
        counted = a[mask]
        return (a - counted.mean()) / (counted.std(correction=correction) + 1e-8)

    return scaled


def _mean_of_counted_only(a: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    centred = (a - a[mask].mean()) * mask
    return centred / (centred.std(correction=0) + 1e-8)


def _spread_of_counted_only(a: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    return (a - a.mean()) / (a[mask].std(correction=0) + 1e-8)


def _answer_by_answer(a: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    number = mask.sum(1, keepdim=True)
    mean = a.sum(1, keepdim=True) / number
    deviation = (a - mean) * mask
    return deviation * (deviation.square().sum(1, keepdim=True) / number + 1e-8).rsqrt()


def _too_early(a, white, returns, values, mask):
    return white + values


MISTAKES = (
    Mistake(
        "both bugs are still there",
        buggy_learning_targets,
        "give it values of 0, lambda 1 and a reward of 1 at the end: every return is "
        "1. And add a column of padding: nothing that counts may change.",
    ),
    Mistake(
        "returns of scaled advantages",
        _targets(returns=_too_early),
        "the padding no longer matters, and the returns are still wrong. With values "
        "of 0, lambda 1 and a reward of 1 at the end, every return is 1: what has "
        "happened to the advantages by the time you add the values?",
    ),
    Mistake(
        "padding in mean and variance",
        _targets(scaled=_with_padding),
        "the returns are right now. The advantages still change when a column of "
        "padding is added: over which places do you take mean and variance?",
    ),
    Mistake(
        "padding in the variance",
        _targets(scaled=_mean_of_counted_only),
        "the returns are right and the mean is over what counts; the variance still "
        "has the zeros of the padding in it.",
    ),
    Mistake(
        "padding in the mean",
        _targets(scaled=_spread_of_counted_only),
        "the returns are right and the variance is over what counts; the mean still "
        "has the zeros of the padding in it.",
    ),
    Mistake(
        "advantages no longer scaled",
        _targets(scaled=lambda a, returns, mask: a),
        "the returns are right, and the advantages are not scaled any more. For the "
        "policy's loss that was meant to be: mean 0, variance 1 over what counts.",
    ),
    Mistake(
        "advantages centred only",
        _targets(scaled=lambda a, returns, mask: a - a[mask].mean()),
        "the advantages have mean 0, and their variance is no longer 1.",
    ),
    Mistake(
        "advantages not centred",
        _targets(scaled=lambda a, returns, mask: whiten(a, mask, shift_mean=False)),
        "the advantages have variance 1 and keep their mean. Here their mean is to be "
        "0.",
    ),
    Mistake(
        "returns scaled too",
        _targets(returns=lambda a, white, returns, values, mask: whiten(returns, mask)),
        "the returns are scaled to mean 0 and variance 1. Values are to say what a "
        "token earns, in units of the reward: leave the returns alone.",
    ),
    Mistake(
        "returns are the advantages",
        _targets(returns=lambda a, white, returns, values, mask: a),
        "the second result is the advantage before scaling. Return = advantage + "
        "value.",
    ),
    Mistake(
        "returns are the values",
        _targets(returns=lambda a, white, returns, values, mask: values),
        "the second result is what was expected already: the values would learn "
        "nothing new.",
    ),
    Mistake(
        "answer by answer",
        _targets(scaled=_answer_by_answer),
        "each answer is scaled by itself, so that a bad answer looks as good as a good "
        "one. Mean and variance are those of all tokens of the batch that count.",
    ),
    Mistake(
        "divided by n - 1",
        _targets(scaled=_of_counted(1)),
        "nearly: the variance divides by n - 1, torch's default. No harm in a large "
        "batch; here it divides by n, as it was written (correction=0).",
    ),
    Mistake(
        "padding is not 0",
        _targets(scaled=_of_counted(0), blank=False),
        "what counts is right, and the padding holds numbers. It is to read 0: who "
        "uses this next may forget the mask.",
    ),
)

EXERCISE = Exercise(
    id="3.7",
    title="Find the silent bug",
    reference=learning_targets,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=("plain", "float64", "values of 0"),
    difficulty=4,
    minutes=20,
    points=3,
)
