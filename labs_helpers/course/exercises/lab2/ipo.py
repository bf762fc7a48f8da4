"""Exercise 2.4: identity preference optimisation, a margin that is enough."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from labs_helpers import losses
from labs_helpers.course.exercises.exercise import Exercise, Mistake
from labs_helpers.course.exercises.lab2.pairs import inputs, margin, on_margin, on_pairs


def ipo_loss(
    policy_chosen: Float[Tensor, " B"],
    policy_rejected: Float[Tensor, " B"],
    reference_chosen: Float[Tensor, " B"],
    reference_rejected: Float[Tensor, " B"],
    beta: float,
) -> Float[Tensor, ""]:
    """Mean of (h - 1 / (2 beta))², h the difference of the log-ratios."""
    return losses.ipo_loss(
        policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
    ).loss


def _square(error: Tensor) -> Tensor:
    return error.square().mean()


def _target(beta: float) -> float:
    return 1 / (2 * beta)


MISTAKES = (
    Mistake(
        "upside down",
        on_margin(lambda h, beta: _square(-h - _target(beta))),
        "the loss falls when the policy makes the rejected answer likelier. Either "
        "chosen and rejected or policy and reference have changed places, or the "
        "target has the wrong sign.",
    ),
    Mistake(
        "no target",
        on_margin(lambda h, beta: _square(h)),
        "the loss is smallest where the policy is its reference: it learns nothing "
        "from any preference. How far ahead should the chosen answer be?",
    ),
    Mistake(
        "target twice as far",
        on_margin(lambda h, beta: _square(h - 1 / beta)),
        "at the start the loss is four times as large as it should be. Look at the "
        "target again.",
    ),
    Mistake(
        "target of beta / 2",
        on_margin(lambda h, beta: _square(h - beta / 2)),
        "a high price of KL takes your policy further from the reference. Python "
        "divides and multiplies from left to right: what is below the fraction line?",
    ),
    Mistake(
        "target of 2 beta",
        on_margin(lambda h, beta: _square(h - 2 * beta)),
        "a high price of KL takes your policy further from the reference: the target "
        "stands on its head.",
    ),
    Mistake(
        "target of beta",
        on_margin(lambda h, beta: _square(h - beta)),
        "a high price of KL takes your policy further from the reference. beta is "
        "not itself the margin that is enough.",
    ),
    Mistake(
        "target without beta",
        on_margin(lambda h, beta: _square(h - 1 / 2)),
        "beta changes nothing: every pair is to be ahead by half a nat, whatever KL "
        "costs.",
    ),
    Mistake(
        "everything times beta",
        on_margin(lambda h, beta: _square(beta * h - 1 / 2)),
        "the margin is in units of reward and the target with it, so the value is "
        "beta² times the right one. The exercise measures both in nats.",
    ),
    Mistake(
        "beta in the margin too",
        on_margin(lambda h, beta: _square(beta * h - _target(beta))),
        "the margin is in units of reward and the target in nats. Where should the "
        "minimum lie? IPO needs beta once only.",
    ),
    Mistake(
        "beta fixed at 0.1",
        on_margin(lambda h, beta: _square(h - _target(0.1))),
        "it computes with a beta of 0.1 whatever it is given. Is there a number left "
        "where the argument belongs?",
    ),
    Mistake(
        "reference left out",
        on_pairs(lambda pc, pr, rc, rr, beta: _square(pc - pr - _target(beta))),
        "the reference changes nothing. The target is a distance from what the "
        "reference prefers already.",
    ),
    Mistake(
        "reference added",
        on_pairs(
            lambda pc, pr, rc, rr, beta: _square(pc + rc - pr - rr - _target(beta))
        ),
        "the reference's log-probs are added. A policy that is still its reference "
        "has a margin of 0: what has to cancel there?",
    ),
    Mistake(
        "signs of the brackets",
        on_pairs(
            lambda pc, pr, rc, rr, beta: _square(pc - rc - pr - rr - _target(beta))
        ),
        "the reference's log-prob of the rejected answer has the wrong sign: a minus "
        "before a bracket turns both signs inside.",
    ),
    Mistake(
        "log-probs divided",
        on_pairs(
            lambda pc, pr, rc, rr, beta: _square(pc / rc - pr / rr - _target(beta))
        ),
        "you divide log-probs by log-probs. The logarithm of a ratio of probabilities "
        "is something else when what you hold are logarithms already.",
    ),
    Mistake(
        "absolute value",
        on_margin(lambda h, beta: (h - _target(beta)).abs().mean()),
        "this is the distance from the target. Its square is asked for: the pull "
        "grows with the distance and fades out near the target.",
    ),
    Mistake(
        "only what is short of the target",
        on_margin(lambda h, beta: _square(F.relu(_target(beta) - h))),
        "a pair that is far beyond the target costs nothing here. IPO pulls it back: "
        "that is what keeps the policy near its reference.",
    ),
    Mistake(
        "logarithm of the sigmoid",
        on_margin(lambda h, beta: -F.logsigmoid(beta * h).mean()),
        "this is the DPO loss, which has no target: pairs are pushed apart without "
        "end.",
    ),
    Mistake(
        "sigmoid inside",
        on_margin(lambda h, beta: _square(torch.sigmoid(beta * h) - 1)),
        "a probability is compared with 1. IPO takes no sigmoid: the margin itself is "
        "compared with its target.",
    ),
    Mistake(
        "square of the mean",
        on_margin(lambda h, beta: (h - _target(beta)).mean().square()),
        "pairs beyond the target make up for pairs short of it before the square is "
        "taken. Which comes first?",
    ),
    Mistake(
        "square root",
        on_margin(lambda h, beta: _square(h - _target(beta)).sqrt()),
        "this is the root of the mean square. The mean square itself is asked for.",
    ),
    Mistake(
        "no square",
        on_margin(lambda h, beta: (h - _target(beta)).mean()),
        "the value can be as low as you like, so the loss pushes the chosen answer "
        "down without end. The square is missing.",
    ),
    Mistake(
        "sum for mean",
        on_margin(lambda h, beta: (h - _target(beta)).square().sum()),
        "the value grows with the number of pairs, so that the learning rate would "
        "depend on the batch size. A mean is asked for.",
    ),
    Mistake(
        "half of the square",
        on_margin(lambda h, beta: _square(h - _target(beta)) / 2),
        "every value is half of what it should be. The 2 belongs to the target alone.",
    ),
    Mistake(
        "chosen answer only",
        on_pairs(lambda pc, pr, rc, rr, beta: _square(pc - rc - _target(beta))),
        "the rejected answer changes nothing. The target is for the difference of "
        "the two log-ratios.",
    ),
    Mistake(
        "each answer by itself",
        on_pairs(
            lambda pc, pr, rc, rr, beta: (
                _square(pc - rc - _target(beta)) + _square(pr - rr + _target(beta))
            )
        ),
        "chosen and rejected have a target each, as if each answer had been called "
        "good or bad. What people said is which of the two is better.",
    ),
    Mistake(
        "every pair with every other",
        on_pairs(
            lambda pc, pr, rc, rr, beta: _square(
                (pc - rc)[:, None] - (pr - rr)[None] - _target(beta)
            )
        ),
        "(B,) met (B, 1): every chosen answer is compared with every rejected one, "
        "whatever its prompt. Print the shape of the difference.",
    ),
    Mistake(
        "the rejected answer gets no gradient",
        on_pairs(
            lambda pc, pr, rc, rr, beta: _square(
                margin(pc, pr.detach(), rc, rr) - _target(beta)
            )
        ),
        "the value is right, but nothing gets back through policy_rejected: the "
        "policy would learn what to say and never what not to say.",
    ),
)

EXERCISE = Exercise(
    id="2.4",
    title="The IPO loss",
    reference=ipo_loss,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=("plain", "float64", "policy is the reference", "long answers"),
    gradients=("policy_chosen", "policy_rejected"),
    difficulty=2,
    minutes=10,
    points=2,
)
