"""Exercise 2.3: the loss of direct preference optimisation."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from labs_helpers import losses
from labs_helpers.course.exercises.exercise import Exercise, Mistake
from labs_helpers.course.exercises.lab2.pairs import inputs, margin, on_margin, on_pairs


def dpo_loss(
    policy_chosen: Float[Tensor, " B"],
    policy_rejected: Float[Tensor, " B"],
    reference_chosen: Float[Tensor, " B"],
    reference_rejected: Float[Tensor, " B"],
    beta: float,
) -> Float[Tensor, ""]:
    """Mean of -log sigmoid(beta * difference of the log-ratios)."""
    return losses.dpo_loss(
        policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
    ).loss


def _nll(logits: Tensor) -> Tensor:
    return -F.logsigmoid(logits).mean()


MISTAKES = (
    Mistake(
        "upside down",
        on_margin(lambda h, beta: _nll(-beta * h)),
        "the loss falls when the policy makes the rejected answer likelier. Either "
        "chosen and rejected or policy and reference have changed places.",
    ),
    Mistake(
        "reference left out",
        on_pairs(lambda pc, pr, rc, rr, beta: _nll(beta * (pc - pr))),
        "the reference changes nothing. A policy that is still its reference must pay "
        "ln 2 for every pair; yours is paid for what the reference knew already.",
    ),
    Mistake(
        "reference added",
        on_pairs(lambda pc, pr, rc, rr, beta: _nll(beta * (pc + rc - pr - rr))),
        "the reference's log-probs are added. A policy that is still its reference "
        "must pay ln 2 for every pair: what has to cancel there?",
    ),
    Mistake(
        "reference of one answer only",
        on_pairs(lambda pc, pr, rc, rr, beta: _nll(beta * (pc - rc - pr))),
        "the chosen answer is measured from the reference and the rejected one is "
        "not. A policy that is still its reference must pay ln 2 for every pair.",
    ),
    Mistake(
        "signs of the brackets",
        on_pairs(lambda pc, pr, rc, rr, beta: _nll(beta * (pc - rc - pr - rr))),
        "the reference's log-prob of the rejected answer has the wrong sign: a minus "
        "before a bracket turns both signs inside.",
    ),
    Mistake(
        "beta ignored",
        on_margin(lambda h, beta: _nll(h)),
        "beta changes nothing: the log-ratios go into the sigmoid in nats, not in "
        "units of reward.",
    ),
    Mistake(
        "beta fixed at 0.1",
        on_margin(lambda h, beta: _nll(0.1 * h)),
        "it computes with a beta of 0.1 whatever it is given. Is there a number left "
        "where the argument belongs?",
    ),
    Mistake(
        "beta divides",
        on_margin(lambda h, beta: _nll(h / beta)),
        "a high price of KL makes your loss run out of gradient later, not sooner. "
        "Write down the implied reward: is beta above or below the fraction line?",
    ),
    Mistake(
        "beta outside the sigmoid",
        on_margin(lambda h, beta: beta * _nll(h)),
        "beta scales the whole loss, like a learning rate. It has to say how far the "
        "policy moves from the reference, and for that it acts before the sigmoid.",
    ),
    Mistake(
        "beta on the policy only",
        on_pairs(lambda pc, pr, rc, rr, beta: _nll(beta * (pc - pr) - (rc - rr))),
        "beta scales the policy's log-probs and not the reference's. They are "
        "compared with each other, so the scale must be the same.",
    ),
    Mistake(
        "log-likelihood, not its negative",
        on_margin(lambda h, beta: -_nll(beta * h)),
        "the value is below 0 and rises as the policy gets better. Training goes "
        "downhill.",
    ),
    Mistake(
        "probability, not its logarithm",
        on_margin(lambda h, beta: -torch.sigmoid(beta * h).mean()),
        "the loss never exceeds 0 and hardly changes for pairs that are badly wrong. "
        "The logarithm of the probability is missing.",
    ),
    Mistake(
        "error rate, not likelihood",
        on_margin(lambda h, beta: torch.sigmoid(-beta * h).mean()),
        "1 - sigmoid is the probability of a wrong order. The likelihood asks for the "
        "logarithm of the probability of the right one.",
    ),
    Mistake(
        "sigmoid left out",
        on_margin(lambda h, beta: -(beta * h).mean()),
        "the loss has no lower end: it goes on pushing pairs apart that have been "
        "right for long. The sigmoid and its logarithm are missing.",
    ),
    Mistake(
        "hinge",
        on_margin(lambda h, beta: F.relu(1 - beta * h).mean()),
        "this is a hinge: no gradient once a pair is ahead by 1. It costs 1 at the "
        "start, and DPO costs ln 2.",
    ),
    Mistake(
        "square",
        on_margin(lambda h, beta: (h - 1 / (2 * beta)).square().mean()),
        "this is the loss of IPO, the next exercise. DPO is the negative "
        "log-likelihood of the preferences.",
    ),
    Mistake(
        "log-probs divided",
        on_pairs(lambda pc, pr, rc, rr, beta: _nll(beta * (pc / rc - pr / rr))),
        "you divide log-probs by log-probs. The logarithm of a ratio of probabilities "
        "is something else when what you hold are logarithms already.",
    ),
    Mistake(
        "ratio, not its logarithm",
        on_pairs(
            lambda pc, pr, rc, rr, beta: _nll(
                beta * ((pc - rc).exp() - (pr - rr).exp())
            )
        ),
        "you compare the ratios of the probabilities. The implied reward is beta "
        "times the logarithm of the ratio, which is what you had before exp.",
    ),
    Mistake(
        "probabilities, not log-probs",
        on_pairs(
            lambda pc, pr, rc, rr, beta: _nll(
                beta * (pc.exp() - rc.exp() - pr.exp() + rr.exp())
            )
        ),
        "you subtract probabilities. Those of whole answers are so small that the "
        "loss is ln 2 and stays there. The inputs are log-probs: leave them so.",
    ),
    Mistake(
        "chosen answer only",
        on_pairs(lambda pc, pr, rc, rr, beta: _nll(beta * (pc - rc))),
        "the rejected answer changes nothing. Only the difference of the two rewards "
        "is known, so both belong into one sigmoid.",
    ),
    Mistake(
        "each answer by itself",
        on_pairs(
            lambda pc, pr, rc, rr, beta: _nll(beta * (pc - rc)) + _nll(beta * (rr - pr))
        ),
        "chosen and rejected have a sigmoid each, as if each answer had been called "
        "good or bad. What people said is which of the two is better.",
    ),
    Mistake(
        "sum for mean",
        on_margin(lambda h, beta: _nll(beta * h) * len(h)),
        "the value grows with the number of pairs, so that the learning rate would "
        "depend on the batch size. A mean is asked for.",
    ),
    Mistake(
        "mean before the sigmoid",
        on_margin(lambda h, beta: _nll((beta * h).mean())),
        "you average the margins first, so that one pair far ahead makes up for many "
        "that are wrong. Every pair has its own likelihood.",
    ),
    Mistake(
        "logarithm of the mean",
        on_margin(lambda h, beta: -torch.sigmoid(beta * h).mean().log()),
        "the likelihood of all pairs is a product, so its logarithm is a sum of "
        "logarithms. You take the mean first and the logarithm after.",
    ),
    Mistake(
        "every pair with every other",
        on_pairs(
            lambda pc, pr, rc, rr, beta: _nll(
                beta * ((pc - rc)[:, None] - (pr - rr)[None])
            )
        ),
        "(B,) met (B, 1): every chosen answer is compared with every rejected one, "
        "whatever its prompt. Print the shape of the difference.",
    ),
    Mistake(
        "overflow",
        on_margin(lambda h, beta: -torch.log(torch.sigmoid(beta * h)).mean()),
        "the formula is right, and inf for a pair that is badly wrong: there the "
        "sigmoid rounds to 0, or exp overflows. torch has one function for the "
        "logarithm of the sigmoid.",
    ),
    Mistake(
        "ratio of tiny probabilities",
        on_pairs(
            lambda pc, pr, rc, rr, beta: _nll(
                beta * ((pc.exp() / rc.exp()).log() - (pr.exp() / rr.exp()).log())
            )
        ),
        "the formula is right, but the probability of a long answer rounds to 0, and "
        "0 / 0 is nan. Never leave the logarithms.",
    ),
    Mistake(
        "the rejected answer gets no gradient",
        on_pairs(
            lambda pc, pr, rc, rr, beta: _nll(beta * margin(pc, pr.detach(), rc, rr))
        ),
        "the value is right, but nothing gets back through policy_rejected: the "
        "policy would learn what to say and never what not to say.",
    ),
)

EXERCISE = Exercise(
    id="2.3",
    title="The DPO loss",
    reference=dpo_loss,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "policy is the reference",
        "long answers",
        "large differences",
    ),
    gradients=("policy_chosen", "policy_rejected"),
    difficulty=3,
    minutes=20,
    points=4,
)
