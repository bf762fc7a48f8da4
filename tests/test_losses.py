"""The DPO family: known answers, properties, gradients, and a table's optimum."""

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
    dpo_loss,
    ipo_loss,
    kto_loss,
    mismatched_kl,
    sequence_logprobs,
    slic_loss,
)

numbers = st.floats(-30, 0)
pairs = st.lists(st.tuples(*[numbers] * 4), min_size=1, max_size=6)
BETA = 0.3


def doubles(*shape):
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def four(rows):
    return torch.tensor(rows, dtype=torch.float64).T


def close(actual, expected):
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


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

    @pytest.mark.parametrize("loss", PAIR_LOSSES)
    def test_gradient(self, loss):
        reference = doubles(5).detach(), doubles(5).detach()
        assert gradcheck(
            lambda c, r: loss(c, r, *reference, BETA).loss, (doubles(5), doubles(5))
        )


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

    def test_smoothed_gradient(self):
        reference = doubles(5).detach(), doubles(5).detach()
        assert gradcheck(
            lambda c, r: dpo_loss(c, r, *reference, BETA, 0.2).loss,
            (doubles(5), doubles(5)),
        )


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

    def test_gradient(self):
        assert gradcheck(
            lambda c, r, t: slic_loss(c, r, t, delta=1.3, weight=0.2),
            (doubles(5), doubles(5), doubles(2)),
        )


LABELS = torch.tensor([True, False, True])


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

    def test_gradient(self):
        reference = doubles(3).detach()
        assert gradcheck(
            lambda x: kto_loss(x, reference, LABELS, 0.2, BETA, 1.5, 0.7), doubles(3)
        )

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
