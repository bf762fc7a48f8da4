"""Experience: rewards at the right tokens, the right log-probs, clear stops."""

import math

import numpy as np
import pandas
import pytest
import torch
from peft import LoraConfig, get_peft_model

from labs_helpers.fit import TrainingStopped
from labs_helpers.models import PolicyWithValue
from labs_helpers.models.memory import kin
from labs_helpers.rl import RLConfig, collect, probe_policy, read, unscored
from labs_helpers.rl.collecting import explained_variance, reference_of, repetition
from labs_helpers.sampling import sample

PROMPTS = ["a", "b c", "a b c d e", "d"]


@pytest.fixture
def policy():
    return probe_policy()[0]


@pytest.fixture
def tokenizer():
    return probe_policy()[1]


def perturbed(policy):
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return policy


def gather(policy, tokenizer, reward=None, reference=None, kl_weight=0.1, **settings):
    settings = {
        "max_new_tokens": 6,
        "samples": 4,
        "whiten": False,
        "lam": 1.0,
        **settings,
    }
    return collect(
        PolicyWithValue(policy),
        reference or reference_of(policy),
        tokenizer,
        PROMPTS,
        reward or (lambda prompts, texts: [1.0, 2.0, 3.0, 4.0]),
        RLConfig(kl_weight=kl_weight, **settings),
        seed=3,
    )


class TestLogprobs:
    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    def test_are_those_that_were_sampled(self, policy, tokenizer, temperature):
        rollout = sample(
            policy,
            tokenizer,
            PROMPTS,
            max_new_tokens=6,
            temperature=temperature,
            seed=3,
        )
        experience, _ = gather(policy, tokenizer, temperature=temperature)
        torch.testing.assert_close(
            experience.logprobs, rollout.logprobs, atol=1e-5, rtol=1e-5
        )

    def test_of_parts_are_those_of_the_whole(self, policy, tokenizer):
        whole, _ = gather(policy, tokenizer)
        parts, _ = gather(policy, tokenizer, accumulate=3)
        torch.testing.assert_close(parts.logprobs, whole.logprobs)
        torch.testing.assert_close(parts.advantages, whole.advantages)

    def test_first_ratio_is_1(self, policy, tokenizer):
        experience, _ = gather(policy, tokenizer)
        now = read(PolicyWithValue(policy), experience, 1.0)
        # but for the last bit, where a CPU adds up rows in another order
        torch.testing.assert_close(now.logprobs, experience.logprobs, atol=2e-6, rtol=0)

    def test_some_rows_lose_only_padding(self, policy, tokenizer):
        experience, _ = gather(policy, tokenizer)
        rows = torch.tensor([3, 0])
        part = experience.take(rows)
        now = read(PolicyWithValue(policy), part, 1.0)
        width = part.mask.shape[1]
        torch.testing.assert_close(
            now.logprobs.detach(), experience.logprobs[rows, :width]
        )
        assert part.tokens.shape[1] < experience.tokens.shape[1]
        assert part.mask.sum() == experience.mask[rows].sum()

    def test_parts_hold_rows_of_like_length(self, policy, tokenizer):
        experience, _ = gather(policy, tokenizer)
        parts = experience.by_length(torch.arange(4), 4)
        lengths = [experience.take(rows).predicts.shape[1] for rows in parts]
        ends = [experience.take(torch.tensor([i])).predicts.shape[1] for i in range(4)]
        read_to = zip(experience.tokens.tolist(), ends, strict=True)
        near = kin([tokens[:end] for tokens, end in read_to])
        longest = [
            max(ends[other] for other in range(4) if near[other] == near[row])
            for row in torch.cat(parts).tolist()
        ]
        assert longest == sorted(longest)
        assert max(lengths) == lengths[-1]
        assert sorted(torch.cat(parts).tolist()) == [0, 1, 2, 3]


class TestRewards:
    def test_the_score_comes_at_the_last_token(self, policy, tokenizer):
        experience, _ = gather(policy, tokenizer, missing_end_penalty=0.0, gamma=0.5)
        left = experience.mask.flip(1).cumsum(1).flip(1)
        expected = torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None] * 0.5 ** (left - 1)
        torch.testing.assert_close(
            experience.returns, expected.where(experience.mask, 0.0)
        )

    def test_only_what_had_to_be_cut_is_penalised(self, policy, tokenizer):
        kwargs = {"kl_weight": 0.0, "max_new_tokens": 3}
        plain, _ = gather(policy, tokenizer, missing_end_penalty=0.0, **kwargs)
        harsh, measured = gather(policy, tokenizer, missing_end_penalty=5.0, **kwargs)
        taken = (plain.returns - harsh.returns)[:, 0]
        finished = taken == 0
        assert measured["finished"] == finished.float().mean()
        assert not finished.all()
        torch.testing.assert_close(taken, 5.0 * ~finished)

    def test_kl_is_priced(self, policy, tokenizer):
        reference = perturbed(reference_of(policy))
        free, measured = gather(policy, tokenizer, reference=reference, kl_weight=0.0)
        priced, _ = gather(policy, tokenizer, reference=reference, kl_weight=0.5)
        paid = (free.returns - priced.returns)[:, 0].mean()
        assert measured["kl"] != 0
        assert paid.item() == pytest.approx(0.5 * measured["kl"], rel=1e-4)

    @pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
    def test_numbers_of_any_kind(self, policy, tokenizer, kind):
        _, measured = gather(policy, tokenizer, lambda p, t: kind([0.0, 1.0, 2.0, 3.0]))
        assert measured["reward"] == 1.5

    def test_prompts_and_answers_belong_together(self, policy, tokenizer):
        seen = []
        gather(policy, tokenizer, lambda p, t: seen.append((p, t)) or [0.0] * 4)
        (prompts, texts) = seen[0]
        assert prompts == PROMPTS
        rollout = sample(policy, tokenizer, PROMPTS, max_new_tokens=6, seed=3)
        assert texts == rollout.texts

    def test_are_asked_for_in_their_own_precision(self, policy, tokenizer):
        def reward(prompts, answers):
            assert not torch.is_autocast_enabled("cpu")
            return [1.0] * len(answers)

        with torch.autocast("cpu", torch.bfloat16):
            gather(policy, tokenizer, reward)


class TestStops:
    @pytest.mark.parametrize(
        ("reward", "message"),
        [
            (lambda p, t: [1.0] * 3, r"shape \(3,\) for 4 answers, expected \(4,\)"),
            (lambda p, t: torch.ones(4, 1), r"shape \(4, 1\).*score\(...\)\[:, 0\]"),
            (lambda p, t: 1.0, r"shape \(\) for 4"),
            (lambda p, t: [1.0, math.nan, 1.0, 1.0], "reward of answer 1 is nan"),
            (lambda p, t: [1.0, 1.0, 1.0, -math.inf], "reward of answer 3 is -inf"),
            (lambda p, t: [None] * 4, r"gave \[None, .*expected 4 numbers"),
            (lambda p, t: None, "gave None, expected 4 numbers"),
            (lambda p, t: {"good": 1.0}, "gave .*expected 4 numbers"),
            (lambda p, t: ["1", "b", "c", "d"], "gave .*expected 4 numbers"),
            (lambda p, t: p[9], "failed on 4 answers with IndexError"),
        ],
    )
    def test_rewards_that_are_none(self, policy, tokenizer, reward, message):
        with pytest.raises(TrainingStopped, match=message):
            gather(policy, tokenizer, reward)

    @pytest.mark.parametrize(
        "give",
        [
            lambda x: tuple(x),
            lambda x: (value for value in x),
            lambda x: [torch.tensor(value, requires_grad=True) for value in x],
            lambda x: torch.tensor(x, dtype=torch.float16, requires_grad=True),
            lambda x: torch.tensor(x).int(),
            lambda x: np.array(x),
            lambda x: [np.float32(value) for value in x],
            lambda x: pandas.Series(x, index=[7, 8, 9, 10]),
        ],
    )
    def test_numbers_come_in_any_container(self, policy, tokenizer, give):
        _, measured = gather(policy, tokenizer, lambda p, t: give([1.0, 2.0, 3.0, 4.0]))
        assert measured["reward"] == 2.5

    def test_the_cause_is_kept(self, policy, tokenizer):
        with pytest.raises(TrainingStopped) as stopped:
            gather(policy, tokenizer, lambda p, t: 1 / 0)
        assert isinstance(stopped.value.__cause__, ZeroDivisionError)

    def test_nothing_but_empty_answers(self, policy, tokenizer, monkeypatch):
        head = torch.nn.Linear(16, 8)
        torch.nn.init.zeros_(head.weight)
        head.bias.data = torch.tensor([0.0, 99.0, 0, 0, 0, 0, 0, 0])
        policy.lm_head = head
        with pytest.raises(TrainingStopped, match="all 4 answers are empty"):
            gather(policy, tokenizer, reference=policy)


class TestReference:
    def test_is_a_copy_that_stays(self, policy):
        reference = reference_of(policy)
        tokens = torch.tensor([[2, 3, 4]])
        before = policy(tokens).logits
        perturbed(policy)
        torch.testing.assert_close(reference(tokens).logits, before)
        assert not any(p.requires_grad for p in reference.parameters())

    def test_of_a_new_adapter_is_the_model_without_it(self, policy, tokenizer):
        adapted = get_peft_model(policy, LoraConfig(r=2, target_modules="all-linear"))
        reference = reference_of(adapted.eval())
        expected = policy(torch.tensor([[2, 3, 4]])).logits
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_()
        with reference.active() as start, torch.no_grad():
            assert torch.equal(start(torch.tensor([[2, 3, 4]])).logits, expected)

    @pytest.mark.parametrize(
        "settings",
        [
            {"init_lora_weights": False},  # as if it were trained
            {"init_lora_weights": "pissa"},
            {"init_lora_weights": "olora"},
            {"use_dora": True},
            {"modules_to_save": ["lm_head"], "init_lora_weights": False},
        ],
    )
    def test_of_an_adapter_is_the_policy_at_the_start(
        self, policy, tokenizer, settings
    ):
        lora = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], **settings)
        adapted = get_peft_model(policy, lora).eval()
        reference, tokens = reference_of(adapted), torch.tensor([[2, 3, 4]])
        before = adapted(tokens).logits.detach()
        _, measured = gather(adapted, tokenizer, reference=reference)
        assert measured["kl"] == pytest.approx(0.0, abs=1e-5)
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.data.add_(0.3)
        after = adapted(tokens).logits
        with reference.active() as start:
            assert torch.equal(start(tokens).logits, before)
        assert torch.equal(adapted(tokens).logits, after)
        assert not torch.equal(after, before)


class TestMeasures:
    def test_explained_variance(self):
        returns, mask = torch.randn(3, 4), torch.ones(3, 4).bool()
        assert explained_variance(returns, returns, mask) == 1
        assert explained_variance(torch.zeros(3, 4), returns, mask) == 0
        assert explained_variance(-5 * returns, returns, mask) == -1
        assert explained_variance(returns, torch.ones(3, 4), mask) == 0

    def test_repetition(self):
        def answers(*rows):
            tokens = torch.tensor(rows)
            return tokens, tokens >= 0

        assert repetition(*answers([2, 3, 4, 5, 6, 7])) == 0
        assert repetition(*answers([2, 2, 2, 2, 2, 2])) == pytest.approx(3 / 4)
        assert repetition(*answers([2, 3, -1, -1, -1, -1])) == 0

    def test_padding_moves_to_the_right(self, policy, tokenizer):
        rollout = sample(policy, tokenizer, PROMPTS, max_new_tokens=6, seed=3)
        experience = unscored(rollout, policy.device)
        for row in range(4):
            real = rollout.tokens[row][rollout.attention_mask[row].bool()]
            assert torch.equal(experience.tokens[row, : len(real)], real)
            following = experience.tokens[row, 1:][experience.predicts[row, :-1]]
            answer = rollout.responses[row][rollout.response_mask[row]]
            assert torch.equal(following, answer)
