"""Like for like means that: labels, KL, and settings that were chosen elsewhere."""

import pytest

from labs_helpers.course import recorded
from labs_tools.studies import like_for_like, tax


@pytest.fixture(scope="module")
def rows():
    return recorded.read("dpo_against_rlhf")


def test_all_ways_have_as_many_labels_and_the_same_seeds(rows):
    assert {row["labels"] for row in rows} == {like_for_like.LABELS}
    seeds = {
        way: {r["seed"] for r in rows if r["way"] == way} for way in like_for_like.WAYS
    }
    assert {*map(len, seeds.values())} == {len(like_for_like.SEEDS)}


def test_policies_are_compared_within_a_tenth_of_a_nat(rows):
    assert max(abs(row["kl_over_rlhf"]) for row in rows) <= 0.1


def test_settings_are_the_best_on_validation_prompts():
    tried = recorded.read("dpo_rlhf_settings")
    assert not {row["seed"] for row in tried} & {*like_for_like.SEEDS}
    for way, setting in like_for_like.RECOMMENDED.items():
        assert like_for_like.best(tried, way) == setting


def test_replayed_answers_are_about_something_else_than_the_goal():
    talks = tax.earlier_talks("town-xs", seed=0)
    asked = {prompt.text for prompt in tax.GOAL.prompts("train")}
    assert len(talks) == tax.REPLAYED
    assert not {talk[-2]["content"] for talk in talks} & asked
