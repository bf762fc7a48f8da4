"""Runs that go wrong are named by the monitor, each by its instability.

On random policies of a few thousand weights; the town's runs are the study
`rl_instabilities`.
"""

import pytest
import torch

from labs_helpers.models import PolicyWithValue
from labs_helpers.rl import RLConfig, alarms, probe_policy, train
from labs_helpers.rl.config import ALGORITHMS
from labs_helpers.rl.monitor import NAMES

PROMPTS = ["a", "b", "a b", "c d e"]


def of_words(pays):
    """Make a reward function of what a list of words earns."""
    return lambda prompts, answers: [float(pays(a.split())) for a in answers]


def starts_with_b(words):
    return words[:1] == ["b"]


says_b_first = of_words(starts_with_b)


def large_values(model):
    torch.nn.init.normal_(model.value_head.weight, std=3.0)


# Of each instability the reward, the settings, and what is done to the model before.
NO_PRICE = {"kl_weight": 0.0, "missing_end_penalty": 0.0}
PROVOKED = {
    "learning rate too high": (says_b_first, {"lr": 0.5}, None),
    "entropy collapse": (
        says_b_first,
        {"max_new_tokens": 1, "updates": 30, **NO_PRICE},
        None,
    ),
    "values do not fit": (says_b_first, {"lr": 1e-4}, large_values),
    "dead reward": (of_words(lambda w: 0.5), {}, None),
    "no end of sequence": (of_words(len), NO_PRICE, None),
    "repetition": (of_words(lambda w: w.count("b")), NO_PRICE, None),
    "length drift": (of_words(lambda w: -abs(len(w) - 1)), NO_PRICE, None),
    "reward hacking": (says_b_first, NO_PRICE, None),
}


def run(reward=says_b_first, prepare=None, seed=0, **settings):
    policy, tokenizer = probe_policy(seed)
    model = PolicyWithValue.from_policy(policy)
    if prepare is not None:
        prepare(model)
    defaults = {
        "updates": 40,
        "samples": 64,
        "max_new_tokens": 12,
        "lr": 1e-2,
        "schedule": "constant",
        "progress": False,
        "seed": seed,
    }
    config = RLConfig(**{**defaults, **settings})
    return train(model, PROMPTS, reward, config, tokenizer=tokenizer)


def test_all_are_provoked():
    assert set(PROVOKED) == set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_is_named(name):
    reward, settings, prepare = PROVOKED[name]
    raised = alarms(run(reward, prepare, **settings))
    assert name in [alarm.name for alarm in raised]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_healthy_run_is_left_alone(algorithm):
    history = run(algorithm=algorithm, kl_weight=0.3, lr=1e-3)
    assert history["reward"][-5:].mean() > history["reward"][:5].mean()
    assert alarms(history) == []
