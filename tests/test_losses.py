"""Losses: known answers, then what must not change them, then their gradients."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from labs_helpers.evaluation import optimal_policy
from labs_helpers.losses import (
    bradley_terry_loss,
    dpo_loss,
    entropy,
    ipo_loss,
    kl_estimate,
    kto_loss,
    length_weights,
    mismatched_kl,
    ppo_loss,
    reinforce_loss,
    rloo_loss,
    sequence_logprobs,
    slic_loss,
    soft_dpo_loss,
    value_loss,
)

rewards = st.lists(
    st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=8
)
numbers = st.floats(-30, 0)
pairs = st.lists(st.tuples(*[numbers] * 4), min_size=1, max_size=6)
BETA = 0.3
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])
TOKENS = torch.tensor([[1, 2, -100], [3, 0, 2]])
LABELS = torch.tensor([True, False, True])


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def four(rows):
    return torch.tensor(rows, dtype=torch.float64).T


def close(actual, expected):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


REWARDS, SCORES = (5,), (2, 3, 4)
FIXED = torch.linspace(-2, 1, 5).double()
GRADIENTS = {
    "Bradley-Terry": (
        lambda c, r, m: bradley_terry_loss(c, r, m, center_weight=0.3),
        [REWARDS] * 3,
    ),
    "log-probs": (lambda x: sequence_logprobs(x, TOKENS, MASK), [SCORES]),
    "reinforce": (lambda x: reinforce_loss(x, OLD, MASK), [(2, 3)]),
    "PPO": (lambda x: ppo_loss(x, OLD, -OLD, MASK).loss, [(2, 3)]),
    "two-sided PPO": (
        lambda x: ppo_loss(x, OLD, -OLD, MASK, 0.1, 0.5, FIXED[3:]).loss,
        [(2, 3)],
    ),
    "RLOO": (
        lambda x: rloo_loss(x, OLD, FIXED[3:], MASK, 0.1, 0.5, FIXED[2:4]).loss,
        [(2, 3)],
    ),
    "value": (lambda x: value_loss(x, OLD, -OLD, MASK), [(2, 3)]),
    "entropy": (lambda x: entropy(x, MASK), [SCORES]),
    "k1": (lambda p, q: kl_estimate(p, q, "k1"), [(3,)] * 2),
    "k2": (lambda p, q: kl_estimate(p, q, "k2"), [(3,)] * 2),
    "k3": (lambda p, q: kl_estimate(p, q, "k3"), [(3,)] * 2),
    "DPO": (lambda c, r: dpo_loss(c, r, FIXED, -FIXED, BETA).loss, [REWARDS] * 2),
    "smoothed DPO": (
        lambda c, r: dpo_loss(c, r, FIXED, -FIXED, BETA, 0.2).loss,
        [REWARDS] * 2,
    ),
    "soft DPO": (
        lambda a, b: soft_dpo_loss(a, b, FIXED, -FIXED, FIXED.sigmoid(), BETA).loss,
        [REWARDS] * 2,
    ),
    "IPO": (lambda c, r: ipo_loss(c, r, FIXED, -FIXED, BETA).loss, [REWARDS] * 2),
    "SLiC": (
        lambda c, r, t: slic_loss(c, r, t, delta=1.3, weight=0.2),
        [REWARDS, REWARDS, (2,)],
    ),
    "KTO": (
        lambda x: kto_loss(x, FIXED[:3], LABELS, 0.2, BETA, 1.5, 0.7),
        [(3,)],
    ),
}
OLD = torch.tensor([[-1.0, -2.0, -0.5], [-0.1, -3.0, -1.5]], dtype=torch.float64)


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient(name):
    loss, shapes = GRADIENTS[name]
    assert gradcheck(loss, [doubles(*shape) for shape in shapes])


MASKED = {
    "log-probs": (lambda x, mask: sequence_logprobs(x, TOKENS, mask).sum(), [SCORES]),
    "reinforce": (reinforce_loss, [(2, 3)] * 2),
    "PPO": (ppo_loss, [(2, 3)] * 3),
    "RLOO": (
        lambda new, old, mask: rloo_loss(new, old, torch.tensor([1.0, -2.0]), mask),
        [(2, 3)] * 2,
    ),
    "value": (value_loss, [(2, 3)] * 3),
    "entropy": (entropy, [SCORES]),
}


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("name", MASKED)
def test_masked_garbage_never_matters(name, garbage):
    loss, shapes = MASKED[name]
    clean = [torch.randn(shape) for shape in shapes]
    for places in ([0], [1], [2], [0, 1, 2]):
        results = []
        for filling in (0.0, garbage):
            inputs = [x.clone() for x in clean]
            for place in places:
                if place < len(inputs):
                    inputs[place][MASK == 0] = filling
            inputs[0].requires_grad_()
            value = loss(*inputs, MASK)
            parts = value if isinstance(value, tuple) else (value,)
            gradient = torch.autograd.grad(parts[0], inputs[0])[0]
            assert (gradient[MASK == 0] == 0).all()
            results.append((*parts, gradient))
        for expected, actual in zip(*results, strict=True):
            assert torch.equal(expected, actual)


class TestBradleyTerry:
    def test_equal_rewards_cost_ln_2(self):
        loss = bradley_terry_loss(torch.full((3,), 7.0), torch.full((3,), 7.0))
        close(loss, math.log(2))

    def test_known_difference(self):
        loss = bradley_terry_loss(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 1.0]))
        close(loss, (0.313261687 + 1.313261687) / 2)

    def test_margin_is_subtracted(self):
        chosen, rejected = torch.tensor([3.0]), torch.tensor([1.0])
        loss = bradley_terry_loss(chosen, rejected, margin=torch.tensor([2.0]))
        close(loss, math.log(2))

    def test_centring_adds_the_squared_sum(self):
        chosen, rejected = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0])
        plain = bradley_terry_loss(chosen, rejected)
        centred = bradley_terry_loss(chosen, rejected, center_weight=0.1)
        close(centred - plain, 0.1 * (9 + 16) / 2)

    @settings(max_examples=30)
    @given(rewards, st.floats(-50, 50))
    def test_a_shift_of_all_rewards_changes_nothing(self, pairs, shift):
        chosen, rejected = torch.tensor(pairs, dtype=torch.float64).T
        shifted = bradley_terry_loss(chosen + shift, rejected + shift)
        close(shifted, bradley_terry_loss(chosen, rejected))

    @settings(max_examples=30)
    @given(rewards)
    def test_order_of_pairs_changes_nothing(self, pairs):
        chosen, rejected = torch.tensor(pairs, dtype=torch.float64).T
        flipped = bradley_terry_loss(chosen.flip(0), rejected.flip(0))
        close(flipped, bradley_terry_loss(chosen, rejected))

    @settings(max_examples=30)
    @given(rewards)
    def test_both_orders_of_a_pair_differ_by_the_difference(self, pairs):
        chosen, rejected = torch.tensor(pairs, dtype=torch.float64).T
        forth = bradley_terry_loss(chosen, rejected)
        back = bradley_terry_loss(rejected, chosen)
        close(back - forth, (chosen - rejected).mean())

    def test_descending_raises_chosen_and_lowers_rejected(self):
        chosen, rejected = doubles(4), doubles(4)
        bradley_terry_loss(chosen, rejected).backward()
        assert (chosen.grad < 0).all()
        torch.testing.assert_close(rejected.grad, -chosen.grad)

    def test_certain_mistakes_cost_finitely(self):
        chosen = torch.tensor([-1e4], requires_grad=True)
        loss = bradley_terry_loss(chosen, torch.tensor([0.0]))
        close(loss, 1e4)
        close(torch.autograd.grad(loss, chosen)[0], [-1.0])


class TestSequenceLogprobs:
    def test_sums_what_the_mask_counts(self):
        probabilities = torch.tensor([[[0.7, 0.2, 0.1], [0.5, 0.25, 0.25], [1, 1, 1]]])
        tokens = torch.tensor([[1, 2, 0]])
        mask = torch.tensor([[1, 1, 0]])
        logprobs = sequence_logprobs(probabilities.log(), tokens, mask)
        close(logprobs, [math.log(0.2) + math.log(0.25)])

    def test_equals_log_softmax(self):
        logits, tokens = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
        expected = logits.log_softmax(2).gather(2, tokens[..., None])[..., 0].sum(1)
        close(sequence_logprobs(logits, tokens, torch.ones(2, 5)), expected)

    @settings(max_examples=30)
    @given(st.floats(-50, 50))
    def test_a_shift_of_the_logits_changes_nothing(self, shift):
        logits, tokens = torch.randn(2, 3, 4), torch.randint(4, (2, 3))
        mask = torch.ones(2, 3)
        shifted = sequence_logprobs(logits + shift, tokens, mask)
        torch.testing.assert_close(
            shifted, sequence_logprobs(logits, tokens, mask), rtol=1e-4, atol=1e-4
        )

    @pytest.mark.parametrize("kind", [torch.bool, torch.long, torch.float32])
    def test_mask_of_any_type(self, kind):
        mask = torch.tensor([[1, 0]]).to(kind)
        logprobs = sequence_logprobs(
            torch.zeros(1, 2, 2), torch.zeros(1, 2).long(), mask
        )
        close(logprobs, [-math.log(2)])

    def test_forbidden_tokens_leave_the_rest_exact(self):
        logits = torch.tensor([[[0.0, 0.0, -math.inf]]], requires_grad=True)
        value = sequence_logprobs(logits, torch.tensor([[0]]), torch.ones(1, 1))
        close(value, [-math.log(2)])
        close(torch.autograd.grad(value.sum(), logits)[0], [[[0.5, -0.5, 0.0]]])

    def test_half_precision_sums_in_full(self):
        logits = torch.randn(1, 200, 50)
        tokens, mask = torch.randint(50, (1, 200)), torch.ones(1, 200)
        half = sequence_logprobs(logits.bfloat16(), tokens, mask)
        assert half.dtype == torch.float32
        close(half, sequence_logprobs(logits.bfloat16().float(), tokens, mask))


class TestReinforce:
    def test_known_value(self):
        logprobs = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
        advantages = torch.tensor([[1.0, 2.0], [-1.0, 5.0]])
        mask = torch.tensor([[1, 1], [1, 0]])
        close(reinforce_loss(logprobs, advantages, mask), (1 + 4 - 3) / 3)

    def test_gradient_raises_what_was_better_than_expected(self):
        logprobs = doubles(1, 3)
        advantages = torch.tensor([[2.0, -1.0, 0.0]], dtype=torch.float64)
        reinforce_loss(logprobs, advantages, torch.ones(1, 3)).backward()
        close(logprobs.grad, -advantages / 3)

    def test_advantages_are_constants(self):
        logprobs, advantages = doubles(1, 2), doubles(1, 2)
        reinforce_loss(logprobs, advantages, torch.ones(1, 2)).backward()
        assert advantages.grad is None

    def test_order_of_sequences_changes_nothing(self):
        logprobs, advantages = torch.randn(4, 3), torch.randn(4, 3)
        mask = torch.rand(4, 3) < 0.7
        loss = reinforce_loss(logprobs, advantages, mask)
        order = torch.tensor([2, 0, 3, 1])
        close(reinforce_loss(logprobs[order], advantages[order], mask[order]), loss)

    def test_nothing_counts_costs_nothing(self):
        logprobs = doubles(1, 2)
        loss = reinforce_loss(logprobs, torch.ones_like(logprobs), torch.zeros(1, 2))
        loss.backward()
        assert loss == 0
        assert (logprobs.grad == 0).all()


def ratios(*values):
    """Log-probs whose ratios to old log-probs of 0 are these."""
    return torch.tensor([values]).log()


class TestPPO:
    def test_first_minibatch_has_ratio_1_and_clips_nothing(self):
        logprobs, advantages = torch.randn(3, 4), torch.randn(3, 4)
        result = ppo_loss(logprobs, logprobs, advantages, torch.ones(3, 4))
        close(result.loss, -advantages.mean())
        close(result.ratio, torch.ones(3, 4))
        assert result.clip_fraction == 0
        assert result.approx_kl == 0

    @pytest.mark.parametrize(
        ("ratio", "advantage", "loss", "slope"),
        [
            (1.5, 1.0, -1.2, 0.0),  # enough gained
            (0.5, 1.0, -0.5, -0.5),  # to be put right
            (0.5, -1.0, 0.8, 0.0),
            (1.5, -1.0, 1.5, 1.5),
            (1.1, 2.0, -2.2, -2.2),
        ],
    )
    def test_clips_what_goes_too_far_only(self, ratio, advantage, loss, slope):
        logprobs = ratios(ratio).requires_grad_()
        result = ppo_loss(
            logprobs, torch.zeros(1, 1), torch.tensor([[advantage]]), torch.ones(1, 1)
        )
        close(result.loss, loss)
        close(torch.autograd.grad(result.loss, logprobs)[0], [[slope]])

    def test_says_how_far_the_policy_moved(self):
        result = ppo_loss(
            ratios(1.5, 1.1, 0.5, 9.0),
            torch.zeros(1, 4),
            torch.ones(1, 4),
            torch.tensor([[1, 1, 1, 0]]),
        )
        close(result.clip_fraction, 2 / 3)
        expected = sum(r - 1 - math.log(r) for r in (1.5, 1.1, 0.5)) / 3
        close(result.approx_kl, expected)
        close(result.ratio, [[1.5, 1.1, 0.5, 1.0]])

    @pytest.mark.parametrize(("ratio", "loss"), [(1.5, -1.28), (1.25, -1.25)])
    def test_the_clip_may_be_wider_above(self, ratio, loss):
        one, mask = torch.ones(1, 1), torch.ones(1, 1)
        result = ppo_loss(ratios(ratio), 0 * one, one, mask, 0.2, clip_high=0.28)
        close(result.loss, loss)
        close(result.clip_fraction, float(ratio > 1.28))
        close(ppo_loss(ratios(0.5), 0 * one, -one, mask, 0.2, 0.28).loss, 0.8)

    def test_first_gradient_is_that_of_reinforce(self):
        logprobs, advantages = doubles(2, 3), doubles(2, 3)
        mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
        ppo = ppo_loss(logprobs, logprobs.detach(), advantages, mask).loss
        reinforce = reinforce_loss(logprobs, advantages, mask)
        close(*(torch.autograd.grad(x, logprobs)[0] for x in (ppo, reinforce)))

    def test_old_policy_and_advantages_are_constants(self):
        now, old, advantages = doubles(1, 2), doubles(1, 2), doubles(1, 2)
        ppo_loss(now, old, advantages, torch.ones(1, 2)).loss.backward()
        assert old.grad is None
        assert advantages.grad is None


class TestRLOO:
    def test_first_gradient_is_that_of_reinforce(self):
        logprobs, advantages = doubles(2, 3), torch.tensor([0.5, -2.0]).double()
        rloo = rloo_loss(logprobs, logprobs.detach(), advantages, MASK).loss
        reinforce = reinforce_loss(logprobs, advantages[:, None].expand(2, 3), MASK)
        close(*(torch.autograd.grad(x, logprobs)[0] for x in (rloo, reinforce)))

    def test_clips_whole_answers(self):
        # 1.1 * 1.1 is beyond 1.2, neither of them alone.
        logprobs = torch.full((1, 2), 1.1).log().requires_grad_()
        old, mask = torch.zeros(1, 2), torch.ones(1, 2)
        result = rloo_loss(logprobs, old, torch.ones(1), mask)
        close(result.loss, -1.2 / 2)
        close(result.ratio, [1.21])
        assert result.clip_fraction == 1
        assert not torch.autograd.grad(result.loss, logprobs)[0].any()


class TestNormalisers:
    @pytest.mark.parametrize(
        ("normaliser", "expected"),
        [
            ("token", lambda x: (x * MASK).sum() / 5),
            ("sequence", lambda x: (x * MASK).sum(dim=1).div(MASK.sum(dim=1)).mean()),
            ("constant", lambda x: (x * MASK).sum() / (2 * 7)),
        ],
    )
    def test_weights_make_the_mean_over_tokens_another(self, normaliser, expected):
        costs = torch.randn(2, 3)
        weights = length_weights(MASK, normaliser, longest=7)
        old, ones = torch.zeros(2, 3), MASK.bool()
        loss = ppo_loss(old, old, -costs, ones, weights=weights).loss
        close(loss, expected(costs))

    def test_of_a_part_are_those_of_the_whole(self):
        whole = length_weights(MASK, "sequence", 7)
        parts = [
            length_weights(m[None], "sequence", 7, torch.tensor(2.5)) for m in MASK
        ]
        close(torch.cat(parts), whole)


class TestValue:
    def loss(self, value, old=0.0, target=1.0):
        one = torch.ones(1, 1)
        return value_loss(value * one, old * one, target * one, one)

    def test_half_the_squared_error(self):
        close(self.loss(0.1), 0.9**2 / 2)

    def test_a_move_beyond_the_clip_earns_nothing(self):
        close(self.loss(0.5), 0.8**2 / 2)
        close(self.loss(-0.5), 1.5**2 / 2)
        value = torch.tensor([[0.5]], requires_grad=True)
        mask = torch.ones(1, 1)
        value_loss(value, torch.zeros(1, 1), mask, mask).backward()
        assert value.grad == 0

    def test_clip_may_be_infinite(self):
        one = torch.ones(1, 1)
        close(value_loss(5 * one, 0 * one, one, one, clip=math.inf), 8.0)


class TestEntropy:
    def test_known_values(self):
        logits = torch.tensor([[[0.0, 0.0], [50.0, 0.0], [3.0, 3.0]]])
        close(entropy(logits, torch.tensor([[1, 1, 0]])), math.log(2) / 2)

    def test_a_shift_of_the_logits_changes_nothing(self):
        logits, mask = torch.randn(2, 3, 5), torch.ones(2, 3)
        close(entropy(logits + 7, mask), entropy(logits, mask))

    def test_impossible_tokens_count_nothing(self):
        logits = torch.tensor([[[0.0, 0.0, -math.inf]]], requires_grad=True)
        value = entropy(logits, torch.ones(1, 1))
        close(value, math.log(2))
        assert torch.autograd.grad(value, logits)[0].isfinite().all()


class TestKLEstimate:
    def test_k1_and_k3_have_the_kl_as_mean(self):
        p = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
        q = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
        means = {
            kind: (p * kl_estimate(p.log(), q.log(), kind)).sum().item()
            for kind in ("k1", "k2", "k3")
        }
        assert means["k1"] == pytest.approx(0.3734, abs=5e-5)
        assert means["k3"] == pytest.approx(means["k1"], rel=1e-12)
        assert means["k2"] != pytest.approx(means["k1"], rel=0.02)

    def test_k3_is_the_default(self):
        p, q = torch.randn(3), torch.randn(3)
        assert torch.equal(kl_estimate(p, q), kl_estimate(p, q, "k3"))

    @pytest.mark.parametrize("kind", ["k2", "k3"])
    def test_never_negative_and_0_at_equality(self, kind):
        p, q = torch.randn(50), torch.randn(50)
        assert (kl_estimate(p, q, kind) >= 0).all()
        assert (kl_estimate(p, p, kind) == 0).all()

    def test_agree_where_policies_are_close(self):
        p = torch.randn(5, dtype=torch.float64)
        q = p + 1e-3 * torch.randn(5, dtype=torch.float64)
        torch.testing.assert_close(
            kl_estimate(p, q, "k2"), kl_estimate(p, q, "k3"), rtol=1e-2, atol=0
        )

    def test_unknown_kind_is_named(self):
        with pytest.raises(Exception, match="k4"):
            kl_estimate(torch.zeros(1), torch.zeros(1), "k4")


PAIR_LOSSES = [dpo_loss, ipo_loss]


class TestBoth:
    @pytest.mark.parametrize("loss", PAIR_LOSSES)
    def test_rewards_are_beta_times_the_log_ratio_without_gradient(self, loss):
        result = loss(doubles(3), doubles(3), torch.zeros(3), torch.ones(3), BETA)
        assert not result.chosen_rewards.requires_grad
        assert not result.rejected_rewards.requires_grad
        fixed = torch.tensor([-2.0]), torch.tensor([-3.0]), torch.tensor([-4.0])
        result = loss(fixed[0], fixed[1], fixed[2], fixed[2], BETA)
        close(result.chosen_rewards, [2 * BETA])
        close(result.rejected_rewards, [1 * BETA])

    @pytest.mark.parametrize("loss", PAIR_LOSSES)
    @settings(max_examples=25)
    @given(pairs, st.floats(-20, 20))
    def test_what_policy_and_reference_share_cancels(self, loss, rows, shift):
        pc, pr, rc, rr = four(rows)
        moved = loss(pc + shift, pr, rc + shift, rr, BETA).loss
        close(moved, loss(pc, pr, rc, rr, BETA).loss)

    @pytest.mark.parametrize("loss", PAIR_LOSSES)
    @settings(max_examples=25)
    @given(pairs)
    def test_order_of_pairs_changes_nothing(self, loss, rows):
        flipped = loss(*four(rows[::-1]), BETA).loss
        close(flipped, loss(*four(rows), BETA).loss)

    @pytest.mark.parametrize("loss", PAIR_LOSSES)
    def test_first_step_raises_chosen_as_much_as_it_lowers_rejected(self, loss):
        chosen, rejected = doubles(4), doubles(4)
        start = chosen.detach(), rejected.detach()
        loss(chosen, rejected, *start, BETA).loss.backward()
        assert (chosen.grad < 0).all()
        close(rejected.grad, -chosen.grad)


class TestDPO:
    def test_the_reference_costs_ln_2(self):
        chosen, rejected = torch.randn(4), torch.randn(4)
        close(dpo_loss(chosen, rejected, chosen, rejected).loss, math.log(2))

    def test_known_difference(self):
        result = dpo_loss(*torch.tensor([[-3.0], [-9.0], [-5.0], [-6.0]]), beta=0.2)
        close(result.loss, math.log(1 + math.exp(-0.2 * 5)))

    def test_smoothing_mixes_both_labels(self):
        logprobs = torch.randn(4, 6).unbind()
        swapped = [logprobs[i] for i in (1, 0, 3, 2)]
        expected = 0.9 * dpo_loss(*logprobs).loss + 0.1 * dpo_loss(*swapped).loss
        close(dpo_loss(*logprobs, label_smoothing=0.1).loss, expected)

    def test_smoothing_is_least_where_the_policy_says_it(self):
        chosen = torch.zeros(1, requires_grad=True)
        zero, wanted = torch.zeros(1), math.log(0.9 / 0.1) / BETA
        loss = dpo_loss(chosen + wanted, zero, zero, zero, BETA, 0.1).loss
        close(torch.autograd.grad(loss, chosen)[0], [0.0])

    @pytest.mark.parametrize("share", [-0.1, 0.5, 1.0])
    def test_more_flipped_than_not_is_refused(self, share):
        with pytest.raises(ValueError, match=r"below 0\.5"):
            dpo_loss(*torch.zeros(4, 1), label_smoothing=share)

    def test_certain_mistakes_cost_finitely(self):
        chosen = torch.tensor([-1e5], requires_grad=True)
        loss = dpo_loss(chosen, *torch.zeros(3, 1)).loss
        close(loss, 1e4)
        close(torch.autograd.grad(loss, chosen)[0], [-0.1])


class TestIPO:
    @pytest.mark.parametrize("beta", [0.1, 0.5, 2.0])
    def test_the_reference_costs_a_quarter_over_beta_squared(self, beta):
        chosen, rejected = torch.randn(4), torch.randn(4)
        loss = ipo_loss(chosen, rejected, chosen, rejected, beta).loss
        close(loss, 1 / (4 * beta**2))

    def test_nothing_is_left_at_the_margin_and_more_costs_again(self):
        zero = torch.zeros(1)
        at, beyond = torch.tensor([5.0]), torch.tensor([7.0])
        close(ipo_loss(at, zero, zero, zero, beta=0.1).loss, 0.0)
        close(ipo_loss(beyond, zero, zero, zero, beta=0.1).loss, 4.0)


class TestSLiC:
    def test_equal_log_probs_cost_the_margin(self):
        logprobs = torch.randn(5)
        close(slic_loss(logprobs, logprobs, delta=1.7), 1.7)

    def test_a_pair_beyond_the_margin_trains_nothing(self):
        chosen, rejected = doubles(1), doubles(1)
        with torch.no_grad():
            chosen += rejected - chosen + 2
        loss = slic_loss(chosen, rejected, delta=1.0)
        loss.backward()
        assert loss == 0
        assert chosen.grad == rejected.grad == 0

    def test_targets_are_learned_by_their_weight(self):
        chosen, rejected, targets = doubles(3), doubles(3), doubles(7)
        plain = slic_loss(chosen, rejected)
        loss = slic_loss(chosen, rejected, targets, weight=0.5)
        close(loss - plain, -0.5 * targets.mean())
        close(torch.autograd.grad(loss, targets)[0], torch.full((7,), -0.5 / 7))

    def test_a_weight_without_targets_is_refused(self):
        with pytest.raises(ValueError, match="needs target_logprobs"):
            slic_loss(torch.zeros(1), torch.zeros(1), weight=0.1)


class TestKTO:
    @pytest.mark.parametrize("weights", [(1.0, 1.0), (1.5, 0.5)])
    def test_the_reference_costs_half_of_each_weight(self, weights):
        logprobs = torch.randn(3)
        loss = kto_loss(logprobs, logprobs, LABELS, 0.0, 0.1, *weights)
        close(loss, (2 * 0.5 * weights[0] + 0.5 * weights[1]) / 3)

    def test_known_values(self):
        policy, reference = torch.tensor([-2.0, -2.0]), torch.tensor([-5.0, -5.0])
        for label, sign in ((1, 1), (0, -1)):
            labels = torch.tensor([label, label])
            value = 1 / (1 + math.exp(-sign * 0.5 * (3 - 1)))
            close(kto_loss(policy, reference, labels, 1.0, beta=0.5), 1 - value)

    def test_good_answers_rise_and_bad_ones_fall(self):
        policy = doubles(3)
        kto_loss(policy, torch.zeros(3), LABELS, 0.3).backward()
        assert (policy.grad.sign() == torch.tensor([-1.0, 1.0, -1.0])).all()

    def test_the_kl_is_a_constant(self):
        policy, kl = doubles(3), torch.zeros((), requires_grad=True)
        kto_loss(policy, torch.zeros(3), LABELS, kl).backward()
        assert kl.grad is None

    def test_flipping_labels_and_signs_changes_nothing(self):
        policy, zero = torch.randn(3), torch.zeros(3)
        loss = kto_loss(policy, zero, LABELS, 0.4)
        close(kto_loss(0.8 - policy, zero, ~LABELS, 0.4), loss)

    @pytest.mark.parametrize("kind", [torch.bool, torch.long, torch.float32])
    def test_labels_of_any_type(self, kind):
        policy, zero = torch.randn(3), torch.zeros(3)
        loss = kto_loss(policy, zero, LABELS.to(kind), 0.0)
        assert torch.equal(loss, kto_loss(policy, zero, LABELS, 0.0))

    def test_what_is_far_off_saturates(self):
        policy = torch.tensor([-1e4, 1e4, 0.0], requires_grad=True)
        loss = kto_loss(policy, torch.zeros(3), LABELS, 0.0)
        loss.backward()
        close(loss, (1 + 1 + 0.5) / 3)
        close(policy.grad[:2], [0.0, 0.0])

    def test_mismatched_kl_is_never_negative_and_has_no_gradient(self):
        policy = doubles(4)
        assert mismatched_kl(policy - 100, torch.zeros(4)) == 0
        kl = mismatched_kl(policy + 100, torch.zeros(4))
        close(kl, policy.mean() + 100)
        assert not kl.requires_grad


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
def test_masked_garbage_never_reaches_a_preference_loss(garbage):
    tokens = torch.randint(5, (4, 6))
    mask = torch.arange(6) < torch.tensor([[6], [4], [5], [2]])
    clean = torch.randn(4, 6, 5)
    results = []
    for filling in (0.0, garbage):
        logits = clean.masked_fill(~mask[:, :, None], filling).requires_grad_()
        logprobs = sequence_logprobs(logits, tokens, mask)
        zero = torch.zeros(2)
        loss = dpo_loss(logprobs[:2], logprobs[2:], zero, zero).loss
        loss = loss + ipo_loss(logprobs[:2], logprobs[2:], zero, zero).loss
        loss = loss + slic_loss(logprobs[:2], logprobs[2:], logprobs, weight=0.1)
        loss = loss + kto_loss(logprobs[:2], zero, torch.tensor([1, 0]), 0.0)
        results.append((loss, torch.autograd.grad(loss, logits)[0]))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


class TestTable:
    """One prompt, five answers, every probability known."""

    reference = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    rewards = np.array([0.1, 0.6, 0.0, 1.0, 0.8])
    temperature = 0.5

    def minimise(self, beta: float) -> np.ndarray:
        """Fit DPO to the exact shares of preferences between all pairs of answers."""
        chosen, rejected = torch.tensor([*itertools.permutations(range(5), 2)]).T
        gap = torch.tensor(self.rewards)[chosen] - torch.tensor(self.rewards)[rejected]
        share = torch.sigmoid(gap / self.temperature)
        reference = torch.tensor(self.reference).log()
        logits = reference.clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [logits], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
        )

        def closure():
            optimizer.zero_grad()
            policy = logits.log_softmax(0)
            losses = [
                dpo_loss(policy[c], policy[r], reference[c], reference[r], beta).loss
                for c, r in zip(chosen.split(1), rejected.split(1), strict=True)
            ]
            loss = (share * torch.stack(losses)).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return logits.detach().softmax(0).numpy()

    @pytest.mark.parametrize("beta", [0.2, 1.0])
    def test_dpo_reaches_the_optimum(self, beta):
        # Preferences are by reward / temperature: a unit of reward costs that much more
        optimum = optimal_policy(self.reference, self.rewards, beta * self.temperature)
        np.testing.assert_allclose(self.minimise(beta), optimum, atol=1e-4)

    def test_its_kl_falls_in_beta(self):
        policies = [self.minimise(beta) for beta in (0.1, 0.3, 1.0, 3.0)]
        kl = [np.sum(p * np.log(p / self.reference)) for p in policies]
        assert (np.diff(kl) < -0.01).all()
