"""Exercise 3.1: the loss whose gradient is the policy gradient."""

import numpy as np
import torch
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of, normal
from labs_helpers.course.exercises.exercise import Exercise, Inputs, Mistake
from labs_helpers.course.exercises.lab3.tokens import (
    OTHER_MEANS,
    answer_mask,
    per_token,
    spoil_padding,
    token_mean,
    with_leaks,
    without_padding,
)
from labs_helpers.losses import reinforce_loss


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of the answers' tokens and how good each token was."""
    mask, dtype = answer_mask(rng, size, flavour), dtype_of(flavour)
    logprobs = -normal(rng, *mask.shape, dtype=dtype).abs() - 0.1
    advantages = normal(rng, *mask.shape, dtype=dtype)
    if flavour == "all rewards above 0":
        advantages = advantages.abs() + 1
    spoil_padding(flavour, mask, logprobs, advantages)
    return {"logprobs": logprobs, "advantages": advantages, "mask": mask}


def _loss(logprobs: Tensor, advantages: Tensor) -> Tensor:
    return -advantages * logprobs


def _summed_first(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    whole = (logprobs * mask).sum(1), (advantages * mask).sum(1)
    return -(whole[0] * whole[1]).mean()


def _whitened(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    mean = token_mean(advantages, mask)
    spread = token_mean((advantages - mean).square(), mask).sqrt()
    return token_mean(-(advantages - mean) / (spread + 1e-8) * logprobs, mask)


def _centred(logprobs: Tensor, advantages: Tensor, mask: Tensor) -> Tensor:
    centred = advantages - token_mean(advantages, mask)
    return token_mean(-centred * logprobs, mask)


OTHER_RESULTS = (
    (
        "uphill for downhill",
        per_token(lambda logprobs, advantages: advantages * logprobs),
        "an optimiser walks downhill, and this makes good tokens less likely. The "
        "objective is to be made large: which sign has its loss?",
    ),
    (
        "advantages left out",
        per_token(lambda logprobs, advantages: -logprobs),
        "this is the loss of supervised training: every sampled token is made "
        "likelier, whatever it earned. What weighs each of them?",
    ),
    (
        "log-probs left out",
        per_token(lambda logprobs, advantages: -advantages + 0 * logprobs),
        "the value is the mean advantage, and nothing gets back to the policy. The "
        "gradient of log-prob times advantage is the policy gradient.",
    ),
    (
        "probabilities, not log-probs",
        per_token(lambda logprobs, advantages: -advantages * logprobs.exp()),
        "you weigh probabilities. The answers were sampled from the policy already, so "
        "its gradient is that of the logarithm: p times grad log p is grad p.",
    ),
    (
        "sign of the advantage only",
        per_token(lambda logprobs, advantages: -advantages.sign() * logprobs),
        "it asks whether a token was good, and not how good. Half a point and ten "
        "weigh the same.",
    ),
    (
        "good tokens only",
        per_token(lambda logprobs, advantages: -advantages.clamp(min=0) * logprobs),
        "bad tokens have no weight: the policy is never told what not to say.",
    ),
    (
        "advantages squared",
        per_token(lambda logprobs, advantages: -advantages.square() * logprobs),
        "squared advantages are never below 0: bad tokens are made likelier, too.",
    ),
    (
        "whole answers multiplied",
        _summed_first,
        "log-probs and advantages are added up over the answer before they meet, so "
        "that every token is paid for what any other did. Multiply token by token.",
    ),
    (
        "advantages whitened here",
        _whitened,
        "you scale the advantages to mean 0 and variance 1. That may be a good thing "
        "to do before; the loss takes the advantages as they come.",
    ),
    (
        "advantages centred here",
        _centred,
        "you take the mean off the advantages. A baseline is chosen before; the loss "
        "takes the advantages as they come.",
    ),
    *((name, per_token(_loss, reduce), text) for name, reduce, text in OTHER_MEANS),
)

MISTAKES = (
    *with_leaks(OTHER_RESULTS),
    Mistake(
        "mask by multiplication",
        per_token(_loss),
        "it is right as long as the padding holds ordinary numbers. A NaN stays NaN, "
        "for 0 times NaN is NaN. Select, do not multiply.",
    ),
    Mistake(
        "masked too late",
        lambda logprobs, advantages, mask: (
            torch.where(mask, -advantages * logprobs, 0.0).sum() / mask.sum()
        ),
        "the value is right, but the gradient is NaN where the padding is: on the way "
        "back 0 meets the NaN in the product. Make the factors harmless before you "
        "multiply them, or pick what counts by an index.",
    ),
    Mistake(
        "no gradient to the policy",
        without_padding(
            per_token(lambda logprobs, advantages: -advantages * logprobs.detach())
        ),
        "the value is right, and nothing gets back to the log-probs: the policy would "
        "stay as it is. Advantages are constants; log-probs are not.",
    ),
)

EXERCISE = Exercise(
    id="3.1",
    title="The policy gradient's loss",
    reference=reinforce_loss,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "all rewards above 0",
        "no padding",
        "padding is NaN",
    ),
    gradients=("logprobs",),
    difficulty=2,
    minutes=15,
    points=2,
)
