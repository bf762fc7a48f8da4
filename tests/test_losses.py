"""Losses: known answers, then what must not change them, then their gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from labs_helpers.losses import (
    bradley_terry_loss,
    entropy,
    kl_estimate,
    ppo_loss,
    reinforce_loss,
    sequence_logprobs,
    value_loss,
)

rewards = st.lists(
    st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=8
)


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def close(actual, expected):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


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

    def test_gradient(self):
        assert gradcheck(
            lambda c, r, m: bradley_terry_loss(c, r, m, center_weight=0.3),
            (doubles(5), doubles(5), doubles(5)),
        )


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

    @pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
    def test_masked_garbage_never_matters(self, garbage):
        tokens = torch.tensor([[1, 2, -100]])
        mask = torch.tensor([[1, 1, 0]])
        clean = torch.randn(1, 3, 4)
        dirty = clean.clone()
        dirty[:, 2] = garbage
        results = []
        for logits in (clean, dirty):
            logits.requires_grad_()
            value = sequence_logprobs(logits, tokens, mask)
            results.append((value, torch.autograd.grad(value.sum(), logits)[0]))
        assert torch.equal(results[0][0], results[1][0])
        assert torch.equal(results[0][1], results[1][1])
        assert (results[1][1][:, 2] == 0).all()

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

    def test_gradient(self):
        tokens, mask = torch.randint(4, (2, 3)), torch.tensor([[1, 1, 0], [1, 1, 1]])
        assert gradcheck(lambda x: sequence_logprobs(x, tokens, mask), doubles(2, 3, 4))


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

    @pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("where", ["logprobs", "advantages", "both"])
    def test_masked_garbage_never_matters(self, garbage, where):
        mask = torch.tensor([[1, 1, 0]])
        logprobs, advantages = torch.randn(1, 3), torch.randn(1, 3)
        expected = reinforce_loss(logprobs, advantages, mask)
        if where != "advantages":
            logprobs[:, 2] = garbage
        if where != "logprobs":
            advantages[:, 2] = garbage
        logprobs.requires_grad_()
        loss = reinforce_loss(logprobs, advantages, mask)
        assert torch.equal(loss, expected)
        gradient = torch.autograd.grad(loss, logprobs)[0]
        assert gradient.isfinite().all()
        assert gradient[0, 2] == 0

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

    def test_gradient(self):
        advantages = doubles(2, 3).detach()
        mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
        assert gradcheck(lambda x: reinforce_loss(x, advantages, mask), doubles(2, 3))


GARBAGE = pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf])


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

    def test_first_gradient_is_that_of_reinforce(self):
        logprobs, advantages = doubles(2, 3), doubles(2, 3)
        mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
        ppo = ppo_loss(logprobs, logprobs.detach(), advantages, mask).loss
        reinforce = reinforce_loss(logprobs, advantages, mask)
        close(*(torch.autograd.grad(x, logprobs)[0] for x in (ppo, reinforce)))

    @GARBAGE
    @pytest.mark.parametrize("where", [0, 1, 2])
    def test_masked_garbage_never_matters(self, garbage, where):
        mask = torch.tensor([[1, 1, 0]])
        inputs = [torch.randn(1, 3) for _ in range(3)]
        expected = ppo_loss(*inputs, mask)
        inputs[where][:, 2] = garbage
        inputs[0].requires_grad_()
        actual = ppo_loss(*inputs, mask)
        for a, b in zip(actual, expected, strict=True):
            assert torch.equal(a, b)
        gradient = torch.autograd.grad(actual.loss, inputs[0])[0]
        assert gradient.isfinite().all()
        assert gradient[0, 2] == 0

    def test_old_policy_and_advantages_are_constants(self):
        now, old, advantages = doubles(1, 2), doubles(1, 2), doubles(1, 2)
        ppo_loss(now, old, advantages, torch.ones(1, 2)).loss.backward()
        assert old.grad is None
        assert advantages.grad is None

    def test_gradient(self):
        old, advantages = doubles(2, 3).detach(), doubles(2, 3).detach()
        mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
        assert gradcheck(
            lambda x: ppo_loss(x, old, advantages, mask).loss, doubles(2, 3)
        )


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

    @GARBAGE
    @pytest.mark.parametrize("where", [0, 1, 2])
    def test_masked_garbage_never_matters(self, garbage, where):
        mask = torch.tensor([[1, 1, 0]])
        inputs = [torch.randn(1, 3) for _ in range(3)]
        expected = value_loss(*inputs, mask)
        inputs[where][:, 2] = garbage
        inputs[0].requires_grad_()
        actual = value_loss(*inputs, mask)
        assert torch.equal(actual, expected)
        gradient = torch.autograd.grad(actual, inputs[0])[0]
        assert gradient.isfinite().all()
        assert gradient[0, 2] == 0

    def test_gradient(self):
        old, returns = doubles(2, 3).detach(), doubles(2, 3).detach()
        mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
        assert gradcheck(lambda x: value_loss(x, old, returns, mask), doubles(2, 3))


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

    @GARBAGE
    def test_masked_garbage_never_matters(self, garbage):
        logits, mask = torch.randn(1, 3, 4), torch.tensor([[1, 1, 0]])
        expected = entropy(logits, mask)
        logits[:, 2] = garbage
        logits.requires_grad_()
        value = entropy(logits, mask)
        assert torch.equal(value, expected)
        assert torch.autograd.grad(value, logits)[0].isfinite().all()

    def test_gradient(self):
        mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
        assert gradcheck(lambda x: entropy(x, mask), doubles(2, 3, 4))


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

    @pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
    def test_gradient(self, kind):
        assert gradcheck(lambda p, q: kl_estimate(p, q, kind), (doubles(3), doubles(3)))
