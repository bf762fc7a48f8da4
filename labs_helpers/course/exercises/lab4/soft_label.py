"""Exercise 4.1: a soft label from the log-probs of a judge's two replies."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake
from labs_helpers.course.exercises.lab2.pairs import logprobs


def soft_label(reply_logprobs: Float[Tensor, "N 2"]) -> Float[Tensor, " N"]:
    """Probability that the answer shown first is better, one for each pair.

    Args:
        reply_logprobs: Log-probs that the judge gives to the replies A (the first
            answer is better, column 0) and B (the second is, column 1). A judge can
            say other things too, so a row's probabilities do not add up to 1.
    """
    return reply_logprobs.softmax(dim=1)[:, 0]


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of both replies, A and B."""
    around, scale = -3.0, 1.5
    if flavour.startswith("replies that the judge hardly ever gives"):
        around = -900.0
    drawn = logprobs(
        rng, size, 2, around=around, scale=scale, dtype=dtype_of(flavour)
    ).clamp(max=-0.75)
    if flavour == "judge that is sure":
        sure = torch.tensor(rng.integers(2, size=size))
        drawn[torch.arange(size), sure] = -0.0625
        drawn[torch.arange(size), 1 - sure] -= 60.0
    return {"reply_logprobs": drawn}


def _of(change) -> Function:
    """Turn a function of the columns of A and B into an answer."""
    return lambda reply_logprobs: change(*reply_logprobs.unbind(1))


MISTAKES = (
    Mistake(
        "the other answer",
        lambda reply_logprobs: reply_logprobs.softmax(1)[:, 1],
        "this is the probability that the second answer is better: every label is "
        "turned round, and a policy would learn what the judge rejects.",
    ),
    Mistake(
        "softmax over the pairs",
        lambda reply_logprobs: reply_logprobs.softmax(0)[:, 0],
        "the softmax runs down the pairs, so a label depends on which others are in "
        "the batch. Which two numbers are to add up to 1?",
    ),
    Mistake(
        "not normalised",
        _of(lambda a, b: a.exp()),
        "this is how likely the reply A is among all that the judge could say. Where "
        "it says neither A nor B, both look bad. Compare A with B alone.",
    ),
    Mistake(
        "not normalised, from the reply B",
        _of(lambda a, b: 1 - b.exp()),
        "whatever is not B counts as A here, even what is neither. Compare A with B "
        "alone.",
    ),
    Mistake(
        "both probabilities round to 0",
        lambda reply_logprobs: reply_logprobs.exp()[:, 0] / reply_logprobs.exp().sum(1),
        "it is right for likely replies, and 0 / 0 where the judge gives neither: "
        "exp rounds to 0. Only the difference of the two log-probs matters.",
    ),
    Mistake(
        "both columns",
        lambda reply_logprobs: reply_logprobs.softmax(1),
        "the result has two columns. They add up to 1, so one of them says it all.",
    ),
    Mistake(
        "a verdict, not a probability",
        _of(lambda a, b: (a > b).to(a.dtype)),
        "a judge that is barely inclined counts as much as one that is sure. A soft "
        "label keeps how sure it is.",
    ),
    Mistake(
        "how sure, not which",
        lambda reply_logprobs: reply_logprobs.softmax(1).amax(1),
        "every label is at least one half: it says how sure the judge is, and not of "
        "which answer.",
    ),
    Mistake(
        "log-odds",
        _of(lambda a, b: a - b),
        "this is the difference of the log-probs, which can be any number. What turns "
        "log-odds into a probability?",
    ),
    Mistake(
        "odds",
        _of(lambda a, b: (a - b).exp()),
        "these are odds: 3 means three to one. As a probability that is 3/4.",
    ),
    Mistake(
        "logarithm of the probability",
        lambda reply_logprobs: reply_logprobs.log_softmax(1)[:, 0],
        "every value is below 0: this is the logarithm of what is asked.",
    ),
    Mistake(
        "share of the log-probs",
        _of(lambda a, b: a / (a + b)),
        "you divide a log-prob by the sum of both. Shares are made of probabilities; "
        "of logarithms, the smaller one gets the larger share.",
    ),
    Mistake(
        "share of the log-probs, turned round",
        _of(lambda a, b: b / (a + b)),
        "you divide a log-prob by the sum of both. The order comes out right, but "
        "the numbers are no probabilities: log-probs of -100 and -101 would be a tie.",
    ),
    Mistake(
        "sigmoid of one reply",
        _of(lambda a, b: a.sigmoid()),
        "the sigmoid of A's log-prob is never above one half, and B changes nothing. "
        "A sigmoid takes log-odds: A against what?",
    ),
    Mistake(
        "softmax of probabilities",
        lambda reply_logprobs: reply_logprobs.exp().softmax(1)[:, 0],
        "you exponentiate twice: the softmax does it too. All labels end up near one "
        "half.",
    ),
    Mistake(
        "softmax twice",
        lambda reply_logprobs: reply_logprobs.softmax(1).softmax(1)[:, 0],
        "a softmax of a softmax: no label can leave 0.27 to 0.73.",
    ),
    Mistake(
        "difference of probabilities",
        _of(lambda a, b: a.exp() - b.exp()),
        "the difference of two probabilities can be below 0, so it is none itself. "
        "Which share of the two together does A have?",
    ),
    Mistake(
        "mean over the pairs",
        lambda reply_logprobs: reply_logprobs.softmax(1)[:, 0].mean(),
        "all pairs end up in one number. Each pair gets its own label; their mean "
        "says how often the judge likes what comes first.",
    ),
    Mistake(
        "rounded",
        lambda reply_logprobs: reply_logprobs.softmax(1)[:, 0].round(decimals=2),
        "the labels are rounded. Round when you print, not when you compute.",
    ),
)

EXERCISE = Exercise(
    id="4.1",
    title="A soft label from two replies",
    reference=soft_label,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "judge that is sure",
        "replies that the judge hardly ever gives, float64",  # float32: four digits
    ),
    difficulty=1,
    minutes=10,
    points=2,
)
