"""Settings are refused in a sentence, or are what their annotation says."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from labs_helpers.fit import FitConfig
from labs_helpers.rl import RLConfig


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"schedule": "linaer"}, "schedule is one of linear, constant; got 'linaer'"),
        ({"schedule": "linaer"}, "did you mean linear"),
        ({"schedule": "cosine"}, "schedule is one of linear, constant; got 'cosine'"),
        ({"algorithm": "PPO"}, "algorithm is one of reinforce, .*; got 'PPO'"),
        ({"whiten": "maybe"}, "whiten is true or false, got 'maybe'"),
        ({"whiten": 3}, "whiten is true or false, got 3"),
        ({"lr": -1}, "lr is at least 0, got -1"),
        ({"lr": True}, "lr is a number, got True"),
        ({"lr": "fast"}, "lr is a number, got 'fast'"),
        ({"lr": float("nan")}, "lr is a finite number, got nan"),
        ({"kl_weight": float("inf")}, "kl_weight is a finite number"),
        ({"clip": -1}, "clip is above 0, got -1"),
        ({"gamma": 1.5}, "gamma is at most 1, got 1.5"),
        ({"lam": -0.1}, "lam is at least 0"),
        ({"temperature": 0}, "temperature is above 0, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is at least 1, got 0"),
        ({"updates": 1e308}, "updates is a whole number"),
        ({"updates": 10**7}, "updates is at most 1,000,000, got 10000000"),
        ({"updates": 10**5000}, "updates is at most 1,000,000"),
        ({"updates": 2.5}, "updates is a whole number, got 2.5"),
        ({"updates": None}, "updates is a whole number, got None"),
        ({"updates": "9" * 12_000_000}, "updates is a whole number"),
        ({"seed": -1}, "seed is at least 0"),
        ({"checkpoint": 5}, "checkpoint is text"),
        ({"updtes": 3}, "did you mean updates.*no setting updtes; there are"),
        ({"x" * 100_000: 3}, "no setting 'xxx"),
        ({"updates": 0, "lr": "fast"}, "updates is at least 1.*; lr is a number"),
    ],
)
def test_what_cannot_be_meant_is_said(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        RLConfig(**given)
    assert len(str(caught.value)) < 600
    assert type(caught.value) is ValueError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": "slow"}, "lr is a number, got 'slow'"),
        ({}, "lr is missing"),
        ({"lr": 1e-4, "schedule": "linear"}, "one of cosine, constant; got 'linear'"),
        ({"lr": 1e-4, "epochs": 0}, "epochs is above 0"),
        ({"lr": 1e-4, "warmup": 2}, "warmup is at most 1"),
        ({"lr": 1e-4, "batch_size": 0}, "batch_size is at least 1"),
        ({"lr": 1e-4, "accumulate": -2}, "accumulate is at least 1"),
        ({"lr": 1e-4, "max_length": 0}, "max_length is at least 1"),
        ({"lr": 1e-4, "bach_size": 2}, "did you mean batch_size"),
    ],
)
def test_of_fit(given, message):
    with pytest.raises(ValueError, match=message):
        FitConfig(**given)


def test_numbers_come_from_text_arrays_and_tensors():
    for lr in ("1e-4", np.float64(1e-4), np.float32(1e-4), torch.tensor(1e-4)):
        config = FitConfig(lr=lr, batch_size=np.int64(4))
        assert type(config.lr) is float
        assert type(config.batch_size) is int
        assert config.lr == pytest.approx(1e-4)
    assert RLConfig(whiten="no").whiten is False
    assert RLConfig(whiten="yes").whiten is True


def test_are_still_dataclasses():
    config = RLConfig("trpo", 5, checkpoint="here")
    assert dataclasses.replace(config, updates=7).updates == 7
    assert pickle.loads(pickle.dumps(config)) == config
    assert [f.name for f in dataclasses.fields(config)][:2] == ["algorithm", "updates"]
    with pytest.raises(ValueError, match="updates is at least 1"):
        dataclasses.replace(config, updates=0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.updates = 3
