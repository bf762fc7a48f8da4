"""Tests that every lab's exercises pass; a test module of a lab imports them all.

The module says which EXERCISES, and in STYLES right answers to each, three written in
other ways than the reference, and the library's where it has one.
"""

import dataclasses
import inspect

import pytest
import torch

from labs_helpers.course.exercises import check
from labs_helpers.course.exercises.observe import observe
from labs_helpers.course.exercises.trials import SIZES, is_right, run_trials


def pytest_generate_tests(metafunc):
    """Run a test for every exercise of its lab, or for every mistake."""
    exercises = metafunc.module.EXERCISES.values()
    if "mistake" in metafunc.fixturenames:
        cases = [
            pytest.param(exercise, mistake, id=f"{exercise.id} {mistake.name}")
            for exercise in exercises
            for mistake in exercise.mistakes
        ]
        metafunc.parametrize(("exercise", "mistake"), cases)
    elif "exercise" in metafunc.fixturenames:
        cases = [pytest.param(exercise, id=exercise.id) for exercise in exercises]
        metafunc.parametrize("exercise", cases)


@pytest.fixture
def styles(request, exercise):
    """Right answers to the exercise in other styles."""
    return request.module.STYLES[exercise.id]


@pytest.mark.slow
def test_right_answers_in_three_styles_pass_200_seeds(exercise, styles):
    for seed in range(200):
        size = SIZES[seed % len(SIZES)]
        trials = run_trials(exercise, exercise.reference, seed, sizes=[size])
        assert all(is_right(exercise, trial) for trial in trials), seed
        for answer in styles:
            for trial in trials:
                seen = observe(answer, trial.inputs, exercise.gradients)
                own = dataclasses.replace(trial, seen=seen)
                assert is_right(exercise, own), (seed, answer, trial.inputs, seen)


def test_right_answers_earn_all_points(exercise, styles):
    for answer in (exercise.reference, *styles):
        diagnosis = check(exercise, answer, seed=1)
        assert diagnosis.correct, diagnosis
        assert diagnosis.points == exercise.points


def test_mistake_is_refused_and_named(exercise, mistake):
    for seed in (1, 2):
        diagnosis = check(exercise, mistake.function, seed=seed)
        assert not diagnosis.correct, mistake.name
        assert diagnosis.points == 0
        assert diagnosis.mistake == mistake.name, str(diagnosis)
        assert diagnosis.message == mistake.message


def test_bank_is_large_and_its_sentences_help(exercise):
    names = [mistake.name for mistake in exercise.mistakes]
    assert len(names) >= 6
    assert len(set(names)) == len(names)
    for mistake in exercise.mistakes:
        assert len(mistake.message.split()) >= 8, mistake.name


def test_mistake_outside_the_bank_is_shown_on_its_smallest_input(exercise):
    def answer(**inputs):
        result = exercise.reference(**inputs)
        if isinstance(result, tuple):  # one alone would be named
            return tuple(~x if x.dtype == torch.bool else x * x + 1 for x in result)
        return result + 0.25

    answer.__signature__ = inspect.signature(exercise.reference)
    diagnosis = check(exercise, answer)
    assert diagnosis.mistake is None, diagnosis
    example = diagnosis.counterexample
    given = example.inputs.values()
    sizes = [len(v) for v in given if isinstance(v, list) or getattr(v, "ndim", 0)]
    assert min(sizes) == (2 if exercise.id in ("1.7", "2.9") else 1)
    assert "yours" in str(diagnosis)
    assert "expected" in str(diagnosis)
