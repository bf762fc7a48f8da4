"""A judge fitted on pairs: known weights are found, nothing is found in noise."""

import numpy as np
import pytest
import torch

from labs_helpers.data import Preference
from labs_helpers.evaluation import rate
from labs_helpers.evaluation.fitted import (
    bradley_terry_fit,
    drop_upper_layers,
    fit_head,
)
from labs_helpers.models import RewardModel


def test_weights_that_made_the_labels_are_found(random):
    true = np.array([2.0, -1.0, 0.5])
    gaps = random.normal(size=(4000, 3)) * [1.0, 2.0, 0.1]
    chance = 1 / (1 + np.exp(-gaps @ true))
    gaps *= np.where(random.random(len(gaps)) < chance, 1, -1)[:, None]
    weights, right = bradley_terry_fit(gaps)
    np.testing.assert_allclose(weights[:2], true[:2], rtol=0.15)
    best = np.maximum(chance, 1 - chance).mean()
    assert abs(rate(right).value - best) < 0.03


def test_noise_is_told_from_a_rule_by_the_folds(random):
    _, right = bradley_terry_fit(random.normal(size=(200, 300)))
    assert abs(right.mean() - 0.5) < 0.15


@pytest.fixture
def model(tiny_policy, tiny_tokenizer):
    return RewardModel.from_policy(tiny_policy(), tokenizer=tiny_tokenizer)


def test_a_head_learns_from_frozen_features_and_says_how_well(model):
    before = {k: v.clone() for k, v in model.trunk.state_dict().items()}
    rows = [Preference(f"Who {i}?", f"{i} stone", f"{i} no") for i in range(40)]
    accuracy = fit_head(model, rows)
    assert (accuracy.value, accuracy.n) == (1.0, 40)
    rewards = model.score(["Why?"] * 2, ["7 stone", "7 no"])[:, 0]
    assert rewards[0] > rewards[1]
    assert all(torch.equal(v, before[k]) for k, v in model.trunk.state_dict().items())


def test_turns_before_the_answer_belong_to_the_question(model):
    said = [{"role": "assistant", "content": "Hm."}, {"role": "user", "content": "So?"}]
    answer = {"role": "assistant", "content": "stone"}
    rows = [Preference(f"Who {i}?", [*said, answer], "no") for i in range(20)]
    assert fit_head(model, rows).n == 20


def test_few_pairs_are_refused(model):
    with pytest.raises(ValueError, match="expected 20 pairs to fit or more, got 1"):
        fit_head(model, [Preference("Who?", "a", "b")])


def test_without_its_upper_layers_a_trunk_computes_what_the_lower_say(model):
    deep = model.features(["Who?"], ["Stone."])
    with torch.no_grad():
        hidden = []
        model.trunk.layers[0].register_forward_hook(
            lambda module, inputs, output: hidden.append(output)
        )
        model.features(["Who?"], ["Stone."])
        expected = model.trunk.norm(hidden[0])[:, -1]
    drop_upper_layers(model.trunk, 0.5)
    assert len(model.trunk.layers) == 1
    shallow = model.features(["Who?"], ["Stone."])
    torch.testing.assert_close(shallow, expected.float())
    assert not torch.allclose(shallow, deep)


@pytest.mark.parametrize("lora", [None, 2])
def test_what_is_saved_without_upper_layers_can_be_loaded(
    tiny_policy, tiny_tokenizer, tmp_path, lora
):
    policy = tiny_policy()
    model = RewardModel.from_policy(policy, tokenizer=tiny_tokenizer, lora=lora)
    torch.nn.init.normal_(model.head.weight)
    drop_upper_layers(model.trunk, 0.5)
    model.save_pretrained(tmp_path)
    again = RewardModel.from_pretrained(tmp_path)
    expected = model.score(["Who?"], ["Stone."])
    torch.testing.assert_close(again.score(["Who?"], ["Stone."]), expected)
    assert policy.config.num_hidden_layers == len(policy.model.layers)
