"""Exercises of Lab 1: reward models. One module each."""

from labs_helpers.course.exercises.exercise import Exercise
from labs_helpers.course.exercises.lab1 import (
    best_of_n,
    bradley_terry,
    ceiling,
    gap,
    last_token,
    multi_head,
    silent_bug,
)

EXERCISES: tuple[Exercise, ...] = (
    ceiling.EXERCISE,
    bradley_terry.EXERCISE,
    last_token.EXERCISE,
    multi_head.EXERCISE,
    gap.EXERCISE,
    best_of_n.EXERCISE,
    silent_bug.EXERCISE,
)
