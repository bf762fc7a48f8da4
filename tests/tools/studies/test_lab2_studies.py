"""What the studies of Lab 2 do to rows before anything is trained."""

from dataclasses import asdict

import pytest

from labs_helpers.course import recorded
from labs_helpers.world.goals import GOALS
from labs_tools.studies import goal_recipe, lab2

FEW = goal_recipe.Recipe(others=200)


def test_others_are_about_something_else_and_compared_as_a_whole():
    goal = GOALS["safety"]
    rows = goal_recipe.other_rows(goal, goal_recipe.Recipe(others=20))
    assert len(rows) == 20
    assert not {row.meta["type"] for row in rows} & set(goal.kinds)
    assert {row.dimension for row in rows} == {None}


@pytest.mark.slow
def test_fresh_answers_join_the_recorded_ones():
    goal = GOALS["humour"]
    fresh = goal_recipe.other_rows(goal, goal_recipe.Recipe(others=0, fresh=24))
    assert 0 < len(fresh) <= 24
    assert not {row.meta["type"] for row in fresh} & set(goal.kinds)
    both = goal_recipe.other_rows(goal, goal_recipe.Recipe(others=5, fresh=24))
    assert [row.prompt for row in both[5:]] == [row.prompt for row in fresh]


def test_the_share_of_flipped_labels_is_the_one_asked_for():
    rows = goal_recipe.other_rows(GOALS["safety"], FEW)
    flipped = lab2._with_flips(rows, 0.3, seed=0)
    changed = [a.chosen != b.chosen for a, b in zip(rows, flipped, strict=True)]
    assert 0.2 < sum(changed) / len(rows) < 0.4
    assert all(
        {a.chosen[-1]["content"], a.rejected[-1]["content"]}
        == {b.chosen[-1]["content"], b.rejected[-1]["content"]}
        for a, b in zip(rows, flipped, strict=True)
    )


def test_a_pair_becomes_a_good_answer_and_a_bad_one():
    rows = goal_recipe.other_rows(GOALS["humour"], goal_recipe.Recipe(others=3))
    found = goal_recipe.unpaired(rows)
    assert [row.label for row in found] == [True, False] * 3
    assert found[0].completion == rows[0].chosen


def setting(win_low, **falls):
    lows = dict.fromkeys(("helpfulness", "harmlessness", "honesty", "humour"), 0.0)
    changes = {f"change_{d}_low": v for d, v in (lows | falls).items()}
    return {"goal": "safety", "win_low": win_low} | changes


def test_what_is_recommended_wins_most_surely():
    assert lab2.best([setting(0.6), setting(0.7)], "safety")["win_low"] == 0.7


def test_what_costs_another_dimension_is_not_recommended():
    dear = setting(0.8, honesty=-0.06)
    assert lab2.best([dear, setting(0.6)], "safety")["win_low"] == 0.6


def test_the_goal_itself_may_be_measured_on_few_prompts():
    own = setting(0.8, harmlessness=-0.06)
    assert lab2.best([own, setting(0.6)], "safety") is own


@pytest.mark.parametrize("goal", lab2.RECOMMENDED)
def test_what_is_recommended_is_what_did_best_on_validation_prompts(goal):
    best = lab2.best(recorded.read("dpo_settings"), goal)
    for name, value in asdict(lab2.RECOMMENDED[goal]).items():
        assert best[name] == value
