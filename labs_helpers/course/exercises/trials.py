"""Inputs on which an answer is tried, and what makes an answer right on one of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labs_helpers.course.exercises.exercise import Exercise, Inputs
from labs_helpers.course.exercises.observe import (
    Observation,
    observe,
    same_gradients,
    same_values,
)

SIZES = (1, 2, 3, 5)
NUMBERS = ("number", "array", "tensor")


@dataclass(frozen=True)
class Trial:
    """One input, what the reference makes of it, and what the answer does."""

    flavour: str
    inputs: Inputs
    expected: Observation
    seen: Observation

    @property
    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Expected and seen values."""
        return list(zip(self.expected.values, self.seen.values, strict=False))

    @property
    def right_value(self) -> bool:
        """Whether the result has the right values and shape."""
        return same_values(self.expected, self.seen)


Trials = Sequence[Trial]


def run_trials(
    exercise: Exercise, answer: Any, seed: int, sizes: Sequence[int] = SIZES
) -> list[Trial]:
    """Run reference and answer on inputs of every flavour and size."""
    rng = np.random.default_rng(seed)
    return [
        run_trial(exercise, answer, flavour, exercise.inputs(rng, size, flavour))
        for flavour in exercise.flavours
        for size in sizes
    ]


def run_trial(exercise: Exercise, answer: Any, flavour: str, inputs: Inputs) -> Trial:
    """Run reference and answer on one input."""
    return Trial(
        flavour,
        inputs,
        observe(exercise.reference, inputs, exercise.gradients),
        observe(answer, inputs, exercise.gradients),
    )


def is_right(exercise: Exercise, trial: Trial) -> bool:
    """Whether an answer does what the reference does, as far as it matters."""
    expected, seen = trial.expected, trial.seen
    if seen.changed or seen.error is not None or not trial.right_value:
        return False
    if is_metric(exercise, trial):
        return seen.kind in NUMBERS
    same_type = (expected.kind, expected.dtypes) == (seen.kind, seen.dtypes)
    return same_type and same_gradients(expected, seen)


def is_metric(exercise: Exercise, trial: Trial) -> bool:
    """Whether any kind of number will do: a float, or a tensor without axes."""
    return not exercise.gradients and trial.expected.shapes == ((),)


def wrong_flavours(exercise: Exercise, trials: Trials) -> list[str]:
    """Kinds of input on which an answer is wrong at least once."""
    wrong = {trial.flavour for trial in trials if not is_right(exercise, trial)}
    return [flavour for flavour in exercise.flavours if flavour in wrong]
