"""Exercise 2.1: the policy that reward and KL penalty ask for, where it is a table."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of, normal
from labs_helpers.course.exercises.exercise import Exercise, Inputs, Mistake


def optimal_policy(
    reference: Float[Tensor, " K"], rewards: Float[Tensor, " K"], beta: float
) -> Float[Tensor, " K"]:
    """Argmax of E[reward] - beta KL(policy || reference) over K answers.

    Proportional to reference * exp(reward / beta) (arXiv 2305.18290, eq. 4).
    """
    total = reference.sum().item()
    if abs(total - 1) > 1e-3:
        raise ValueError(f"probabilities add up to 1; the reference's to {total:g}")
    return torch.softmax(reference.log() + rewards / beta, dim=0)


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Probabilities of K answers under the reference, their rewards, a price of KL."""
    plain = flavour in ("plain", "float64")
    dtype = dtype_of(flavour) if plain else torch.float64
    # A lone answer has all the probability whatever anybody does with it.
    rewards = normal(rng, size, dtype=dtype)
    reference = torch.softmax(normal(rng, size, dtype=torch.float64), dim=0)
    beta = float(rng.choice([rng.uniform(0.3, 0.7), rng.uniform(1.5, 3)]))
    if flavour == "large rewards":
        rewards = rewards * 2000
    if flavour == "rewards far from 0":
        rewards = rewards + 3000
    if flavour == "an answer that the reference never gives" and size > 1:
        reference = torch.cat([reference[1:] / (1 - reference[0]), torch.zeros(1)])
        rewards[-1] = 200
        order = torch.tensor(rng.permutation(size))
        reference, rewards = reference[order], rewards[order]
    return {"reference": reference.to(dtype), "rewards": rewards, "beta": beta}


def _share(weights: Tensor) -> Tensor:
    return weights / weights.sum()


def _softmax(scores: Tensor) -> Tensor:
    return torch.softmax(scores, dim=0)


def _largest_is_one(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    scores = reference.log() + rewards / beta
    return (scores - scores.max()).exp()


def _reverse_kl(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    """Maximise E[reward] - beta KL(reference || policy), its level by bisection."""
    possible = reference > 0
    best = rewards[possible].max()
    low, high = best, best + beta
    for _ in range(60):
        level = (low + high) / 2
        if (beta * reference / (level - rewards))[possible].sum() > 1:
            low = level
        else:
            high = level
    policy = beta * reference / (high - rewards)
    return torch.where(possible, policy, 0.0).to(reference.dtype)


def _greedy(reference: Tensor, rewards: Tensor, beta: float) -> Tensor:
    best = torch.zeros_like(rewards)
    best[rewards.argmax()] = 1
    return best


MISTAKES = (
    Mistake(
        "reference left out",
        lambda reference, rewards, beta: _softmax(rewards / beta),
        "the reference changes nothing: this is the optimum when the reference gives "
        "all answers equally often. An answer that it never gives costs infinitely "
        "much KL.",
    ),
    Mistake(
        "beta multiplies",
        lambda reference, rewards, beta: _softmax(reference.log() + rewards * beta),
        "a high price of KL takes your policy further from the reference. It should "
        "hold it back: try a very large beta.",
    ),
    Mistake(
        "beta ignored",
        lambda reference, rewards, beta: _softmax(reference.log() + rewards),
        "beta changes nothing: the policy moves just as far whether KL is cheap or "
        "dear.",
    ),
    Mistake(
        "beta divides the reference too",
        lambda reference, rewards, beta: _softmax((reference.log() + rewards) / beta),
        "beta is in both terms. Where all rewards are equal the optimum is the "
        "reference itself, and yours is a sharper or a flatter one.",
    ),
    Mistake(
        "beta on the reference",
        lambda reference, rewards, beta: _softmax(beta * reference.log() + rewards),
        "beta is on the wrong term. Where all rewards are equal the optimum is the "
        "reference itself, and yours is a power of it.",
    ),
    Mistake(
        "penalty of entropy, not of KL",
        lambda reference, rewards, beta: _softmax(rewards / beta - reference.log()),
        "the likelier an answer is under the reference, the less you give it. The "
        "reference must pull the policy towards itself.",
    ),
    Mistake(
        "not normalised",
        lambda reference, rewards, beta: reference * (rewards / beta).exp(),
        "the right proportions, but they do not add up to 1, so they are no "
        "probabilities yet.",
    ),
    Mistake(
        "the largest becomes 1",
        _largest_is_one,
        "taking off the largest score keeps exp from overflowing, but it does not "
        "make the values add up to 1: the best answer gets probability 1 and the "
        "others more on top.",
    ),
    Mistake(
        "overflow",
        lambda reference, rewards, beta: _share(reference * (rewards / beta).exp()),
        "it is right for small rewards. For large ones exp is inf or 0, and the "
        "quotient nan. Only differences between rewards matter: which level could "
        "you take off before exp, or which function of torch does that for you?",
    ),
    Mistake(
        "probability, not its logarithm, in the softmax",
        lambda reference, rewards, beta: _softmax(reference + rewards / beta),
        "inside a softmax terms are added where probabilities are multiplied. What "
        "becomes the factor `reference` once exp is applied? Where all rewards are "
        "equal the result should be the reference.",
    ),
    Mistake(
        "a softmax after the exponential",
        lambda reference, rewards, beta: _softmax(reference * (rewards / beta).exp()),
        "a softmax takes the exponential itself, so here it is taken twice. These "
        "values need to be normalised, and nothing else.",
    ),
    Mistake(
        "reference multiplies the score",
        lambda reference, rewards, beta: _softmax(reference * rewards / beta),
        "the reference scales the rewards inside the softmax. It weighs the "
        "exponentials: where all rewards are equal the result should be the "
        "reference, and yours is uniform.",
    ),
    Mistake(
        "normalised without the reference",
        lambda reference, rewards, beta: reference * _softmax(rewards / beta),
        "you divide by the sum of exp(reward / beta), but what you divide also holds "
        "the reference: the result does not add up to 1.",
    ),
    Mistake(
        "minus sign",
        lambda reference, rewards, beta: _softmax(reference.log() - rewards / beta),
        "the better the answer, the less of it: the reward has the wrong sign.",
    ),
    Mistake(
        "KL the other way round",
        _reverse_kl,
        "this is the optimum for KL(reference || policy). The exercise penalises "
        "KL(policy || reference), whose expectation is over the policy.",
    ),
    Mistake(
        "only the best answer",
        _greedy,
        "all probability is on the answer with the highest reward. That is the limit "
        "where KL costs nothing.",
    ),
    Mistake(
        "log-probabilities",
        lambda reference, rewards, beta: torch.log_softmax(
            reference.log() + rewards / beta, dim=0
        ),
        "these are the logarithms of the probabilities. The probabilities are asked "
        "for: at least 0, with sum 1.",
    ),
    Mistake(
        "reward without the exponential",
        lambda reference, rewards, beta: _share(reference * rewards / beta),
        "the reference is weighed by the reward itself, which can be negative and so "
        "give negative probabilities. The derivation ends in an exponential of it.",
    ),
    Mistake(
        "mean of reference and softmax",
        lambda reference, rewards, beta: (reference + _softmax(rewards / beta)) / 2,
        "you mix two policies, so that bad answers keep half of their probability at "
        "any reward. The optimum multiplies.",
    ),
    Mistake(
        "epsilon in the logarithm",
        lambda reference, rewards, beta: _softmax(
            (reference + 1e-8).log() + rewards / beta
        ),
        "a small number added to the reference gives some probability to an answer "
        "that the reference never gives, and a high reward then makes it the winner. "
        "A logarithm of -inf does no harm in a softmax.",
    ),
)

EXERCISE = Exercise(
    id="2.1",
    title="The optimum of reward minus KL",
    reference=optimal_policy,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "large rewards",
        "rewards far from 0",
        "an answer that the reference never gives",
    ),
    difficulty=2,
    minutes=10,
    points=2,
)
