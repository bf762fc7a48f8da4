"""Exercise 4.2: position bias, removed by asking in both orders."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake


def unbiased_label(
    a_first: Float[Tensor, " N"], a_second: Float[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """Probability that a is better, free of what its position adds to the log-odds.

    If the place adds c to the log-odds of what is shown first, then the log-odds of a
    are s + c with a in front and s - c with a behind: their mean is s.

    Args:
        a_first: Probability that the judge gives to a, where a is shown first.
        a_second: Probability that it gives to a, where a is shown second.
    """
    return torch.sigmoid((torch.logit(a_first) + torch.logit(a_second)) / 2)


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Probabilities of a in both orders, with log-odds s + c and s - c."""
    strength = rng.normal(scale=1.5, size=size)
    noise = rng.normal(scale=0.3, size=size)
    bias = rng.normal(scale=1.0, size=size)
    if flavour == "judge that likes what comes first":
        bias = np.abs(bias) + 2.0
    if flavour == "judge that likes what comes second":
        bias = -np.abs(bias) - 2.0
    if flavour == "judge that is sure":
        strength = np.sign(strength) * (6.0 + np.abs(strength))
        bias = bias / 2
    odds = np.stack([strength + bias + noise, strength - bias])
    first, second = 1 / (1 + np.exp(-odds))
    dtype = dtype_of(flavour)
    return {
        "a_first": torch.tensor(first, dtype=dtype),
        "a_second": torch.tensor(second, dtype=dtype),
    }


def _by_odds(change) -> Function:
    """Answer with a changed use of the log-odds in both orders."""
    return lambda a_first, a_second: change(a_first.logit(), a_second.logit())


def _by_probability(change) -> Function:
    """Answer with a changed use of the probabilities in both orders."""
    return lambda a_first, a_second: change(a_first, a_second)


MISTAKES = (
    Mistake(
        "mean of the probabilities",
        _by_probability(lambda p, q: (p + q) / 2),
        "you average probabilities. A judge that is sure has no room left for its "
        "bias, one that doubts has much: what a place adds is the same for both only "
        "in log-odds.",
    ),
    Mistake(
        "swapped back twice",
        _by_odds(lambda s, t: torch.sigmoid((s - t) / 2)),
        "you turn the second order round. Both inputs speak of a already; turned "
        "round once more, what is left is the bias alone.",
    ),
    Mistake(
        "mean of the probabilities, swapped back twice",
        _by_probability(lambda p, q: (p + 1 - q) / 2),
        "both inputs are probabilities of a already: 1 - a_second is that of b. "
        "Besides, it is the log-odds to which a place adds the same everywhere.",
    ),
    Mistake(
        "sum of the log-odds",
        _by_odds(lambda s, t: torch.sigmoid(s + t)),
        "you add the two log-odds, as if two judges had spoken independently. It is "
        "one judge, asked twice: labels come out too sure.",
    ),
    Mistake(
        "half of one order only",
        _by_odds(lambda s, t: torch.sigmoid(s + t / 2)),
        "only the second order is halved. Without parentheses a division comes before "
        "a sum.",
    ),
    Mistake(
        "product of the probabilities",
        _by_probability(lambda p, q: p * q),
        "this is the probability that a wins twice. Its counterpart for b is left "
        "out: two coins that say one half give a quarter here.",
    ),
    Mistake(
        "geometric mean",
        _by_probability(lambda p, q: (p * q).sqrt()),
        "a's probabilities are averaged in logarithms, but those of b are left out: "
        "with a and b exchanged the two results do not add up to 1.",
    ),
    Mistake(
        "harmonic mean",
        _by_probability(lambda p, q: 2 * p * q / (p + q)),
        "this mean treats a and b differently: exchanged, the two results do not add "
        "up to 1. Average on a scale on which they are mirror images.",
    ),
    Mistake(
        "log-odds, not a probability",
        _by_odds(lambda s, t: (s + t) / 2),
        "the result is in log-odds, which can be any number. A label is a "
        "probability: go back.",
    ),
    Mistake(
        "the bias, not the label",
        _by_odds(lambda s, t: (s - t) / 2),
        "this is what being shown first adds to the log-odds. What is asked is what "
        "remains without it.",
    ),
    Mistake(
        "the other answer",
        _by_odds(lambda s, t: torch.sigmoid(-(s + t) / 2)),
        "this is the probability that b is better. The log-odds of a are "
        "ln(p / (1 - p)), not the other way up.",
    ),
    Mistake(
        "odds for log-odds",
        _by_probability(
            lambda p, q: torch.sigmoid((p / (1 - p) + q / (1 - q)) / 2),
        ),
        "you average odds, and odds are never below 0: no label can fall below one "
        "half. Where is the logarithm?",
    ),
    Mistake(
        "mean of the odds",
        _by_probability(
            lambda p, q: (p / (1 - p) + q / (1 - q)) / (2 + p / (1 - p) + q / (1 - q))
        ),
        "you average odds. A bias multiplies or divides them, so that the larger of "
        "the two has all the say. Average where it adds and subtracts.",
    ),
    Mistake(
        "logarithms for log-odds",
        _by_probability(lambda p, q: torch.sigmoid((p.log() + q.log()) / 2)),
        "you take log p where the log-odds are asked: log p - log(1 - p). No label "
        "can rise above one half.",
    ),
    Mistake(
        "sigmoid of probabilities",
        _by_probability(lambda p, q: torch.sigmoid((p + q) / 2)),
        "you put probabilities into the sigmoid, which takes log-odds. Every label "
        "lies between 0.5 and 0.73.",
    ),
    Mistake(
        "another base",
        _by_odds(lambda s, t: torch.sigmoid((s + t) / 2 / np.log(10))),
        "the logarithm and the sigmoid have different bases. The sigmoid undoes the "
        "natural logarithm.",
    ),
    Mistake(
        "base 2",
        _by_odds(lambda s, t: torch.sigmoid((s + t) / 2 / np.log(2))),
        "the logarithm has base 2, and the sigmoid undoes the natural one.",
    ),
    Mistake(
        "one order only",
        _by_probability(lambda p, q: p * 1),
        "the second order changes nothing. One order alone cannot tell a good answer "
        "from a good place.",
    ),
    Mistake(
        "the second order only",
        _by_probability(lambda p, q: q * 1),
        "the first order changes nothing. One order alone cannot tell a good answer "
        "from a good place.",
    ),
    Mistake(
        "verdicts, not probabilities",
        _by_probability(lambda p, q: ((p > 0.5).to(p) + (q > 0.5).to(q)) / 2),
        "each order votes, and how sure the judge is gets lost. Undecided pairs are "
        "all alike then.",
    ),
    Mistake(
        "a verdict of the mean",
        _by_odds(lambda s, t: (s + t > 0).to(s)),
        "the label is 0 or 1. A soft label keeps how sure the judge is.",
    ),
    Mistake(
        "clamped",
        _by_probability(
            lambda p, q: torch.sigmoid(
                (p.clamp(0.01, 0.99).logit() + q.clamp(0.01, 0.99).logit()) / 2
            )
        ),
        "probabilities near 0 and 1 are cut off before the logarithm, so the labels "
        "of a judge that is sure are wrong. None of the inputs is 0 or 1.",
    ),
    Mistake(
        "mean over the pairs",
        lambda a_first, a_second: torch.sigmoid(
            (a_first.logit() + a_second.logit()) / 2
        ).mean(),
        "all pairs end up in one number. Each pair gets its own label.",
    ),
    Mistake(
        "one bias for all pairs",
        _by_odds(lambda s, t: torch.sigmoid(s - (s - t).mean() / 2)),
        "you take the average bias off the first order. That is right on average and "
        "wrong for every pair: here each pair was asked in both orders itself.",
    ),
)

EXERCISE = Exercise(
    id="4.2",
    title="Position bias, removed",
    reference=unbiased_label,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "judge that likes what comes first",
        "judge that likes what comes second",
        "judge that is sure",
    ),
    difficulty=2,
    minutes=10,
    points=2,
)
