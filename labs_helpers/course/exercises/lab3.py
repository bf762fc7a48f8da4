"""Exercises of Lab 3, reinforcement learning: right answers and draws of inputs.

B answers, T tokens; an answer begins in the first column, and what follows it is
padding.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from labs_helpers.course.exercises.exercise import (
    Exercise,
    Inputs,
    tensors,
)


def answer_mask(rng: np.random.Generator, size: int, flavour: str) -> np.ndarray:
    """Which tokens count, (B, T): every row some, and every row with padding."""
    lengths = rng.integers(2, 6, size=size)
    if flavour == "answers of one token":
        lengths[:] = 1
    width = int(lengths.max()) + 2
    if flavour == "no padding":
        lengths[:] = width = 5
    return np.arange(width) < lengths[:, None]


def spoil_padding(flavour: str, mask: np.ndarray, *arrays: np.ndarray) -> None:
    """Write NaN where nothing counts, if the flavour says so."""
    if flavour == "padding is NaN":
        for array in arrays:
            array[~mask] = np.nan


def reinforce_loss(
    logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Shaped[Tensor, "B T"],
) -> Float[Tensor, ""]:
    """Mean of -advantage * log-prob over the tokens that count."""
    mask = mask.bool()
    logprobs = torch.where(mask, logprobs, 0.0)
    advantages = torch.where(mask, advantages.detach(), 0.0)
    loss = -advantages * logprobs
    return (loss * mask).sum() / mask.sum()


def reinforce_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of the answers' tokens and how good each token was."""
    mask = answer_mask(rng, size, flavour)
    logprobs = -np.abs(rng.normal(size=mask.shape)) - 0.1
    advantages = rng.normal(size=mask.shape)
    if flavour == "all rewards above 0":
        advantages = np.abs(advantages) + 1
    spoil_padding(flavour, mask, logprobs, advantages)
    return tensors(flavour, logprobs=logprobs, advantages=advantages, mask=mask)


@torch.no_grad()
def gae(
    rewards: Float[Tensor, "B T"],
    values: Float[Tensor, "B T"],
    mask: Shaped[Tensor, "B T"],
    gamma: float,
    lam: float,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Advantages and returns of answers that begin in the first column."""
    mask = mask.bool()
    rewards = torch.where(mask, rewards, 0.0)
    values = torch.where(mask, values, 0.0)
    advantages = torch.zeros_like(values)
    advantage = following = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * following - values[:, t]
        advantage = delta * mask[:, t] + gamma * lam * advantage
        advantages[:, t] = advantage
        following = values[:, t]
    advantages = advantages * mask
    returns = advantages + values
    return advantages, returns


def gae_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Rewards and values of the answers' tokens, a discount and a lambda."""
    mask = answer_mask(rng, size, flavour)
    rewards, values = rng.normal(size=(2, *mask.shape))
    spoil_padding(flavour, mask, rewards, values)
    gamma = 1.0 if flavour == "no discount" else 0.9
    lam = {"lambda is 0": 0.0, "lambda is 1": 1.0}.get(flavour, 0.8)
    return tensors(
        flavour, rewards=rewards, values=values, mask=mask, gamma=gamma, lam=lam
    )


class Product:
    """Products with a matrix that nobody gets to see."""

    def __init__(self, matrix: Tensor):
        self._matrix = matrix

    def __call__(self, vector: Tensor) -> Tensor:
        """Give the matrix times the vector."""
        return self._matrix @ vector

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Product) and torch.equal(self._matrix, other._matrix)

    __hash__ = None

    def __str__(self) -> str:
        rows = np.array2string(self._matrix.numpy(), precision=3, separator=", ")
        return f"products with {' '.join(rows.split())}"


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Float[Tensor, " P"], iterations: int
) -> Float[Tensor, " P"]:
    """Solve F x = b for a positive definite F, given as v -> F v; start at x = 0."""
    x, residual, direction = torch.zeros_like(b), b.clone(), b.clone()
    left = residual @ residual
    for _ in range(iterations):
        if left <= 1e-20 * (b @ b):
            break
        curved = product(direction)
        step = left / (direction @ curved)
        x, residual = x + step * direction, residual - step * curved
        before, left = left, residual @ residual
        direction = residual + left / before * direction
    return x


def conjugate_gradients_inputs(
    rng: np.random.Generator, size: int, flavour: str
) -> Inputs:
    """A well-conditioned system with as many unknowns as the size says."""
    directions, _ = np.linalg.qr(rng.normal(size=(size, size)))
    curvatures = rng.uniform(0.5, 3.0, size=size)
    matrix = (directions * curvatures) @ directions.T
    b = rng.normal(size=size)
    if flavour.startswith("right side is 0"):
        b[:] = 0
    more = {"a few more than needed": size + 3, "as many as unknowns": size}
    iterations = more.get(flavour.split(",")[0], max(1, size - 2))
    given = tensors(flavour, product=(matrix + matrix.T) / 2, b=b)
    product = Product(given["product"])
    return {"product": product, "b": given["b"], "iterations": iterations}


def ppo_loss(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    clip: float,
) -> Float[Tensor, ""]:
    """Mean of -min(ratio * advantage, clipped ratio * advantage) over the tokens."""
    logprobs = torch.where(mask, logprobs, 0.0)
    old_logprobs = torch.where(mask, old_logprobs.detach(), 0.0)
    advantages = torch.where(mask, advantages.detach(), 0.0)
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    loss = -torch.min(ratio * advantages, clipped * advantages)
    return (loss * mask).sum() / mask.sum()


def ppo_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs now and when the answers were sampled."""
    mask = answer_mask(rng, size, flavour)
    old_logprobs = -np.abs(rng.normal(size=mask.shape)) - 0.1
    spread = {"far from the old policy": 2.0, "first minibatch": 0.0}.get(flavour, 0.3)
    logprobs = old_logprobs + rng.normal(scale=spread, size=mask.shape)
    advantages = rng.normal(size=mask.shape)
    spoil_padding(flavour, mask, logprobs, old_logprobs, advantages)
    return tensors(
        flavour,
        logprobs=logprobs,
        old_logprobs=old_logprobs,
        advantages=advantages,
        mask=mask,
        clip=rng.choice([0.1, 0.2, 0.3]),
    )


def kl_estimates(
    logprobs: Float[Tensor, " N"], reference_logprobs: Float[Tensor, " N"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"], Float[Tensor, " N"]]:
    """k1, k2 and k3 of each of N tokens that the policy sampled."""
    d = logprobs - reference_logprobs
    k1 = d
    k2 = d.square() / 2
    k3 = (-d).exp() - 1 + d
    return k1, k2, k3


def kl_estimates_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of sampled tokens under the policy and its reference."""
    logprobs = -np.abs(rng.normal(size=size)) - 0.05
    scale = 4.0 if flavour == "far apart" else 0.7
    reference_logprobs = logprobs + rng.normal(scale=scale, size=size)
    if flavour == "policy is the reference":
        reference_logprobs = logprobs
    return tensors(flavour, logprobs=logprobs, reference_logprobs=reference_logprobs)


@torch.no_grad()
def shape_rewards(
    scores: Float[Tensor, " B"],
    logprobs: Float[Tensor, "B T"],
    reference_logprobs: Float[Tensor, "B T"],
    mask: Shaped[Tensor, "B T"],
    kl_weight: float,
) -> Float[Tensor, "B T"]:
    """Reward of every token: a KL penalty each, and the score at the answer's last."""
    mask = mask.bool()
    logprobs = torch.where(mask, logprobs, 0.0)
    reference_logprobs = torch.where(mask, reference_logprobs, 0.0)
    last = mask & (mask.flip(1).cumsum(1).flip(1) == 1)
    penalty = kl_weight * (logprobs - reference_logprobs) * mask
    return last * scores[:, None] - penalty


def shape_rewards_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """What a reward model says of whole answers, and the log-probs of their tokens."""
    mask = answer_mask(rng, size, flavour)
    logprobs = -np.abs(rng.normal(size=mask.shape)) - 0.1
    reference_logprobs = logprobs + rng.normal(size=mask.shape)
    spoil_padding(flavour, mask, logprobs, reference_logprobs)
    return tensors(
        flavour,
        scores=rng.normal(size=size) + 2,
        logprobs=logprobs,
        reference_logprobs=reference_logprobs,
        mask=mask,
        kl_weight=rng.choice([0.03, 0.1, 0.5]),
    )


def learning_targets(
    rewards: Float[Tensor, "B T"],
    values: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    lam: float,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Whitened advantages for the policy, returns for the values; 0 where masked."""
    advantages, returns = gae(rewards, values, mask, 1.0, lam)
    counted = advantages[mask]
    scaled = (advantages - counted.mean()) / (counted.std(correction=0) + 1e-8)
    return scaled * mask, returns * mask


def learning_targets_inputs(
    rng: np.random.Generator, size: int, flavour: str
) -> Inputs:
    """Rewards and values of the answers' tokens."""
    mask = answer_mask(rng, size, flavour)
    rewards, values = rng.normal(size=(2, *mask.shape)) * mask
    values = values * (flavour != "values of 0")
    return tensors(flavour, rewards=rewards + mask, values=values, mask=mask, lam=0.9)


EXERCISES = (
    Exercise(
        "3.1",
        "The policy gradient's loss",
        reinforce_loss,
        reinforce_inputs,
        "plain; float64; all rewards above 0; no padding; padding is NaN",
        (2, 15, 2),
        gradients=("logprobs",),
    ),
    Exercise(
        "3.2",
        "Generalised advantage estimation",
        gae,
        gae_inputs,
        "plain; float64; no discount; lambda is 0; lambda is 1; answers of one token;"
        " no padding; padding is NaN",
        (4, 25, 4),
    ),
    Exercise(
        "3.3",
        "Conjugate gradients",
        conjugate_gradients,
        conjugate_gradients_inputs,
        "fewer iterations than unknowns; fewer iterations than unknowns, float64; as "
        "many as unknowns, float64; a few more than needed; a few more than needed, "
        "float64; right side is 0",
        (4, 20, 3),
    ),
    Exercise(
        "3.4",
        "PPO's clipped surrogate",
        ppo_loss,
        ppo_inputs,
        "plain; float64; first minibatch; far from the old policy; no padding; "
        "padding is NaN",
        (3, 20, 4),
        gradients=("logprobs",),
    ),
    Exercise(
        "3.5",
        "Three estimates of the KL",
        kl_estimates,
        kl_estimates_inputs,
        "plain; float64; policy is the reference; far apart",
        (2, 10, 2),
    ),
    Exercise(
        "3.6",
        "A reward for every token",
        shape_rewards,
        shape_rewards_inputs,
        "plain; float64; no padding; padding is NaN",
        (3, 15, 3),
    ),
    Exercise(
        "3.7",
        "Find the silent bug",
        learning_targets,
        learning_targets_inputs,
        "plain; float64; values of 0",
        (4, 20, 3),
    ),
)
