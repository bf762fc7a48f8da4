"""Lab 3's exercises: right answers pass, every known mistake is refused and named."""

import pytest
import torch
import torch.nn.functional as F

from labs_helpers import advantages as advantages_of
from labs_helpers import losses
from labs_helpers.course.exercises import check, exercises_of
from labs_helpers.course.exercises.lab3 import learning_targets
from labs_helpers.rl import trust_region

from .lab_checks import (  # noqa: F401
    pytest_generate_tests,
    styles,
    test_bank_is_large_and_its_sentences_help,
    test_mistake_is_refused_and_named,
    test_mistake_outside_the_bank_is_shown_on_its_smallest_input,
    test_right_answers_earn_all_points,
    test_right_answers_in_three_styles_pass_200_seeds,
)

EXERCISES = exercises_of(3)
buggy_learning_targets = EXERCISES["3.7"].mistakes[0].function


# Right answers in other styles than the reference's: loops, einsum, vectorised.


def reinforce_loop(logprobs, advantages, mask):
    total, number = 0, 0
    for row, good, counts in zip(logprobs, advantages, mask, strict=True):
        for logprob, advantage, count in zip(row, good, counts, strict=True):
            if count:
                total, number = total - advantage * logprob, number + 1
    return total / number


def reinforce_selected(logprobs, advantages, mask):
    return -(logprobs[mask] @ advantages[mask]) / mask.sum()


def gae_loop(rewards, values, mask, gamma, lam):
    advantages, returns = torch.zeros_like(rewards), torch.zeros_like(rewards)
    for b in range(len(rewards)):
        advantage = 0
        length = int(mask[b].sum())
        for t in range(length - 1, -1, -1):
            following = values[b, t + 1] if t < length - 1 else 0
            delta = rewards[b, t] + gamma * following - values[b, t]
            advantage = delta + gamma * lam * advantage
            advantages[b, t] = advantage
            returns[b, t] = advantage + values[b, t]
    return advantages, returns


def gae_matrix(rewards, values, mask, gamma, lam):
    rewards, values = rewards.masked_fill(~mask, 0), values.masked_fill(~mask, 0)
    deltas = rewards + gamma * F.pad(values[:, 1:], (0, 1)) - values
    steps = torch.arange(rewards.shape[1])
    ahead = steps[None] - steps[:, None]
    weights = deltas.new_tensor(gamma * lam) ** ahead.clamp(min=0)
    advantages = deltas @ (weights * (ahead >= 0)).T
    return advantages, advantages + values


def conjugate_gradients_guarded(product, b, iterations):
    x = torch.zeros_like(b)
    r = b - product(x)
    p, rr = r, torch.dot(r, r)
    for _ in range(iterations):
        if rr == 0 or rr.sqrt() < 1e-9 * b.norm():
            return x
        Fp = product(p)
        alpha = rr / torch.dot(p, Fp)
        x = x + alpha * p
        r = r - alpha * Fp
        rr_new = torch.dot(r, r)
        p = r + (rr_new / rr) * p
        rr = rr_new
    return x


def conjugate_gradients_with_epsilon(product, b, iterations):
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    for _ in range(iterations):
        curved, before = product(p), r @ r
        step = before / (p @ curved + 1e-30)
        x += step * p
        r -= step * curved
        p = r + (r @ r) / (before + 1e-30) * p
    return x


def ppo_loop(logprobs, old_logprobs, advantages, mask, clip):
    total = 0
    for b, t in mask.nonzero().tolist():
        ratio = torch.exp(logprobs[b, t] - old_logprobs[b, t])
        a = advantages[b, t]
        best = (1 + clip) * a if a > 0 else (1 - clip) * a
        total = total - (ratio * a if ratio * a < best else best + 0 * ratio)
    return total / mask.sum()


def ppo_negated(logprobs, old_logprobs, advantages, mask, clip):
    ratio = (logprobs - old_logprobs)[mask].exp()
    a = advantages[mask]
    free, held = -a * ratio, -a * torch.clamp(ratio, 1 - clip, 1 + clip)
    return torch.maximum(free, held).mean()


def kl_estimates_ratio(logprobs, reference_logprobs):
    ratio = torch.exp(reference_logprobs - logprobs)
    log_ratio = reference_logprobs - logprobs
    return -log_ratio, 0.5 * log_ratio**2, (ratio - 1) - log_ratio


def kl_estimates_expm1(logprobs, reference_logprobs):
    d = logprobs - reference_logprobs
    return [d, d.pow(2).div(2), torch.expm1(-d) + d]


def shape_rewards_loop(scores, logprobs, reference_logprobs, mask, kl_weight):
    rewards = torch.zeros_like(logprobs)
    for b in range(len(scores)):
        length = int(mask[b].sum())
        for t in range(length):
            rewards[b, t] = kl_weight * (reference_logprobs[b, t] - logprobs[b, t])
        rewards[b, length - 1] += scores[b]
    return rewards


def shape_rewards_indexed(scores, logprobs, reference_logprobs, mask, kl_weight):
    rewards = (-kl_weight * (logprobs - reference_logprobs)).masked_fill(~mask, 0)
    rewards[torch.arange(len(scores)), mask.sum(1) - 1] += scores
    return rewards


def learning_targets_whitened(rewards, values, mask, lam):
    advantages, returns = advantages_of.gae(rewards, values, mask, 1.0, lam)
    return advantages_of.whiten(advantages, mask), returns


def kl_estimates_of_the_library(logprobs, reference_logprobs):
    kinds = ("k1", "k2", "k3")
    return [losses.kl_estimate(logprobs, reference_logprobs, kind) for kind in kinds]


def learning_targets_selected(rewards, values, mask, lam):
    advantages, _ = gae_matrix(rewards, values, mask, 1.0, lam)
    returns = (advantages + values) * mask
    counted = advantages[mask]
    counted = (counted - counted.mean()) / (counted.std(correction=0) + 1e-8)
    return torch.zeros_like(values).masked_scatter(mask, counted), returns


def reinforce_einsum(logprobs, advantages, mask):
    counts = mask.bool()
    logprobs = torch.where(counts, logprobs, 0.0)
    advantages = torch.where(counts, advantages.detach(), 0.0)
    return -torch.einsum("bt,bt->", logprobs, advantages) / counts.sum()


def gae_sums(rewards, values, mask, gamma, lam):
    counts = mask.bool()
    rewards, values = (torch.where(counts, x, 0.0) for x in (rewards, values))
    following = F.pad(values[:, 1:], (0, 1))
    deltas = rewards + gamma * following - values
    total = torch.zeros_like(deltas)
    for k in range(deltas.shape[1]):
        later = F.pad(deltas[:, k:], (0, k))
        total = total + (gamma * lam) ** k * later
    advantages = torch.where(counts, total, 0.0)
    return advantages, advantages + values


def conjugate_gradients_einsum(product, b, iterations):
    x, r, p = torch.zeros_like(b), b, b
    for _ in range(iterations):
        squared = torch.einsum("i,i->", r, r)
        if squared == 0:
            break
        turned = product(p)
        step = squared / torch.einsum("i,i->", p, turned)
        x, r = x + step * p, r - step * turned
        p = r + torch.einsum("i,i->", r, r) / squared * p
    return x


def ppo_by_sign(logprobs, old_logprobs, advantages, mask, clip):
    counts = mask.bool()
    new, old, good = (
        torch.where(counts, x, 0.0) for x in (logprobs, old_logprobs, advantages)
    )
    ratio = (new - old).exp()
    kept = torch.where(good > 0, ratio.clamp(max=1 + clip), ratio.clamp(min=1 - clip))
    return -torch.einsum("bt,bt->", kept, good) / counts.sum()


def kl_estimates_loop(logprobs, reference_logprobs):
    rows = []
    for log_p, log_q in zip(logprobs, reference_logprobs, strict=True):
        d = log_p - log_q
        rows.append((d, d * d / 2, torch.exp(-d) - 1 + d))
    return tuple(torch.stack(column) for column in zip(*rows, strict=True))


def shape_rewards_einsum(scores, logprobs, reference_logprobs, mask, kl_weight):
    counts = mask.bool()
    ratio = torch.where(counts, logprobs - reference_logprobs, 0.0)
    places = F.one_hot(counts.sum(1) - 1, mask.shape[1]).to(scores)
    return torch.einsum("b,bt->bt", scores, places) - kl_weight * ratio


def learning_targets_loop(rewards, values, mask, lam):
    advantages, returns = gae_loop(rewards, values, mask, 1.0, lam)
    found = [a for row, m in zip(advantages, mask, strict=True) for a in row[m]]
    mean = sum(found) / len(found)
    variance = sum((a - mean) ** 2 for a in found) / len(found)
    scaled = (advantages - mean) / (variance + 1e-8) ** 0.5
    return torch.where(mask, scaled, 0.0), returns


STYLES = {
    "3.1": (
        reinforce_loop,
        reinforce_selected,
        reinforce_einsum,
        losses.reinforce_loss,
    ),
    "3.2": (gae_loop, gae_matrix, gae_sums, advantages_of.gae),
    "3.3": (
        conjugate_gradients_guarded,
        conjugate_gradients_with_epsilon,
        conjugate_gradients_einsum,
        lambda **given: trust_region.conjugate_gradients(**given).x,
    ),
    "3.4": (
        ppo_loop,
        ppo_negated,
        ppo_by_sign,
        lambda **given: losses.ppo_loss(**given).loss,
    ),
    "3.5": (
        kl_estimates_ratio,
        kl_estimates_expm1,
        kl_estimates_loop,
        kl_estimates_of_the_library,
    ),
    "3.6": (
        shape_rewards_loop,
        shape_rewards_indexed,
        shape_rewards_einsum,
        advantages_of.shape_rewards,
    ),
    "3.7": (
        learning_targets_whitened,
        learning_targets_selected,
        learning_targets_loop,
    ),
}


def test_silent_bug_shows_in_a_known_answer():
    rewards, values = torch.tensor([[0.0, 0.0, 1.0, 0.0]]), torch.zeros(1, 4)
    mask = torch.tensor([[True, True, True, False]])
    _, returns = learning_targets(rewards, values, mask, 1.0)
    assert returns.tolist() == [[1, 1, 1, 0]]
    _, wrong = buggy_learning_targets(rewards, values, mask, 1.0)
    assert wrong.max() < 0.9


def test_silent_bug_shows_in_a_column_of_padding():
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 3, 4, generator=generator)
    mask = torch.ones(3, 4, dtype=torch.bool)
    wider = [F.pad(x, (0, 3)) for x in (rewards, values, mask)]
    for targets, same in ((learning_targets, True), (buggy_learning_targets, False)):
        narrow, _ = targets(rewards, values, mask, 0.9)
        padded, _ = targets(*wider, 0.9)
        assert torch.allclose(narrow, padded[:, :4], atol=1e-6) is same


def test_whole_result_of_the_library_is_refused_as_a_tuple():
    diagnosis = check(EXERCISES["3.4"], losses.ppo_loss)
    assert diagnosis.mistake == "another kind of result"
    assert "tuple of 4" in diagnosis.message


@pytest.mark.parametrize("clip", ["above", "none"])
def test_naive_masking_is_named_whatever_else_is_wrong(clip):
    def answer(logprobs, old_logprobs, advantages, mask, clip=clip):
        ratio = torch.exp(logprobs - old_logprobs)
        return (-ratio * advantages * mask).sum() / mask.sum()

    diagnosis = check(EXERCISES["3.4"], answer)
    assert diagnosis.mistake == "no clip; what is masked gets in"
