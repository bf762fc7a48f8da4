"""Symptoms of where an answer goes wrong: in which result, input or kind of input.

They know no mistake by name, only the place: what has to change for the answer to be
right. Each takes the trials of an answer and returns a message for the student, or
None.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np
import torch

from labs_helpers.course.exercises.exercise import Exercise, Inputs
from labs_helpers.course.exercises.observe import close, same_values
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
    pairs = [(e.ravel(), s.ravel()) for t in trials for e, s in t.pairs]
    if not pairs:
        return None
    expected, seen = (np.concatenate(side).astype(float) for side in zip(*pairs))  # noqa: B905
    if _distinct([expected]) < 4 or close(expected, seen):
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
        expected, seen = trial.expected, trial.seen
        if expected.shapes != seen.shapes or not seen.finite:
            return None
        if not all(close(np.sort(e, None), np.sort(s, None)) for e, s in trial.pairs):
            return None
    if all(trial.right_value for trial in trials):
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
        if all(same_values(t.expected, _ordered(t, order)) for t in trials):
            return "all results are right, but they come back in another order."
    alone = [[_only(t, i) for t in trials] for i in range(count)]
    wrong = [i for i in range(count) if not all(t.right_value for t in alone[i])]
    if len(wrong) == count:
        return None
    names = " and ".join(ORDINALS[i] for i in wrong)
    message = f"of the {count} results the {names} is wrong, and no other."
    if len(wrong) > 1:
        return message.replace(" is wrong, and no", " are wrong, and no")
    more = (values.opposite_sign, values.constant_factor, function_of_it)
    found = (symptom(exercise, answer, alone[wrong[0]]) for symptom in more)
    return " ".join([message, *filter(None, found)])


def no_effect(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """An input that should change the result and does not."""
    for name in trials[0].inputs:
        again = _retried(
            exercise, answer, trials, lambda given, n=name: _moved(given, n)
        )
        if again is None:
            continue
        moved = [
            (old, new)
            for old, new in zip(trials, again, strict=True)
            if not same_values(old.expected, new.expected)
        ]
        if len(moved) >= 3 and all(same_values(o.seen, n.seen) for o, n in moved):
            return (
                f"{name} changes nothing in your result, and it should. Is it used at "
                "all, or does it cancel?"
            )
    return None


def padding_takes_part(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Right as soon as everything that is masked is 0."""
    if not any(_masked_anything(t.inputs) for t in trials):
        return None
    again = _retried(exercise, answer, trials, _padding_cleared)
    if again is None or not _right_and_telling(again):
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
    if not single or len(single) == len(trials) or not _right_and_telling(single):
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
    change: Callable[[Inputs], Inputs | None],
) -> list[Trial] | None:
    """Run all trials on changed inputs; None where the reference cannot take them."""
    again = []
    for trial in trials:
        inputs = change(trial.inputs)
        if inputs is None:
            return None
        again.append(run_trial(exercise, answer, trial.flavour, inputs))
        expected = again[-1].expected
        if expected.error is not None or not expected.finite:
            return None
    return again


def _part_of(
    names: Sequence[str], exercise: Exercise, answer: Any, trials: Trials
) -> str | None:
    """Find inputs at whose 0 or 1 the answer is right."""
    found = []
    for name, number in product(names, (0, 1)):
        again = _retried(
            exercise,
            answer,
            trials,
            lambda given, n=name, x=number: _constant(given, n, x),
        )
        if again is not None and _right_and_telling(again):
            found.append((name, number))
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
    value = inputs.get(name)
    if _is_float_tensor(value):
        value = torch.where(value.isnan(), value, float(number))
    elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
        value = np.full_like(value, number)
    elif isinstance(value, float):
        value = float(number)
    elif type(value) is int and number == 1:
        value = 1
    else:
        return None
    return {**inputs, name: value}


def _moved(inputs: Inputs, name: str) -> Inputs | None:
    """Shrink an input, each place by another factor."""
    value = inputs.get(name)
    if _is_float_tensor(value):
        factors = torch.linspace(0.5, 0.9, max(value.numel(), 1), dtype=value.dtype)
        value = value * factors[: value.numel()].reshape(value.shape)
    elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
        value = value * np.linspace(0.5, 0.9, value.size).reshape(value.shape)
    elif isinstance(value, float):
        value = 0.7 * value
    else:
        return None
    return {**inputs, name: value}


def _padding_cleared(inputs: Inputs) -> Inputs | None:
    mask = inputs.get("mask")
    if not isinstance(mask, torch.Tensor) or mask.ndim != 2:
        return None
    cleared = {}
    for name, value in inputs.items():
        if _is_float_tensor(value) and value.shape[:2] == mask.shape and name != "mask":
            counts = mask.bool().reshape(*mask.shape, *[1] * (value.ndim - 2))
            value = torch.where(counts, value, 0.0)
        cleared[name] = value
    return cleared


def _masked_anything(inputs: Inputs) -> bool:
    mask = inputs.get("mask")
    return isinstance(mask, torch.Tensor) and not bool(mask.bool().all())


def _is_float_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _right_and_telling(trials: Trials) -> bool:
    """Whether all are right, and that is no wonder of a constant result."""
    right = all(t.seen.error is None and t.right_value for t in trials)
    return right and _distinct([v for t in trials for v in t.expected.values]) > 2


def _distinct(arrays: Sequence[np.ndarray]) -> int:
    flat = [np.asarray(array, float).ravel() for array in arrays]
    return len(np.unique(np.round(np.concatenate(flat), 5))) if flat else 0


def _only(trial: Trial, index: int) -> Trial:
    """Keep one of several results."""
    notes = (trial.expected, trial.seen)
    expected, seen = (
        replace(
            n, values=n.values[index : index + 1], dtypes=n.dtypes[index : index + 1]
        )
        for n in notes
    )
    return replace(trial, expected=expected, seen=seen)


def _ordered(trial: Trial, order: Sequence[int]) -> Any:
    return replace(trial.seen, values=tuple(trial.seen.values[i] for i in order))
