"""Exercise 4.7, the silent bug: verdicts of the other order, not swapped back.

The notebook gives `ai_labels` as a colleague wrote it. With b shown first, the reply A
speaks for b: the two replies of that order must change places before both orders are
averaged. The colleague flips the rows instead of the columns. So pair i gets its own
verdict from the first order, and from the second the verdict on another pair, not
swapped back. Half of what the judge said of the pair is still in its label, and DPO
learns from it; but what another pair got is mixed in, labels shrink towards one half,
and the position bias, which both orders were asked to remove, is all there.

What a known answer reveals: a judge that always says A knows nothing, and every label
must be 1/2; here all come out for a. With one pair alone, flipping rows does nothing
at all: a judge that finds a better in both orders gives 1/2. And with a and b exchanged
in all pairs, labels must turn into 1 - label.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake
from labs_helpers.course.exercises.lab2.pairs import logprobs


def ai_labels(
    a_shown_first: Float[Tensor, "N 2"], b_shown_first: Float[Tensor, "N 2"]
) -> Float[Tensor, " N"]:
    """Probability that a is better, the two orders averaged in log-odds.

    Args:
        a_shown_first: Log-probs of the judge's replies A (what is shown first is
            better, column 0) and B, where a is shown first.
        b_shown_first: Those of the same pairs, where b is shown first.
    """
    both = torch.stack([a_shown_first, b_shown_first.flip(1)])
    return both.log_softmax(dim=2).mean(dim=0).softmax(dim=1)[:, 0]


def buggy_ai_labels(a_shown_first: Tensor, b_shown_first: Tensor) -> Tensor:
    """Soft labels as the notebook gives them."""
    # with b shown first, A speaks for b: swap back
    both = torch.stack([a_shown_first, b_shown_first.flip(0)])
    return both.log_softmax(dim=2).mean(dim=0).softmax(dim=1)[:, 0]


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of the replies A and B, with a or with b shown first."""
    dtype = dtype_of(flavour)
    around = (
        -900.0
        if flavour.startswith("replies that the judge hardly ever gives")
        else -6.0
    )
    first, second = (
        logprobs(rng, size, 2, around=around, scale=1.5, dtype=dtype) for _ in range(2)
    )
    if flavour == "judge that always says A":
        first[:, 0] = first[:, 1] + 3.0
        second = first.clone()
    if flavour == "judge without a bias":
        second = first.flip(1)
    return {"a_shown_first": first, "b_shown_first": second}


def _odds(replies: Tensor) -> Tensor:
    """Log-odds that what is shown first is better."""
    return replies[:, 0] - replies[:, 1]


def _by_odds(change: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """Answer with a changed use of the log-odds of a in front and of b in front."""
    return lambda a_shown_first, b_shown_first: change(
        _odds(a_shown_first), _odds(b_shown_first)
    )


def _by_probability(change: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """Answer with a changed use of the probabilities of what is shown first."""
    return _by_odds(lambda s, t: change(s.sigmoid(), t.sigmoid()))


def _underflow(a_shown_first, b_shown_first):
    a, b = a_shown_first.exp(), b_shown_first.exp()
    odds = (a[:, 0] / a[:, 1]) * (b[:, 1] / b[:, 0])
    return odds.sqrt() / (1 + odds.sqrt())


def _not_normalised(a_shown_first, b_shown_first):
    return (a_shown_first.exp()[:, 0] + b_shown_first.exp()[:, 1]) / 2


MISTAKES = (
    Mistake(
        "nothing repaired",
        buggy_ai_labels,
        "it still does what the colleague's does. Give it one pair and a judge that "
        "finds a better in both orders: what must come out, and what does?",
    ),
    Mistake(
        "not swapped back",
        _by_odds(lambda s, t: ((s + t) / 2).sigmoid()),
        "the rows stay where they are now, but in the second order A speaks for b. "
        "The judge's preference cancels, and its position bias is what remains.",
    ),
    Mistake(
        "both swapped",
        _by_odds(lambda s, t: (-(s + t) / 2).sigmoid()),
        "both orders are turned round. A speaks for a where a is shown first.",
    ),
    Mistake(
        "the wrong order swapped",
        _by_odds(lambda s, t: ((t - s) / 2).sigmoid()),
        "the two orders are told apart now, but the result is the probability that b "
        "is better. In which order does A speak for b?",
    ),
    Mistake(
        "rows and columns swapped",
        lambda a_shown_first, b_shown_first: (
            (_odds(a_shown_first) - _odds(b_shown_first.flip(0))) / 2
        ).sigmoid(),
        "the replies have changed places, and so have the pairs: each is still mixed "
        "with another. Print what a flip does to two rows.",
    ),
    Mistake(
        "pairs of the first order turned as well",
        lambda a_shown_first, b_shown_first: (
            (_odds(a_shown_first.flip(0)) - _odds(b_shown_first.flip(0))) / 2
        ).sigmoid(),
        "each pair is matched with itself now, but the labels come out in the reverse "
        "order of the pairs.",
    ),
    Mistake(
        "one order only",
        _by_odds(lambda s, t: s.sigmoid()),
        "the second order is left out altogether, and with it what takes away the "
        "position bias.",
    ),
    Mistake(
        "the second order only",
        _by_odds(lambda s, t: (-t).sigmoid()),
        "the first order is left out, and with it what takes away the position bias.",
    ),
    Mistake(
        "mean of the probabilities",
        _by_probability(lambda p, q: (p + 1 - q) / 2),
        "the swap is right, but you average probabilities. What a place adds is the "
        "same for a judge that is sure and one that doubts only in log-odds.",
    ),
    Mistake(
        "mean of the probabilities, not swapped back",
        _by_probability(lambda p, q: (p + q) / 2),
        "you average probabilities of what is shown first, which is a once and b once. "
        "The position bias is what remains.",
    ),
    Mistake(
        "sum of the log-odds",
        _by_odds(lambda s, t: (s - t).sigmoid()),
        "the swap is right, but the log-odds are added, so that labels come out too "
        "sure. Both orders are averaged.",
    ),
    Mistake(
        "the whole bias taken off",
        _by_odds(lambda s, t: (s - (s + t).mean() / 2).sigmoid()),
        "you take the average bias off the first order. That is right on average and "
        "wrong for single pairs: each was asked in both orders itself.",
    ),
    Mistake(
        "both columns",
        lambda a_shown_first, b_shown_first: (
            torch.stack([a_shown_first, b_shown_first.flip(1)])
            .log_softmax(2)
            .mean(0)
            .softmax(1)
        ),
        "the swap is right, and the result has two columns, for a and for b. One is "
        "asked for.",
    ),
    Mistake(
        "log-odds, not a probability",
        _by_odds(lambda s, t: (s - t) / 2),
        "the swap is right, and the result is in log-odds. Labels are probabilities.",
    ),
    Mistake(
        "left without the last softmax",
        lambda a_shown_first, b_shown_first: (
            torch.stack([a_shown_first, b_shown_first.flip(1)])
            .log_softmax(2)
            .mean(0)
            .exp()[:, 0]
        ),
        "the swap is right, but averages of logarithms are no longer logarithms of "
        "probabilities that add up to 1. The last step must normalise again.",
    ),
    Mistake(
        "probabilities round to 0",
        _underflow,
        "it is right for likely replies, and 0 / 0 where the judge gives neither A nor "
        "B. Stay with logarithms.",
    ),
    Mistake(
        "not normalised",
        _not_normalised,
        "the replies' probabilities are taken among all that the judge could say. "
        "Compare A with B alone.",
    ),
    Mistake(
        "verdicts, not probabilities",
        _by_odds(lambda s, t: ((s > 0).to(s) + (t < 0).to(t)) / 2),
        "each order votes, and how sure the judge is gets lost.",
    ),
)

EXERCISE = Exercise(
    id="4.7",
    title="A silent bug in the labels",
    reference=ai_labels,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "judge without a bias",
        "judge that always says A",
        "replies that the judge hardly ever gives, float64",  # float32: four digits
    ),
    difficulty=3,
    minutes=20,
    points=3,
)
