"""Find the smallest input on which an answer is wrong.

First the size shrinks, then the values: to whole numbers, to ones and zeros. Lengths,
indices and token lists stay as the exercise makes them, so that inputs stay valid.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from labs_helpers.course.exercises.exercise import Counterexample, Exercise
from labs_helpers.course.exercises.trials import Trial, is_right, run_trial

SIZES = range(1, 7)
DRAWS = 8


def smallest_counterexample(
    exercise: Exercise, answer: Any, flavours: Sequence[str], seed: int
) -> Counterexample | None:
    """Search small inputs of the flavours on which the answer is known to be wrong."""
    rng = np.random.default_rng([seed, 1])
    for size in SIZES:
        for flavour in flavours:
            for _ in range(DRAWS):
                inputs = exercise.inputs(rng, size, flavour)
                trial = run_trial(exercise, answer, flavour, inputs)
                if not is_right(exercise, trial):
                    return _shown(_simplest(exercise, answer, trial))
    return None


def _simplest(exercise: Exercise, answer: Any, trial: Trial) -> Trial:
    """Simplify one value after another as long as the answer stays wrong."""
    for name in trial.inputs:
        for simpler in _simpler(trial.inputs[name]):
            inputs = {**trial.inputs, name: simpler}
            tried = run_trial(exercise, answer, trial.flavour, inputs)
            if tried.expected.error is None and not is_right(exercise, tried):
                trial = tried
                break
    return trial


def _simpler(value: Any) -> Iterator[Any]:
    """Yield simpler values of the same kind and shape, the simplest first."""
    if isinstance(value, float):
        yield from (x for x in (1.0, 2.0, 0.5) if x != value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        yield from (np.zeros_like(value), np.ones_like(value))
        yield from (np.round(value, digits) for digits in (0, 1))
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        yield from (torch.zeros_like(value), torch.ones_like(value))
        yield from (torch.round(value, decimals=digits) for digits in (0, 1))


def _shown(trial: Trial) -> Counterexample:
    expected = _results(trial.expected.values)
    got = _results(trial.seen.values)
    if trial.right_value:  # the difference is in the gradients
        expected |= _gradients(trial.expected.gradients)
        got |= _gradients(trial.seen.gradients)
    return Counterexample(trial.inputs, expected, got)


def _results(values: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    if len(values) == 1:
        return {"result": values[0]}
    return {f"result {i + 1}": value for i, value in enumerate(values)}


def _gradients(gradients: Any) -> dict[str, Any]:
    return {f"gradient of {name}": x for name, x in (gradients or {}).items()}
