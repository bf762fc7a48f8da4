"""What the checks make of wrong answers that their banks were not written for.

`pytest tests/course/test_second_bank.py -s` prints the shares that are named.
"""

import functools
import re
from pathlib import Path

import pytest

from labs_helpers.common.printable import text_table
from labs_helpers.course.exercises import Diagnosis, check, exercises_of
from labs_helpers.course.exercises.patches import Mistake, mistakes_of, read_bank
from labs_helpers.course.exercises.symptoms.generic import PLACES

EXERCISES = {id: e for lab in (1, 2, 3, 4) for id, e in exercises_of(lab).items()}
SECOND_BANK = {
    id: patches
    for path in sorted(Path(__file__).with_name("second_bank").glob("*.wrong"))
    for id, patches in read_bank(path.read_text(), path.name).items()
}


@functools.cache
def diagnoses(id: str) -> tuple[tuple[Mistake, Diagnosis], ...]:
    """Check all wrong answers to an exercise."""
    wrong = mistakes_of(EXERCISES[id].reference, SECOND_BANK[id])
    return tuple((w, check(EXERCISES[id], w.function, seed=1)) for w in wrong)


def is_to_the_point(wrong: Mistake, diagnosis: Diagnosis) -> bool:
    """Whether a diagnosis says one of the words that a right one says."""
    said = f"{diagnosis.mistake} {diagnosis.message}"
    return bool(re.search(wrong.message, said, re.IGNORECASE))


def shares(lab: int | None = None) -> dict[str, float]:
    """Shares of wrong answers: refused, named, by place alone, named to the point."""
    ids = [id for id in EXERCISES if lab is None or id.startswith(f"{lab}.")]
    found = [pair for id in ids for pair in diagnoses(id)]
    named = [(w, d) for w, d in found if d.mistake is not None]
    return {
        "answers": len(found),
        "refused": sum(not d.correct for _, d in found) / len(found),
        "named": len(named) / len(found),
        "place only": sum(d.mistake in PLACES for _, d in named) / len(found),
        "to the point": sum(is_to_the_point(w, d) for w, d in named) / len(named),
    }


def table() -> str:
    """Show the shares of every lab and of all."""
    rows = [(name, shares(lab)) for name, lab in [*_LABS, ("all", None)]]
    lines = [
        (name, str(row.pop("answers")), *(f"{share:.3f}" for share in row.values()))
        for name, row in rows
    ]
    return text_table(("lab", *shares()), lines)


_LABS = [(str(lab), lab) for lab in (1, 2, 3, 4)]


def test_every_exercise_has_five_of_its_own():
    assert SECOND_BANK.keys() == EXERCISES.keys()
    for id, patches in SECOND_BANK.items():
        assert len({patch.name for patch in patches}) == len(patches) >= 5, id


@pytest.mark.parametrize("id", EXERCISES)
def test_all_are_refused(id):
    passed = [w.name for w, d in diagnoses(id) if d.correct]
    assert not passed


@pytest.mark.slow
def test_most_are_named_and_to_the_point():
    print("", table(), sep="\n")
    found = shares()
    assert found["named"] >= 0.8
    assert found["named"] - found["place only"] >= 0.8
    assert found["to the point"] >= 0.93
