"""Exercise 2.6: sequence likelihood calibration, a hinge and no reference."""

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from labs_helpers import losses
from labs_helpers.course.exercises.draw import dtype_of
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake
from labs_helpers.course.exercises.lab2.pairs import logprobs


def slic_loss(
    policy_chosen: Float[Tensor, " B"],
    policy_rejected: Float[Tensor, " B"],
    target_logprobs: Float[Tensor, " N"],
    delta: float,
    weight: float,
) -> Float[Tensor, ""]:
    """Mean of max(0, delta - chosen + rejected), less weight * mean(target)."""
    return losses.slic_loss(
        policy_chosen, policy_rejected, target_logprobs, delta, weight
    )


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of pairs and of answers to be kept likely, a margin, a weight."""
    dtype = dtype_of(flavour)
    targets = size if flavour == "as many targets as pairs" else size + 2
    chosen, rejected = (logprobs(rng, size, dtype=dtype) for _ in range(2))
    if flavour == "all pairs far enough apart":
        chosen = rejected + 9 + logprobs(rng, size, around=3, dtype=dtype).abs()
    return {
        "policy_chosen": chosen,
        "policy_rejected": rejected,
        "target_logprobs": logprobs(rng, targets, dtype=dtype),
        # Off the grid of the log-probs, so that no pair stands at the bend.
        "delta": float(rng.choice([rng.integers(6, 13), rng.integers(20, 60)])) / 16
        + 1 / 32,
        "weight": float(rng.choice([rng.uniform(0.2, 0.7), rng.uniform(1.5, 2)])),
    }


def _answer(change) -> Function:
    """Name the arguments of an answer as the exercise does."""

    def answer(policy_chosen, policy_rejected, target_logprobs, delta, weight):
        return change(policy_chosen, policy_rejected, target_logprobs, delta, weight)

    return answer


def _ranked_by(change) -> Function:
    """Turn a changed first term into a whole answer, the second being right."""
    return _answer(lambda c, r, t, delta, w: change(c, r, delta) - w * t.mean())


def _kept_by(change) -> Function:
    """Turn a changed second term into a whole answer, the first being right."""
    return _answer(lambda c, r, t, delta, w: _hinge(c, r, delta) + change(c, t, w))


def _hinge(chosen: Tensor, rejected: Tensor, delta: float) -> Tensor:
    return F.relu(delta - chosen + rejected).mean()


MISTAKES = (
    Mistake(
        "chosen and rejected swapped",
        _ranked_by(lambda c, r, delta: _hinge(r, c, delta)),
        "the loss falls when the rejected answer becomes likelier. Which of the two "
        "should be ahead by delta?",
    ),
    Mistake(
        "margin with the wrong sign",
        _ranked_by(lambda c, r, delta: _hinge(c, r, -delta)),
        "your delta makes the loss smaller. It is a demand: a pair costs something "
        "until the chosen answer is ahead by that much.",
    ),
    Mistake(
        "margin ignored",
        _ranked_by(lambda c, r, delta: _hinge(c, r, 0.0)),
        "delta changes nothing: a pair stops training as soon as the chosen answer "
        "is ahead by a hair.",
    ),
    Mistake(
        "margin fixed at 1",
        _ranked_by(lambda c, r, delta: _hinge(c, r, 1.0)),
        "the hinge bends at 1, whatever delta is. Is there a number left where the "
        "argument belongs?",
    ),
    Mistake(
        "margin multiplies",
        _ranked_by(lambda c, r, delta: F.relu(1 - delta * (c - r)).mean()),
        "delta scales the difference. It is a distance in nats, not a factor: equal "
        "log-probs pay delta.",
    ),
    Mistake(
        "margin outside the hinge",
        _ranked_by(lambda c, r, delta: F.relu(r - c).mean() + delta),
        "your delta only adds a constant to the loss, and a constant has no gradient: "
        "it must act inside the maximum.",
    ),
    Mistake(
        "no hinge",
        _ranked_by(lambda c, r, delta: (delta - c + r).mean()),
        "pairs that are far enough apart go on being pushed, and make up for those "
        "that are wrong. Where is the maximum with 0?",
    ),
    Mistake(
        "minimum for maximum",
        _ranked_by(lambda c, r, delta: (delta - c + r).clamp(max=0).mean()),
        "pairs that are far enough apart are pushed further, and the others train "
        "nothing. The hinge is the other half.",
    ),
    Mistake(
        "hinge of the mean",
        _ranked_by(lambda c, r, delta: F.relu((delta - c + r).mean())),
        "you average the pairs first, so that one far ahead makes up for one that is "
        "wrong. Which comes first, the maximum or the mean?",
    ),
    Mistake(
        "squared hinge",
        _ranked_by(lambda c, r, delta: F.relu(delta - c + r).square().mean()),
        "the hinge is squared, so that the worst pairs have the say. SLiC takes it as "
        "it is: every pair that is short of delta pulls alike.",
    ),
    Mistake(
        "distance on both sides",
        _ranked_by(lambda c, r, delta: (delta - c + r).abs().mean()),
        "a pair that is further apart than delta pays again. A hinge costs nothing "
        "there.",
    ),
    Mistake(
        "smooth hinge",
        _ranked_by(lambda c, r, delta: F.softplus(delta - c + r).mean()),
        "this is the logarithm of a sigmoid, as in DPO: it never reaches 0. A hinge "
        "does, where a pair is delta apart.",
    ),
    Mistake(
        "probabilities, not log-probs",
        _ranked_by(lambda c, r, delta: F.relu(delta - c.exp() + r.exp()).mean()),
        "you compare probabilities. Those of whole answers are so small that every "
        "pair pays delta for ever. The inputs are log-probs: leave them so.",
    ),
    Mistake(
        "chosen answer only",
        _ranked_by(lambda c, r, delta: F.relu(delta - c).mean()),
        "the rejected answer changes nothing. A log-prob is never above 0, so no "
        "chosen answer could get ahead of delta by itself.",
    ),
    Mistake(
        "ratio of log-probs",
        _ranked_by(lambda c, r, delta: F.relu(delta - c / r).mean()),
        "you divide log-probs by log-probs. The logarithm of a ratio of probabilities "
        "is something else when what you hold are logarithms already.",
    ),
    Mistake(
        "sum for mean",
        _ranked_by(lambda c, r, delta: F.relu(delta - c + r).sum()),
        "the first term grows with the number of pairs, so that the weight of the "
        "second would depend on the batch size. A mean is asked for.",
    ),
    Mistake(
        "every pair with every other",
        _ranked_by(
            lambda c, r, delta: F.relu(delta - c[:, None] + r[None]).mean(),
        ),
        "(B,) met (B, 1): every chosen answer is compared with every rejected one, "
        "whatever its prompt. Print the shape of the difference.",
    ),
    Mistake(
        "supervised term left out",
        _kept_by(lambda c, t, w: 0.0),
        "target_logprobs changes nothing. There is no reference in this loss, so "
        "nothing holds the policy: both answers may become as unlikely as you like.",
    ),
    Mistake(
        "supervised term with the wrong sign",
        _kept_by(lambda c, t, w: w * t.mean()),
        "the loss falls when the answers that are to stay likely become unlikely. "
        "Training goes downhill: which sign has their log-prob?",
    ),
    Mistake(
        "weight ignored",
        _kept_by(lambda c, t, w: -t.mean()),
        "the weight changes nothing: the supervised term always counts 1.",
    ),
    Mistake(
        "sum over the targets",
        _kept_by(lambda c, t, w: -w * t.sum()),
        "the second term grows with the number of target answers. Their mean is "
        "asked for.",
    ),
    Mistake(
        "chosen answers as targets",
        _kept_by(lambda c, t, w: -w * c.mean()),
        "the supervised term keeps the chosen answers likely, and target_logprobs is "
        "never used.",
    ),
    Mistake(
        "probabilities of the targets",
        _kept_by(lambda c, t, w: -w * t.exp().mean()),
        "the supervised term takes probabilities, which for whole answers are about "
        "0. Supervised learning maximises log-probs, and these are given.",
    ),
    Mistake(
        "weight on the hinge",
        _answer(lambda c, r, t, delta, w: w * _hinge(c, r, delta) - t.mean()),
        "the weight is on the wrong term: it says how much the supervised one counts.",
    ),
    Mistake(
        "weight on both terms",
        _answer(lambda c, r, t, delta, w: w * (_hinge(c, r, delta) - t.mean())),
        "the weight scales the whole loss, like a learning rate. It says how much the "
        "second term counts beside the first.",
    ),
    Mistake(
        "mixture of the two terms",
        _answer(lambda c, r, t, delta, w: (1 - w) * _hinge(c, r, delta) - w * t.mean()),
        "you take 1 - weight of the first term. It always counts 1; the weight may "
        "exceed 1 as well.",
    ),
    Mistake(
        "targets inside the hinge",
        _answer(
            lambda c, r, t, delta, w: F.relu(delta - c + r - w * t.mean()).mean(),
        ),
        "the supervised term is inside the maximum, where it acts as a larger margin "
        "and stops with it. It is to hold always.",
    ),
    Mistake(
        "the rejected answer gets no gradient",
        _ranked_by(lambda c, r, delta: _hinge(c, r.detach(), delta)),
        "the value is right, but nothing gets back through policy_rejected: the "
        "policy would learn what to say and never what not to say.",
    ),
    Mistake(
        "the targets get no gradient",
        _kept_by(lambda c, t, w: -w * t.detach().mean()),
        "the value is right, but nothing gets back through target_logprobs: the "
        "supervised term is a number that holds nothing in place.",
    ),
)

EXERCISE = Exercise(
    id="2.6",
    title="The SLiC loss",
    reference=slic_loss,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "as many targets as pairs",
        "all pairs far enough apart",
    ),
    gradients=("policy_chosen", "policy_rejected", "target_logprobs"),
    difficulty=2,
    minutes=10,
    points=2,
)
