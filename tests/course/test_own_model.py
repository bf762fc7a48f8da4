"""The student's own reward model: kept by Lab 1, found with the same profile."""

import json

import pytest
import torch

from labs_helpers.course import own_model, start
from labs_helpers.evaluation import Estimate
from labs_helpers.models import RewardModel
from labs_helpers.safety import Figure, ModelCard

CARD = ModelCard(
    "my_reward_model", "Mine.", [Figure("right", Estimate(0.7, 0.6, 0.8, 9))]
)


@pytest.fixture
def lab(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LABS_PROFILE", "smoke")
    monkeypatch.setenv("LABS_OUT", str(tmp_path / "out"))
    lab = start(1)
    capsys.readouterr()
    return lab


@pytest.fixture
def model(tiny_policy, tiny_tokenizer):
    found = RewardModel.from_policy(tiny_policy(), tokenizer=tiny_tokenizer)
    torch.nn.init.normal_(found.head.weight)
    return found


def test_what_is_kept_is_found_with_its_card(lab, model, tmp_path, capsys):
    lab.keep_reward_model(model, CARD)
    lab.keep_reward_model(model, CARD)  # in place of the first
    found = lab.own_reward_model()
    said = capsys.readouterr().out
    assert "Your own reward model of Lab 1" in said
    asked = ["Who?"], ["I."]
    assert torch.equal(found.score(*asked), model.score(*asked))
    folder = tmp_path / "out" / own_model.NAME
    assert "0.7" in (folder / "README.md").read_text()
    assert [path.name for path in folder.parent.iterdir()] == [own_model.NAME]


def test_nothing_is_found_before_or_of_another_profile(lab, model, tmp_path, capsys):
    assert lab.own_reward_model() is None
    assert "No reward model of your own" in capsys.readouterr().out
    lab.keep_reward_model(model, CARD)
    made = tmp_path / "out" / own_model.NAME / own_model.MADE_WITH
    made.write_text(json.dumps(json.loads(made.read_text()) | {"profile": "tiny"}))
    assert lab.own_reward_model() is None


def test_a_failed_save_leaves_the_earlier_one(lab, model, monkeypatch, tmp_path):
    lab.keep_reward_model(model, CARD)

    def full(folder):
        raise OSError("disk full")

    monkeypatch.setattr(model, "save_pretrained", full)
    with pytest.raises(OSError, match="disk full"):
        lab.keep_reward_model(model, CARD)
    assert lab.own_reward_model() is not None
    assert [x.name for x in (tmp_path / "out").iterdir()] == [own_model.NAME]
