"""Mistakes that people make in every exercise, told by their symptoms.

Each symptom is a function of the trials that returns a message or None. Messages say
what the symptom means and where to look, not what to write.
"""

import linecache
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from labs_helpers.course.checks.exercise import Exercise
from labs_helpers.course.checks.observe import (
    close,
    observe,
    same_gradient,
    same_values,
)
from labs_helpers.course.checks.trials import Trial, is_metric, wrong_flavours

Trials = Sequence[Trial]


class Finding(NamedTuple):
    """A mistake's name and what to tell the student."""

    name: str
    message: str


def unfinished(trials: Trials) -> Finding | None:
    """Tell an answer that was never written or never returned."""
    seen = [trial.seen for trial in trials]
    if any(isinstance(note.error, NotImplementedError) for note in seen):
        return Finding(
            "not written yet",
            "the function still raises NotImplementedError. Write your code in place "
            "of that line.",
        )
    if all(note.kind == "ellipsis" for note in seen):
        return Finding("not written yet", "the function still returns `...`.")
    if all(note.error is None and note.kind == "None" for note in seen):
        if any(note.printed for note in seen):
            return Finding(
                "prints its result",
                "the function prints and returns nothing, so nobody can compute with "
                "its result.",
            )
        return Finding(
            "returns nothing",
            "the function ends without a return, so its result is None.",
        )
    return None


def general(exercise: Exercise, answer: Any, trials: Trials) -> Finding | None:
    """Find the first symptom of a mistake that belongs to no exercise."""
    for name, symptom in SYMPTOMS.items():
        message = symptom(exercise, answer, trials)
        if message is not None:
            return Finding(name, message)
    return None


# It does not run, or returns another kind of thing


def _leaves_torch(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    kinds = {trial.seen.kind for trial in trials}
    errors = " ".join(str(trial.seen.gradient_error) for trial in trials)
    wanted = trials[0].expected.kind.startswith(("tensor", "tuple"))
    if is_metric(exercise, trials[0]) or not wanted:
        return None
    if "numpy() on Tensor that requires grad" in errors or kinds == {"array"}:
        return (
            "somewhere the computation goes through NumPy. No gradient finds its way "
            "back from there: use torch from the inputs to the result."
        )
    if kinds == {"number"}:
        return (
            "it returns a plain Python number where a tensor is asked, so nothing can "
            "be trained by it. Look for .item(), float(...) or a sum of numbers."
        )
    return None


def _raises(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    for trial in trials:
        error = trial.seen.error or trial.seen.gradient_error
        if error is None:
            continue
        given = ", ".join(
            f"{name} {_size(value)}" for name, value in trial.inputs.items()
        )
        when = ""
        if trial.seen.error is None:
            when = " when its inputs require gradients"
        elif any(other.seen.error is None for other in trials):
            when = f" for some inputs ({trial.flavour})"
        text = " ".join(str(error).split()) or "no message"
        return (
            f"{type(error).__name__}{when}, in {_line_of(answer, error)}: "
            f"{text[:200]} The arguments were {given}."
        )
    return None


def _other_kind(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    expected, seen = trials[0].expected, trials[0].seen
    if expected.kind == seen.kind or (is_metric(exercise, trials[0]) and seen.values):
        return None
    return f"the result is a {seen.kind}, and a {expected.kind} is asked for."


def _is_random(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    for trial in trials[-4:]:
        again = observe(answer, trial.inputs)
        if not same_values(again, trial.seen):
            return (
                "called twice with the same input it gives two results. Look for "
                "something random, or for a variable outside the function that it "
                "changes."
            )
    return None


# Shapes


def _extra_axis(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    for trial in trials:
        for expected, seen in _pairs(trial):
            if not close(expected.squeeze(), seen.squeeze()):
                return None
    trial = next(t for t in trials if t.expected.shapes != t.seen.shapes)
    return (
        f"the values are right, in shape {trial.seen.shapes[0]} where "
        f"{trial.expected.shapes[0]} is asked. An axis of length one is no harmless "
        "thing: (B,) and (B, 1) broadcast to (B, B) without a word."
    )


def _squared(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    pairs = [pair for trial in trials for pair in _pairs(trial)]
    grown = [
        (expected, seen)
        for expected, seen in pairs
        if expected.ndim == 1 and seen.shape == expected.shape * 2
    ]
    if len(grown) < len(pairs):
        return None
    return (
        f"the result has shape {grown[-1][1].shape} where {grown[-1][0].shape} is "
        "asked: every row was combined with every other row. Look for an index that "
        "selects columns in all rows, or for a (B,) that meets a (B, 1)."
    )


def _not_reduced(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    for trial in trials:
        for expected, seen in _pairs(trial):
            if expected.ndim or not seen.size or not close(expected, seen.mean()):
                return None
    shape = trials[-1].seen.shapes[0]
    return f"it returns all the values, in shape {shape}, where their mean is asked."


def _other_shape(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    for trial in trials:
        if trial.expected.shapes != trial.seen.shapes:
            given = ", ".join(f"{k} {_size(v)}" for k, v in trial.inputs.items())
            return (
                f"for {given} the result has shape {_shapes(trial.seen.shapes)}, and "
                f"{_shapes(trial.expected.shapes)} is asked. Print the shape after "
                "each step."
            )
    return None


# Values


def _whole_numbers(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    wanted = all("float" in dtype for t in trials for dtype in t.expected.dtypes)
    whole = all("int" in d or "bool" in d for t in trials for d in t.seen.dtypes)
    if not (wanted and whole and trials[0].seen.dtypes):
        return None
    return (
        f"the result is of type {trials[0].seen.dtypes[0]}, so its fraction is lost. "
        "Look for //, int(...), a comparison, or a tensor made of whole numbers."
    )


def _lets_padding_in(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    padded = [t for t in trials if any(map(_has_nan, t.inputs.values()))]
    if not padded or not all(_right_or_not_finite(t) for t in padded):
        return None
    if not all(t.right_value for t in trials if not any(t is p for p in padded)):
        return None
    if all(t.right_value for t in padded):
        return None
    return (
        "NaN in places that should not count gets into the result. Multiplying by a "
        "mask of 0 and 1 does not help: 0 times NaN is NaN. Select, do not multiply."
    )


def _unstable(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    if not all(map(_right_or_not_finite, trials)):
        return None
    if all(trial.right_value for trial in trials):
        return None
    return (
        f"it is right for moderate numbers, and inf or nan for: "
        f"{', '.join(wrong_flavours(exercise, trials))}. An intermediate step "
        "overflows or rounds to 0 though the result is an ordinary number. Look for "
        "exp, for a division by it, or for the log of something that can be 0; torch "
        "has functions that take two such steps in one."
    )


def _constant(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    values = [np.unique(value) for trial in trials for value in trial.seen.values]
    if any(len(value) != 1 for value in values) or len(np.unique(values)) != 1:
        return None
    return (
        f"the result is {values[0][0]:g} whatever the input. Is there an input that "
        "your function never uses, or a value left from another cell?"
    )


def _scaled(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Sign, constant factors, and sums for means."""
    ratios, counts = [], []
    for trial in trials:
        for expected, seen in _pairs(trial):
            if expected.shape != seen.shape or not np.isfinite(seen).all():
                return None
            large = np.abs(expected) > 1e-3
            ratios.extend((seen[large] / expected[large]).tolist())
            counts.extend([_rows(trial)] * int(large.sum()))
            if not np.allclose(seen[~large], 0, atol=0.1):
                return None
    if len(ratios) < 3 or not expected_varies(trials):
        return None
    ratio = float(np.median(ratios))
    if np.allclose(ratios, ratio, rtol=1e-3):
        if np.isclose(ratio, -1):
            return (
                "every value has the right size and the opposite sign. A minus is "
                "missing or one too many, or two terms are swapped."
            )
        return (
            f"every value is {ratio:.4g} times the right one, whatever the input. "
            "Look for a constant factor: a mean over too many or too few, a missing "
            "half, a logarithm to another base."
        )
    if np.allclose(ratios, counts, rtol=1e-3):
        return "every value is B times the right one: a sum where the mean is asked."
    return None


def expected_varies(trials: Trials) -> bool:
    """Whether the right results are not all the same."""
    values = [value.mean() for trial in trials for value in trial.expected.values]
    return bool(np.ptp(values) > 1e-3)


# Right values, and yet


def _changes_input(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    changed = [name for trial in trials for name in trial.seen.changed]
    if not changed:
        return None
    return (
        f"it changes {changed[0]} itself, so whoever uses that next gets other "
        "numbers. Look for an assignment into it, or for a method that ends in _ ."
    )


def _no_gradient(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    if not exercise.gradients or not all(t.right_value for t in trials):
        return None
    for name in exercise.gradients:
        arrived = [(t.seen.gradients or {}).get(name) is not None for t in trials]
        expected = [(t.expected.gradients or {}).get(name) is not None for t in trials]
        if any(expected) and not any(arrived):
            return (
                f"the value is right, and no gradient gets back to {name}: training "
                "would change nothing by it. Look for .detach(), .data, .item(), "
                "no_grad(), or torch.tensor(...) around a tensor."
            )
    return None


def _other_gradient(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    if not exercise.gradients or not all(t.right_value for t in trials):
        return None
    for trial in trials:
        for name, expected in (trial.expected.gradients or {}).items():
            seen = (trial.seen.gradients or {}).get(name)
            if not same_gradient(expected, seen):
                what = "is another one"
                if seen is not None and not np.isfinite(seen).all():
                    what = "is not finite"
                return (
                    f"the value is right, but its gradient with respect to {name} "
                    f"{what} ({trial.flavour}). Training uses nothing but the "
                    "gradient. Look for a branch, a clamp, a detach, or a masked "
                    "value that still takes part."
                )
    return None


def _other_dtype(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    for trial in trials:
        expected, seen = trial.expected.dtypes, trial.seen.dtypes
        if not is_metric(exercise, trial) and expected != seen:
            return (
                f"the values are right, as {', '.join(seen)} where the inputs ask for "
                f"{', '.join(expected)}. New tensors take the type of the inputs if "
                "you say so: x.new_zeros(...), torch.zeros_like(x)."
            )
    return None


SYMPTOMS: dict[str, Callable[[Exercise, Any, Trials], str | None]] = {
    "leaves torch": _leaves_torch,
    "raises an error": _raises,
    "another kind of result": _other_kind,
    "is random": _is_random,
    "an axis too many": _extra_axis,
    "broadcast": _squared,
    "not reduced": _not_reduced,
    "another shape": _other_shape,
    "whole numbers": _whole_numbers,
    "lets padding in": _lets_padding_in,
    "unstable": _unstable,
    "constant": _constant,
    "scaled": _scaled,
    "changes its input": _changes_input,
    "no gradient": _no_gradient,
    "another gradient": _other_gradient,
    "another dtype": _other_dtype,
}


def _pairs(trial: Trial) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(trial.expected.values, trial.seen.values, strict=False))


def _right_or_not_finite(trial: Trial) -> bool:
    return trial.right_value or (trial.expected.finite and not trial.seen.finite)


def _has_nan(value: Any) -> bool:
    return hasattr(value, "isnan") and bool(value.isnan().any())


def _rows(trial: Trial) -> int:
    """Return the length of the first input that has one."""
    return next((len(v) for v in trial.inputs.values() if np.ndim(v)), 1)


def _size(value: Any) -> str:
    if hasattr(value, "shape"):
        return str(tuple(value.shape))
    return f"of {len(value)} rows" if isinstance(value, list) else f"= {value}"


def _shapes(shapes: tuple[tuple[int, ...], ...]) -> str:
    return ", ".join(map(str, shapes))


def _line_of(function: Any, error: Exception) -> str:
    """Quote the line of the student's code in which an exception came up."""
    frames = list(traceback.walk_tb(error.__traceback__))
    code = getattr(function, "__code__", None)
    own = [f for f in frames if code and f[0].f_code.co_filename == code.co_filename]
    if not own:
        return "the call of your function"
    frame, number = own[-1]
    line = linecache.getline(frame.f_code.co_filename, number).strip()
    return f"`{line}`" if line else f"line {number - code.co_firstlineno + 1}"
