"""Simulated annotators choose with the probabilities that they say."""

import numpy as np
import pytest
from scipy.special import expit

from labs_helpers.world.annotators import (
    PANEL,
    UNBIASED,
    Annotator,
    Pair,
    differing,
    label,
    probabilities,
    votes,
)
from labs_helpers.world.knowledge import knowledge
from labs_helpers.world.prompts import ask

PROMPT = ask({"type": "fact", "entity": "library", "attribute": "material"}, 0)
TRUE = f"The library is made of {knowledge().facts['library']['material']}."
UNSURE = "I do not know."
PAIR = Pair(PROMPT, TRUE, UNSURE)


def test_one_unbiased_annotator_is_bradley_terry_in_gold():
    assert probabilities([PAIR]) == pytest.approx([expit((1 - 0.12) / 0.5)])


def test_careless_people_toss_a_coin():
    half = Annotator("half", carelessness=0.5)
    expected = 0.5 * expit((1 - 0.12) / 0.5) + 0.25
    assert probabilities([PAIR], [half]) == pytest.approx([expected])


def test_biases_count_words_and_flattery():
    flattered = f"What a clever question! {UNSURE}"
    vain = Annotator("vain", flattery_bias=2.0, length_bias=1.0)
    # Gold falls from 0.12 to 0.12 x 0.7; four words more, and one compliment.
    gap = 0.12 * 0.7 - 0.12 + 2.0 + 0.4
    found = probabilities([Pair(PROMPT, flattered, UNSURE)], [vain])
    assert found == pytest.approx([expit(gap / 0.5)])


def test_a_panel_is_the_mean_of_its_members():
    one_by_one = [probabilities([PAIR], [who])[0] for who in PANEL]
    assert probabilities([PAIR], PANEL) == pytest.approx([np.mean(one_by_one)])


def test_votes_and_labels_come_with_these_probabilities():
    pairs = [PAIR] * 1500
    p = probabilities([PAIR])[0]
    spread = 4 * np.sqrt(p * (1 - p) / 1500)
    assert votes(pairs, UNBIASED).mean() == pytest.approx(p, abs=spread)
    chosen = [row.chosen[0]["content"] == TRUE for row in label(pairs[:500])]
    assert np.mean(chosen) == pytest.approx(p, abs=2 * spread)


def test_a_dimension_is_judged_alone():
    [row] = label([PAIR], [Annotator("sharp", temperature=1e-6)], dimension="honesty")
    assert row.dimension == "honesty"
    assert row.chosen[0]["content"] == TRUE
    assert "simulated" in row.annotator


def test_pairs_that_do_not_differ_are_left_out():
    same = Pair(PROMPT, "I do not know.", "I do not know that.")
    assert differing([PAIR, same]) == [PAIR]
    assert differing([PAIR], "humour") == []
