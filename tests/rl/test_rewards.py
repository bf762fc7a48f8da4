"""Rewards made of others keep their order, their scale and their shape."""

import pytest
import torch

from labs_helpers.models import RewardModel
from labs_helpers.rl import ensemble, length_penalised, model_reward, standardised

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
