"""Exercise 1.5: how far predicted preference probabilities are from the known ones."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of, normal, uniform
from labs_helpers.course.exercises.exercise import Exercise, Inputs, Mistake


def probability_gap(
    margins: Float[Tensor, " B"],
    temperature: float,
    known_probabilities: Float[Tensor, " B"],
) -> Float[Tensor, ""]:
    """Mean squared gap E[(p_hat - p)²] with p_hat = sigmoid(margins / temperature)."""
    predicted = torch.sigmoid(margins / temperature)
    return (predicted - known_probabilities).square().mean()


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Differences of rewards, a fitted temperature, and the true probabilities."""
    dtype = dtype_of(flavour)
    scale = 200.0 if "large" in flavour else 2.0
    return {
        "margins": normal(rng, size, scale=scale, dtype=dtype),
        "temperature": float(rng.choice([rng.uniform(0.3, 0.7), rng.uniform(1.5, 3)])),
        "known_probabilities": uniform(rng, size, low=0.05, high=0.95, dtype=dtype),
    }


def _gaps(margins: Tensor, temperature: float, known: Tensor) -> Tensor:
    return torch.sigmoid(margins / temperature) - known


def _answer(change):
    """Name the arguments of an answer as the exercise does."""

    def answer(margins, temperature, known_probabilities):
        return change(margins, temperature, known_probabilities)

    return answer


def _brier(m: Tensor, t: float, p: Tensor) -> Tensor:
    return (_gaps(m, t, p).square() + p * (1 - p)).mean()


def _naive_cross_entropy(m: Tensor, t: float, p: Tensor) -> Tensor:
    return torch.nn.functional.binary_cross_entropy_with_logits(m / t, p)


MISTAKES = (
    Mistake(
        "absolute gap",
        _answer(lambda m, t, p: _gaps(m, t, p).abs().mean()),
        "this is the mean absolute gap. The bounds of this lab are for the squared "
        "one, which counts few large gaps more than many small ones.",
    ),
    Mistake(
        "temperature multiplies",
        _answer(lambda m, t, p: _gaps(m, 1 / t, p).square().mean()),
        "a high temperature makes your predictions surer. It should bring them closer "
        "to 1/2.",
    ),
    Mistake(
        "temperature ignored",
        _answer(lambda m, t, p: _gaps(m, 1.0, p).square().mean()),
        "the temperature changes nothing: these are the predictions before "
        "calibration.",
    ),
    Mistake(
        "square root",
        _answer(lambda m, t, p: _gaps(m, t, p).square().mean().sqrt()),
        "this is the root of the mean squared gap. Leave it squared: 0.01 is a gap of "
        "about 0.1.",
    ),
    Mistake(
        "gap to hard labels",
        _answer(lambda m, t, p: _gaps(m, t, (p > 0.5).to(p.dtype)).square().mean()),
        "you compare with the likelier choice, 0 or 1. Here the probability itself is "
        "known, and a model that predicts 0.6 where 0.6 is true has no gap.",
    ),
    Mistake(
        "expected Brier score",
        _answer(_brier),
        "this is the expected Brier score: it contains E[p (1 - p)], the noise of the "
        "annotators, which no model can take away.",
    ),
    Mistake(
        "sigmoid forgotten",
        _answer(lambda m, t, p: (m / t - p).square().mean()),
        "a scaled margin is compared with a probability. It goes from minus to plus "
        "infinity and needs to become a probability first.",
    ),
    Mistake(
        "square of the mean",
        _answer(lambda m, t, p: _gaps(m, t, p).mean().square()),
        "gaps up and gaps down cancel before the square is taken: a model can be "
        "wrong on every pair and get 0. Which comes first?",
    ),
    Mistake(
        "gaps cancel",
        _answer(lambda m, t, p: _gaps(m, t, p).mean()),
        "gaps up and gaps down cancel, so a model can be wrong on every pair and "
        "get 0.",
    ),
    Mistake(
        "sum for mean",
        _answer(lambda m, t, p: _gaps(m, t, p).square().sum()),
        "the value grows with the number of pairs, so a bound on it means nothing. "
        "The mean is asked for.",
    ),
    Mistake(
        "the other answer's probability",
        _answer(lambda m, t, p: _gaps(-m, t, p).square().mean()),
        "it predicts how likely the second answer wins, and compares that with how "
        "likely the first one does.",
    ),
    Mistake(
        "temperature outside the sigmoid",
        _answer(lambda m, t, p: (torch.sigmoid(m) / t - p).square().mean()),
        "the temperature divides the probability, which can then exceed 1. It belongs "
        "to the margins.",
    ),
    Mistake(
        "cross-entropy",
        _answer(_naive_cross_entropy),
        "this is the cross-entropy, which is not 0 for a perfect model. The gap is.",
    ),
    Mistake(
        "every pair with every other",
        _answer(
            lambda m, t, p: (torch.sigmoid(m / t)[:, None] - p[None]).square().mean()
        ),
        "(B,) met (B, 1): every prediction is compared with every probability. Print "
        "the shape of the gap.",
    ),
    Mistake(
        "overflow",
        _answer(
            lambda m, t, p: (
                (torch.exp(m / t) / (1 + torch.exp(m / t)) - p).square().mean()
            )
        ),
        "exp of a large margin is inf, and inf / inf is nan. torch has a sigmoid that "
        "knows how to avoid this.",
    ),
)

EXERCISE = Exercise(
    id="1.5",
    title="Calibration against known probabilities",
    reference=probability_gap,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=("plain", "float64", "large margins"),
    difficulty=2,
    minutes=10,
    points=2,
)
