"""Exercise 2.7: what a judge says when it is asked in both orders."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake


def judged_in_both_orders(
    first: Float[Tensor, " N"], second: Float[Tensor, " N"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, ""]]:
    """Outcomes for answer a: 1 won, 0 lost, 1/2 undecided; and the judge's bias.

    Args:
        first: Probability that the judge gives to a, where a is shown first.
        second: Probability that it gives to a, where a is shown second.

    Returns:
        Outcomes: 1 where both orders favour a, 0 where both favour b, 1/2 otherwise.
        Position bias: what being shown first adds to the probability, on average.
    """
    won = (first > 0.5) & (second > 0.5)
    lost = (first < 0.5) & (second < 0.5)
    outcomes = 0.5 + 0.5 * (won.to(first.dtype) - lost.to(first.dtype))
    return outcomes, first.mean() - second.mean()


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Probabilities of answer a in both orders."""
    count, dtype = 3 * size - 2, dtype_of(flavour)  # enough for every kind of pair
    first, second = rng.uniform(0.02, 0.98, size=(2, count))
    if flavour == "undecided judge":
        first[rng.random(count) < 0.4] = 0.5
        second[rng.random(count) < 0.4] = 0.5
        if size == 1:
            second[:] = 0.5
    if flavour == "judge that likes what comes first":
        first, second = 0.5 + first / 2, second / 2
    if flavour == "judge that likes what comes second":
        first, second = first / 2, 0.5 + second / 2
    if flavour == "sure judge":
        first, second = np.round(first), np.round(second)
    return {
        "first": torch.tensor(first, dtype=dtype),
        "second": torch.tensor(second, dtype=dtype),
    }


def _outcomes(first: Tensor, second: Tensor) -> Tensor:
    return judged_in_both_orders(first, second)[0]


def _bias(first: Tensor, second: Tensor) -> Tensor:
    return first.mean() - second.mean()


def _with_outcomes(change) -> Function:
    """Turn changed outcomes into a whole answer, the bias being right."""
    return lambda first, second: (
        change(first, second).to(first.dtype),
        _bias(first, second),
    )


def _with_bias(change) -> Function:
    """Turn a changed bias into a whole answer, the outcomes being right."""
    return lambda first, second: (_outcomes(first, second), change(first, second))


def _verdict(p: Tensor) -> Tensor:
    """1, 0, or 1/2 where undecided."""
    return (torch.sign(p - 0.5) + 1) / 2


def _three_way(won: Tensor, lost: Tensor) -> Tensor:
    return torch.where(won, 1.0, torch.where(lost, 0.0, 0.5))


def _shown_first_misread(first: Tensor, second: Tensor):
    second = 1 - second
    return _outcomes(first, second), _bias(first, second)


MISTAKES = (
    Mistake(
        "not two tensors",
        lambda first, second: (_outcomes(first, second), _bias(first, second).item()),
        "two tensors are asked for: outcomes (N,) and the bias, which has no axes. "
        "Look for .item(), float(...) or a list of numbers.",
    ),
    Mistake(
        "bias first",
        lambda first, second: judged_in_both_orders(first, second)[::-1],
        "the two results have changed places: the outcomes come first.",
    ),
    Mistake(
        "mean of the two orders",
        _with_outcomes(lambda first, second: _verdict((first + second) / 2)),
        "you average the orders and decide afterwards. A judge that contradicts "
        "itself, 0.9 here and 0.2 there, then decides the pair by the surer of two "
        "verdicts.",
    ),
    Mistake(
        "probabilities, not outcomes",
        _with_outcomes(lambda first, second: (first + second) / 2),
        "the outcomes are probabilities. What is asked for is won, lost or undecided: "
        "1, 0 or 1/2.",
    ),
    Mistake(
        "first order only",
        _with_outcomes(lambda first, second: _verdict(first)),
        "the second order changes no outcome, so all of the position bias is in your "
        "win rate.",
    ),
    Mistake(
        "second order only",
        _with_outcomes(lambda first, second: _verdict(second)),
        "the first order changes no outcome, so all of the position bias is in your "
        "win rate.",
    ),
    Mistake(
        "second read as that of the answer shown first",
        _shown_first_misread,
        "a judge that gives 0.9 to answer a in both orders comes out as one that "
        "contradicts itself. `second` is already about a, wherever a is shown.",
    ),
    Mistake(
        "second turned round in the outcomes",
        _with_outcomes(lambda first, second: _outcomes(first, 1 - second)),
        "the bias is right. In the outcomes you take `second` for the probability of "
        "b, and it is that of a in both orders.",
    ),
    Mistake(
        "second turned round in the bias",
        _with_bias(lambda first, second: _bias(first, 1 - second)),
        "the outcomes are right. In the bias you take `second` for the probability of "
        "b: a judge that gives 0.9 to answer a in both orders has no bias.",
    ),
    Mistake(
        "labels turned round",
        _with_outcomes(lambda first, second: 1 - _outcomes(first, second)),
        "1 stands where the judge favours b. The outcomes are those of answer a.",
    ),
    Mistake(
        "disagreement counts as lost",
        _with_outcomes(lambda first, second: (first > 0.5) & (second > 0.5)),
        "everything but a clear win is a loss. A judge that contradicts itself has "
        "said nothing, which is worth 1/2 to both answers.",
    ),
    Mistake(
        "disagreement counts as won",
        _with_outcomes(lambda first, second: ~((first < 0.5) & (second < 0.5))),
        "everything but a clear loss is a win. A judge that contradicts itself has "
        "said nothing, which is worth 1/2 to both answers.",
    ),
    Mistake(
        "one order is enough",
        _with_outcomes(lambda first, second: (first > 0.5) | (second > 0.5)),
        "a win in either order counts as won. Both orders have to favour the answer.",
    ),
    Mistake(
        "disagreement left out",
        _with_outcomes(
            lambda first, second: _outcomes(first, second)[
                (first - 0.5) * (second - 0.5) > 0
            ]
        ),
        "pairs without a clear outcome are missing, so the outcomes no longer stand "
        "beside their prompts. They are ties: keep N of them.",
    ),
    Mistake(
        "agreement counts as won",
        _with_outcomes(
            lambda first, second: torch.where((first > 0.5) == (second > 0.5), 1.0, 0.5)
        ),
        "you give 1 where the two orders agree, even where they agree on b.",
    ),
    Mistake(
        "an exact half counts as won",
        _with_outcomes(
            lambda first, second: _three_way(
                (first >= 0.5) & (second >= 0.5), (first < 0.5) & (second < 0.5)
            )
        ),
        "a probability of exactly 1/2 favours nobody, and you count it for a. Judges "
        "that answer A, B or tie give it often.",
    ),
    Mistake(
        "an exact half counts as lost",
        _with_outcomes(
            lambda first, second: _three_way(
                (first > 0.5) & (second > 0.5), (first <= 0.5) & (second <= 0.5)
            )
        ),
        "a probability of exactly 1/2 favours nobody, and you count it for b. Judges "
        "that answer A, B or tie give it often; `> 0.5` and rounding both leave no "
        "room for it.",
    ),
    Mistake(
        "mean of two verdicts",
        _with_outcomes(lambda first, second: (_verdict(first) + _verdict(second)) / 2),
        "right, except where one order is undecided: one vote and one tie give 1/4 or "
        "3/4 here. The exercise asks both orders to favour an answer.",
    ),
    Mistake(
        "signs for outcomes",
        _with_outcomes(lambda first, second: 2 * _outcomes(first, second) - 1),
        "the outcomes are -1, 0 and 1. With 0, 1/2 and 1 their mean is a win rate.",
    ),
    Mistake(
        "win rate for outcomes",
        _with_outcomes(lambda first, second: _outcomes(first, second).mean()),
        "the outcomes are averaged already. One for each pair is asked for, so that "
        "they can be paired with other judges'.",
    ),
    Mistake(
        "bias with the wrong sign",
        _with_bias(lambda first, second: _bias(second, first)),
        "a judge that likes what comes first gets a negative bias. What does being "
        "shown first add?",
    ),
    Mistake(
        "size of the difference",
        _with_bias(lambda first, second: (first - second).abs().mean()),
        "differences up and down no longer cancel, so noise looks like bias. The sign "
        "belongs to it: a judge may like what comes second.",
    ),
    Mistake(
        "bias without a sign",
        _with_bias(lambda first, second: _bias(first, second).abs()),
        "the sign is lost: a judge may like what comes second.",
    ),
    Mistake(
        "half of the bias",
        _with_bias(lambda first, second: _bias(first, second) / 2),
        "this is how far each order is from the mean of both. The exercise asks what "
        "changes from second place to first.",
    ),
    Mistake(
        "bias of the verdicts",
        _with_bias(lambda first, second: _bias(_verdict(first), _verdict(second))),
        "you compare verdicts, 0 or 1. The bias in the probabilities is asked for, "
        "which sees it before a verdict turns.",
    ),
    Mistake(
        "rate of disagreement",
        _with_bias(
            lambda first, second: (
                ((first > 0.5) != (second > 0.5)).to(first.dtype).mean()
            )
        ),
        "this is how often the orders disagree. A judge that throws dice disagrees "
        "often and has no bias.",
    ),
    Mistake(
        "first order against 1/2",
        _with_bias(lambda first, second: first.mean() - 0.5),
        "you compare the first order with 1/2. Where answer a is better, that is "
        "above 1/2 without any bias: what does the second order say?",
    ),
    Mistake(
        "sum for mean",
        _with_bias(lambda first, second: (first - second).sum()),
        "the bias grows with the number of pairs. The mean is asked for.",
    ),
    Mistake(
        "a bias for each pair",
        _with_bias(lambda first, second: first - second),
        "the second result has shape (N,): one number for each pair. The judge's bias "
        "is their mean.",
    ),
)

EXERCISE = Exercise(
    id="2.7",
    title="A judge asked in both orders",
    reference=judged_in_both_orders,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "judge that likes what comes first",
        "judge that likes what comes second",
        "sure judge",
        "undecided judge",
    ),
    difficulty=2,
    minutes=10,
    points=2,
)
