"""A second opinion: two judges on the same held-out answers, on one scale."""

import numpy as np
import pytest

from labs_helpers.rl import RLConfig, SecondOpinion, probe_policy, train

PROMPTS = ["a", "b", "a b", "c"]
START = ["a", "a b", "a b c", ""]
LONGER = ["a a", "a b", "a b c d", "a"]


def words(prompts, answers):
    return [len(answer.split()) for answer in answers]


def few_words(prompts, answers):
    return [-10 * len(answer.split()) for answer in answers]


@pytest.fixture
def opinions():
    return SecondOpinion(
        words, few_words, PROMPTS, START, probe_policy()[1], max_new_tokens=8, seed=1
    )


def test_both_are_nought_at_the_start(opinions):
    said = opinions.about(START)
    assert said["held_out_reward"] == pytest.approx(0, abs=1e-6)
    assert said["second_opinion"] == pytest.approx(0, abs=1e-6)
    assert said["second_opinion_error"] == 0


def test_both_judge_on_one_scale(opinions):
    said = opinions.about(LONGER)
    grown = np.array([1, 0, 1, 1]) / np.std(words(PROMPTS, START))
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
            policy, PROMPTS, words, config, tokenizer=tokenizer, evaluate=evaluate
        )

    watched, plain = run(opinions), run(None)
    asked = np.isfinite(watched["second_opinion"])
    assert list(asked) == [False, True, False, True]
    assert list(watched["reward"]) == list(plain["reward"])
