"""Lab 2's exercises: right answers pass, every known mistake is refused and named."""

import math

import pytest
import torch
import torch.nn.functional as F
from scipy.special import stdtrit

from labs_helpers import evaluation, losses
from labs_helpers.course.exercises import check, exercises_of
from labs_helpers.course.exercises.lab2 import pair_logprobs
from labs_helpers.losses import sequence_logprobs

from .lab_checks import (  # noqa: F401
    pytest_generate_tests,
    styles,
    test_bank_is_large_and_its_sentences_help,
    test_mistake_is_refused_and_named,
    test_mistake_outside_the_bank_is_shown_on_its_smallest_input,
    test_right_answers_earn_all_points,
    test_right_answers_in_three_styles_pass_200_seeds,
)

EXERCISES = exercises_of(2)


# Right answers in other styles than the reference's: loops, einsum, vectorised.


def optimal_policy_loop(reference, rewards, beta):
    possible = [r for p, r in zip(reference, rewards, strict=True) if p > 0]
    best = max(possible)
    weights = []
    for p, r in zip(reference, rewards, strict=True):
        weights.append(p * torch.exp((r - best) / beta) if p > 0 else 0 * p)
    return torch.stack(weights) / sum(weights)


def optimal_policy_logsumexp(reference, rewards, beta):
    scores = torch.log(reference) + rewards / beta
    return torch.exp(scores - torch.logsumexp(scores, dim=-1))


def sequence_logprobs_loop(logits, tokens, mask):
    totals = []
    for row, answer, counts in zip(logits, tokens, mask, strict=True):
        total = row.new_zeros(())
        for scores, token, count in zip(row, answer, counts, strict=True):
            if count == 1:
                total = total + torch.log_softmax(scores, 0)[token]
        totals.append(total)
    return torch.stack(totals)


def sequence_logprobs_einsum(logits, tokens, mask):
    logits = torch.where(mask[..., None], logits, 0)
    asked = F.one_hot(tokens.masked_fill(~mask, 0), logits.shape[-1]).to(logits)
    return torch.einsum("btv,btv,bt->b", logits.log_softmax(-1), asked, mask.to(logits))


def sequence_logprobs_selected(logits, tokens, mask):
    found = -F.cross_entropy(logits[mask], tokens[mask], reduction="none")
    zeros = logits.new_zeros(mask.shape)
    return zeros.masked_scatter(mask, found).sum(-1)


def dpo_loop(
    policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
):
    total = 0
    for i in range(len(policy_chosen)):
        chosen = beta * (policy_chosen[i] - reference_chosen[i])
        rejected = beta * (policy_rejected[i] - reference_rejected[i])
        reward = torch.stack([chosen, rejected])
        total = total - reward.log_softmax(0)[0]
    return total / len(policy_chosen)


def dpo_cross_entropy(
    policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
):
    policy = policy_chosen - policy_rejected
    reference = reference_chosen - reference_rejected
    return F.binary_cross_entropy_with_logits(
        beta * (policy - reference), torch.ones_like(policy)
    )


def ipo_loop(
    policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
):
    total = 0
    for i in range(len(policy_chosen)):
        policy = policy_chosen[i] - policy_rejected[i]
        reference = reference_chosen[i] - reference_rejected[i]
        total += (policy - reference - 0.5 / beta) ** 2
    return total / len(policy_chosen)


def ipo_einsum(
    policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
):
    ratios = torch.stack([policy_chosen, policy_rejected]) - torch.stack(
        [reference_chosen, reference_rejected]
    )
    gap = torch.einsum("kb,k->b", ratios, ratios.new_tensor([1.0, -1.0]))
    return F.mse_loss(gap, torch.full_like(gap, 1 / (2 * beta)))


def kto_loop(
    policy, reference, desirable, kl, beta, desirable_weight, undesirable_weight
):
    kl, total = kl.item(), 0
    for i, good in enumerate(desirable.tolist()):
        ratio = policy[i] - reference[i]
        if good:
            value = desirable_weight * torch.sigmoid(beta * (ratio - kl))
            total = total + desirable_weight - value
        else:
            value = undesirable_weight * torch.sigmoid(beta * (kl - ratio))
            total = total + undesirable_weight - value
    return total / len(policy)


def kto_signs(
    policy, reference, desirable, kl, beta, desirable_weight, undesirable_weight
):
    good = desirable.to(policy.dtype)
    weight = good * desirable_weight + (1 - good) * undesirable_weight
    pays = torch.sigmoid((1 - 2 * good) * beta * (policy - reference - kl.detach()))
    return torch.einsum("b,b->", weight, pays) / len(pays)


def slic_loop(policy_chosen, policy_rejected, target_logprobs, delta, weight):
    total = 0
    for chosen, rejected in zip(policy_chosen, policy_rejected, strict=True):
        short = delta - (chosen - rejected)
        total = total + (short if short > 0 else 0 * short)
    return total / len(policy_chosen) - weight * sum(target_logprobs) / len(
        target_logprobs
    )


def slic_clamp(policy_chosen, policy_rejected, target_logprobs, delta, weight):
    hinge = torch.clamp(policy_rejected + delta - policy_chosen, min=0)
    return torch.mean(hinge) + weight * torch.mean(-target_logprobs)


def judged_loop(first, second):
    outcomes = []
    for p, q in zip(first.tolist(), second.tolist(), strict=True):
        outcome = 0.5
        if min(p, q) > 0.5:
            outcome = 1.0
        elif max(p, q) < 0.5:
            outcome = 0.0
        outcomes.append(outcome)
    return torch.tensor(outcomes, dtype=first.dtype), (first - second).mean()


def judged_by_signs(first, second):
    votes = torch.sign(torch.stack([first, second]) - 0.5).sum(0)
    outcomes = torch.full_like(first, 0.5)
    outcomes[votes == 2] = 1
    outcomes[votes == -2] = 0
    return outcomes, first.mean() - second.mean()


def pair_logprobs_loop(logits, tokens, prompt_lengths, lengths):
    totals = []
    for i in range(len(tokens)):
        total = logits.new_zeros(())
        for t in range(int(prompt_lengths[i]), int(lengths[i])):
            total = total + logits[i, t - 1].log_softmax(0)[tokens[i, t]]
        totals.append(total)
    return torch.stack(totals)


def pair_logprobs_on_logits(logits, tokens, prompt_lengths, lengths):
    at = torch.arange(tokens.shape[1] - 1).expand(len(tokens), -1)
    begins, ends = (prompt_lengths - 1).unsqueeze(1), (lengths - 1).unsqueeze(1)
    mask = at.ge(begins).logical_and(at.lt(ends))
    return sequence_logprobs(logits[:, :-1], tokens[:, 1:], mask)


def optimal_policy_softmax(reference, rewards, beta):
    scores = torch.where(reference > 0, reference.log() + rewards / beta, -torch.inf)
    return scores.softmax(0)


def dpo_einsum(
    policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
):
    ratios = torch.stack([policy_chosen, policy_rejected]) - torch.stack(
        [reference_chosen, reference_rejected]
    )
    behind = torch.einsum("kb,k->b", ratios, ratios.new_tensor([-beta, beta]))
    return F.softplus(behind).mean()


def ipo_vectorised(
    policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
):
    gap = (policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)
    missing = 1 / (2 * beta) - gap
    return torch.dot(missing, missing) / len(missing)


def kto_by_kind(
    policy, reference, desirable, kl, beta, desirable_weight, undesirable_weight
):
    ahead = beta * (policy - reference - kl.detach())
    good = desirable_weight * (1 - torch.sigmoid(ahead[desirable]))
    bad = undesirable_weight * (1 - torch.sigmoid(-ahead[~desirable]))
    return torch.cat([good, bad]).mean()


def slic_library(policy_chosen, policy_rejected, target_logprobs, delta, weight):
    ones = torch.ones_like(policy_chosen)
    hinge = F.margin_ranking_loss(policy_chosen, policy_rejected, ones, margin=delta)
    return hinge - weight * torch.einsum("n->", target_logprobs) / len(target_logprobs)


def judged_where(first, second):
    half = torch.full_like(first, 0.5)
    lost = torch.where((first < half) & (second < half), torch.zeros_like(first), half)
    outcomes = torch.where((first > half) & (second > half), 2 * half, lost)
    return outcomes, torch.mean(first - second)


def pair_logprobs_einsum(logits, tokens, prompt_lengths, lengths):
    at = torch.arange(1, tokens.shape[1])
    mask = (at >= prompt_lengths[:, None]) & (at < lengths[:, None])
    logprobs = torch.where(mask[..., None], logits[:, :-1], 0).log_softmax(-1)
    said = F.one_hot(tokens[:, 1:], logits.shape[-1]).to(logits)
    return torch.einsum("btv,btv,bt->b", logprobs, said, mask.to(logits))


def tax_loop(before, after):
    lost = [
        (sum(row) - sum(other)) / len(row)
        for row, other in zip(before.tolist(), after.tolist(), strict=True)
    ]
    mean = sum(lost) / len(lost)
    variance = sum((x - mean) ** 2 for x in lost) / (len(lost) - 1)
    return before.new_tensor(mean), before.new_tensor(math.sqrt(variance / len(lost)))


def tax_of_sums(before, after):
    lost = (before - after).mean(-1)
    spread = torch.sqrt(((lost - lost.mean()) ** 2).sum() / (len(lost) - 1))
    return lost.mean(), spread / math.sqrt(len(lost))


def tax_library(before, after):
    a, b = (x.mean(1).double().numpy() for x in (before, after))
    found = evaluation.paired_difference(a, b)
    half = stdtrit(len(a) - 1, 0.975)
    error = (found.high - found.low) / 2 / half
    return before.new_tensor(found.value), before.new_tensor(error)


def the_loss(function):
    """Take the loss out of what a function of the library returns beside it."""
    return lambda **given: function(**given).loss


STYLES = {
    "2.1": (optimal_policy_loop, optimal_policy_logsumexp, optimal_policy_softmax),
    "2.2": (
        sequence_logprobs_loop,
        sequence_logprobs_einsum,
        sequence_logprobs_selected,
        sequence_logprobs,
    ),
    "2.3": (dpo_loop, dpo_cross_entropy, dpo_einsum, the_loss(losses.dpo_loss)),
    "2.4": (ipo_loop, ipo_einsum, ipo_vectorised, the_loss(losses.ipo_loss)),
    "2.5": (kto_loop, kto_signs, kto_by_kind, losses.kto_loss),
    "2.6": (slic_loop, slic_clamp, slic_library, losses.slic_loss),
    "2.7": (judged_loop, judged_by_signs, judged_where),
    "2.8": (pair_logprobs_loop, pair_logprobs_on_logits, pair_logprobs_einsum),
    "2.9": (tax_loop, tax_of_sums, tax_library),
}


@pytest.mark.parametrize("tokens_of_answer", [1, 3])
def test_silent_bug_shows_in_a_known_answer(tokens_of_answer):
    logits, tokens = torch.zeros(1, 6, 4), torch.zeros(1, 6, dtype=torch.long)
    lengths = torch.tensor([2]), torch.tensor([2 + tokens_of_answer])
    cost = tokens_of_answer * math.log(4)
    right, wrong = pair_logprobs, EXERCISES["2.8"].mistakes[0].function
    assert right(logits, tokens, *lengths).item() == pytest.approx(-cost)
    found = wrong(logits, tokens, *lengths).item()
    assert found == pytest.approx(-max(cost - 2 * math.log(4), 0))


def test_whole_result_of_the_library_is_refused_as_a_tuple():
    diagnosis = check(EXERCISES["2.3"], losses.dpo_loss)
    assert diagnosis.mistake == "another kind of result"
    assert "tuple of 3" in diagnosis.message


def test_naive_masking_is_named_whatever_else_is_wrong():
    def answer(logits, tokens, mask):
        index = tokens.unsqueeze(-1)
        logprobs = torch.gather(F.log_softmax(logits, -1), -1, index).squeeze(-1)
        return (logprobs * mask).sum(-1) / mask.sum(-1)

    diagnosis = check(EXERCISES["2.2"], answer)
    assert diagnosis.mistake == "mean for sum; what is masked gets in"
