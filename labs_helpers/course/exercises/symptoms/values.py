"""Symptoms in the values, where these are wrong, and in gradients, where they are not.

Each takes the trials of an answer and returns a message for the student, or None.
"""

from typing import Any

import numpy as np

from labs_helpers.course.exercises.exercise import Exercise
from labs_helpers.course.exercises.observe import close, same_gradient
from labs_helpers.course.exercises.trials import (
    Trial,
    Trials,
    is_metric,
    wrong_flavours,
)


def whole_numbers(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Fractions are lost."""
    wanted = all("float" in dtype for t in trials for dtype in t.expected.dtypes)
    whole = all("int" in d or "bool" in d for t in trials for d in t.seen.dtypes)
    if not (wanted and whole and trials[0].seen.dtypes):
        return None
    return (
        f"the result is of type {trials[0].seen.dtypes[0]}, so its fraction is lost. "
        "Look for //, int(...), a comparison, or a tensor made of whole numbers."
    )


def half_precision(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """About the right values in 16 bits."""
    halves = {"float16", "bfloat16"}
    if any(not halves & {*t.seen.dtypes} - {*t.expected.dtypes} for t in trials):
        return None
    return (
        f"the result is of type {trials[0].seen.dtypes[0]}, with two or three digits. "
        "Keep the type of the inputs."
    )


def never_finite(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """NaN or infinity for every input."""
    if any(trial.seen.finite for trial in trials):
        return None
    return "the result is nan or inf for every input. Print each step for one pair."


def lets_padding_in(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """NaN in the padding reaches the result."""
    for trial in trials:
        padded = any(map(_has_nan, trial.inputs.values()))
        if not (_right_or_not_finite(trial) if padded else trial.right_value):
            return None
    return (
        "NaN in places that should not count gets into the result. Multiplying by a "
        "mask of 0 and 1 does not help: 0 times NaN is NaN. Select, do not multiply."
    )


def unstable(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Not finite for large inputs, right elsewhere."""
    if not all(map(_right_or_not_finite, trials)):
        return None
    return (
        f"it is right for moderate numbers, and inf or nan for: "
        f"{', '.join(wrong_flavours(exercise, trials))}. An intermediate step "
        "overflows or rounds to 0 though the result is an ordinary number. Look for "
        "exp, for a division by it, or for the log of something that can be 0; torch "
        "has functions that take two such steps in one."
    )


def too_few_digits(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Right to three digits or so."""
    if any(t.expected.shapes != t.seen.shapes for t in trials):
        return None
    if not all(close(e, s, 1e-3, 1e-4) for t in trials for e, s in t.pairs):
        return None
    return (
        "it is right to about three digits and no further. Look for something that is "
        "rounded, for a small number added where none is needed, for numbers of 16 "
        "bits, or for a difference of large numbers."
    )


def constant(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """The same whatever the input."""
    values = [value.ravel() for trial in trials for value in trial.seen.values]
    different = np.unique(np.concatenate(values)) if values else ()
    if len(different) != 1:
        return None
    return (
        f"the result is {different[0]:g} whatever the input. Is there an input that "
        "your function never uses, or a value left from another cell?"
    )


def opposite_sign(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Minus the right values."""
    if not _all_equal(_ratios(trials)[0], -1):
        return None
    return (
        "every value has the right size and the opposite sign. A minus is missing or "
        "one too many, or two terms are swapped."
    )


def sum_for_mean(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """The right values times the number of rows."""
    ratios, lengths = _ratios(trials)
    if not _all_equal(ratios / lengths, 1):
        return None
    return "every value is B times the right one: a sum where the mean is asked."


def constant_factor(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """The right values times a number."""
    ratios, _ = _ratios(trials)
    if not len(ratios) or not _all_equal(ratios, float(np.median(ratios))):
        return None
    return (
        f"every value is {np.median(ratios):.4g} times the right one, whatever the "
        "input. Look for a constant factor: a mean over too many or too few, a "
        "missing half, a logarithm to another base."
    )


# Right values, and yet


def changes_input(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """An argument is modified in place."""
    for trial in trials:
        if trial.seen.changed:
            return (
                f"it changes {trial.seen.changed[0]} itself, so whoever uses that next "
                "gets other numbers. Look for an assignment into it, or for a method "
                "that ends in _ ."
            )
    return None


def no_gradient(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Right values, and nothing arrives at an input."""
    for name in exercise.gradients:
        notes = [(t.expected, t.seen) for t in trials]
        expected, arrived = (
            any((note.gradients or {}).get(name) is not None for note in side)
            for side in zip(*notes, strict=True)
        )
        if expected and not arrived:
            return (
                f"the value is right, and no gradient gets back to {name}: training "
                "would change nothing by it. Look for .detach(), .data, .item(), "
                "no_grad(), or torch.tensor(...) around a tensor."
            )
    return None


def other_gradient(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Right values, wrong gradients."""
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


def other_dtype(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Right values of another type."""
    for trial in trials:
        expected, seen = trial.expected.dtypes, trial.seen.dtypes
        if not is_metric(exercise, trial) and expected != seen:
            return (
                f"the values are right, as {', '.join(seen)} where the inputs ask for "
                f"{', '.join(expected)}. New tensors take the type of the inputs if "
                "you say so: x.new_zeros(...), torch.zeros_like(x)."
            )
    return None


def _right_or_not_finite(trial: Trial) -> bool:
    return trial.right_value or (trial.expected.finite and not trial.seen.finite)


def _has_nan(value: Any) -> bool:
    return hasattr(value, "isnan") and bool(value.isnan().any())


def rows(trial: Trial) -> int:
    """Return the length of the first input that has one."""
    given = trial.inputs.values()
    long = [v for v in given if isinstance(v, list) or getattr(v, "ndim", 0)]
    return len(long[0]) if long else 1


def _ratios(trials: Trials) -> tuple[np.ndarray, np.ndarray]:
    """Seen over expected where that says something, and the rows of each trial."""
    found = [(np.empty(0), np.empty(0))]
    for trial in trials:
        if trial.expected.shapes != trial.seen.shapes or not trial.seen.finite:
            return found[0]
        for expected, seen in trial.pairs:
            large = np.abs(expected) > 1e-3
            ratios = seen[large] / expected[large]
            found.append((ratios, np.full(len(ratios), rows(trial))))
    ratios, lengths = map(np.concatenate, zip(*found, strict=True))
    return (ratios, lengths) if len(ratios) >= 3 else found[0]


def _all_equal(ratios: np.ndarray, to: float) -> bool:
    return len(ratios) > 0 and bool(np.allclose(ratios, to, rtol=1e-3))
