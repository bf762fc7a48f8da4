"""Pairs in any form, and judgements on them as rows of a file."""

import pytest

from labs_helpers.course.judgements import (
    Pair,
    as_pair,
    as_preference,
    as_row,
    choice_of,
    key_of,
)
from labs_helpers.data import Preference

ASKED = [{"role": "user", "content": "Who?"}]
SAID = [{"role": "assistant", "content": "Me."}]
TALK = [*ASKED, *SAID, {"role": "user", "content": "Sure?"}]


@pytest.mark.parametrize(
    "given",
    [
        ("Who?", "Me.", "You."),
        ["Who?", "You.", "Me."],
        (ASKED, "Me.", "You.", None),
        (ASKED, SAID, "You."),
        Pair("Who?", "You.", "Me."),
        Preference("Who?", "Me.", "You."),
        Preference(ASKED, "You.", SAID, annotator="ada", margin=1.0),
    ],
    ids=repr,
)
def test_a_pair_is_the_same_in_every_form(given):
    assert as_pair(1, given).key == Pair("Who?", "Me.", "You.").key


def test_pairs_differ_by_prompt_answers_and_dimension():
    pairs = [
        Pair("Who?", "Me.", "You."),
        Pair("Who?", "Me.", "He."),
        Pair("Why?", "Me.", "You."),
        Pair(TALK, "Me.", "You."),
        Pair("Who?", "Me.", "You.", "honesty"),
    ]
    assert len({pair.key for pair in pairs}) == len(pairs)


def test_text_stays_text_and_messages_stay_messages():
    assert as_pair(1, Preference("Who?", "Me.", "You.")).is_text
    assert not as_pair(1, Preference(ASKED, "Me.", "You.")).is_text
    assert as_pair(1, Preference(ASKED, "Me.", "You.")).fits_text
    assert not as_pair(1, Preference(TALK, "Me.", "You.")).fits_text


@pytest.mark.parametrize("choice", ["A", "B", "tie", "skip"])
@pytest.mark.parametrize("in_text", [False, True])
def test_a_row_is_about_its_pair(choice, in_text):
    pair = Pair(ASKED, "Me.", "You.", "honesty")
    row = as_row(pair, choice, in_text) | {"annotator": "me"}
    row["meta"] = {"choice": choice}
    assert isinstance(row["prompt"], str) is in_text
    assert key_of(row) == pair.key
    assert choice_of(row) == {"A": "preferred", "B": "preferred"}.get(choice, choice)
    if choice in ("A", "B"):
        won = "Me." if choice == "A" else "You."
        assert as_preference(pair, row).chosen[-1]["content"] == won
        assert as_preference(pair, row).dimension == "honesty"
