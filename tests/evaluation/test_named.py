"""Judges by name: each kind of folder gives the judge that it is."""

import pytest
import torch
from transformers import LlamaForSequenceClassification

from labs_helpers.evaluation import (
    ClassifierJudge,
    LanguageModelJudge,
    RemoteJudge,
    RewardJudge,
    load_judge,
)
from labs_helpers.models import RewardModel, encode_chat

SIDES = (["stone", "wood"], ["a stone", "no"])


@pytest.fixture
def folder(tmp_path, tiny_policy, tiny_tokenizer):
    """Write a model of a kind, and return its folder's name."""

    def write(kind, labels=1):
        policy = tiny_policy()
        tiny_tokenizer.save_pretrained(tmp_path)
        if kind == "reward":
            model = RewardModel.from_policy(policy, tokenizer=tiny_tokenizer)
            model.save_pretrained(tmp_path)
        elif kind == "classifier":
            policy.config.num_labels = labels
            LlamaForSequenceClassification(policy.config).save_pretrained(tmp_path)
        else:
            policy.save_pretrained(tmp_path)
        return str(tmp_path)

    return write


def test_a_reward_model(folder):
    assert isinstance(load_judge(folder("reward")), RewardJudge)


def test_a_language_model_is_asked_in_both_orders(folder):
    judge = load_judge(folder("policy"))
    assert isinstance(judge, LanguageModelJudge)
    assert judge.both_orders(["one", "two"], *SIDES).a_first.shape == (2,)


def test_an_address(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judge = load_judge("https://api.example.com/v1/#gpt")
    assert judge == RemoteJudge("https://api.example.com/v1", "gpt")


def test_a_classifier_reads_the_whole_chat(folder, tiny_tokenizer):
    judge = load_judge(folder("classifier"))
    assert isinstance(judge, ClassifierJudge)
    outcomes = judge.compare(["one", "two"], *SIDES)
    scores = torch.zeros(2, 2)
    for i, side in enumerate(SIDES):
        for j, answer in enumerate(side):
            talk = [
                {"role": "user", "content": ("one", "two")[j]},
                {"role": "assistant", "content": answer},
            ]
            tokens = encode_chat(tiny_tokenizer, talk, add_generation_prompt=False)
            with torch.no_grad():
                hidden = judge.model.model(torch.tensor([tokens])).last_hidden_state
                scores[i, j] = judge.model.score(hidden[0, -1])
    assert outcomes.tolist() == (scores[0] > scores[1]).float().tolist()
    assert judge.compare(["one", "two"], SIDES[0], SIDES[0]).tolist() == [0.5, 0.5]


def test_a_classifier_with_several_labels_is_no_reward_model(folder):
    with pytest.raises(OSError, match="it has 3 labels, a reward model has one"):
        load_judge(folder("classifier", labels=3))


def test_what_is_no_model(tmp_path):
    with pytest.raises(OSError, match=r"has no config\.json"):
        load_judge(str(tmp_path))
