"""Exercises of Lab 4: Constitutional AI and its evaluation. One module each."""

from labs_helpers.course.exercises.exercise import Exercise
from labs_helpers.course.exercises.lab4 import (
    agreement,
    attack_success,
    position_bias,
    silent_bug,
    sl_cai,
    soft_dpo,
    soft_label,
)

EXERCISES: tuple[Exercise, ...] = (
    soft_label.EXERCISE,
    position_bias.EXERCISE,
    sl_cai.EXERCISE,
    soft_dpo.EXERCISE,
    attack_success.EXERCISE,
    agreement.EXERCISE,
    silent_bug.EXERCISE,
)
