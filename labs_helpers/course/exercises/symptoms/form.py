"""Symptoms in what kind of thing comes back: errors, types, shapes.

Each takes the trials of an answer and returns a message for the student, or None.
"""

import linecache
import traceback
from typing import Any

import numpy as np

from labs_helpers.course.exercises.exercise import Exercise
from labs_helpers.course.exercises.observe import close, observe, same_values
from labs_helpers.course.exercises.trials import NUMBERS, Trial, Trials, is_metric

# It does not run, or returns another kind of thing


def leaves_torch(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """The computation goes through NumPy or Python numbers."""
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


def raises(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """An exception, with the line that it came from."""
    for trial in trials:
        error = trial.seen.error or trial.seen.gradient_error
        if error is None:
            continue
        when = ""
        if trial.seen.error is None:
            when = " when its inputs require gradients"
        elif any(other.seen.error is None for other in trials):
            when = f" for some inputs ({trial.flavour})"
        text = " ".join(str(error).split()) or "no message"
        return (
            f"{type(error).__name__}{when} in {_line_of(answer, error)}: "
            f"“{text[:200]}”. The arguments were {_given(trial)}."
        )
    return None


def other_kind(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Another type: a tuple, a list, a string."""
    expected, seen = trials[0].expected, trials[0].seen
    metric = is_metric(exercise, trials[0])
    if seen.kind == expected.kind or (metric and seen.kind in NUMBERS):
        return None
    return f"the result is {_a(seen.kind)}, and {_a(expected.kind)} is asked for."


def is_random(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Two calls, two results."""
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


def extra_axis(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Right values with an axis of length one too many."""
    if not all(close(e.squeeze(), s.squeeze()) for t in trials for e, s in t.pairs):
        return None
    trial = next((t for t in trials if t.expected.shapes != t.seen.shapes), None)
    if trial is None or not trial.seen.shapes:
        return None
    return (
        f"the values are right, in shape {trial.seen.shapes[0]} where "
        f"{trial.expected.shapes[0]} is asked. An axis of length one is no harmless "
        "thing: (B,) and (B, 1) broadcast to (B, B) without a word."
    )


def squared(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """(B, B) where (B,) is asked."""
    pairs = [pair for trial in trials for pair in trial.pairs]
    if not pairs or any(e.ndim != 1 or s.shape != e.shape * 2 for e, s in pairs):
        return None
    expected, seen = pairs[-1]
    return (
        f"the result has shape {seen.shape} where {expected.shape} is asked: every row "
        "was combined with every other row. Look for an index that selects columns in "
        "all rows, or for a (B,) that meets a (B, 1)."
    )


def not_reduced(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """All values where their mean is asked."""
    pairs = [pair for trial in trials for pair in trial.pairs]
    if any(e.ndim or not s.size for e, s in pairs) or not trials[-1].seen.shapes:
        return None
    if not all(close(e, np.array(s.mean())) for e, s in pairs):
        return None
    shape = trials[-1].seen.shapes[0]
    return f"it returns all the values, in shape {shape}, where their mean is asked."


def other_shape(exercise: Exercise, answer: Any, trials: Trials) -> str | None:
    """Any other shape."""
    for trial in trials:
        if trial.expected.shapes != trial.seen.shapes:
            notes = (trial.seen, trial.expected)
            seen, expected = (", ".join(map(str, note.shapes)) for note in notes)
            return (
                f"for {_given(trial)} the result has shape {seen}, and {expected} is "
                "asked. Print the shape after each step."
            )
    return None


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiouAEIOU" else f"a {kind}"


def _given(trial: Trial) -> str:
    """Name the inputs and their sizes."""

    def size(value: Any) -> str:
        if hasattr(value, "shape"):
            return str(tuple(value.shape))
        return f"of {len(value)} rows" if isinstance(value, list) else f"= {value}"

    return ", ".join(f"{name} {size(value)}" for name, value in trial.inputs.items())


def _line_of(function: Any, error: BaseException) -> str:
    """Quote the line of the student's code in which an exception came up."""
    if quoted := getattr(error, "quoted_line", ""):  # it came up in another process
        return f"`{quoted}`"
    frames = list(traceback.walk_tb(error.__traceback__))
    code = getattr(function, "__code__", None)
    own = [f for f in frames if code and f[0].f_code.co_filename == code.co_filename]
    if not own:
        return "the call of your function"
    frame, number = own[-1]
    line = linecache.getline(frame.f_code.co_filename, number).strip()
    return f"`{line}`" if line else f"line {number - code.co_firstlineno + 1}"
