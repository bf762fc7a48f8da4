"""Exercise 3.2: generalised advantage estimation."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from labs_helpers.advantages import gae
from labs_helpers.course.exercises.draw import dtype_of, normal
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake
from labs_helpers.course.exercises.lab3.tokens import (
    answer_mask,
    is_last,
    spoil_padding,
    with_leaks,
)


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Rewards and values of the answers' tokens, a discount and a lambda."""
    mask, dtype = answer_mask(rng, size, flavour), dtype_of(flavour)
    rewards = normal(rng, *mask.shape, dtype=dtype)
    values = normal(rng, *mask.shape, dtype=dtype)
    spoil_padding(flavour, mask, rewards, values)
    lam = {"lambda is 0": 0.0, "lambda is 1": 1.0}.get(flavour, 0.8)
    return {
        "rewards": rewards,
        "values": values,
        "mask": mask,
        "gamma": 1.0 if flavour == "no discount" else 0.9,
        "lam": lam,
    }


def _otherwise(**changes: Any) -> Function:
    """Answer with GAE in which something is done otherwise."""

    def answer(rewards, values, mask, gamma, lam):
        return _estimates(rewards, values, mask, gamma, lam, **changes)

    return answer


def _estimates(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    gamma: float,
    lam: float,
    *,
    clean: bool = True,
    next_value: str = "0 after the end",
    delta=lambda reward, following, value, gamma: reward + gamma * following - value,
    decay=lambda gamma, lam: gamma * lam,
    forwards: bool = False,
    returns=lambda advantages, values, rewards: advantages + values,
    blank: bool = True,
) -> tuple[Tensor, Tensor]:
    """GAE column by column, with what people do otherwise."""
    counts = mask.to(values.dtype)
    if clean:
        rewards, values = rewards * counts, values * counts
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
    if next_value == "own":
        following = torch.where(is_last(mask), values, following)
    elif next_value == "this":
        following = values
    elif next_value == "previous":
        following = torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], dim=1)
    deltas = delta(rewards, following, values, gamma)
    if blank:
        deltas = deltas * counts
    advantage, columns = torch.zeros_like(deltas[:, 0]), []
    width = deltas.shape[1]
    for t in range(width) if forwards else reversed(range(width)):
        advantage = deltas[:, t] + decay(gamma, lam) * advantage
        columns.append(advantage)
    advantages = torch.stack(columns if forwards else columns[::-1], dim=1)
    if blank:
        advantages = advantages * counts
    result = returns(advantages, values, rewards)
    return advantages, result * counts if blank else result


def _to_go(rewards: Tensor, gamma: float) -> Tensor:
    total, columns = torch.zeros_like(rewards[:, 0]), []
    for t in reversed(range(rewards.shape[1])):
        total = rewards[:, t] + gamma * total
        columns.append(total)
    return torch.stack(columns[::-1], dim=1)


def _returns_of_rewards(rewards, values, mask, gamma, lam):
    advantages, _ = _estimates(rewards, values, mask, gamma, lam)
    return advantages, _to_go(rewards * mask, gamma)


def _swapped(rewards, values, mask, gamma, lam):
    return _estimates(rewards, values, mask, gamma, lam)[::-1]


def _whitened(rewards, values, mask, gamma, lam):
    advantages, returns = _estimates(rewards, values, mask, gamma, lam)
    mean = advantages.sum() / mask.sum()
    deviation = (advantages - mean) * mask
    spread = (deviation.square().sum() / mask.sum() + 1e-8).sqrt()
    return deviation / spread, returns


def _advantages_only(rewards, values, mask, gamma, lam):
    return _estimates(rewards, values, mask, gamma, lam)[0]


def _no_lambda(value: float) -> Function:
    def answer(rewards, values, mask, gamma, lam):
        return _estimates(rewards, values, mask, gamma, value)

    return answer


OTHER_RESULTS = (
    (
        "next value has no discount",
        _otherwise(delta=lambda r, following, v, gamma: r + following - v),
        "the value of the next state enters with its full weight. What comes one "
        "token later counts gamma times as much, in the TD error too.",
    ),
    (
        "sum has no discount",
        _otherwise(decay=lambda gamma, lam: lam),
        "the TD errors of later tokens are weighted by lambda alone. By formula their "
        "weight is a product of two numbers.",
    ),
    (
        "sum has no lambda",
        _otherwise(decay=lambda gamma, lam: gamma),
        "lambda changes nothing: later TD errors are weighted by gamma alone, as if "
        "lambda were 1.",
    ),
    (
        "TD error only",
        _no_lambda(0.0),
        "lambda changes nothing: this is the TD error of each token, as if lambda were "
        "0. Where are the errors of the tokens that follow?",
    ),
    (
        "gamma ignored",
        _otherwise(
            delta=lambda r, following, v, gamma: r + following - v,
            decay=lambda gamma, lam: lam,
        ),
        "gamma changes nothing, as if it were 1.",
    ),
    (
        "no next value",
        _otherwise(delta=lambda r, following, v, gamma: r - v),
        "the TD error has no next value: it compares what one token earns with what "
        "the whole rest was expected to earn.",
    ),
    (
        "next value taken off",
        _otherwise(delta=lambda r, following, v, gamma: r - gamma * following - v),
        "the value of the next state has the wrong sign: it is what can still be "
        "earned, so it counts for the token that leads there.",
    ),
    (
        "value added",
        _otherwise(delta=lambda r, following, v, gamma: r + gamma * following + v),
        "the value of the state is added. An advantage is what came *less* what was "
        "expected.",
    ),
    (
        "TD error upside down",
        _otherwise(delta=lambda r, following, v, gamma: v - r - gamma * following),
        "this is what was expected less what came: a good surprise counts as bad.",
    ),
    (
        "same value for the next",
        _otherwise(next_value="this"),
        "the next value is the value of the token itself. Which column belongs to "
        "t + 1?",
    ),
    (
        "previous value for the next",
        _otherwise(next_value="previous"),
        "the next value comes from the token before: the columns are shifted the wrong "
        "way.",
    ),
    (
        "something follows the end",
        _otherwise(next_value="own"),
        "at the last token its own value stands in for the next. The answer is over "
        "there: nothing more can be earned.",
    ),
    (
        "from the first token on",
        _otherwise(forwards=True),
        "the sum runs from the first token to the last, so each is credited with what "
        "came before it. An advantage sums up what follows.",
    ),
    (
        "returns are rewards to go",
        _returns_of_rewards,
        "the advantages are right. The returns are sums of rewards, which ignore "
        "lambda; asked for are the values' targets, made of advantage and value.",
    ),
    (
        "returns are the advantages",
        _otherwise(returns=lambda advantages, values, rewards: advantages),
        "both results are the advantages. A value is to be fitted to what came, not to "
        "what came less what was expected.",
    ),
    (
        "value taken off twice",
        _otherwise(returns=lambda advantages, values, rewards: advantages - values),
        "the advantages are right, and the returns have the value taken off once "
        "more. Advantage = return - value: solve for the return.",
    ),
    (
        "returns of advantage and reward",
        _otherwise(returns=lambda advantages, values, rewards: advantages + rewards),
        "the advantages are right. The returns add the reward, which is in them "
        "already; what was taken off was the value.",
    ),
    (
        "results swapped",
        _swapped,
        "the two results have changed places: first the advantages, then the returns.",
    ),
    (
        "advantages whitened here",
        _whitened,
        "the returns are right, and the advantages are scaled to mean 0 and variance "
        "1. That comes later, for the policy's loss alone.",
    ),
    (
        "returns left out",
        _advantages_only,
        "the advantages are right, and the returns are missing: two results are asked "
        "for.",
    ),
)

MISTAKES = (
    *with_leaks(OTHER_RESULTS),
    Mistake(
        "mask ignored",
        _otherwise(clean=False, blank=False),
        "padding counts like any token: its rewards and values reach the answer from "
        "behind. Nothing follows an answer's last token.",
    ),
    Mistake(
        "next value read from the padding",
        _otherwise(clean=False),
        "at the last token the next value is read from the padding. The answer is over "
        "there: nothing more can be earned.",
    ),
)

EXERCISE = Exercise(
    id="3.2",
    title="Generalised advantage estimation",
    reference=gae,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "no discount",
        "lambda is 0",
        "lambda is 1",
        "answers of one token",
        "no padding",
        "padding is NaN",
    ),
    difficulty=4,
    minutes=25,
    points=4,
)
