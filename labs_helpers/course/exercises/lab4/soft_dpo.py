"""Exercise 4.4: DPO on labels that are probabilities."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake
from labs_helpers.course.exercises.lab2 import pairs

NAMES = ("policy_a", "policy_b", "reference_a", "reference_b")


def soft_dpo_loss(
    policy_a: Float[Tensor, " B"],
    policy_b: Float[Tensor, " B"],
    reference_a: Float[Tensor, " B"],
    reference_b: Float[Tensor, " B"],
    labels: Float[Tensor, " B"],
    beta: float,
) -> Float[Tensor, ""]:
    """Mean of -p log sigmoid(beta m) - (1 - p) log sigmoid(-beta m).

    Args:
        policy_a: Summed log-probs of answers a under the policy.
        policy_b: Those of answers b.
        reference_a: Summed log-probs of answers a under the reference.
        reference_b: Those of answers b.
        labels: p, the probability that a is better.
        beta: Price of KL. m is the log-ratio of a less that of b.
    """
    margin = beta * ((policy_a - reference_a) - (policy_b - reference_b))
    return -(
        labels * F.logsigmoid(margin) + (1 - labels) * F.logsigmoid(-margin)
    ).mean()


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of answers a and b, soft labels on a binary grid, and beta."""
    drawn = pairs.inputs(rng, size, flavour)
    given: Inputs = {
        name: drawn[old] for name, old in zip(NAMES, pairs.NAMES, strict=True)
    }
    labels = rng.integers(1, 16, size=size) / 16
    labels[labels == 0.5] = 0.625  # one half hides whatever swaps a and b
    if flavour == "undecided labels":
        labels[:] = 0.5
    if flavour == "labels of 0 and 1":
        labels = np.round(labels)
    given["labels"] = torch.tensor(labels, dtype=dtype_of(flavour))
    return given | {"beta": drawn["beta"]}


def _answer(change: Callable[..., Tensor]) -> Function:
    """Name the arguments of an answer as the exercise does."""

    def answer(policy_a, policy_b, reference_a, reference_b, labels, beta):
        return change(policy_a, policy_b, reference_a, reference_b, labels, beta)

    return answer


def _by_margin(change: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """Turn a changed use of beta times the margin, and of labels, into an answer."""
    return _answer(
        lambda pa, pb, ra, rb, labels, beta: change(
            beta * pairs.margin(pa, pb, ra, rb), labels
        )
    )


def _by_logits(change: Callable[..., Tensor]) -> Function:
    """Turn what else could stand in the sigmoid into an answer."""
    return _answer(
        lambda pa, pb, ra, rb, labels, beta: _cross_entropy(
            change(pa, pb, ra, rb, beta), labels
        ).mean()
    )


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return -labels * F.logsigmoid(logits) - (1 - labels) * F.logsigmoid(-logits)


def _entropy(labels: Tensor) -> Tensor:
    return -torch.xlogy(labels, labels) - torch.xlogy(1 - labels, 1 - labels)


MISTAKES = (
    Mistake(
        "labels turned round",
        _by_margin(lambda m, p: _cross_entropy(m, 1 - p).mean()),
        "the policy is pulled towards the answer that the judge finds worse. A label "
        "of 1 says that a is better, and a larger margin makes a likelier.",
    ),
    Mistake(
        "labels ignored",
        _by_margin(lambda m, p: -F.logsigmoid(m).mean()),
        "the labels change nothing, or cancel: a counts as the better answer in every "
        "pair. Where p is small, b is to get ahead: which sign has its margin?",
    ),
    Mistake(
        "labels hardened",
        _by_margin(lambda m, p: _cross_entropy(m, (p > 0.5).to(p)).mean()),
        "labels are rounded to 0 or 1, so that the loss pulls without end even where "
        "the judge hardly knew. A soft label says how far to go.",
    ),
    Mistake(
        "labels hardened, ties for a",
        _by_margin(lambda m, p: _cross_entropy(m, (p >= 0.5).to(p)).mean()),
        "labels are rounded to 0 or 1, so that the loss pulls without end even where "
        "the judge hardly knew. A soft label says how far to go.",
    ),
    Mistake(
        "half of the cross-entropy",
        _by_margin(lambda m, p: -(p * F.logsigmoid(m)).mean()),
        "the term for b is missing. Without it every pair pulls towards a, some only "
        "less: where the judge prefers b, nothing does.",
    ),
    Mistake(
        "the other half of the cross-entropy",
        _by_margin(lambda m, p: -((1 - p) * F.logsigmoid(-m)).mean()),
        "the term for a is missing. Without it every pair pulls towards b.",
    ),
    Mistake(
        "difference of the terms",
        _by_margin(
            lambda m, p: -(p * F.logsigmoid(m) - (1 - p) * F.logsigmoid(-m)).mean()
        ),
        "the second term is subtracted: the loss falls when the policy gets it wrong. "
        "Both terms of a cross-entropy have the same sign.",
    ),
    Mistake(
        "one minus the logarithm",
        _by_margin(
            lambda m, p: -(p * F.logsigmoid(m) + (1 - p) * (1 - F.logsigmoid(m))).mean()
        ),
        "in the second term you take 1 - log sigmoid. The logarithm of b's probability "
        "is log(1 - sigmoid).",
    ),
    Mistake(
        "log-likelihood, not loss",
        _by_margin(lambda m, p: -_cross_entropy(m, p).mean()),
        "the result is below 0: this is the log-likelihood, which training would make "
        "smaller still.",
    ),
    Mistake(
        "overflow",
        _by_margin(
            lambda m, p: (
                -(
                    torch.xlogy(p, m.sigmoid()) + torch.xlogy(1 - p, 1 - m.sigmoid())
                ).mean()
            )
        ),
        "it is right for moderate margins, and not finite where the sigmoid rounds to "
        "0 or 1. torch has one function for the logarithm of a sigmoid, and 1 - "
        "sigmoid(x) is the sigmoid of something too.",
    ),
    Mistake(
        "sum for mean",
        _by_margin(lambda m, p: _cross_entropy(m, p).sum()),
        "the loss grows with the number of pairs. A mean is asked for.",
    ),
    Mistake(
        "not reduced",
        _by_margin(_cross_entropy),
        "the result has one value for each pair. Their mean is asked for.",
    ),
    Mistake(
        "squared error",
        _by_margin(lambda m, p: (m.sigmoid() - p).square().mean()),
        "this is the squared error of the probability. Where the policy is sure and "
        "wrong it hardly has a gradient; the cross-entropy has the most there.",
    ),
    Mistake(
        "squared error of the log-odds",
        _by_margin(lambda m, p: (m - p).square().mean()),
        "a margin is compared with a probability. One is any number, the other lies "
        "between 0 and 1.",
    ),
    Mistake(
        "margin scaled by the label",
        _by_margin(lambda m, p: -F.logsigmoid((2 * p - 1) * m).mean()),
        "the label scales the margin inside the sigmoid. Then the loss pulls without "
        "end as for a hard label, only slower. The label weighs the two logarithms.",
    ),
    Mistake(
        "margin times the label",
        _by_margin(lambda m, p: -F.logsigmoid(p * m).mean()),
        "the label scales the margin inside the sigmoid, and every pair pulls towards "
        "a. The label weighs two logarithms.",
    ),
    Mistake(
        "label subtracted from the margin",
        _by_margin(lambda m, p: -F.logsigmoid(m - p).mean()),
        "the label acts as a margin to be reached. It is a probability: it weighs two "
        "logarithms.",
    ),
    Mistake(
        "label weighs the pair",
        _by_margin(lambda m, p: (_cross_entropy(m, p) * (2 * p - 1).abs()).mean()),
        "pairs on which the judge is unsure count less. They count as much as others: "
        "their label says where to stop.",
    ),
    Mistake(
        "the label's entropy taken off",
        _by_margin(lambda m, p: (_cross_entropy(m, p) - _entropy(p)).mean()),
        "this is the KL of the policy's preference from the label: the same gradient, "
        "and 0 at best. The cross-entropy is asked for, which keeps the entropy of "
        "the label.",
    ),
    Mistake(
        "sigmoid twice",
        _by_margin(lambda m, p: _cross_entropy(m.sigmoid(), p).mean()),
        "the margin goes through a sigmoid twice. A loss that says `with logits`, and "
        "logsigmoid as well, has its own inside.",
    ),
    Mistake(
        "beta left out",
        _by_logits(lambda pa, pb, ra, rb, beta: pairs.margin(pa, pb, ra, rb)),
        "beta changes nothing, so that leaving the reference costs always the same.",
    ),
    Mistake(
        "divided by beta",
        _by_logits(lambda pa, pb, ra, rb, beta: pairs.margin(pa, pb, ra, rb) / beta),
        "you divide by beta. The reward that a policy stands for is beta times its "
        "log-ratio.",
    ),
    Mistake(
        "beta outside",
        _answer(
            lambda pa, pb, ra, rb, labels, beta: (
                beta * _cross_entropy(pairs.margin(pa, pb, ra, rb), labels).mean()
            )
        ),
        "beta scales the loss, which is a learning rate. It belongs on the margin, "
        "inside the sigmoid.",
    ),
    Mistake(
        "reference left out",
        _by_logits(lambda pa, pb, ra, rb, beta: beta * (pa - pb)),
        "the reference changes nothing. The log-ratio to it is what DPO takes for a "
        "reward.",
    ),
    Mistake(
        "reference of one answer only",
        _by_logits(lambda pa, pb, ra, rb, beta: beta * (pa - ra - pb)),
        "only one answer is compared with the reference.",
    ),
    Mistake(
        "reference with the wrong sign",
        _by_logits(lambda pa, pb, ra, rb, beta: beta * ((pa - pb) + (ra - rb))),
        "the reference's log-probs are added. A log-ratio is a difference: policy "
        "less reference.",
    ),
    Mistake(
        "rewards added",
        _by_logits(lambda pa, pb, ra, rb, beta: beta * ((pa - ra) + (pb - rb))),
        "the log-ratios of both answers are added. What counts is how far a is ahead "
        "of b.",
    ),
    Mistake(
        "answer b ignored",
        _by_logits(lambda pa, pb, ra, rb, beta: beta * (pa - ra)),
        "answer b changes nothing. What counts is how far a is ahead of b.",
    ),
    Mistake(
        "probabilities, not log-probs",
        _by_logits(
            lambda pa, pb, ra, rb, beta: (
                beta * (pa.exp() / ra.exp() - pb.exp() / rb.exp())
            )
        ),
        "the log-probs are exponentiated, and ratios take the place of log-ratios. For "
        "long answers that is 0 / 0.",
    ),
    Mistake(
        "cross-entropy of the mean",
        _by_margin(lambda m, p: _cross_entropy(m.mean(), p.mean())),
        "margins and labels are averaged first, so that one pair makes up for "
        "another. Which comes first, the logarithm or the mean?",
    ),
    Mistake(
        "every pair with every other",
        _by_margin(lambda m, p: _cross_entropy(m[:, None], p[None]).mean()),
        "(B,) met (B, 1): every margin is compared with every label. Print the shape "
        "before the mean.",
    ),
    Mistake(
        "answer b gets no gradient",
        _answer(
            lambda pa, pb, ra, rb, labels, beta: _cross_entropy(
                beta * pairs.margin(pa, pb.detach(), ra, rb), labels
            ).mean()
        ),
        "the value is right, but nothing gets back through policy_b: the policy "
        "would never learn what not to say.",
    ),
    Mistake(
        "the second term gets no gradient",
        _by_margin(
            lambda m, p: (
                -(p * F.logsigmoid(m) + (1 - p) * F.logsigmoid(-m).detach()).mean()
            )
        ),
        "the value is right, but the second term is a constant for training: every "
        "pair pulls towards a.",
    ),
)

EXERCISE = Exercise(
    id="4.4",
    title="DPO on soft labels",
    reference=soft_dpo_loss,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "policy is the reference",
        "undecided labels",
        "labels of 0 and 1",
        "large differences",
    ),
    gradients=("policy_a", "policy_b"),
    difficulty=2,
    minutes=15,
    points=3,
)
