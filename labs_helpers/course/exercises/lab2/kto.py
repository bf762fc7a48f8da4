"""Exercise 2.5: a loss for answers that were called good or bad, one at a time."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from labs_helpers import losses
from labs_helpers.course.exercises.draw import dtype_of
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake
from labs_helpers.course.exercises.lab2.pairs import draw_beta, logprobs


def kto_loss(
    policy: Float[Tensor, " B"],
    reference: Float[Tensor, " B"],
    desirable: Bool[Tensor, " B"],
    kl: Float[Tensor, ""],
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Float[Tensor, ""]:
    """Mean of weight * (1 - sigmoid(±beta (log-ratio - kl))), kl being a constant."""
    return losses.kto_loss(
        policy, reference, desirable, kl, beta, desirable_weight, undesirable_weight
    )


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of single answers, what people said of them, KL, beta and weights."""
    dtype = dtype_of(flavour)
    around, scale = -8.0, 2.0
    if flavour == "large differences":
        around, scale = -9000.0, 3000.0
    policy, reference = (
        logprobs(rng, size, around=around, scale=scale, dtype=dtype) for _ in range(2)
    )
    if flavour == "policy is the reference":
        reference = policy.clone()
    desirable = torch.tensor(rng.random(size) < 0.5)
    if size > 1:
        desirable[:2] = torch.tensor([True, False])
    if flavour == "only desirable":
        desirable[:] = True
    if flavour == "only undesirable":
        desirable[:] = False
    return {
        "policy": policy,
        "reference": reference,
        "desirable": desirable,
        "kl": logprobs(rng, around=1.5, scale=0.4, dtype=dtype).abs(),
        "beta": draw_beta(rng),
        "desirable_weight": float(rng.uniform(1.1, 2)),
        "undesirable_weight": float(rng.uniform(0.4, 0.9)),
    }


def _answer(change) -> Function:
    """Name the arguments of an answer as the exercise does.

    `change` takes log-ratios, labels, KL, beta and each answer's weight, and returns
    what each answer pays.
    """

    def answer(
        policy, reference, desirable, kl, beta, desirable_weight, undesirable_weight
    ):
        weight = torch.where(desirable, desirable_weight, undesirable_weight)
        weight = weight.to(policy.dtype)
        return change(policy - reference, desirable, kl.detach(), beta, weight).mean()

    return answer


def _whole(change) -> Function:
    """Name the arguments of an answer that changes something else."""

    def answer(
        policy, reference, desirable, kl, beta, desirable_weight, undesirable_weight
    ):
        weights = (desirable_weight, undesirable_weight)
        return change(policy, reference, desirable, kl.detach(), beta, weights)

    return answer


def _signed(gain: Tensor, desirable: Tensor) -> Tensor:
    return torch.where(desirable, gain, -gain)


def _pays(gain: Tensor, desirable: Tensor, weight: Tensor) -> Tensor:
    return weight * torch.sigmoid(-_signed(gain, desirable))


def _right(policy, reference, desirable, kl, beta, weights):
    weight = torch.where(desirable, *weights).to(policy.dtype)
    return _pays(beta * (policy - reference - kl), desirable, weight)


def _ratio_by(change) -> Function:
    """Turn something else than the log-ratio into a whole answer."""
    return _whole(
        lambda p, r, good, kl, beta, w: _right(
            change(p, r), torch.zeros_like(r), good, kl, beta, w
        ).mean()
    )


def _detached_undesirable(policy, reference, desirable, kl, beta, weights):
    policy = torch.where(desirable, policy, policy.detach())
    return _right(policy, reference, desirable, kl, beta, weights).mean()


def _own_kl(policy, reference, desirable, kl, beta, weights):
    kl = (policy - reference).mean().clamp(min=0).detach()
    return _right(policy, reference, desirable, kl, beta, weights).mean()


def _weighted_mean(policy, reference, desirable, kl, beta, weights):
    paid = _right(policy, reference, desirable, kl, beta, weights)
    return paid.sum() / torch.where(desirable, *weights).to(paid.dtype).sum()


def _mean_of_group_means(policy, reference, desirable, kl, beta, weights):
    paid = _right(policy, reference, desirable, kl, beta, weights)
    groups = [paid[chosen] for chosen in (desirable, ~desirable) if chosen.any()]
    return torch.stack([group.mean() for group in groups]).mean()


def _empty_group(policy, reference, desirable, kl, beta, weights):
    paid = _right(policy, reference, desirable, kl, beta, weights)
    return paid[desirable].mean() + paid[~desirable].mean()


def _kl_learns(
    policy, reference, desirable, kl, beta, desirable_weight, undesirable_weight
):
    weights = (desirable_weight, undesirable_weight)
    return _right(policy, reference, desirable, kl, beta, weights).mean()


MISTAKES = (
    Mistake(
        "labels ignored",
        _answer(
            lambda ratio, good, kl, beta, w: w * torch.sigmoid(-beta * (ratio - kl))
        ),
        "bad answers are made likelier like good ones: the label chooses a weight at "
        "most, and never the direction.",
    ),
    Mistake(
        "upside down",
        _answer(lambda ratio, good, kl, beta, w: _pays(beta * (ratio - kl), ~good, w)),
        "the loss falls when bad answers become likelier and good ones less likely. "
        "The labels may be turned round, or the log-ratio, or you return the value "
        "of the answers, which is to rise.",
    ),
    Mistake(
        "undesirable answers left out",
        _answer(
            lambda ratio, good, kl, beta, w: _pays(beta * (ratio - kl), good, w) * good
        ),
        "bad answers pay nothing, so that half of what people said is lost.",
    ),
    Mistake(
        "kl left out",
        _answer(lambda ratio, good, kl, beta, w: _pays(beta * ratio, good, w)),
        "kl changes nothing. Gains and losses are counted from a point of reference, "
        "which moves along as the policy moves.",
    ),
    Mistake(
        "kl added",
        _answer(lambda ratio, good, kl, beta, w: _pays(beta * (ratio + kl), good, w)),
        "an answer counts as a gain although it lies below the point of reference: "
        "look at the sign of kl.",
    ),
    Mistake(
        "kl on the wrong side for undesirable answers",
        _answer(
            lambda ratio, good, kl, beta, w: (
                w * torch.sigmoid(-beta * (_signed(ratio, good) - kl))
            )
        ),
        "right for good answers. For bad ones you turn the sign of the log-ratio and "
        "not that of kl: the two sides of the point of reference change places "
        "together.",
    ),
    Mistake(
        "kl for desirable answers only",
        _answer(
            lambda ratio, good, kl, beta, w: _pays(beta * (ratio - kl * good), good, w)
        ),
        "bad answers are measured from 0 and good ones from kl. Both have the same "
        "point of reference.",
    ),
    Mistake(
        "kl not scaled by beta",
        _answer(lambda ratio, good, kl, beta, w: _pays(beta * ratio - kl, good, w)),
        "a reward, which holds beta, is compared with a kl in nats, which does not. "
        "Both sides need the same unit.",
    ),
    Mistake(
        "the batch's own mean for kl",
        _whole(_own_kl),
        "the point of reference is computed from the same answers, good and bad, and "
        "`kl` is never used. It comes from answers to other prompts, and is given.",
    ),
    Mistake(
        "beta ignored",
        _answer(lambda ratio, good, kl, beta, w: _pays(ratio - kl, good, w)),
        "beta changes nothing: gains and losses saturate at the same distance "
        "whatever it is.",
    ),
    Mistake(
        "beta fixed at 0.1",
        _answer(lambda ratio, good, kl, beta, w: _pays(0.1 * (ratio - kl), good, w)),
        "it computes with a beta of 0.1 whatever it is given. Is there a number left "
        "where the argument belongs?",
    ),
    Mistake(
        "beta divides",
        _answer(lambda ratio, good, kl, beta, w: _pays((ratio - kl) / beta, good, w)),
        "a higher beta makes your gains and losses saturate later. Is it above or "
        "below the fraction line in the implied reward?",
    ),
    Mistake(
        "beta outside the sigmoid",
        _answer(lambda ratio, good, kl, beta, w: beta * _pays(ratio - kl, good, w)),
        "beta scales the whole loss, like a learning rate. At the start, with kl = 0, "
        "each answer must pay half of its weight whatever beta is.",
    ),
    Mistake(
        "weights swapped",
        _whole(
            lambda p, r, good, kl, beta, w: _right(p, r, good, kl, beta, w[::-1]).mean()
        ),
        "good answers get the weight of bad ones, and the other way round.",
    ),
    Mistake(
        "weights ignored",
        _answer(
            lambda ratio, good, kl, beta, w: _pays(
                beta * (ratio - kl), good, torch.ones_like(w)
            )
        ),
        "the two weights change nothing, so that the more frequent kind of label has "
        "the say.",
    ),
    Mistake(
        "desirable weight for all",
        _whole(
            lambda p, r, good, kl, beta, w: _right(
                p, r, good, kl, beta, (w[0], w[0])
            ).mean()
        ),
        "every answer gets the weight of good ones: undesirable_weight changes "
        "nothing.",
    ),
    Mistake(
        "weight inside the sigmoid",
        _answer(
            lambda ratio, good, kl, beta, w: _pays(
                w * beta * (ratio - kl), good, torch.ones_like(w)
            )
        ),
        "the weight acts as a second beta. It says how much an answer counts, so it "
        "stands before the loss of that answer.",
    ),
    Mistake(
        "weight on the value alone",
        _answer(
            lambda ratio, good, kl, beta, w: (
                1 - w * torch.sigmoid(_signed(beta * (ratio - kl), good))
            )
        ),
        "the gradient is right, but the best that an answer can reach is 1 - weight, "
        "not 0. The weight belongs to all that the answer pays.",
    ),
    Mistake(
        "minus the value",
        _answer(
            lambda ratio, good, kl, beta, w: (
                -w * torch.sigmoid(_signed(beta * (ratio - kl), good))
            )
        ),
        "the gradient is right, but the loss is below 0. A perfect answer pays 0 and "
        "the worst one its weight: what is the value taken off from?",
    ),
    Mistake(
        "logarithm of the sigmoid",
        _answer(
            lambda ratio, good, kl, beta, w: (
                -w * F.logsigmoid(_signed(beta * (ratio - kl), good))
            )
        ),
        "with the logarithm a badly wrong answer costs ever more, as in DPO. In KTO "
        "losses saturate, as people's do.",
    ),
    Mistake(
        "no sigmoid",
        _answer(
            lambda ratio, good, kl, beta, w: -w * _signed(beta * (ratio - kl), good)
        ),
        "gains and losses grow without end, so bad answers are pushed down for ever. "
        "What makes them saturate is missing.",
    ),
    Mistake(
        "reference left out",
        _ratio_by(lambda p, r: p),
        "the reference changes nothing: a long answer looks like a loss because all "
        "its log-probs are low.",
    ),
    Mistake(
        "reference added",
        _ratio_by(lambda p, r: p + r),
        "the reference's log-probs are added. A policy that is still its reference "
        "has a log-ratio of 0: what has to cancel there?",
    ),
    Mistake(
        "log-probs divided",
        _ratio_by(lambda p, r: p / r),
        "you divide log-probs by log-probs. The logarithm of a ratio of probabilities "
        "is something else when what you hold are logarithms already.",
    ),
    Mistake(
        "ratio, not its logarithm",
        _ratio_by(lambda p, r: (p - r).exp()),
        "you take the ratio of the probabilities. The implied reward is beta times "
        "its logarithm, which is what you had before exp.",
    ),
    Mistake(
        "sum for mean",
        _whole(lambda p, r, good, kl, beta, w: _right(p, r, good, kl, beta, w).sum()),
        "the value grows with the number of answers, so that the learning rate would "
        "depend on the batch size. A mean is asked for.",
    ),
    Mistake(
        "divided by the weights",
        _whole(_weighted_mean),
        "you divide by the sum of the weights, so that weights no longer count in a "
        "batch of one kind. The mean is over answers.",
    ),
    Mistake(
        "mean of the groups' means",
        _whole(_mean_of_group_means),
        "you average good and bad answers apart first. A single bad answer then "
        "counts as much as all the good ones: the mean is over all answers.",
    ),
    Mistake(
        "mean of an empty group",
        _whole(_empty_group),
        "you average good and bad answers apart. The mean of no answers is nan, and a "
        "batch may hold one kind only; besides, the mean is over all answers.",
    ),
    Mistake(
        "kl is learnt",
        _kl_learns,
        "the value is right, but gradient gets back through kl: the policy could "
        "lower its loss by moving the point of reference. It is a constant.",
    ),
    Mistake(
        "undesirable answers get no gradient",
        _whole(_detached_undesirable),
        "the value is right, but nothing gets back from the bad answers: the policy "
        "would learn what to say and never what not to say.",
    ),
    Mistake(
        "overflow",
        _answer(
            lambda ratio, good, kl, beta, w: (
                w * (1 - 1 / (1 + torch.exp(-_signed(beta * (ratio - kl), good))))
            )
        ),
        "the value is right, but exp overflows for an answer that is far off, and the "
        "gradient becomes nan. torch has a sigmoid that knows how to avoid this.",
    ),
)

EXERCISE = Exercise(
    id="2.5",
    title="The KTO loss",
    reference=kto_loss,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "policy is the reference",
        "only desirable",
        "only undesirable",
        "large differences",
    ),
    gradients=("policy", "kl"),
    difficulty=4,
    minutes=20,
    points=4,
)
