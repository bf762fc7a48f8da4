"""Exercises with checks that say what is wrong."""

# fmt: off
from .engine import check, exercises_of, unchanged, undefined
from .exercise import (
    CheckFailed, Counterexample, Diagnosis, Exercise, is_lent, lend,
)
# fmt: on

__all__ = [
    "CheckFailed",
    "Counterexample",
    "Diagnosis",
    "Exercise",
    "check",
    "exercises_of",
    "is_lent",
    "lend",
    "unchanged",
    "undefined",
]
