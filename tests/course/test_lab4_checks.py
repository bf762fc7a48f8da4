"""Lab 4's exercises: right answers pass, every known mistake is refused and named."""

import math

import pytest
import torch
import torch.nn.functional as F

from labs_helpers.course.exercises import check, exercises_of
from labs_helpers.course.exercises.lab4 import (
    agreement_beyond_chance,
    ai_labels,
    attack_success,
    sl_cai_batch,
    soft_dpo_loss,
    soft_label,
    unbiased_label,
)
from labs_helpers.evaluation import cohen_kappa, proportion
from labs_helpers.evaluation.estimates import Z
from labs_helpers.losses import dpo_loss

from .lab_checks import (  # noqa: F401
    pytest_generate_tests,
    styles,
    test_bank_is_large_and_its_sentences_help,
    test_mistake_is_refused_and_named,
    test_mistake_outside_the_bank_is_shown_on_its_smallest_input,
    test_right_answers_earn_all_points,
    test_right_answers_in_three_styles_pass_200_seeds,
)

EXERCISES = exercises_of(4)
buggy_ai_labels = EXERCISES["4.7"].mistakes[0].function


# Right answers in other styles than the reference's: loops, einsum, vectorised.


def soft_label_loop(reply_logprobs):
    labels = []
    for first, second in reply_logprobs:
        best = max(first, second)
        a, b = torch.exp(first - best), torch.exp(second - best)
        labels.append(a / (a + b))
    return torch.stack(labels)


def soft_label_sigmoid(reply_logprobs):
    signs = reply_logprobs.new_tensor([1.0, -1.0])
    return torch.einsum("nk,k->n", reply_logprobs, signs).sigmoid()


def unbiased_label_loop(a_first, a_second):
    labels = torch.zeros_like(a_first)
    for i in range(len(a_first)):
        p, q = a_first[i], a_second[i]
        odds = (p / (1 - p) * (q / (1 - q))) ** 0.5
        labels[i] = odds / (1 + odds)
    return labels


def unbiased_label_geometric(a_first, a_second):
    both = torch.stack([a_first, a_second])
    a, b = both.log().mean(0), (1 - both).log().mean(0)
    return torch.stack([a, b]).softmax(0)[0]


def sl_cai_loop(transcripts, pad):
    rows, counts = [], []
    for turns in transcripts:
        rows.append(list(turns[0]))
        counts.append([False] * len(turns[0]))
        for token in turns[-1]:
            rows[-1].append(token)
            counts[-1].append(True)
    width = max(len(row) for row in rows)
    for row, count in zip(rows, counts, strict=True):
        while len(row) < width:
            row.append(pad)
            count.append(False)
    return torch.tensor(rows), torch.tensor(counts)


def sl_cai_vectorised(transcripts, pad):
    rows = [torch.tensor(turns[0] + turns[-1]) for turns in transcripts]
    begins = torch.tensor([len(turns[0]) for turns in transcripts])
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    at = torch.arange(tokens.shape[1])
    return tokens, (at >= begins[:, None]) & (at < lengths[:, None])


def soft_dpo_loop(policy_a, policy_b, reference_a, reference_b, labels, beta):
    total = 0
    for i in range(len(labels)):
        a = beta * (policy_a[i] - reference_a[i])
        b = beta * (policy_b[i] - reference_b[i])
        logs = torch.stack([a, b]).log_softmax(0)
        total = total - labels[i] * logs[0] - (1 - labels[i]) * logs[1]
    return total / len(labels)


def soft_dpo_with_logits(policy_a, policy_b, reference_a, reference_b, labels, beta):
    policy, reference = policy_a - policy_b, reference_a - reference_b
    return F.binary_cross_entropy_with_logits(beta * (policy - reference), labels)


def attack_success_loop(succeeded, z):
    rows = []
    for attack in succeeded:
        n = len(attack)
        successes = sum(attack)
        more = n + z * z
        centre = (successes + z * z / 2) / more
        half = z / more * (successes * (n - successes) / n + z * z / 4) ** 0.5
        rows.append(torch.stack([successes / n, centre - half, centre + half]))
    return tuple(torch.stack(rows).unbind(1))


def attack_success_roots(succeeded, z):
    count = succeeded.new_tensor(succeeded.shape[1])
    rate = torch.einsum("an,->a", succeeded, 1 / count)
    # the two p at which the observed rate is z standard errors away
    a, b, c = 1 + z**2 / count, -(2 * rate + z**2 / count), rate**2
    root = torch.sqrt(b.double() ** 2 - 4 * a.double() * c.double()).to(rate)
    return rate, (-b - root) / (2 * a), (-b + root) / (2 * a)


def agreement_loop(judge, people):
    verdicts = list(zip(judge.tolist(), people.tolist(), strict=True))
    agreed = sum(a == b for a, b in verdicts) / len(verdicts)
    chance = sum(a == b for a, _ in verdicts for _, b in verdicts) / len(verdicts) ** 2
    return (agreed - chance) / (1 - chance)


def agreement_table(judge, people):
    kinds = torch.tensor([0.0, 0.5, 1.0], dtype=judge.dtype)
    a, b = ((x[:, None] == kinds).to(judge.dtype) for x in (judge, people))
    table = torch.einsum("ni,nj->ij", a, b) / len(judge)
    chance = torch.outer(table.sum(1), table.sum(0)).trace()
    return 1 - (1 - table.trace()) / (1 - chance)


def ai_labels_loop(a_shown_first, b_shown_first):
    labels = []
    for (a, b), (b_again, a_again) in zip(a_shown_first, b_shown_first, strict=True):
        labels.append(torch.sigmoid(((a - b) + (a_again - b_again)) / 2))
    return torch.stack(labels)


def ai_labels_einsum(a_shown_first, b_shown_first):
    both = torch.stack([a_shown_first, b_shown_first])
    signs = both.new_tensor([[0.5, -0.5], [-0.5, 0.5]])
    return torch.einsum("onr,or->n", both, signs).sigmoid()


def soft_label_logsumexp(reply_logprobs):
    return torch.exp(reply_logprobs[:, 0] - torch.logsumexp(reply_logprobs, dim=-1))


def unbiased_label_einsum(a_first, a_second):
    both = torch.stack([a_first, a_second])
    odds = both.log() - torch.log1p(-both)
    return torch.einsum("on->n", odds).div(2).sigmoid()


def sl_cai_padded(transcripts, pad):
    rows = [[*turns[0], *turns[-1]] for turns in transcripts]
    masks = [[0] * len(turns[0]) + [1] * len(turns[-1]) for turns in transcripts]
    width = max(map(len, rows))
    tokens = [
        F.pad(torch.tensor(row), (0, width - len(row)), value=pad) for row in rows
    ]
    mask = [F.pad(torch.tensor(m), (0, width - len(m)), value=0) for m in masks]
    return torch.stack(tokens), torch.stack(mask) == 1


def soft_dpo_einsum(policy_a, policy_b, reference_a, reference_b, labels, beta):
    ratios = torch.stack([policy_a - reference_a, policy_b - reference_b])
    logs = (beta * ratios).log_softmax(0)
    wanted = torch.stack([labels, 1 - labels])
    return -torch.einsum("kb,kb->", wanted, logs) / len(labels)


def attack_success_counts(succeeded, z):
    n, successes = succeeded.shape[1], torch.einsum("an->a", succeeded)
    rate = successes / n
    centre = (successes + z**2 / 2) / (n + z**2)
    half = z * n**0.5 / (n + z**2) * (rate * (1 - rate) + z**2 / (4 * n)).sqrt()
    return rate, centre - half, centre + half


def agreement_library(judge, people):
    return cohen_kappa(judge.numpy(), people.numpy())


def ai_labels_by_reply(a_shown_first, b_shown_first):
    first, second = a_shown_first.log_softmax(1), b_shown_first.log_softmax(1)
    a, b = first[:, 0] + second[:, 1], first[:, 1] + second[:, 0]
    return torch.sigmoid((a - b) / 2)


STYLES = {
    "4.1": (soft_label_loop, soft_label_sigmoid, soft_label_logsumexp),
    "4.2": (unbiased_label_loop, unbiased_label_geometric, unbiased_label_einsum),
    "4.3": (sl_cai_loop, sl_cai_vectorised, sl_cai_padded),
    "4.4": (soft_dpo_loop, soft_dpo_with_logits, soft_dpo_einsum),
    "4.5": (attack_success_loop, attack_success_roots, attack_success_counts),
    "4.6": (agreement_loop, agreement_table, agreement_library),
    "4.7": (ai_labels_loop, ai_labels_einsum, ai_labels_by_reply),
}


# Known answers


def test_what_a_judge_says_besides_does_not_matter():
    replies = torch.log(torch.tensor([[0.3, 0.1], [0.75, 0.25], [1e-9, 1e-9]]))
    assert soft_label(replies).tolist() == pytest.approx([0.75, 0.75, 0.5])


def test_a_bias_in_the_log_odds_goes_away():
    strength, bias = torch.tensor([0.0, 1.0, -2.0]), 1.5
    first, second = (strength + bias).sigmoid(), (strength - bias).sigmoid()
    torch.testing.assert_close(unbiased_label(first, second), strength.sigmoid())


def test_sl_cai_reads_the_prompt_and_learns_the_last_revision():
    rounds = [[5, 1], [6, 1], [7, 1], [8, 1], [9, 1]]
    tokens, mask = sl_cai_batch([[[3, 4, 1], *rounds], [[2, 1], *rounds * 2]], pad=1)
    assert tokens.tolist() == [[3, 4, 1, 9, 1], [2, 1, 9, 1, 1]]
    assert mask.long().tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 0]]


def test_soft_dpo_is_dpo_for_hard_labels_and_smoothed_dpo_for_alike_ones():
    torch.manual_seed(0)
    logprobs, ones = torch.randn(4, 6), torch.ones(6)
    hard, smooth = dpo_loss(*logprobs), dpo_loss(*logprobs, label_smoothing=0.2)
    torch.testing.assert_close(soft_dpo_loss(*logprobs, ones, 0.1), hard.loss)
    torch.testing.assert_close(soft_dpo_loss(*logprobs, 0.8 * ones, 0.1), smooth.loss)


def test_soft_dpo_stops_where_the_policy_prefers_as_much_as_the_label():
    policy = torch.zeros(1, requires_grad=True)
    zero, label, beta = torch.zeros(1), torch.tensor([0.75]), 0.5
    at = policy + math.log(3) / beta
    soft_dpo_loss(at, zero, zero, zero, label, beta).backward()
    assert policy.grad.item() == pytest.approx(0, abs=1e-6)


def test_attack_success_is_the_librarys_proportion():
    succeeded = torch.zeros(3, 20, dtype=torch.float64)
    succeeded[1, :7], succeeded[2] = 1, 1
    for row, *found in zip(
        (0, 7, 20), *attack_success(succeeded, float(Z)), strict=True
    ):
        wanted = proportion(row, 20)
        assert [x.item() for x in found] == pytest.approx([wanted.value, *wanted.ci])


def test_agreement_is_cohens_kappa():
    torch.manual_seed(1)
    judge, people = (torch.randint(0, 3, (40,)) / 2 for _ in range(2))
    found = agreement_beyond_chance(judge, people).item()
    assert found == pytest.approx(cohen_kappa(judge.numpy(), people.numpy()))


def test_a_judge_that_always_says_the_first_agrees_by_chance_alone():
    people = torch.ones(10)
    people[0] = 0
    assert agreement_beyond_chance(torch.ones(10), people) == pytest.approx(0, abs=1e-6)


def _judge_with_a_bias(pairs):
    """Log-probs of the replies A and B in both orders, and the true labels."""
    torch.manual_seed(0)
    strength, bias = 2 * torch.randn(pairs), 1.5
    replies = [
        torch.stack([odds.sigmoid().log(), (-odds).sigmoid().log()], dim=1)
        for odds in (strength + bias, -strength + bias)
    ]
    return replies, strength.sigmoid()


def test_silent_bug_learns_something_and_keeps_the_bias():
    replies, truth = _judge_with_a_bias(2000)
    right, wrong = ai_labels(*replies), buggy_ai_labels(*replies)
    torch.testing.assert_close(right, truth)
    together = torch.corrcoef(torch.stack([wrong.logit(), truth.logit()]))[0, 1]
    assert 0.5 < together < 0.8  # it learns something
    assert wrong.logit().mean().item() == pytest.approx(1.5, abs=0.1)  # the bias
    assert wrong.logit().std() < 0.8 * truth.logit().std()  # shrunk


def test_silent_bug_shows_in_a_known_answer():
    always_a = torch.tensor([[-0.1, -2.4]])
    assert ai_labels(always_a, always_a).item() == pytest.approx(0.5)
    assert buggy_ai_labels(always_a, always_a).item() > 0.9
    consistent = always_a, always_a.flip(1)
    assert ai_labels(*consistent).item() > 0.9
    assert buggy_ai_labels(*consistent).item() == pytest.approx(0.5)


def test_mask_of_numbers_is_told_apart_from_a_wrong_mask():
    def answer(transcripts, pad):
        tokens, mask = sl_cai_batch(transcripts, pad)
        return tokens, mask.float()

    assert check(EXERCISES["4.3"], answer).mistake == "another dtype"
