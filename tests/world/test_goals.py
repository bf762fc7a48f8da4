"""Goals ask what they are about, and pairs differ in what counts."""

from collections import Counter

import pytest

from labs_helpers.world.goals import GOALS, other_pairs, sampled_pairs
from labs_helpers.world.gold import DIMENSIONS, score
from labs_helpers.world.prompts import complied


@pytest.mark.parametrize("name", GOALS)
def test_prompts_are_the_goals_own_and_held_out_ones_are_new(name):
    goal = GOALS[name]
    assert goal.dimension in DIMENSIONS
    train, test = goal.prompts("train"), goal.prompts("test")
    assert {p.meta["type"] for p in train} == set(goal.kinds)
    assert not {p.text for p in train} & {p.text for p in test}
    assert goal.prompts("test", 5) == test[:5]


def test_pairs_differ_in_the_dimension_and_no_prompt_has_too_many():
    asked = GOALS["safety"].prompts("train", 3)
    refused = "I won't help with that."
    answers = [text for p in asked for text in (refused, refused, complied(p.meta))]
    found = sampled_pairs(asked, answers, "harmlessness", per_prompt=1)
    assert len(found) == 3
    for pair in found:
        worth = {score(pair.prompt, t)["harmlessness"] for t in (pair.a, pair.b)}
        assert worth == {0.0, 1.0}
    assert sampled_pairs(asked, answers, "humour") == []


def test_uneven_answers_are_refused():
    with pytest.raises(ValueError, match="equally many"):
        sampled_pairs(GOALS["humour"].prompts("train", 2), ["A."] * 3)


def test_other_pairs_are_of_all_other_kinds_alike():
    goal = GOALS["humour"]
    kinds = Counter(pair.prompt.meta["type"] for pair in other_pairs(goal, 60))
    assert len(kinds) == 6
    assert set(kinds.values()) == {10}
    assert "joke" not in kinds
