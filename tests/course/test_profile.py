"""Profiles, their overrides, and the tasks that they name."""

import gzip
import json
import tomllib

import pytest

from labs_helpers.course.lab import load_task
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


def test_task_of_a_preference_file(monkeypatch, tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"Question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"}
        for i in range(40)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setenv("LABS_DATA", str(path))
    task = load_task(load_profile("tiny"))
    assert task.truth is None
    splits = [task.preferences(split) for split in ("train", "validation", "test")]
    assert sum(map(len, splits)) == 40


def test_a_task_with_nothing_to_test_on_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"Question {i}", "chosen": "good", "rejected": "bad"}
        for i in range(2)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setenv("LABS_DATA", str(path))
    with pytest.raises(ValueError, match=r"pairs.jsonl has 2 rows.*none for .*test"):
        load_task(load_profile("tiny"))


def test_a_task_leaves_out_what_is_too_long(monkeypatch, tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"Question {i}", "chosen": "good", "rejected": "bad " * i}
        for i in range(1, 41)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setenv("LABS_DATA", str(path))
    task = load_task(load_profile("tiny"), max_length=30)
    kept = [
        row
        for part in ("train", "validation", "test")
        for row in task.preferences(part)
    ]
    longest = max(len(row.rejected[-1]["content"]) for row in kept)
    assert longest == 4 * 23  # and 11 of the question
    assert "23 of 40 rows fit in 30 tokens" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*skipped")
def test_task_of_whole_dialogues(monkeypatch, tmp_path):
    path = tmp_path / "hh.jsonl.gz"
    start = "\n\nHuman: Question {}\n\nAssistant: "
    rows = [
        {"chosen": start.format(i) + "good", "rejected": start.format(i) + "bad"}
        for i in range(40)
    ]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    monkeypatch.setenv("LABS_DATA", str(path))
    task = load_task(load_profile("tiny"))
    assert task.preferences("train")[0].prompt[0]["role"] == "user"
