"""The check engine, on an exercise small enough to see through."""

import dataclasses
import functools
import inspect
import random
import sys

import numpy as np
import pytest
import torch

from labs_helpers.course.exercises import (
    CheckFailed,
    Exercise,
    check,
    is_lent,
    lend,
)
from labs_helpers.course.exercises.observe import close
from labs_helpers.course.exercises.patches import read_bank

BANK = """
=== 9.1

== square of the mean
- x.square().mean()
+ x.mean().square()
the order of mean and square is the other way round.

== weight forgotten
- weight *
+
the weight changes nothing.
"""


def mean_square(x, weight=1.0):
    """Weighted mean of squares."""
    return weight * x.square().mean()


def inputs(rng, size, flavour):
    """Numbers, large ones where the flavour says so."""
    scale = 50.0 if flavour == "large" else 1.0
    x = torch.tensor(rng.normal(scale=scale, size=size), dtype=torch.float32)
    given = {"x": x}
    return given | {"weight": 2.0} if flavour == "weighted" else given


EXERCISE = Exercise(
    id="9.1",
    title="Mean of squares",
    reference=mean_square,
    inputs=inputs,
    patches=read_bank(BANK)["9.1"],
    kinds="plain; weighted; large",
    card=(1, 5, 2),
    gradients=("x",),
)


def changed(change):
    """Make an answer of the reference's result."""

    @functools.wraps(mean_square)
    def answer(*args, **kwargs):
        return change(mean_square(*args, **kwargs))

    return answer


async def awaited(x, weight=1.0):
    return mean_square(x, weight)


def yielded(x, weight=1.0):
    yield mean_square(x, weight)


def not_written(x, weight=1.0):
    raise NotImplementedError


def changes_input(x, weight=1.0):
    result = weight * x.square().mean()
    x.data.zero_()
    return result


def overflows(x, weight=1.0):
    return weight * x.square().exp().log().mean()


def through_numpy(x, weight=1.0):
    return torch.tensor(weight * np.square(x.numpy()).mean())


def reports_all(x, weight=1.0):
    return weight * x.square()


def sums(x, weight=1.0):
    return weight * x.square().sum()


def half_the_gradient(x, weight=1.0):
    return weight * (x * x.detach()).mean()


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (EXERCISE.mistakes[0].function, "square of the mean"),
        (EXERCISE.mistakes[1].function, "weight forgotten"),
        (not_written, "not written yet"),
        (changed(lambda result: None), "returns nothing"),
        (changed(lambda result: print(result)), "prints its result"),
        (changed(lambda result: ...), "not written yet"),
        (changed(lambda result: -result), "opposite sign"),
        (changed(lambda result: 2 * result), "constant factor"),
        (sums, "sum for mean"),
        (reports_all, "not reduced"),
        (changed(lambda result: result[None]), "an axis too many"),
        (changed(lambda result: result.item()), "leaves torch"),
        (through_numpy, "leaves torch"),
        (changed(lambda result: result.detach()), "no gradient"),
        (half_the_gradient, "another gradient"),
        (changed(lambda result: result.double()), "another dtype"),
        (changed(lambda result: result.half()), "half precision"),
        (changed(lambda result: result.int()), "whole numbers"),
        (changed(lambda result: (result, result)), "another kind of result"),
        (changed(lambda result: str(result)), "another kind of result"),
        (
            changed(lambda result: np.array([{}, []], dtype=object)),
            "another kind of result",
        ),
        (changed(lambda result: result + torch.rand(())), "is random"),
        (changed(lambda result: 1.0002 * result), "too few digits"),
        (changed(lambda result: 0 * result + 3), "constant"),
        (changed(lambda result: result * float("nan")), "never finite"),
        (overflows, "unstable"),
        (changes_input, "changes its input"),
        (changed(lambda result: result.new_zeros(0)), "another shape"),
        (changed(lambda result: 1 / 0), "raises an error"),
        (lambda values: values, "other parameters"),
        (changed(lambda result: sys.exit()), "raises an error"),
        (3, "not a function"),
        (torch.nn.Identity, "not a function"),
        (awaited, "async"),
        (yielded, "a generator"),
    ],
)
def test_mistake_of_any_exercise_is_named(answer, name):
    diagnosis = check(EXERCISE, answer)
    assert not diagnosis.correct
    assert diagnosis.mistake == name
    assert len(diagnosis.message.split()) >= 4


def test_error_names_the_students_line_and_no_trace():
    def answer(x, weight=1.0):
        unwanted = x.reshape(7, 7)
        return unwanted.mean()

    message = check(EXERCISE, answer).message
    assert "`unwanted = x.reshape(7, 7)`" in message
    assert "RuntimeError" in message
    assert "x (1,)" in message
    assert "\n" not in message


def test_error_on_some_inputs_says_on_which():
    def answer(x, weight=1.0):
        return mean_square(x, {1.0: 1.0}[weight])

    assert "for some inputs (weighted)" in check(EXERCISE, answer).message


def test_unknown_mistake_is_shrunk_in_size_and_values():
    diagnosis = check(EXERCISE, changed(lambda result: result + 1))
    assert diagnosis.mistake is None
    assert diagnosis.counterexample.inputs["x"].tolist() == [0.0]
    text = str(diagnosis)
    for part in ("(1,)", "result, expected", "0.", "result, yours", "1."):
        assert part in text


def test_unknown_mistake_says_for_which_inputs():
    def answer(x, weight=1.0):
        return mean_square(x, weight) + (0.0 if weight == 1.0 else 5.0)

    diagnosis = check(EXERCISE, answer)
    assert "weighted" in diagnosis.message
    assert "large" not in diagnosis.message
    assert diagnosis.counterexample.inputs["weight"] != 1.0


def test_wrong_gradient_alone_is_shown_when_it_has_no_name():
    def answer(x, weight=1.0):
        return mean_square(x, weight) + (x - x.detach()).sum()

    diagnosis = check(EXERCISE, answer)
    assert diagnosis.mistake == "another gradient"


def test_right_answer_may_print():
    def answer(x, weight=1.0):
        print("debugging")
        return mean_square(x, weight)

    diagnosis = check(EXERCISE, answer)
    assert diagnosis.correct
    assert "not shown" in str(diagnosis)


def test_check_leaves_random_states_alone(capsys):
    states = random.getstate(), torch.get_rng_state()
    check(EXERCISE, changed(lambda result: print(result) or result + torch.rand(())))
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert capsys.readouterr().out == ""


def test_inputs_differ_between_seeds():
    def recorded(seen):
        return lambda x, weight=1.0: seen.append(x.clone()) or mean_square(x, weight)

    first, again, other = [], [], []
    check(EXERCISE, recorded(first), seed=1)
    check(EXERCISE, recorded(again), seed=1)
    check(EXERCISE, recorded(other), seed=2)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


def test_lent_reference_is_marked():
    lent = lend(EXERCISE)
    assert is_lent(lent)
    assert not is_lent(mean_square)
    assert lent(torch.ones(2)) == 1
    assert inspect.signature(lent) == inspect.signature(mean_square)


def test_failed_check_shows_its_message_alone():
    assert CheckFailed("9.1: sign")._render_traceback_() == ["CheckFailed: 9.1: sign"]


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (np.inf, 5.0, False),
        (5.0, np.inf, False),
        (np.inf, np.inf, True),
        (np.nan, np.nan, True),
        (np.nan, 1.0, False),
        (100.0, 100.0005, True),
        (100.0, 100.01, False),
        (0.0, 1e-7, True),
    ],
)
def test_close(a, b, equal):
    assert close(np.array(a), np.array(b)) == equal


# Places: an exercise with several results, a mask and a weight


def centred(x, mask, weight):
    """Deviations from the mean of what counts, and that mean, weighted."""
    kept = torch.where(mask, x, 0.0)
    mean = kept.sum(1) / mask.sum(1)
    return torch.where(mask, x - mean[:, None], 0.0), weight * mean


def centred_inputs(rng, size, flavour):
    """Rows with padding behind them."""
    mask = torch.arange(6) < torch.tensor(rng.integers(2, 5, size=(size, 1)))
    x = torch.tensor(rng.normal(size=(size, 6)), dtype=torch.float32)
    if flavour == "far from 0":
        x = x + 100
    return {"x": x, "mask": mask, "weight": float(rng.choice([0.5, 2.0, 3.0]))}


CENTRED = Exercise(
    id="9.2",
    title="Centred rows",
    reference=centred,
    inputs=centred_inputs,
    kinds="plain; far from 0",
    card=(1, 5, 1),
)


def padding_in_the_mean(x, mask, weight):
    mean = x.sum(1) / mask.sum(1)
    return torch.where(mask, x - mean[:, None], 0.0), weight * mean


def mean_of_the_batch(x, mask, weight):
    mean = torch.where(mask, x, 0.0).sum() / mask.sum()
    mean = mean.expand(len(x))
    return torch.where(mask, x - mean[:, None], 0.0), weight * mean


def weight_on_both(x, mask, weight):
    deviations, mean = centred(x, mask, weight)
    return weight * deviations, mean * weight


def cut_off(x, mask, weight):
    return centred(x.clamp(max=50), mask, weight)


def smaller(x, mask, weight):
    return centred(x.abs(), mask, weight)


def rows_turned(x, mask, weight):
    deviations, mean = centred(x, mask, weight)
    return deviations.flip(0), mean.flip(0)


@pytest.mark.parametrize(
    ("answer", "name", "said"),
    [
        (padding_in_the_mean, "padding takes part", "neighbour"),
        (mean_of_the_batch, "rows mix", "single row"),
        (weight_on_both, "one number's part", "weight is 1"),
        (smaller, "one input's part", "x is 1"),
        (cut_off, "a special case", "far from 0"),
        (rows_turned, "values in other places", "flip"),
        (
            lambda x, mask, weight: centred(x, mask, weight)[::-1],
            "another shape",
            "is asked",
        ),
        (
            lambda x, mask, weight: (
                centred(x, mask, weight)[0],
                -centred(x, mask, weight)[1],
            ),
            "one of several results",
            "the second is wrong, and no other. every value has the right size",
        ),
        (
            lambda x, mask, weight: (
                centred(x, mask, 1.0)[0] * 1.01,
                centred(x, mask, 1.0)[1],
            ),
            "an input without effect",
            "weight changes nothing",
        ),
        (
            lambda x, mask, weight: tuple(y.abs() for y in centred(x, mask, weight)),
            "a function of the right result",
            "without its sign",
        ),
    ],
)
def test_place_of_a_mistake_is_named_and_shown(answer, name, said):
    diagnosis = check(CENTRED, answer)
    assert diagnosis.mistake == name, diagnosis
    assert said.lower() in diagnosis.message.lower()
    places = ("padding", "rows mix", "one", "a special", "an input")
    assert (diagnosis.counterexample is not None) == name.startswith(places)


def test_results_in_another_order_are_told():
    def both(x):
        return x.sum(), x.square().sum()

    exercise = dataclasses.replace(EXERCISE, reference=both, gradients=(), patches=())
    exercise = dataclasses.replace(exercise, kinds="plain; large")
    diagnosis = check(exercise, lambda x: both(x)[::-1])
    assert diagnosis.mistake == "one of several results"
    assert "another order" in diagnosis.message
