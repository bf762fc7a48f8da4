"""Exercise 1.1: the best accuracy that any reward model can reach."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of, normal
from labs_helpers.course.exercises.exercise import Exercise, Inputs, Mistake


def bayes_ceiling(
    gold_a: Float[Tensor, " B"], gold_b: Float[Tensor, " B"], temperature: float
) -> Float[Tensor, ""]:
    """Mean of max(p, 1 - p), p the annotator's probability of preferring A."""
    p = torch.sigmoid((gold_a - gold_b) / temperature)
    return torch.maximum(p, 1 - p).mean()


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Gold scores of pairs of answers, and an annotator's temperature."""
    dtype = dtype_of(flavour)
    gold_a, gold_b = (normal(rng, size, dtype=dtype) for _ in range(2))
    if flavour == "equal answers":
        gold_b = gold_a.clone()
    low, high = (0.001, 0.004) if flavour == "sure annotator" else (0.2, 2.0)
    return {
        "gold_a": gold_a,
        "gold_b": gold_b,
        "temperature": float(rng.uniform(low, high)),
    }


def _p(gold_a: Tensor, gold_b: Tensor, temperature: float) -> Tensor:
    return torch.sigmoid((gold_a - gold_b) / temperature)


def _mean_max(p: Tensor) -> Tensor:
    return torch.maximum(p, 1 - p).mean()


def _overflow(gold_a: Tensor, gold_b: Tensor, temperature: float) -> Tensor:
    a, b = torch.exp(gold_a / temperature), torch.exp(gold_b / temperature)
    return _mean_max(a / (a + b))


MISTAKES = (
    Mistake(
        "chance of A, not of being right",
        lambda gold_a, gold_b, temperature: _p(gold_a, gold_b, temperature).mean(),
        "this is how often the annotator prefers A. The best model is free to answer "
        "B where B is the more likely choice: how often is it right then?",
    ),
    Mistake(
        "worst model",
        lambda gold_a, gold_b, temperature: (
            1 - _mean_max(_p(gold_a, gold_b, temperature))
        ),
        "the result lies below 1/2, so this is the accuracy of the model that always "
        "takes the less likely answer.",
    ),
    Mistake(
        "temperature multiplies",
        lambda gold_a, gold_b, temperature: _mean_max(
            torch.sigmoid((gold_a - gold_b) * temperature)
        ),
        "a high temperature makes your annotator surer. It should make choices more "
        "random.",
    ),
    Mistake(
        "temperature ignored",
        lambda gold_a, gold_b, temperature: _mean_max(torch.sigmoid(gold_a - gold_b)),
        "the result does not depend on the temperature. A careless annotator lowers "
        "the ceiling.",
    ),
    Mistake(
        "temperature divides one score only",
        lambda gold_a, gold_b, temperature: _mean_max(
            torch.sigmoid(gold_a - gold_b / temperature)
        ),
        "only one of the two scores is divided by the temperature: division binds "
        "more tightly than minus.",
    ),
    Mistake(
        "maximum after the mean",
        lambda gold_a, gold_b, temperature: torch.maximum(
            _p(gold_a, gold_b, temperature).mean(),
            1 - _p(gold_a, gold_b, temperature).mean(),
        ),
        "this decides once for all pairs. The best model decides for each pair: in "
        "which order do the mean and the maximum come?",
    ),
    Mistake(
        "certain annotator",
        lambda gold_a, gold_b, temperature: (
            (_p(gold_a, gold_b, temperature) > 0.5).to(gold_a.dtype).mean()
        ),
        "you count how often A is the likelier choice. Keep the probability itself: "
        "an annotator who prefers A with 0.6 chooses B four times in ten.",
    ),
    Mistake(
        "agreement of two annotators",
        lambda gold_a, gold_b, temperature: (
            _p(gold_a, gold_b, temperature).square()
            + (1 - _p(gold_a, gold_b, temperature)).square()
        ).mean(),
        "p² + (1 - p)² is how often two such annotators agree with each other. A "
        "model need not draw its answer at random as an annotator does.",
    ),
    Mistake(
        "sigmoid forgotten",
        lambda gold_a, gold_b, temperature: _mean_max((gold_a - gold_b) / temperature),
        "the result leaves the range from 1/2 to 1: a difference of scores is not a "
        "probability yet.",
    ),
    Mistake(
        "likelihood, not accuracy",
        lambda gold_a, gold_b, temperature: torch.nn.functional.binary_cross_entropy(
            _p(gold_a, gold_b, temperature), _p(gold_a, gold_b, temperature)
        ),
        "this is the entropy of the annotator's choice: the floor of the loss, in "
        "nats. The ceiling is asked for, a rate of right answers.",
    ),
    Mistake(
        "overflow",
        _overflow,
        "exp overflows when the temperature is low, and inf / inf is nan. Only the "
        "difference of the two scores matters: can it be taken before exp?",
    ),
)

EXERCISE = Exercise(
    id="1.1",
    title="The Bayes ceiling",
    reference=bayes_ceiling,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=("plain", "float64", "equal answers", "sure annotator"),
    difficulty=2,
    minutes=10,
    points=2,
)
