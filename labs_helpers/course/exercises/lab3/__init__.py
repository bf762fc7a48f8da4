"""Exercises of Lab 3: reinforcement learning. One module each."""

from labs_helpers.course.exercises.exercise import Exercise
from labs_helpers.course.exercises.lab3 import (
    conjugate_gradients,
    gae,
    kl_estimates,
    ppo,
    reinforce,
    shape_rewards,
    silent_bug,
)

EXERCISES: tuple[Exercise, ...] = (
    reinforce.EXERCISE,
    gae.EXERCISE,
    conjugate_gradients.EXERCISE,
    ppo.EXERCISE,
    kl_estimates.EXERCISE,
    shape_rewards.EXERCISE,
    silent_bug.EXERCISE,
)
