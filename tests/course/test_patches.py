"""Banks of wrong answers as text: how they are read, and that each patch fits and acts.

`pytest tests/course/test_patches.py -s` prints how many pairs are named.
"""

import math
import random
import re

import pytest

from labs_helpers.common.files import ROOT
from labs_helpers.course.exercises import check, exercises_of
from labs_helpers.course.exercises.observe import observe, same_gradients, same_values
from labs_helpers.course.exercises.patches import (
    BankError,
    mistakes_of,
    pairs_of,
    read_bank,
)
from labs_helpers.course.exercises.trials import run_trials

EXERCISES = [e for lab in (1, 2, 3, 4) for e in exercises_of(lab).values()]


def scaled(x, factor=2.0):
    """Look at x + 1."""
    if factor > 1:
        x = x + 1
    y = max(
        factor * (x - 1),
        -9.0,
    )
    return y  # the result


def test_headings_name_the_functions():
    named = {(e.id, e.name) for e in EXERCISES}
    for path in (ROOT / "data" / "exercises").glob("*.wrong"):
        text = path.read_text(encoding="utf-8")
        for heading in re.findall("^=== (.+)$", text, re.MULTILINE):
            words = heading.split()
            assert {*zip(words[::2], words[1::2], strict=True)} <= named


def bank(text):
    return read_bank(f"=== 9.1\n\n{text}", "lab9.wrong")["9.1"]


def patched(text, reference=scaled):
    (mistake,) = mistakes_of(reference, bank(f"== other\n{text}\nlook at it."))
    return mistake.function


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("- x + 1\n+ x + 5", 14.0),
        ("- max( factor * (x\n+ max(4 * (x", 12.0),  # over two lines of the code
        ("- if factor > 1:\n- x = x + 1\n+ x = 0", -2.0),
        ("- x = x + 1\n+ for _ in range(2):\n+     x = x + 1", 8.0),
        ("- x = x + 1\n+ pass\n- factor * (\n+ 3 * (", 6.0),
        ("-* factor\n+ 3", 9.0),
        ("- return y\n+ return y, factor", (6.0, 2.0)),
        ("= z = x\n= return -z", -3.0),
    ],
)
def test_patch_changes_the_right_answer(text, result):
    function = patched(text)
    assert function(x=3.0) == result
    assert scaled(3.0) == 6.0


def test_names_are_whole_names_and_the_docstring_is_not_code():
    def grown(x, x_more=1):
        """Look at x + 1."""
        return x + x_more

    assert patched("- x\n+ 5", grown)(2) == 6


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("== a\n- x + 2\n+ x\nno.", "'a': `x + 2` stands nowhere"),
        ("== a\n- x\n+ z\nno.", "`x` stands in 3 places"),
        ("== a\n- x + 1\n+ x + 1\nno.", "changes nothing"),
        ("== a\n- x + 1\nno.", "in turns"),
        ("== a\nno.", "no code"),
        ("== a\n- x + 1\n+ x", "then: ''"),
        ("== a\n- x + 1\n+ (x\nno.", "never closed"),
        ("== a\n= return 1\nno.\n\n== a\n= return 2\nno.", "line 7: 'a': another"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(text, said):
    with pytest.raises(BankError, match=r"lab9.wrong, line \d+") as raised:
        mistakes_of(scaled, bank(text))
    assert said in str(raised.value)


def test_bank_begins_with_an_exercise():
    with pytest.raises(BankError, match=r"bank, line 2: first `=== 1.2`"):
        read_bank("\n== a\n= return 1\nno.")


def test_section_may_belong_to_two_exercises_and_begin_with_a_remark():
    banks = read_bank("remark\n=== 3.1 3.4\nanother\n== a\n= return 1\nno, \n it is.")
    assert banks["3.1"] == banks["3.4"]
    assert banks["3.1"][0].message == "no, it is."


def test_leak_goes_on_top_of_what_stands_above_it():
    text = (
        "== a\n- x + 1\n+ x + 5\nfive.\n\n== b\n= return 1\none.\n\n"
        "&& leak\n- factor * (\n+ 3 * (\nbesides.\n\n== c\n- x - 1\n+ x\nsix."
    )
    found = {m.name: m for m in mistakes_of(scaled, bank(text))}
    assert list(found) == ["a", "b", "c", "a; leak"]
    assert found["a; leak"].message == "five. besides."
    assert found["a; leak"].function(3.0) == 21.0


def test_two_patches_compose_where_they_fit_together():
    text = (
        "== a\n- x + 1\n+ x + 5\nfive.\n\n== b\n- factor * (\n+ 3 * (\nthree.\n\n"
        "== c\n- x = x + 1\n+ pass\nnone."
    )
    found = {m.name: m for m in pairs_of(scaled, bank(text))}
    assert list(found) == ["a and b", "b and c"]
    assert found["a and b"].function(3.0) == 21.0
    assert "A: five. B: three." in found["a and b"].message


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.id)
def test_every_patch_acts_as_no_other_does(exercise):
    reference = run_trials(exercise, exercise.reference, seed=1)
    notes = {
        mistake.name: [
            observe(mistake.function, trial.inputs, exercise.gradients)
            for trial in reference
        ]
        for mistake in exercise.mistakes
    }
    notes["right"] = [trial.expected for trial in reference]
    names = list(notes)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not all(
                same_values(a, b, 1e-4) and same_gradients(a, b, 1e-4)
                for a, b in zip(notes[one], notes[other], strict=True)
            ), (one, other)


def named(exercise, pairs) -> tuple[int, int]:
    """How many of the pairs that are told from all else are named by both names.

    Left out are pairs that act as the right answer, as one mistake, or as another
    pair: then there is no telling which two they are.
    """
    found = {pair.name: check(exercise, pair.function, seed=1) for pair in pairs}
    single = {mistake.name for mistake in exercise.mistakes}
    double = {pair.name for pair in exercise.pairs}
    shared = {d.name for name, d in found.items() if d.name in double - {name}}
    told = {
        name: diagnosis.name
        for name, diagnosis in found.items()
        if not diagnosis.correct
        and diagnosis.name not in single | (double - {name})
        and name not in shared
    }
    return sum(name == told[name] for name in told), len(told)


ALL = pytest.param(1.0, marks=[pytest.mark.exhaustive, pytest.mark.timeout(7200)])


@pytest.mark.parametrize("share", [0.01, ALL], ids=["some", "all"])
def test_most_pairs_of_mistakes_are_named(share):
    counts = {}
    for exercise in EXERCISES:
        number = math.ceil(share * len(exercise.pairs))
        pairs = random.Random(exercise.id).sample(exercise.pairs, number)
        counts[exercise.id] = named(exercise, pairs)
    count, of = (sum(column) for column in zip(*counts.values(), strict=True))
    print(f"\n{counts}\n{count} of {of}, {count / of:.3f}")
    assert count >= 0.8 * of


def test_message_of_a_pair_holds_both():
    (exercise,) = (e for e in EXERCISES if e.id == "2.5")
    (pair,) = (p for p in exercise.pairs if p.name == "kl added and beta ignored")
    diagnosis = check(exercise, pair.function)
    assert diagnosis.mistake == "kl added and beta ignored"
    assert "two mistakes, each told as if it were alone. Kl added:" in diagnosis.message
    assert "look at the sign of kl. Beta ignored: beta changes" in diagnosis.message
