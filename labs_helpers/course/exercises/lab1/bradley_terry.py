"""Exercise 1.2: the Bradley-Terry loss, with margin and centring."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of, normal, uniform
from labs_helpers.course.exercises.exercise import Exercise, Inputs, Mistake
from labs_helpers.losses import bradley_terry_loss


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Rewards of pairs, with and without margin and centring."""
    dtype = dtype_of(flavour)
    scale = 200.0 if "large" in flavour else 1.5
    given: Inputs = {
        "chosen_rewards": normal(rng, size, scale=scale, dtype=dtype),
        "rejected_rewards": normal(rng, size, scale=scale, dtype=dtype),
    }
    if "margin" in flavour:
        given["margin"] = uniform(rng, size, low=0.1, high=2.0, dtype=dtype)
    if "centred" in flavour:
        given["center_weight"] = float(rng.uniform(0.05, 0.5))
    return given


def _difference(chosen: Tensor, rejected: Tensor, margin: Tensor | None) -> Tensor:
    return chosen - rejected - (0 if margin is None else margin)


def _centre(chosen: Tensor, rejected: Tensor, center_weight: float) -> Tensor:
    return center_weight * (chosen + rejected).square().mean()


def _loss_of(change):
    """Turn a changed main term into a whole answer, the centring being right."""

    def answer(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
        main = change(chosen_rewards, rejected_rewards, margin)
        return main + _centre(chosen_rewards, rejected_rewards, center_weight)

    return answer


def _centred_by(change):
    """Turn a changed centring into a whole answer, the main term being right."""

    def answer(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
        main = -F.logsigmoid(_difference(chosen_rewards, rejected_rewards, margin))
        centring = change(chosen_rewards, rejected_rewards)
        return main.mean() + center_weight * centring

    return answer


def _sum(chosen_rewards, rejected_rewards, margin=None, center_weight=0.0):
    mean = bradley_terry_loss(chosen_rewards, rejected_rewards, margin, center_weight)
    return mean * len(chosen_rewards)


MISTAKES = (
    Mistake(
        "chosen and rejected swapped",
        _loss_of(lambda c, r, m: -F.logsigmoid(_difference(r, c, m)).mean()),
        "the loss falls when the rejected answer scores higher: this trains a model "
        "to prefer what people rejected.",
    ),
    Mistake(
        "log-likelihood, not its negative",
        _loss_of(lambda c, r, m: F.logsigmoid(_difference(c, r, m)).mean()),
        "the value is below 0 and rises as the model gets better. Training goes "
        "downhill.",
    ),
    Mistake(
        "sum for mean",
        _sum,
        "the value grows with the number of pairs, so that the learning rate would "
        "depend on the batch size. A mean is asked for.",
    ),
    Mistake(
        "margin added",
        _loss_of(lambda c, r, m: -F.logsigmoid(c - r + (0 if m is None else m)).mean()),
        "your margin makes the loss smaller. It is a demand: the chosen answer must "
        "be ahead by that much before the pair counts as won.",
    ),
    Mistake(
        "margin ignored",
        _loss_of(lambda c, r, m: -F.logsigmoid(c - r).mean()),
        "it is right without a margin, and the margin changes nothing.",
    ),
    Mistake(
        "margin multiplies",
        _loss_of(
            lambda c, r, m: -F.logsigmoid((c - r) * (1 if m is None else m)).mean()
        ),
        "your margin scales the difference of the rewards. It is a distance in units "
        "of reward, not a weight.",
    ),
    Mistake(
        "margin outside the sigmoid",
        _loss_of(
            lambda c, r, m: -F.logsigmoid(c - r).mean() + (0 if m is None else m.mean())
        ),
        "your margin only adds a constant to the loss, and a constant has no "
        "gradient: it must act before the sigmoid.",
    ),
    Mistake(
        "probability, not its logarithm",
        _loss_of(lambda c, r, m: -torch.sigmoid(_difference(c, r, m)).mean()),
        "the loss never exceeds 0 and hardly changes for pairs that are badly wrong. "
        "The logarithm of the probability is missing.",
    ),
    Mistake(
        "error rate, not likelihood",
        _loss_of(lambda c, r, m: (1 - torch.sigmoid(_difference(c, r, m))).mean()),
        "1 - sigmoid is the probability of a wrong order. The likelihood asks for the "
        "logarithm of the probability of the right one.",
    ),
    Mistake(
        "logarithm of the mean",
        _loss_of(lambda c, r, m: -(torch.sigmoid(_difference(c, r, m)).mean().log())),
        "the likelihood of all pairs is a product, so its logarithm is a sum of "
        "logarithms. You take the mean first and the logarithm after.",
    ),
    Mistake(
        "overflow",
        _loss_of(
            lambda c, r, m: -torch.log(torch.sigmoid(_difference(c, r, m))).mean()
        ),
        "it is right for moderate rewards and inf where the sigmoid rounds to 0. "
        "torch has one function for the logarithm of the sigmoid.",
    ),
    Mistake(
        "every pair with every other",
        _loss_of(
            lambda c, r, m: (
                -F.logsigmoid(
                    c[:, None] - r[None, :] - (0 if m is None else m[:, None])
                ).mean()
            )
        ),
        "(B,) met (B, 1): every chosen answer is compared with every rejected one, "
        "whatever its prompt. Print the shape of the difference.",
    ),
    Mistake(
        "centring ignored",
        _centred_by(lambda c, r: 0.0),
        "it is right with center_weight = 0, and center_weight changes nothing.",
    ),
    Mistake(
        "centring of the difference",
        _centred_by(lambda c, r: (c - r).square().mean()),
        "you keep the difference of the two rewards small, which works against the "
        "preference. Centring holds their common level at 0: look at the sign.",
    ),
    Mistake(
        "centring of each reward alone",
        _centred_by(lambda c, r: (c.square() + r.square()).mean()),
        "you square the two rewards one by one, which also pulls them together. "
        "The square of their sum only holds their common level at 0.",
    ),
    Mistake(
        "centring of the batch mean",
        _centred_by(lambda c, r: (c + r).mean().square()),
        "you square the mean of the batch, so that one pair may be far above 0 if "
        "another is far below. Which comes first, the square or the mean?",
    ),
    Mistake(
        "centring without the square",
        _centred_by(lambda c, r: (c + r).mean()),
        "your centring term has no lower end: it pulls the rewards down for ever.",
    ),
    Mistake(
        "the rejected answer gets no gradient",
        _loss_of(lambda c, r, m: -F.logsigmoid(_difference(c, r.detach(), m)).mean()),
        "the value is right, but nothing gets back through rejected_rewards: the "
        "model would learn to praise and never to criticise.",
    ),
)

EXERCISE = Exercise(
    id="1.2",
    title="The Bradley-Terry loss",
    reference=bradley_terry_loss,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "large rewards",
        "with a margin",
        "centred",
        "with a margin, centred",
    ),
    gradients=("chosen_rewards", "rejected_rewards"),
    difficulty=2,
    minutes=15,
    points=3,
)
