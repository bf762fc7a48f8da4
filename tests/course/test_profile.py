"""Profiles and their overrides."""

import tomllib
from pathlib import Path

import pytest

from labs_helpers.course.profile import (
    MODELS,
    PROFILES,
    Sizes,
    UnknownProfile,
    load_profile,
    short_name,
)

NAMES = tomllib.loads(PROFILES.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_every_profile_has_the_same_sizes(name):
    profile, tiny = load_profile(name), load_profile("tiny")
    for lab in (1, 2, 3, 4):
        assert set(profile.sizes(lab)) == set(tiny.sizes(lab))


def test_profile_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("LABS_PROFILE", "small")
    assert load_profile().name == "small"


def test_profile_without_environment_follows_the_machine(monkeypatch):
    monkeypatch.delenv("LABS_PROFILE")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert load_profile().name == "tiny"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert load_profile().name == "gpu"


def test_unknown_profile_lists_the_known_ones(monkeypatch):
    monkeypatch.setenv("LABS_PROFILE", "medium")
    with pytest.raises(UnknownProfile, match=r"'medium'.*smoke, tiny, small, gpu"):
        load_profile()


def test_embedded_model_is_a_folder():
    profile = load_profile("tiny")
    assert profile.model == str(MODELS / "town-s")
    assert profile.embedded
    assert profile.judge_claims


def test_only_tiny_judges_claims():
    assert [name for name in NAMES if load_profile(name).judge_claims] == ["tiny"]


def test_overrides(monkeypatch):
    monkeypatch.setenv("LABS_MODEL", "someone/model")
    monkeypatch.setenv("LABS_DATA", "here/pairs.jsonl")
    profile = load_profile("tiny")
    assert profile.model == "someone/model"
    assert profile.reward_model is None
    assert not profile.embedded
    assert not profile.judge_claims
    assert profile.title == "tiny (model, here/pairs.jsonl)"


def test_what_measures_is_no_other_model_and_no_other_data(monkeypatch):
    monkeypatch.setenv("LABS_JUDGE", "town-s")
    monkeypatch.setenv("LABS_SUITES", "~/suites")
    monkeypatch.setenv("LABS_CAPABILITY", "gsm8k.jsonl")
    profile = load_profile("tiny")
    assert profile.judge == str(MODELS / "town-s")
    assert profile.suites == str(Path.home() / "suites")
    assert profile.capability == "gsm8k.jsonl"
    assert profile.judge_claims


@pytest.mark.parametrize(("value", "strict"), [("1", True), ("0", False), ("", False)])
def test_strict(monkeypatch, value, strict):
    monkeypatch.setenv("LABS_STRICT", value)
    assert load_profile("tiny").strict is strict


def test_missing_size_says_where_to_add_it():
    sizes = Sizes("tiny.lab1", {"pairs": 3})
    assert sizes.pairs == 3
    with pytest.raises(AttributeError, match=rf"tiny.lab1.*{PROFILES.name}.*pairs"):
        _ = sizes.pears


def test_short_name():
    assert short_name("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen2.5-0.5B-Instruct"
    assert short_name("/far/away/pairs.jsonl", 2) == "away/pairs.jsonl"
