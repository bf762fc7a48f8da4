"""Advantages: known answers, limits of lambda, and masks that hide anything."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.advantages import gae, group_advantages, shape_rewards, whiten

GARBAGE = pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
RAGGED = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]])


def close(actual, expected):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


class TestGAE:
    def test_by_hand(self):
        rewards = torch.tensor([[1.0, 0.0, 2.0]])
        values = torch.tensor([[0.5, 1.0, -1.0]])
        advantages, returns = gae(rewards, values, torch.ones(1, 3), 0.9, 0.5)
        delta = [1 + 0.9 * 1 - 0.5, 0.9 * -1 - 1, 2 + 1]
        expected = [
            delta[0] + 0.45 * delta[1] + 0.45**2 * delta[2],
            delta[1] + 0.45 * delta[2],
            delta[2],
        ]
        close(advantages, [expected])
        close(returns, advantages + values)

    @given(st.floats(0, 1), st.integers(0, 99))
    def test_lambda_1_is_the_return_less_the_value(self, gamma, seed):
        torch.manual_seed(seed)
        rewards, values = torch.randn(2, 3, 4, dtype=torch.float64)
        advantages, returns = gae(rewards, values, RAGGED, gamma, 1.0)
        kept = rewards * RAGGED
        expected = sum(
            torch.nn.functional.pad(kept, (0, k))[:, k:] * gamma**k for k in range(4)
        )
        close(returns, expected * RAGGED)
        close(advantages, (expected - values) * RAGGED)

    @given(st.floats(0, 1), st.integers(0, 99))
    def test_lambda_0_is_the_error_of_one_step(self, gamma, seed):
        torch.manual_seed(seed)
        rewards, values = torch.randn(2, 3, 4, dtype=torch.float64)
        advantages, _ = gae(rewards, values, RAGGED, gamma, 0.0)
        following = torch.nn.functional.pad((values * RAGGED)[:, 1:], (0, 1))
        close(advantages, (rewards + gamma * following - values) * RAGGED)

    def test_perfect_values_leave_no_advantage(self):
        values = torch.tensor([[3.0, 2.0, 1.0]])
        advantages, returns = gae(torch.ones(1, 3), values, torch.ones(1, 3))
        close(advantages, torch.zeros(1, 3))
        close(returns, values)

    @GARBAGE
    def test_masked_garbage_never_matters(self, garbage):
        rewards, values = torch.randn(3, 4), torch.randn(3, 4)
        expected = gae(rewards, values, RAGGED)
        rewards[RAGGED == 0] = garbage
        values[RAGGED == 0] = garbage
        for actual, clean in zip(gae(rewards, values, RAGGED), expected, strict=True):
            assert torch.equal(actual, clean)
            assert (actual[RAGGED == 0] == 0).all()

    def test_a_hole_is_skipped(self):
        mask = torch.tensor([[1, 0, 1, 1]])
        rewards, values = torch.randn(1, 4), torch.randn(1, 4)
        kept = [0, 2, 3]
        advantages, returns = gae(rewards, values, mask)
        without = gae(rewards[:, kept], values[:, kept], torch.ones(1, 3))
        close(advantages[:, kept], without[0])
        close(returns[:, kept], without[1])

    def test_padding_changes_nothing(self):
        rewards, values = torch.randn(2, 3), torch.randn(2, 3)
        pad = torch.nn.functional.pad
        short = gae(rewards, values, torch.ones(2, 3))[0]
        long = gae(
            pad(rewards, (0, 2)), pad(values, (0, 2)), pad(torch.ones(2, 3), (0, 2))
        )[0]
        close(long[:, :3], short)

    def test_no_gradient(self):
        values = torch.randn(1, 2, requires_grad=True)
        assert not gae(torch.ones(1, 2), values, torch.ones(1, 2))[0].requires_grad


class TestWhiten:
    def test_mean_0_and_variance_1_over_what_counts(self):
        white = whiten(5 + 3 * torch.randn(3, 4), RAGGED)
        counted = white[RAGGED == 1]
        close(counted.mean(), 0.0)
        close(counted.var(correction=0), 1.0)
        assert (white[RAGGED == 0] == 0).all()

    def test_the_mean_may_stay(self):
        x = 5 + 3 * torch.randn(3, 4)
        counted = whiten(x, RAGGED, shift_mean=False)[RAGGED == 1]
        close(counted.mean(), x[RAGGED == 1].mean())
        close(counted.var(correction=0), 1.0)

    @given(st.floats(0.1, 50), st.floats(-50, 50))
    def test_scale_and_shift_change_nothing(self, scale, shift):
        torch.manual_seed(0)
        x = torch.randn(3, 4, dtype=torch.float64)
        torch.testing.assert_close(
            whiten(scale * x + shift, RAGGED), whiten(x, RAGGED), atol=1e-5, rtol=1e-4
        )

    def test_equal_values_stay_finite(self):
        close(whiten(torch.full((2, 2), 3.0), torch.ones(2, 2)), torch.zeros(2, 2))

    def test_nothing_counts(self):
        close(whiten(torch.ones(1, 2), torch.zeros(1, 2)), torch.zeros(1, 2))

    @GARBAGE
    @pytest.mark.parametrize("shift_mean", [True, False])
    def test_masked_garbage_never_matters(self, garbage, shift_mean):
        x = torch.randn(3, 4)
        expected = whiten(x, RAGGED, shift_mean)
        x[RAGGED == 0] = garbage
        assert torch.equal(whiten(x, RAGGED, shift_mean), expected)


class TestShapedRewards:
    def test_sum_is_score_less_weighted_kl(self):
        scores = torch.randn(3)
        policy, reference = torch.randn(3, 4), torch.randn(3, 4)
        rewards = shape_rewards(scores, policy, reference, RAGGED, 0.3)
        kl = ((policy - reference) * RAGGED).sum(dim=1)
        close(rewards.sum(dim=1), scores - 0.3 * kl)

    def test_the_score_is_at_the_last_token_that_counts(self):
        same = torch.randn(3, 4)
        rewards = shape_rewards(torch.tensor([1.0, 2.0, 3.0]), same, same, RAGGED, 0.3)
        close(rewards, [[0, 0, 0, 1], [0, 2, 0, 0], [3, 0, 0, 0]])

    def test_what_the_reference_finds_likely_is_cheap(self):
        rewards = shape_rewards(
            torch.zeros(1),
            torch.tensor([[-1.0, -1.0]]),
            torch.tensor([[-3.0, -0.5]]),
            torch.ones(1, 2),
            0.1,
        )
        close(rewards, [[-0.2, 0.05]])

    def test_an_answer_without_tokens_gets_nothing(self):
        nothing = torch.zeros(1, 2)
        rewards = shape_rewards(torch.ones(1), nothing, nothing, nothing, 0.1)
        close(rewards, [[0, 0]])

    @GARBAGE
    def test_masked_garbage_never_matters(self, garbage):
        scores, policy, reference = torch.randn(3), torch.randn(3, 4), torch.randn(3, 4)
        expected = shape_rewards(scores, policy, reference, RAGGED, 0.3)
        policy[RAGGED == 0] = garbage
        reference[RAGGED == 0] = garbage
        assert torch.equal(
            shape_rewards(scores, policy, reference, RAGGED, 0.3), expected
        )


class TestGroups:
    SCORES = torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0])

    def test_leave_one_out_takes_off_the_mean_of_the_others(self):
        expected = [1 - 4, 2 - 3.5, 6 - 1.5, -1.5, -1.5, 3.0]
        close(group_advantages(self.SCORES, 3), expected)

    def test_mean_takes_off_that_of_all(self):
        close(group_advantages(self.SCORES, 3, "mean"), [-2, -1, 3, -1, -1, 2])

    def test_scaled_groups_have_one_deviation(self):
        scaled = group_advantages(self.SCORES, 3, "mean", scale=True).view(2, 3)
        torch.testing.assert_close(scaled.std(dim=1), torch.ones(2), rtol=0, atol=1e-3)

    @pytest.mark.parametrize("baseline", ["leave_one_out", "mean"])
    @pytest.mark.parametrize("scale", [True, False])
    def test_what_is_the_same_in_a_group_is_no_merit(self, baseline, scale):
        assert not group_advantages(torch.full((8,), 0.5), 4, baseline, scale).any()
        moved = self.SCORES + torch.tensor([5.0, 5.0, 5.0, -2.0, -2.0, -2.0])
        close(
            group_advantages(moved, 3, baseline, scale),
            group_advantages(self.SCORES, 3, baseline, scale),
        )

    def test_the_gradient_of_leave_one_out_is_unbiased(self):
        """Of one draw in two: the mean over all pairs is the gradient."""
        logit = torch.zeros(1, requires_grad=True)
        p, rewards = logit.sigmoid(), torch.tensor([0.0, 1.0])
        mean = (1 - p) * rewards[0] + p * rewards[1]
        expected = torch.autograd.grad(mean, logit, retain_graph=True)[0]
        found = torch.zeros(1)
        for i in (0, 1):
            for j in (0, 1):
                advantages = group_advantages(rewards[[i, j]], 2)
                logprobs = torch.cat([1 - p, p]).log()[[i, j]]
                loss = (advantages * logprobs).mean()
                found += torch.autograd.grad(loss, logit, retain_graph=True)[0] / 4
        close(found, expected)

    @pytest.mark.parametrize("answers", [1, 4])
    def test_no_groups(self, answers):
        with pytest.raises(ValueError, match=f"6 scores in groups of {answers}"):
            group_advantages(self.SCORES, answers)
