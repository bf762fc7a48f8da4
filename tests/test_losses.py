"""Losses: known answers, then what must not change them, then their gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from labs_helpers.losses import (
    bradley_terry_loss,
    reinforce_loss,
    sequence_logprobs,
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
