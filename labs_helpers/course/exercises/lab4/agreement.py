"""Exercise 4.6: agreement of a judge beyond chance."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake

VERDICTS = (0.0, 0.5, 1.0)


def agreement_beyond_chance(
    judge: Float[Tensor, " N"], people: Float[Tensor, " N"]
) -> Float[Tensor, ""]:
    """Cohen's kappa: 1 is perfect agreement, 0 what chance alone would give.

    By chance alone two agree whenever they happen to give the same verdict, each at
    their own frequencies: a judge that always says "the first" is right nine times in
    ten where the first answer is better nine times in ten.

    Args:
        judge: Its verdict on each pair: 1 (a is better), 0 (b is), or 0.5 (a tie).
        people: Theirs on the same pairs.
    """
    agreed = (judge == people).to(judge.dtype).mean()
    chance = sum(
        (judge == v).to(judge.dtype).mean() * (people == v).to(judge.dtype).mean()
        for v in VERDICTS
    )
    return (agreed - chance) / (1 - chance)


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Verdicts of both on the same pairs; never a single one on all of them."""
    count = 7 * size - 6
    shares = np.array([0.3, 0.2, 0.5])
    if flavour == "no ties":
        shares = np.array([0.35, 0.0, 0.65])
    people = rng.choice(VERDICTS, size=count, p=shares)
    judge = np.where(
        rng.random(count) < 0.6, people, rng.choice(VERDICTS, size=count, p=shares)
    )
    if flavour == "a nearly always better":
        people[:], judge[:] = 1.0, 1.0
        people[::5], judge[:: 4 + size] = 0.0, 0.0
    if flavour == "judge that always says the first":
        judge[:] = 1.0
    if flavour == "perfect agreement" and count > 1:
        people[:2] = 0.0, 1.0
        judge = people.copy()
    if flavour == "worse than chance":
        judge = 1 - people
    # One more pair on which they differ keeps chance below certainty.
    if flavour != "perfect agreement" or count == 1:
        people[0], judge[0] = (0.0, 1.0)
    dtype = dtype_of(flavour)
    return {
        "judge": torch.tensor(judge, dtype=dtype),
        "people": torch.tensor(people, dtype=dtype),
    }


def _share(condition: Tensor) -> Tensor:
    return condition.double().mean()


def _agreed(judge: Tensor, people: Tensor) -> Tensor:
    return _share(judge == people)


def _chance(judge: Tensor, people: Tensor) -> Tensor:
    return sum(_share(judge == v) * _share(people == v) for v in VERDICTS)


def _scaled(agreed: Tensor, chance: Tensor | float) -> Tensor:
    return (agreed - chance) / (1 - chance)


def _answer(change: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """Turn a changed use of what was observed and of chance into an answer."""
    return lambda judge, people: change(_agreed(judge, people), _chance(judge, people))


def _by_chance(chance: Callable[[Tensor, Tensor], Tensor]) -> Function:
    """Answer with another idea of chance."""
    return lambda judge, people: _scaled(_agreed(judge, people), chance(judge, people))


def _pooled(judge: Tensor, people: Tensor) -> Tensor:
    return sum(_share(torch.cat([judge, people]) == v) ** 2 for v in VERDICTS)


def _half_ties(judge: Tensor, people: Tensor) -> Tensor:
    a, b = judge.double().mean(), people.double().mean()
    return a * b + (1 - a) * (1 - b)


def _partly(judge: Tensor, people: Tensor) -> Tensor:
    return 1 - (judge - people).double().abs().mean()


def _correlation(judge: Tensor, people: Tensor) -> Tensor:
    a, b = judge.double(), people.double()
    a, b = a - a.mean(), b - b.mean()
    length = (a.square().sum() * b.square().sum()).sqrt()
    return torch.where(length > 0, (a * b).sum() / length.clamp(min=1e-9), 0.0)


def _without_ties(judge: Tensor, people: Tensor) -> Tensor:
    kept = (judge != 0.5) & (people != 0.5)
    judge, people = judge[kept], people[kept]
    return _scaled(_agreed(judge, people), _chance(judge, people))


MISTAKES = (
    Mistake(
        "agreement, chance included",
        _answer(lambda agreed, chance: agreed),
        "this is how often both say the same. On a list where a is better in nine "
        "pairs of ten, whoever always says a gets 0.9 and knows nothing.",
    ),
    Mistake(
        "chance alone",
        _answer(lambda agreed, chance: chance),
        "this is what chance would give. How far is the judge above it?",
    ),
    Mistake(
        "disagreement",
        _answer(lambda agreed, chance: 1 - agreed),
        "this is how often the two differ: more agreement gives a smaller number.",
    ),
    Mistake(
        "not scaled",
        _answer(lambda agreed, chance: agreed - chance),
        "the difference to chance is right, but even perfect agreement does not reach "
        "1: how much above chance could there be at most?",
    ),
    Mistake(
        "divided by chance",
        _answer(lambda agreed, chance: (agreed - chance) / chance.clamp(min=1e-9)),
        "you divide by chance, so that the result has no upper end. Perfect agreement "
        "is to give 1.",
    ),
    Mistake(
        "ratio to chance",
        _answer(lambda agreed, chance: agreed / chance.clamp(min=1e-9)),
        "how many times as often as by chance: chance gives 1 here, and is to give 0.",
    ),
    Mistake(
        "divided by what was missed",
        _answer(
            lambda agreed, chance: (agreed - chance) / (1 - agreed).clamp(min=1e-9)
        ),
        "you divide by the share on which they differ, so that perfect agreement is a "
        "division by 0. Divide by what was to be gained over chance.",
    ),
    Mistake(
        "sign",
        _answer(lambda agreed, chance: (chance - agreed) / (1 - chance)),
        "more agreement gives a smaller number: chance is taken from what was "
        "observed, not the other way round.",
    ),
    Mistake(
        "chance of one half",
        _by_chance(lambda judge, people: torch.tensor(0.5)),
        "chance is taken to be one half. With ties, or where one answer is better more "
        "often, it is something else: how often does each say what?",
    ),
    Mistake(
        "chance of one third",
        _by_chance(lambda judge, people: torch.tensor(1 / 3)),
        "chance is taken to be one third, as if all three verdicts were as frequent. "
        "How often does each say what?",
    ),
    Mistake(
        "chance from the pooled shares",
        _by_chance(_pooled),
        "judge and people are thrown together before the shares are taken (Scott's "
        "pi). Each has habits of their own: a share for each.",
    ),
    Mistake(
        "chance from the judge alone",
        _by_chance(lambda judge, _: sum(_share(judge == v) ** 2 for v in VERDICTS)),
        "the judge's shares are squared. That is how often two copies of the judge "
        "would agree; people have shares of their own.",
    ),
    Mistake(
        "chance from people alone",
        _by_chance(lambda _, people: sum(_share(people == v) ** 2 for v in VERDICTS)),
        "people's shares are squared. That is how often two copies of them would "
        "agree; the judge has shares of its own.",
    ),
    Mistake(
        "ties left out of chance",
        _by_chance(
            lambda judge, people: sum(
                _share(judge == v) * _share(people == v) for v in (0.0, 1.0)
            )
        ),
        "two can agree on a tie by chance as well: one product of shares is missing.",
    ),
    Mistake(
        "wins alone",
        _by_chance(lambda judge, people: _share(judge == 1) * _share(people == 1)),
        "this is how often both say a by chance. They may also both say b, or tie.",
    ),
    Mistake(
        "ties count half in chance",
        _by_chance(_half_ties),
        "the means of the verdicts make up chance here, so that a tie is half a win "
        "and half a loss. Agreement counts the same verdict only: so must chance.",
    ),
    Mistake(
        "ties agree half",
        lambda judge, people: _scaled(_partly(judge, people), _chance(judge, people)),
        "a tie against a win counts as half an agreement. Verdicts are the same or "
        "they are not.",
    ),
    Mistake(
        "distance",
        _partly,
        "this is 1 less the mean distance of the verdicts. It counts a tie against a "
        "win as half an agreement and leaves chance in.",
    ),
    Mistake(
        "ties left out",
        _without_ties,
        "pairs with a tie are dropped. A tie is a verdict as well, and agreeing on it "
        "counts.",
    ),
    Mistake(
        "correlation",
        _correlation,
        "this is the correlation of the verdicts, which is blind to a judge that "
        "says a far more often than people do.",
    ),
)

EXERCISE = Exercise(
    id="4.6",
    title="Agreement beyond chance",
    reference=agreement_beyond_chance,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "no ties",
        "a nearly always better",
        "judge that always says the first",
        "perfect agreement",
        "worse than chance",
    ),
    difficulty=2,
    minutes=15,
    points=2,
)
