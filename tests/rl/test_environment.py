"""The token task as a Gymnasium environment pays what the probe task pays."""

import pytest

from labs_helpers.rl import WORDS, token_env

pytest.importorskip("gymnasium", reason="the extra `rl` is not installed")


@pytest.fixture
def env():
    env = token_env()()
    env.reset()
    return env


def play(env, *words):
    """Say words until the episode ends; return the rewards and whether it did."""
    rewards = []
    for word in words:
        seen, reward, ended, _, _ = env.step(WORDS.index(word))
        assert env.observation_space.contains(seen)
        rewards.append(reward)
    return rewards, ended


def test_only_the_end_is_paid(env):
    assert play(env, "c", "<end>") == ([0.0, 1.0], True)


def test_a_longer_answer_earns_less(env):
    assert play(env, "c", "d", "<end>") == ([0.0, 0.0, 0.3], True)


def test_an_answer_that_is_cut_costs(env):
    rewards, ended = play(env, "d", "d", "d", "d")
    assert ended
    assert rewards[-1] == pytest.approx(-0.2)


def test_a_new_episode_begins_with_the_prompt(env):
    play(env, "c", "<end>")
    seen, _ = env.reset()
    assert [WORDS[i] for i in seen] == ["a"] + ["<end>"] * 4
