"""Symptoms of where an answer goes wrong: in which result, input or kind of input.

They know no mistake by name, only the place: what has to change for the answer to be
right. Each takes the trials of an answer and returns a message for the student, or
None.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import torch

from labs_helpers.course.exercises.exercise import Exercise, Inputs
from labs_helpers.course.exercises.observe import Observation, close, same_values
from labs_helpers.course.exercises.symptoms import values
from labs_helpers.course.exercises.trials import (
    Trial,
    Trials,
    run_trial,
    wrong_flavours,
)

ORDINALS = ("first", "second", "third", "fourth", "fifth")
FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "the logarithm of the right one": np.log,
    "the exponential of the right one": np.exp,
    "the square of the right one": np.square,
    "the square root of the right one": np.sqrt,
    "one less the right one": lambda x: 1 - x,
    "one over the right one": lambda x: 1 / x,
    "the right one without its sign": np.abs,
    "the right one cut off at 0": lambda x: np.maximum(x, 0),
    "the sigmoid of the right one": lambda x: 1 / (1 + np.exp(-x)),
}


def function_of_it(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """A known function of the right values."""
    if any(t.expected.shapes != t.seen.shapes or not t.seen.finite for t in trials):
        return None
    expected, seen = (_flat([p[i] for t in trials for p in t.pairs]) for i in (0, 1))
    if _distinct(expected) < 4:
        return None
    with np.errstate(all="ignore"):
        for what, function in FUNCTIONS.items():
            made = function(expected)
            if np.isfinite(made).all() and np.allclose(seen, made, 1e-3, 1e-5):
                return f"every value is {what}. One step is missing or one too many."
    return None


def other_places(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """The right values, each in a place of another."""
    for trial in trials:
        if trial.expected.shapes != trial.seen.shapes or not trial.seen.finite:
            return None
        if not all(close(np.sort(e, None), np.sort(s, None)) for e, s in trial.pairs):
            return None
    return (
        "all the right values are there, in other places. Look for a sort, a flip, or "
        "an order that belongs to other rows."
    )


def one_result(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Of several results some are right, or all are and in another order."""
    count = len(trials[0].expected.values)
    if count < 2 or any(len(t.pairs) != count for t in trials):
        return None
    for order in permutations(range(count)):
        if all(same_values(t.expected, _kept(t.seen, order)) for t in trials):
            return "all results are right, but they come back in another order."
    alone = [
        [
            replace(t, expected=_kept(t.expected, [i]), seen=_kept(t.seen, [i]))
            for t in trials
        ]
        for i in range(count)
    ]
    wrong = [i for i in range(count) if not all(t.right_value for t in alone[i])]
    if len(wrong) == count:
        return None
    names = " and ".join(ORDINALS[i] for i in wrong)
    are = "is" if len(wrong) == 1 else "are"
    message = f"of the {count} results the {names} {are} wrong, and no other."
    if len(wrong) > 1:
        return message
    more = (values.opposite_sign, values.constant_factor, function_of_it)
    found = (symptom(exercise, answer, alone[wrong[0]]) for symptom in more)
    return " ".join([message, *filter(None, found)])


def no_effect(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """An input that should change the result and does not."""
    for name in trials[0].inputs:
        moved = 0
        for old, new in _retried(exercise, answer, trials, _moved, name):
            if new is None:
                moved = 0
                break
            if not same_values(old.expected, new.expected):
                moved += 1
                if not same_values(old.seen, new.seen):
                    moved = 0
                    break
        if moved >= 3:
            return (
                f"{name} changes nothing in your result, and it should. Is it used at "
                "all, or does it cancel?"
            )
    return None


def padding_takes_part(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Right as soon as everything that is masked is 0."""
    masks = [trial.inputs.get("mask") for trial in trials]
    if all(not isinstance(m, torch.Tensor) or bool(m.bool().all()) for m in masks):
        return None
    if not _is_right_when(exercise, answer, trials, _padding_cleared):
        return None
    return (
        "it is right where everything that the mask leaves out happens to be 0. So "
        "what is masked takes part in some step: in a difference, in a mean, or as "
        "the neighbour of what counts."
    )


def special_case(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Right for ordinary inputs, wrong for a special kind."""
    wrong = wrong_flavours(exercise, trials)
    if not wrong or exercise.flavours[0] in wrong:
        return None
    return (
        f"it is right for ordinary inputs, and wrong for these: {', '.join(wrong)}. "
        "What is special there, and which step takes no notice of it?"
    )


def part_of_a_number(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Right as soon as a plain number among the inputs is 0, or 1."""
    numbers = [n for n, v in trials[0].inputs.items() if isinstance(v, int | float)]
    return _part_of(numbers, exercise, answer, trials)


def part_of_an_input(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Right as soon as one input is 0 everywhere, or 1."""
    return _part_of(list(trials[0].inputs), exercise, answer, trials)


def one_row(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Right for one row, wrong for several."""
    single = [t for t in trials if values.rows(t) == 1]
    if not 0 < len(single) < len(trials) or not all(map(_right, single)):
        return None
    if not _is_telling(single):
        return None
    return (
        "it is right for a single row and wrong for several. So rows mix: look for a "
        "mean or a sum that comes too early, for a wrong axis, or for an order that "
        "belongs to other rows."
    )


def _retried(
    exercise: Exercise,
    answer: Any,
    trials: Trials,
    change: Callable[..., Inputs | None],
    *args: Any,
) -> Iterator[tuple[Trial, Trial | None]]:
    """Yield trials and what comes of changed inputs: None if the reference fails."""
    for trial in trials:
        inputs = change(trial.inputs, *args)
        again = inputs and run_trial(exercise, answer, trial.flavour, inputs)
        if again and (again.expected.error is not None or not again.expected.finite):
            again = None
        yield trial, again


def _is_right_when(
    exercise: Exercise, answer: Any, trials: Trials, *change: Any
) -> bool:
    """Whether the answer is right on changed inputs, and that is no wonder."""
    again = []
    for _, trial in _retried(exercise, answer, trials, *change):
        if trial is None or not _right(trial):
            return False
        again.append(trial)
    return _is_telling(again)


def _part_of(
    names: Sequence[str], exercise: Exercise, answer: Any, trials: Trials
) -> str | None:
    """Find inputs at whose 0 or 1 the answer is right."""
    found = [
        (name, number)
        for name, number in product(names, (0, 1))
        if _is_right_when(exercise, answer, trials, _constant, name, number)
    ]
    if not found:
        return None
    where = " or ".join(f"{name} is {number}" for name, number in found[:2])
    if isinstance(trials[0].inputs[found[0][0]], int):
        return f"it is right as long as {where}. Look at what comes after the first."
    return (
        f"it is right wherever {where}. So look at the step in which {found[0][0]} "
        "takes part; the others seem to be right."
    )


def _constant(inputs: Inputs, name: str, number: int) -> Inputs | None:
    """Set an input to a number everywhere; NaN in padding stays."""
    if type(inputs[name]) is int:
        return {**inputs, name: 1} if number == 1 else None
    return _changed(inputs, name, lambda value: value * 0 + number)


def _moved(inputs: Inputs, name: str) -> Inputs | None:
    """Shrink an input, each place by another factor."""

    def shrunk(value: Any) -> Any:
        shape = getattr(value, "shape", None)
        if shape is None:
            return 0.7 * value
        factors = np.linspace(0.5, 0.9, math.prod(shape)).reshape(shape)
        is_tensor = isinstance(value, torch.Tensor)
        return value * (
            torch.tensor(factors, dtype=value.dtype) if is_tensor else factors
        )

    return _changed(inputs, name, shrunk)


def _changed(inputs: Inputs, name: str, change: Callable[[Any], Any]) -> Inputs | None:
    """Change an input of floats; None where it holds something else."""
    value = inputs[name]
    if not isinstance(value, float) and "float" not in str(getattr(value, "dtype", "")):
        return None
    return {**inputs, name: change(value)}


def _padding_cleared(inputs: Inputs) -> Inputs | None:
    mask = inputs.get("mask")
    if not isinstance(mask, torch.Tensor) or mask.ndim != 2:
        return None
    cleared = dict(inputs)
    for name, value in inputs.items():
        is_tensor = isinstance(value, torch.Tensor) and value.is_floating_point()
        if is_tensor and value.shape[:2] == mask.shape and name != "mask":
            counts = mask.bool().reshape(*mask.shape, *[1] * (value.ndim - 2))
            cleared[name] = torch.where(counts, value, 0.0)
    return cleared


def _right(trial: Trial) -> bool:
    return trial.seen.error is None and trial.right_value


def _is_telling(trials: Trials) -> bool:
    """Whether results differ, so that being right is no wonder."""
    return _distinct(_flat([v for t in trials for v in t.expected.values])) > 2


def _flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(x).astype(float) for x in arrays] or [np.empty(0)])


def _distinct(array: np.ndarray) -> int:
    return len(np.unique(np.round(array, 5)))


def _kept(note: Observation, order: Sequence[int]) -> Observation:
    """Keep some of several results, in an order."""
    values, dtypes = ([x[i] for i in order] for x in (note.values, note.dtypes))
    return replace(note, values=tuple(values), dtypes=tuple(dtypes))
