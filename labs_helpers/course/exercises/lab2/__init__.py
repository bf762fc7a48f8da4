"""Exercises of Lab 2: direct preference optimisation. One module each."""

from labs_helpers.course.exercises.exercise import Exercise
from labs_helpers.course.exercises.lab2 import (
    answer_logprob,
    both_orders,
    dpo,
    ipo,
    kto,
    optimal_policy,
    silent_bug,
    slic,
)

EXERCISES: tuple[Exercise, ...] = (
    optimal_policy.EXERCISE,
    answer_logprob.EXERCISE,
    dpo.EXERCISE,
    ipo.EXERCISE,
    kto.EXERCISE,
    slic.EXERCISE,
    both_orders.EXERCISE,
    silent_bug.EXERCISE,
)
