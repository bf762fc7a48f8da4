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
    elif "float" in str(getattr(value, "dtype", "")):
        library = torch if isinstance(value, torch.Tensor) else np
        yield from (library.zeros_like(value), library.ones_like(value))
        yield from (value.round(decimals=digits) for digits in (0, 1))


def _shown(trial: Trial) -> Counterexample:
    results = []
    for note in (trial.expected, trial.seen):
        several = len(note.values) > 1
        shown = {
            f"result {i + 1}" if several else "result": value
            for i, value in enumerate(note.values)
        }
        if trial.right_value:  # the difference is in the gradients
            gradients = note.gradients or {}
            shown |= {f"gradient of {name}": x for name, x in gradients.items()}
        results.append(shown)
    return Counterexample(trial.inputs, *results)
