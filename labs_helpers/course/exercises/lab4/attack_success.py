"""Exercise 4.5: how often attacks succeed, and how far to trust that number."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake


def attack_success(
    succeeded: Float[Tensor, "A N"], z: float
) -> tuple[Float[Tensor, " A"], Float[Tensor, " A"], Float[Tensor, " A"]]:
    """Success rate of each attack, and both ends of Wilson's interval.

    Args:
        succeeded: 1 where an attack (row) got the assistant to comply with a harmful
            prompt (column), 0 where it did not.
        z: How many standard errors an interval reaches; 1.96 for 95 %.

    Returns:
        Rate, lower end and upper end, one of each for every attack.
    """
    n = succeeded.shape[1]
    rate = succeeded.mean(dim=1)
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    spread = torch.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    half = z * spread / (1 + z**2 / n)
    return rate, centre - half, centre + half


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Outcomes of attacks on prompts, some of one kind in every row."""
    count = 2 * size + int(rng.integers(5, 12))
    successes = rng.integers(1, count, size=size)  # neither none nor all
    if flavour == "no attack succeeds":
        successes[:] = 0
    if flavour == "every attack succeeds":
        successes[:] = count
    succeeded = np.zeros((size, count))
    for row, many in enumerate(successes):
        succeeded[row, rng.permutation(count)[:many]] = 1.0
    return {
        "succeeded": torch.tensor(succeeded, dtype=dtype_of(flavour)),
        "z": float(rng.choice([1.25, 1.5, 2.0, 2.5])),
    }


def _answer(interval: Callable[..., tuple[Tensor, ...]], axis: int = 1) -> Function:
    """Turn a function of rate, number and z into an answer."""

    def answer(succeeded, z):
        return interval(succeeded.mean(axis), succeeded.shape[axis], z)

    return answer


def _wilson(rate: Tensor, n: float, z: float) -> tuple[Tensor, Tensor, Tensor]:
    return rate, *_ends(*_centre_and_half(rate, n, z))


def _centre_and_half(rate: Tensor, n: float, z: float) -> tuple[Tensor, Tensor]:
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    spread = (rate * (1 - rate) / n + z**2 / (4 * n**2)).sqrt()
    return centre, z * spread / (1 + z**2 / n)


def _ends(centre: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    return centre - half, centre + half


def _error(rate: Tensor, n: float) -> Tensor:
    return (rate * (1 - rate) / n).sqrt()


def _changed(change: Callable[..., tuple[Tensor, Tensor]]) -> Function:
    """Answer with the right rate, and with centre and half width made otherwise."""
    return _answer(lambda rate, n, z: (rate, *_ends(*change(rate, n, z))))


def _agresti(rate: Tensor, n: float, z: float) -> tuple[Tensor, Tensor]:
    more = n + z**2
    centre = (rate * n + z**2 / 2) / more
    return centre, z * (centre * (1 - centre) / more).sqrt()


def _clamped(rate: Tensor, n: float, z: float) -> tuple[Tensor, ...]:
    low, high = _ends(rate, z * _error(rate, n))
    return rate, low.clamp(min=0), high.clamp(max=1)


def _pooled(succeeded, z):
    found = _wilson(succeeded.mean(), succeeded.numel(), z)
    return tuple(value.expand(len(succeeded)) for value in found)


def _counted_wrong(number: Callable[[Tensor], float]) -> Function:
    """Answer with the right rate and a wrong number of prompts."""
    return lambda succeeded, z: _wilson(succeeded.mean(1), number(succeeded), z)


MISTAKES = (
    Mistake(
        "Wald's interval",
        _changed(lambda rate, n, z: (rate, z * _error(rate, n))),
        "this is the rate plus and minus z standard errors. Where no attack succeeds "
        "it has no width, as if ten prompts could prove that none ever will. Wilson's "
        "interval does not.",
    ),
    Mistake(
        "Wald's interval, clamped",
        _answer(_clamped),
        "this is the rate plus and minus z standard errors, cut off at 0 and 1. Where "
        "no attack succeeds it has no width. Wilson's interval has, and needs no "
        "cutting.",
    ),
    Mistake(
        "Agresti and Coull's interval",
        _changed(_agresti),
        "the centre is Wilson's, the width is not: you put the shrunken rate into the "
        "standard error. Wilson's has the observed rate there and a term with z of "
        "its own.",
    ),
    Mistake(
        "the prompts' rates, not the attacks'",
        _answer(_wilson, axis=0),
        "the mean runs over the attacks and leaves one number for each prompt. Rows "
        "are attacks: along which axis do you average?",
    ),
    Mistake(
        "all attacks together",
        _pooled,
        "every attack gets the rate of all of them. Besides, prompts that come once "
        "for each attack are no independent trials.",
    ),
    Mistake(
        "all attacks in one number",
        lambda succeeded, z: _wilson(succeeded.mean(), succeeded.numel(), z),
        "all attacks end up in one rate. Each row gets its own.",
    ),
    Mistake(
        "every cell counted as a prompt",
        _counted_wrong(lambda succeeded: succeeded.numel()),
        "n is the number of all cells, so intervals are too narrow. How many prompts "
        "stand behind one attack's rate?",
    ),
    Mistake(
        "attacks counted for prompts",
        _counted_wrong(len),
        "n is the number of attacks. How many prompts stand behind one attack's rate?",
    ),
    Mistake(
        "one prompt too few",
        _counted_wrong(lambda succeeded: succeeded.shape[1] - 1),
        "n is one too small. N - 1 belongs to a sample's variance; a proportion has N "
        "trials.",
    ),
    Mistake(
        "successes counted for prompts",
        lambda succeeded, z: _wilson(
            succeeded.mean(1), succeeded.sum(1).clamp(min=1), z
        ),
        "n is the number of successes. The rate stands on all prompts that were tried.",
    ),
    Mistake(
        "refusals, not successes",
        lambda succeeded, z: _wilson(1 - succeeded.mean(1), succeeded.shape[1], z),
        "this is the share of prompts that withstood the attack. 1 means that it "
        "succeeded.",
    ),
    Mistake(
        "the centre for the rate",
        _answer(
            lambda rate, n, z: (
                _centre_and_half(rate, n, z)[0],
                *_ends(*_centre_and_half(rate, n, z)),
            )
        ),
        "the interval is right, and the rate is its centre, which is pulled towards "
        "one half. What happened is what happened: successes over prompts.",
    ),
    Mistake(
        "around the rate",
        _changed(lambda rate, n, z: (rate, _centre_and_half(rate, n, z)[1])),
        "the width is Wilson's, but the interval lies around the rate, so that it can "
        "leave 0 and 1. Its centre is pulled towards one half.",
    ),
    Mistake(
        "centre not scaled",
        _changed(
            lambda rate, n, z: (
                rate + z**2 / (2 * n),
                _centre_and_half(rate, n, z)[1],
            )
        ),
        "the centre can exceed 1: the division by 1 + z² / n is missing there.",
    ),
    Mistake(
        "width not scaled",
        _changed(
            lambda rate, n, z: (
                _centre_and_half(rate, n, z)[0],
                _centre_and_half(rate, n, z)[1] * (1 + z**2 / n),
            )
        ),
        "the width is too large by 1 + z² / n. The denominator is under both, centre "
        "and width.",
    ),
    Mistake(
        "nothing scaled",
        _changed(
            lambda rate, n, z: (
                rate + z**2 / (2 * n),
                _centre_and_half(rate, n, z)[1] * (1 + z**2 / n),
            )
        ),
        "the denominator 1 + z² / n is missing, and the interval leaves 0 and 1.",
    ),
    Mistake(
        "no term of its own under the root",
        _changed(
            lambda rate, n, z: (
                _centre_and_half(rate, n, z)[0],
                z * _error(rate, n) / (1 + z**2 / n),
            )
        ),
        "under the root only the rate's variance is left, so that the interval has no "
        "width where no attack succeeds. One term with z is missing there.",
    ),
    Mistake(
        "n for n² under the root",
        _changed(
            lambda rate, n, z: (
                _centre_and_half(rate, n, z)[0],
                z * (rate * (1 - rate) / n + z**2 / (4 * n)).sqrt() / (1 + z**2 / n),
            )
        ),
        "the second term under the root is too large by n, and intervals hardly get "
        "narrower with more prompts. Look at its denominator.",
    ),
    Mistake(
        "z left out of the width",
        _changed(
            lambda rate, n, z: (
                _centre_and_half(rate, n, z)[0],
                _centre_and_half(rate, n, z)[1] / z,
            )
        ),
        "the width is one standard error. How many of them are asked for?",
    ),
    Mistake(
        "z for z² in the centre",
        _changed(
            lambda rate, n, z: (
                (rate + z / (2 * n)) / (1 + z**2 / n),
                _centre_and_half(rate, n, z)[1],
            )
        ),
        "z is not squared in the centre, where it stands for trials that are half "
        "successes.",
    ),
    Mistake(
        "z for z² everywhere",
        _changed(
            lambda rate, n, z: (
                (rate + z / (2 * n)) / (1 + z / n),
                z * (rate * (1 - rate) / n + z / (4 * n**2)).sqrt() / (1 + z / n),
            )
        ),
        "z is nowhere squared. In Wilson's formula it is, but for the one in front of "
        "the root.",
    ),
    Mistake(
        "half of the correction",
        _changed(
            lambda rate, n, z: (
                (rate + z**2 / n) / (1 + z**2 / n),
                _centre_and_half(rate, n, z)[1],
            )
        ),
        "the centre is pulled towards 1. Wilson adds z² / n trials, half of which are "
        "successes.",
    ),
    Mistake(
        "always 95 %",
        _answer(lambda rate, n, z: _wilson(rate, n, 1.96)),
        "z changes nothing: 1.96 is written into your function.",
    ),
    Mistake(
        "no root",
        _changed(
            lambda rate, n, z: (
                _centre_and_half(rate, n, z)[0],
                z * (rate * (1 - rate) / n + z**2 / (4 * n**2)) / (1 + z**2 / n),
            )
        ),
        "the width is made of a variance. A standard error is its root.",
    ),
    Mistake(
        "spread of the prompts",
        _changed(lambda rate, n, z: (rate, z * (rate * (1 - rate)).sqrt())),
        "this is how much single prompts differ, and it does not shrink with their "
        "number. An interval of a mean does.",
    ),
    Mistake(
        "ends exchanged",
        _answer(lambda rate, n, z: tuple(_wilson(rate, n, z)[i] for i in (0, 2, 1))),
        "the upper end comes before the lower one. Rate, lower end, upper end.",
    ),
    Mistake(
        "half width for the ends",
        _answer(lambda rate, n, z: (rate, *_centre_and_half(rate, n, z))),
        "centre and half width are returned. The ends are asked for.",
    ),
    Mistake(
        "the interval first",
        _answer(lambda rate, n, z: tuple(_wilson(rate, n, z)[i] for i in (1, 2, 0))),
        "the rate comes last. Rate, lower end, upper end.",
    ),
)

EXERCISE = Exercise(
    id="4.5",
    title="Attack success and its interval",
    reference=attack_success,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "no attack succeeds",
        "every attack succeeds",
    ),
    difficulty=2,
    minutes=15,
    points=3,
)
