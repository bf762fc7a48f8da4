"""Rewards made of others, and a second opinion: order, scale and shape are kept."""

import numpy as np
import pytest
import torch

from labs_helpers.models import RewardModel
from labs_helpers.rl import (
    RLConfig,
    SecondOpinion,
    ensemble,
    length_penalised,
    model_reward,
    probe_policy,
    standardised,
    train,
)

PROMPTS = ["a", "b", "c", "d"]
ANSWERS = ["x", "x x", "x x x", "x x x x"]


def words(prompts, answers):
    return [len(answer.split()) for answer in answers]


def test_standardised_over_the_answers_given():
    scores = standardised(words, PROMPTS, ANSWERS)(PROMPTS, ANSWERS)
    assert scores.mean().item() == pytest.approx(0, abs=1e-6)
    assert scores.square().mean().item() == pytest.approx(1)
    scale = standardised(words, PROMPTS, ANSWERS)
    assert scale(["a"], ["x x x x"]).item() == pytest.approx(1.5 / 1.25**0.5)


def test_a_constant_has_no_scale():
    with pytest.raises(ValueError, match=r"all 2 answers earn 3\b"):
        standardised(lambda p, a: [3.0] * len(a), ["a", "b"], ["x", "y"])


def test_what_is_no_number_has_no_scale():
    with pytest.raises(ValueError, match="not a finite number"):
        standardised(lambda p, a: [float("nan"), 1.0], ["a", "b"], ["x", "y"])


def test_a_column_is_no_reward():
    column = standardised(words, PROMPTS, ANSWERS), lambda p, a: torch.ones(4, 1)
    with pytest.raises(ValueError, match=r"shape \(4, 1\) for 4 answers"):
        ensemble(column)(PROMPTS, ANSWERS)


def test_ensembles():
    rewards = [words, lambda p, a: [3.0, 0.0, 3.0, 4.0]]
    torch.testing.assert_close(
        ensemble(rewards)(PROMPTS, ANSWERS), torch.tensor([2.0, 1.0, 3.0, 4.0])
    )
    torch.testing.assert_close(
        ensemble(rewards, "worst")(PROMPTS, ANSWERS), torch.tensor([1.0, 0, 3, 4])
    )
    with pytest.raises(ValueError, match="0 rewards"):
        ensemble([])


def test_length_costs_beyond_what_is_free():
    penalised = length_penalised(lambda p, a: [1.0] * 4, weight=0.5, free=2)
    torch.testing.assert_close(
        penalised(PROMPTS, ANSWERS), torch.tensor([1.0, 1.0, 0.5, 0.0])
    )


def test_a_head_by_name_or_number(tiny_policy, tiny_tokenizer):
    model = RewardModel.from_policy(tiny_policy(), ("kind", "true"), tiny_tokenizer)
    torch.nn.init.normal_(model.head.weight)
    expected = model.score(PROMPTS, ANSWERS)[:, 1]
    for head in ("true", 1):
        torch.testing.assert_close(
            model_reward(model, head)(PROMPTS, ANSWERS), expected
        )
    with pytest.raises(ValueError, match="no head 'funny'; its heads are kind, true"):
        model_reward(model, "funny")


ASKED = ["a", "b", "a b", "c"]
START = ["a", "a b", "a b c", ""]
LONGER = ["a a", "a b", "a b c d", "a"]


def few_words(prompts, answers):
    return [-10 * len(answer.split()) for answer in answers]


@pytest.fixture
def opinions():
    return SecondOpinion(
        words, few_words, ASKED, START, probe_policy()[1], max_new_tokens=8, seed=1
    )


def test_both_are_nought_at_the_start(opinions):
    said = opinions.about(START)
    assert said["held_out_reward"] == pytest.approx(0, abs=1e-6)
    assert said["second_opinion"] == pytest.approx(0, abs=1e-6)
    assert said["second_opinion_error"] == 0


def test_both_judge_on_one_scale(opinions):
    said = opinions.about(LONGER)
    grown = np.array([1, 0, 1, 1]) / np.std(words(ASKED, START))
    assert said["held_out_reward"] == pytest.approx(grown.mean())
    assert said["second_opinion"] == pytest.approx(-grown.mean())
    error = 2 * grown.std(ddof=1) / 2
    assert said["second_opinion_error"] == pytest.approx(error)


def test_goes_into_the_history_and_leaves_training_as_it_is(opinions):
    def run(evaluate):
        policy, tokenizer = probe_policy()
        config = RLConfig(
            updates=4, samples=8, max_new_tokens=4, evaluate_every=2, progress=False
        )
        return train(
            policy, ASKED, words, config, tokenizer=tokenizer, evaluate=evaluate
        )

    watched, plain = run(opinions), run(None)
    asked = np.isfinite(watched["second_opinion"])
    assert list(asked) == [False, True, False, True]
    assert list(watched["reward"]) == list(plain["reward"])
