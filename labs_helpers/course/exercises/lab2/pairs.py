"""What the exercises on preference losses share: log-probs, beta, answers on pairs.

Log-probs and betas are drawn on a coarse binary grid, on which float32 adds and
subtracts without rounding, so that the order in which an answer does it makes no
difference.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of
from labs_helpers.course.exercises.exercise import Function, Inputs

NAMES = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")


def logprobs(
    rng: np.random.Generator,
    *shape: int,
    around: float = -8.0,
    scale: float = 2.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw log-probs of whole answers, multiples of 1/16."""
    drawn = np.round(rng.normal(around, scale, size=shape) * 16) / 16
    return torch.tensor(drawn, dtype=dtype)


def draw_beta(rng: np.random.Generator) -> float:
    """Draw a price of KL, a multiple of 1/32 that is far from 1."""
    return float(rng.choice([rng.integers(2, 13), rng.integers(48, 65)])) / 32


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of chosen and rejected answers, by policy and reference, and beta."""
    around, scale = -8.0, 2.0
    if flavour == "long answers":
        around = -900.0
    if flavour == "large differences":
        around, scale = -9000.0, 3000.0
    given: Inputs = {
        name: logprobs(rng, size, around=around, scale=scale, dtype=dtype_of(flavour))
        for name in NAMES
    }
    if flavour == "policy is the reference":
        given["policy_chosen"] = given["reference_chosen"].clone()
        given["policy_rejected"] = given["reference_rejected"].clone()
    return given | {"beta": draw_beta(rng)}


def margin(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
) -> Tensor:
    """Log-ratio of the chosen answer less that of the rejected one, in nats."""
    return (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)


def on_pairs(change: Callable[..., Tensor]) -> Function:
    """Name the arguments of an answer as the exercises do."""

    def answer(
        policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
    ):
        return change(
            policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
        )

    return answer


def on_margin(change: Callable[[Tensor, float], Tensor]) -> Function:
    """Turn a changed use of the right margin into a whole answer."""
    return on_pairs(lambda pc, pr, rc, rr, beta: change(margin(pc, pr, rc, rr), beta))
