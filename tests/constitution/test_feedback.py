"""AI feedback: orders, labels, and the objective that learns from them."""

from functools import partial

import numpy as np
import pytest
import torch

from labs_helpers.constitution import (
    Comparisons,
    ConstitutionJudge,
    compare_by_principles,
    judge_by_principles,
    load_constitution,
    preferences_from,
    principle_scores,
)
from labs_helpers.evaluation.judges import reply_logprobs
from labs_helpers.fit import (
    FitConfig,
    PairObjective,
    RewardObjective,
    SoftPairObjective,
    SoftRewardObjective,
    fit,
)
from labs_helpers.losses import dpo_loss, soft_dpo_loss
from labs_helpers.models import RewardModel
from labs_helpers.sampling import response_logprobs

RULES = load_constitution(
    """
defaults: {critique: "Kept: {text}?", revision: "Mend: {text}.",
  comparison: "{prompt} A: {a} B: {b} {text}?"}
principles:
  - {id: kind, text: be kind}
  - {id: brief, text: be brief}
"""
)
PROMPTS, A, B = ["Who?", "Why?"], ["I.", "No."], ["You.", "So."]


def test_both_orders_cancel_what_the_place_adds():
    # By the truth a is better with log-odds 1; the first place adds 3.
    said = Comparisons(
        ("kind",),
        np.array([[[4.0, 0.0]]]),
        np.array([[[2.0, 0.0]]]),
    )
    assert said.log_odds == pytest.approx(np.array([[1.0]]))
    assert said.probability == pytest.approx(1 / (1 + np.exp(-1)))
    orders = said.orders("kind")
    assert orders.a_first == pytest.approx(1 / (1 + np.exp(-4)))
    assert orders.a_second == pytest.approx(1 / (1 + np.exp(2)))


def test_exchanged_answers_get_opposite_labels(tiny_policy, tiny_tokenizer):
    one = compare_by_principles(tiny_policy(), tiny_tokenizer, PROMPTS, A, B, RULES)
    other = compare_by_principles(tiny_policy(), tiny_tokenizer, PROMPTS, B, A, RULES)
    np.testing.assert_allclose(one.log_odds, -other.log_odds, atol=1e-5)
    assert one.log_odds.shape == (2, 2)
    judge = ConstitutionJudge(tiny_policy(), tiny_tokenizer, RULES)
    outcomes = judge.compare(PROMPTS, A, B)
    np.testing.assert_array_equal(outcomes, 1 - judge.compare(PROMPTS, B, A))
    np.testing.assert_array_equal(outcomes, one.probability > 0.5)


def test_critiques_of_both_answers_stand_before_the_comparison(
    tiny_policy, tiny_tokenizer, monkeypatch
):
    seen = []

    def replies(policy, tokenizer, requests, replies):
        seen.extend(requests)
        return np.zeros((len(requests), 2))

    monkeypatch.setattr("labs_helpers.constitution.feedback.reply_logprobs", replies)
    compare_by_principles(
        tiny_policy(), tiny_tokenizer, PROMPTS, A, B, RULES, critiques_first=True
    )
    said = [[turn["content"] for turn in talk] for talk in seen]
    a_first, b_first = said[0], said[2]
    assert a_first[:3] == ["Who?", "I.", "Kept: be kind?"]
    assert a_first[4:7] == ["Who?", "You.", "Kept: be kind?"]
    assert a_first[8:] == ["Who? A: I. B: You. be kind?"]
    assert b_first == [*a_first[4:8], *a_first[:4], "Who? A: You. B: I. be kind?"]
    assert len(seen) == 2 * 2 * 2


@pytest.mark.parametrize(
    "replies", [("A", "B"), ("I say A", "I say B"), ("Yes", "No!")]
)
def test_replies_are_scored_as_responses_are(replies, tiny_policy, tiny_tokenizer):
    requests = ["Who?", "Why not today, if I may ask?", "Is it?"]
    policy = tiny_policy()
    found = reply_logprobs(policy, tiny_tokenizer, requests, replies)
    for column, reply in zip(found.T, replies, strict=True):
        expected = response_logprobs(
            policy, tiny_tokenizer, requests, [reply] * 3, end=False
        )
        np.testing.assert_allclose(column, expected.double().numpy(), atol=1e-4)


def test_each_answer_is_judged_by_each_principle(tiny_policy, tiny_tokenizer):
    kept = judge_by_principles(tiny_policy(), tiny_tokenizer, PROMPTS, A, RULES)
    assert kept.shape == (2, 2)
    assert ((kept > 0) & (kept < 1)).all()
    scores = principle_scores(tiny_policy(), tiny_tokenizer, PROMPTS, A, RULES)
    assert [scores[id].value for id in RULES.ids] == pytest.approx(kept.mean(axis=1))


def test_the_likelier_answer_is_chosen_and_equal_ones_are_left_out():
    rows = preferences_from(
        ["x", "y", "z"], ["a1", "a2", "a"], ["b1", "b2", "a"], [0.8, 0.1, 0.6]
    )
    assert [r.chosen[0]["content"] for r in rows] == ["a1", "b2"]
    assert [r.meta["probability"] for r in rows] == [0.8, 0.9]


def test_soft_labels_of_one_are_dpo():
    logprobs = torch.randn(4, 5)
    hard = dpo_loss(*logprobs, beta=0.3)
    soft = soft_dpo_loss(*logprobs, torch.ones(5), beta=0.3)
    torch.testing.assert_close(soft.loss, hard.loss)
    torch.testing.assert_close(soft.chosen_rewards, hard.chosen_rewards)


def test_soft_labels_stop_the_pull_where_the_policy_says_the_same():
    label = torch.tensor([0.8])
    policy = torch.logit(label).requires_grad_()
    zero = torch.zeros(1)
    soft_dpo_loss(policy, zero, zero, zero, label, beta=1.0).loss.backward()
    assert policy.grad.item() == pytest.approx(0, abs=1e-6)


def test_the_objective_learns_the_label(tiny_policy, tiny_tokenizer):
    rows = preferences_from(PROMPTS, A, B, [0.9, 0.2])
    reference, policy = tiny_policy(), tiny_policy()
    objective = SoftPairObjective(
        tiny_tokenizer, reference, partial(soft_dpo_loss, beta=1.0)
    )
    config = FitConfig(lr=3e-3, batch_size=2, steps=60, log_every=5, progress=False)
    history = fit(policy, rows, objective, config)
    entropy = -np.mean([p * np.log(p) + (1 - p) * np.log(1 - p) for p in (0.9, 0.8)])
    assert history["loss"][0] > history["loss"][-1]
    assert history["loss"][-1] == pytest.approx(entropy, abs=0.03)


def test_the_objective_takes_a_loss_that_gives_a_number(tiny_policy, tiny_tokenizer):
    rows = preferences_from(PROMPTS, A, B, [1.0, 0.0])
    reference, policy = tiny_policy(1), tiny_policy(2)
    soft = SoftPairObjective(
        tiny_tokenizer, reference, lambda *x: soft_dpo_loss(*x, beta=0.1).loss
    )
    hard = PairObjective(tiny_tokenizer, reference)
    losses = [
        o.loss(policy, [o.encode(row) for row in rows])[0].item() for o in (soft, hard)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def reward_model(tiny_policy, tiny_tokenizer) -> RewardModel:
    model = RewardModel.from_policy(tiny_policy(), tokenizer=tiny_tokenizer)
    torch.nn.init.normal_(model.head.weight)
    return model


def test_a_reward_model_on_sure_labels_is_bradley_terrys(tiny_policy, tiny_tokenizer):
    rows = preferences_from(PROMPTS, A, B, [1.0, 0.0])
    model = reward_model(tiny_policy, tiny_tokenizer)
    losses = [
        o.loss(model, [o.encode(row) for row in rows])[0].item()
        for o in (SoftRewardObjective(model), RewardObjective(model))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_reward_model_learns_how_sure_the_judge_is(tiny_policy, tiny_tokenizer):
    rows = preferences_from(PROMPTS, A, B, [0.9, 0.2])
    model = reward_model(tiny_policy, tiny_tokenizer)
    config = FitConfig(lr=3e-3, batch_size=2, steps=60, log_every=5, progress=False)
    fit(model, rows, SoftRewardObjective(model), config)
    gap = (model.score(PROMPTS, A) - model.score(PROMPTS, B))[:, 0]
    assert gap.sigmoid().tolist() == pytest.approx([0.9, 0.2], abs=0.05)


def test_what_cannot_be_compared_is_refused(tiny_policy, tiny_tokenizer):
    with pytest.raises(ValueError, match="2 prompts, 1 answers a"):
        compare_by_principles(tiny_policy(), tiny_tokenizer, PROMPTS, A[:1], B, RULES)
