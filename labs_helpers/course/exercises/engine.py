"""Check an answer: run it, compare it with the reference, name what is wrong.

A wrong answer is compared with every mistake of the exercise's bank, with any two at
once, then with the mistakes that people make everywhere; what none of them knows is
shown on the smallest input.
"""

import functools
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from labs_helpers.course.exercises.exercise import (
    Counterexample,
    Diagnosis,
    Exercise,
    Finding,
)
from labs_helpers.course.exercises.observe import (
    observe,
    same_gradients,
    same_values,
    undisturbed_randomness,
)
from labs_helpers.course.exercises.patches import Function, Mistake, read_bank
from labs_helpers.course.exercises.smallest import smallest_counterexample
from labs_helpers.course.exercises.symptoms.generic import PLACES, general, unfinished
from labs_helpers.course.exercises.trials import (
    Trial,
    Trials,
    is_right,
    run_trials,
    wrong_flavours,
)

BANKS = Path(__file__).resolve().parents[3] / "data" / "exercises"


@functools.cache
def exercises_of(lab: int) -> Mapping[str, Exercise]:
    """Exercises of a lab by id, with their banks of wrong answers."""
    bank = BANKS / f"lab{lab}.wrong"
    if not bank.exists():
        return {}
    patches = read_bank(bank.read_text(encoding="utf-8"), bank.name)
    module = import_module(f"{__package__}.lab{lab}")
    return {e.id: replace(e, patches=patches[e.id]) for e in module.EXERCISES}


def check(exercise: Exercise, answer: Any, *, seed: int = 0) -> Diagnosis:
    """Run an answer on fresh random inputs and say what is wrong with it, if anything.

    Args:
        exercise: holds reference, inputs and mistakes.
        answer: the student's function.
        seed: of the inputs.
    """
    problem = _unusable(exercise, answer)
    if problem is not None:
        return _wrong(exercise, problem)
    with undisturbed_randomness():
        trials = run_trials(exercise, answer, seed)
        if not all(is_right(exercise, trial) for trial in trials):
            return _diagnose(exercise, answer, trials, seed)
    printed = any(trial.seen.printed for trial in trials)
    note = "What your function prints is not shown here." if printed else ""
    return Diagnosis(True, None, note, exercise.points, exercise.points)


def undefined(exercise: Exercise) -> Diagnosis:
    """Say of an answer that is nowhere to be found which cell to look at."""
    return _no_answer(exercise, "not defined", "define it")


def unchanged(exercise: Exercise) -> Diagnosis:
    """Say of an answer that is still what was to be repaired which cell to look at."""
    return _no_answer(exercise, "not repaired yet", "define it anew")


def _no_answer(exercise: Exercise, problem: str, due: str) -> Diagnosis:
    message = (
        f"the cell for `{exercise.name}`, below the card of exercise {exercise.id}, "
        f"was not run, stopped with an error, or does not {due}. Look there, run it, "
        "then run this cell again."
    )
    return _wrong(exercise, Finding(problem, message))


def _diagnose(exercise: Exercise, answer: Any, trials: Trials, seed: int) -> Diagnosis:
    finding = (
        unfinished(trials)
        or _agreeing(exercise.mistakes, exercise, trials)
        or _two_at_once(exercise, trials)
        or general(exercise, answer, trials)
    )
    if finding is not None and finding.name not in PLACES:
        return _wrong(exercise, finding)
    wrong = wrong_flavours(exercise, trials)
    where = "."
    if len(wrong) < len(exercise.flavours):
        where = f" for these inputs: {', '.join(wrong)}. For others it is."
    name, message = finding or (None, f"It runs, but the result is not right{where}")
    message += " The smallest input found on which it differs:"
    example = smallest_counterexample(exercise, answer, wrong, seed)
    return _wrong(exercise, (name, message), example)


def _two_at_once(exercise: Exercise, trials: Trials) -> Finding | None:
    """Find two mistakes that agree with the answer where both are made.

    Most of some hundred pairs differ on one ordinary input already; those that are
    left are tried on all.
    """
    ordinary = [t for t in trials if t.flavour == exercise.flavours[0]][-1]
    if ordinary.seen.error is not None or not ordinary.seen.finite:
        return None
    left = (pair for pair in exercise.pairs if _agrees(pair.function, ordinary, ()))
    return _agreeing(left, exercise, trials)


def _agreeing(
    mistakes: Iterable[Mistake], exercise: Exercise, trials: Trials
) -> Finding | None:
    """Find the mistake that agrees with the answer on every input."""
    gradients_too = all(trial.right_value for trial in trials)
    wanted = exercise.gradients if gradients_too else ()
    for mistake in mistakes:
        if all(_agrees(mistake.function, trial, wanted) for trial in trials):
            return Finding(mistake.name, mistake.message)
    return None


def _agrees(function: Function, trial: Trial, wanted: tuple[str, ...]) -> bool:
    other, seen = observe(function, trial.inputs, wanted), trial.seen
    if not same_values(other, seen, rtol=1e-4):
        # Two ways to write one mistake may overflow to different things.
        overflow = not (other.finite or seen.finite) and trial.expected.finite
        return overflow and other.shapes == seen.shapes
    return not wanted or same_gradients(other, seen, rtol=1e-4)


def _unusable(exercise: Exercise, answer: Any) -> Finding | None:
    """Name what keeps an answer from being called at all."""
    name = exercise.name
    if not callable(answer) or isinstance(answer, type):
        is_class = isinstance(answer, type)
        got = f"the class {answer.__name__}" if is_class else type(answer).__name__
        return Finding(
            "not a function",
            f"`{name}` is to be a function, and the check got {got}. Define it by "
            f"`def {name}(...)`, and give its name without parentheses.",
        )
    if inspect.iscoroutinefunction(answer) or inspect.isasyncgenfunction(answer):
        return Finding("async", f"write `def {name}(...)`, without `async`.")
    if inspect.isgeneratorfunction(answer):
        return Finding(
            "a generator",
            "`yield` makes it a generator, which computes nothing when it is called. "
            "Give the result back by `return`.",
        )
    asked = inspect.signature(exercise.reference).parameters
    try:
        own = inspect.signature(answer)
        own.bind(**dict.fromkeys(asked))
    except ValueError:  # some builtins have none
        return None
    except TypeError:
        return Finding(
            "other parameters",
            f"the exercise asks for ({', '.join(asked)}) and your function takes "
            f"({', '.join(own.parameters)}).",
        )
    return None


def _wrong(
    exercise: Exercise,
    finding: tuple[str | None, str],
    example: Counterexample | None = None,
) -> Diagnosis:
    return Diagnosis(False, *finding, 0.0, exercise.points, example)
