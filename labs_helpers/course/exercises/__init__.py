"""Checks that say what is wrong: the engine, and one package of exercises a lab."""

from importlib import import_module
from importlib.util import find_spec

from labs_helpers.course.exercises.engine import check, unchanged, undefined
from labs_helpers.course.exercises.exercise import (
    CheckFailed,
    Counterexample,
    Diagnosis,
    Exercise,
    Mistake,
    is_lent,
    lend,
)

__all__ = [
    "CheckFailed",
    "Counterexample",
    "Diagnosis",
    "Exercise",
    "Mistake",
    "check",
    "exercises_of",
    "is_lent",
    "lend",
    "unchanged",
    "undefined",
]


def exercises_of(lab: int) -> dict[str, Exercise]:
    """Exercises of a lab by id."""
    name = f"{__name__}.lab{lab}"
    if find_spec(name) is None:
        return {}
    return {exercise.id: exercise for exercise in import_module(name).EXERCISES}
