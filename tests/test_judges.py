"""Judges: who wins, what ties, and that the order of the sides does not matter."""

import numpy as np
import pytest
import torch

from labs_helpers.judges import Judge, RewardJudge, TruthJudge
from labs_helpers.models import RewardModel
from labs_helpers.task import Prompt

PROMPTS = [Prompt("one"), Prompt("two"), Prompt("three")]


class LengthIsGold:
    dimensions = ("shortness",)

    def score(self, prompt, response):
        return {"gold": float(len(response)), "shortness": -float(len(response))}

    def scores(self, prompts, responses, dimension="gold"):
        pairs = zip(prompts, responses, strict=True)
        return np.array([self.score(*pair)[dimension] for pair in pairs])


@pytest.fixture
def reward_model(tiny_policy, tiny_tokenizer):
    model = RewardModel.from_policy(
        tiny_policy(), heads=("helpful", "honest"), tokenizer=tiny_tokenizer
    )
    torch.nn.init.normal_(model.head.weight)
    return model


class TestTruthJudge:
    def test_the_higher_score_wins_and_equals_tie(self):
        judge = TruthJudge(LengthIsGold())
        outcomes = judge.compare(PROMPTS, ["long", "a", "ab"], ["s", "abc", "cd"])
        np.testing.assert_array_equal(outcomes, [1, 0, 0.5])

    def test_judges_by_the_dimension_asked_for(self):
        judge = TruthJudge(LengthIsGold(), dimension="shortness")
        assert judge.compare(PROMPTS[:1], ["long"], ["s"]).tolist() == [0]

    def test_uneven_sides_are_named(self):
        with pytest.raises(ValueError, match="3 prompts, 1 answers a and 3 answers b"):
            TruthJudge(LengthIsGold()).compare(PROMPTS, ["x"], ["x", "y", "z"])


class TestRewardJudge:
    A, B = ["stone", "wood", "glass"], ["a stone", "no", "glass"]

    def test_the_higher_reward_of_the_head_wins(self, reward_model):
        difference = reward_model.score(PROMPTS, self.A) - reward_model.score(
            PROMPTS, self.B
        )
        for number, head in enumerate(reward_model.heads):
            expected = (difference[:, number].sign() + 1) / 2
            for asked in (number, head):
                outcomes = RewardJudge(reward_model, asked).compare(
                    PROMPTS, self.A, self.B
                )
                np.testing.assert_array_equal(outcomes, expected)

    def test_turning_the_sides_turns_the_outcome(self, reward_model):
        judge = RewardJudge(reward_model)
        there = judge.compare(PROMPTS, self.A, self.B)
        np.testing.assert_array_equal(judge.compare(PROMPTS, self.B, self.A), 1 - there)

    def test_the_same_answer_ties(self, reward_model):
        outcomes = RewardJudge(reward_model).compare(PROMPTS, self.A, self.A)
        np.testing.assert_array_equal(outcomes, [0.5, 0.5, 0.5])

    def test_within_the_margin_all_tie(self, reward_model):
        judge = RewardJudge(reward_model, tie_margin=1e6)
        assert set(judge.compare(PROMPTS, self.A, self.B)) == {0.5}

    def test_an_unknown_head_is_named_with_the_known(self, reward_model):
        with pytest.raises(ValueError, match=r"'humour'.*helpful, honest"):
            RewardJudge(reward_model, "humour").compare(PROMPTS, self.A, self.B)


def test_both_are_judges(reward_model):
    assert isinstance(TruthJudge(LengthIsGold()), Judge)
    assert isinstance(RewardJudge(reward_model), Judge)
