"""Lab 1's exercises: right answers pass, every known mistake is refused and named."""

import numpy as np
import torch
import torch.nn.functional as F

from labs_helpers import losses
from labs_helpers.course.exercises import check, exercises_of

from .lab_checks import (  # noqa: F401
    pytest_generate_tests,
    styles,
    test_bank_is_large_and_its_sentences_help,
    test_mistake_is_refused_and_named,
    test_mistake_outside_the_bank_is_shown_on_its_smallest_input,
    test_right_answers_earn_all_points,
    test_right_answers_in_three_styles_pass_200_seeds,
)

EXERCISES = exercises_of(1)


# Right answers in other styles than the reference's: loops, einsum, vectorised.


def ceiling_loop(gold_a, gold_b, temperature):
    total = 0.0
    for a, b in zip(gold_a, gold_b, strict=True):
        p = 1 / (1 + np.exp(np.clip(-(a - b).item() / temperature, -500, 500)))
        total += max(p, 1 - p)
    return total / len(gold_a)


def ceiling_absolute(gold_a, gold_b, temperature):
    return (
        F.softplus((gold_a - gold_b).abs() / temperature)
        .mul(0)
        .add(torch.sigmoid((gold_b - gold_a).abs() / temperature))
        .mean()
    )


def bradley_terry_loop(chosen_rewards, rejected_rewards, margin=None, center_weight=0):
    total = 0
    for i in range(len(chosen_rewards)):
        difference = chosen_rewards[i] - rejected_rewards[i]
        if margin is not None:
            difference = difference - margin[i]
        total = total + torch.log1p(torch.exp(-difference.abs())) + F.relu(-difference)
        total = total + center_weight * (chosen_rewards[i] + rejected_rewards[i]) ** 2
    return total / len(chosen_rewards)


def bradley_terry_einsum(
    chosen_rewards, rejected_rewards, margin=None, center_weight=0
):
    pairs = torch.stack([chosen_rewards, rejected_rewards], dim=1)
    signs = pairs.new_tensor([1.0, -1.0])
    logits = torch.einsum("bi,i->b", pairs, signs)
    logits = logits if margin is None else logits - margin
    level = torch.einsum("bi,bj->", pairs, pairs) / len(pairs)
    return F.softplus(-logits, threshold=50).mean() + center_weight * level


def last_token_loop(values, lengths):
    return torch.stack(
        [row[int(n) - 1] for row, n in zip(values, lengths, strict=True)]
    )


def last_token_gather(values, lengths):
    return values.gather(1, (lengths - 1).unsqueeze(1)).squeeze(1)


def multi_head_loop(chosen, rejected, dimension):
    losses = []
    for c, r, d in zip(chosen, rejected, dimension.tolist(), strict=True):
        losses.append(-F.logsigmoid(c[d] - r[d]))
    return sum(losses) / len(losses)


def multi_head_einsum(chosen, rejected, dimension):
    asked = F.one_hot(dimension, chosen.shape[1]).to(chosen.dtype)
    difference = torch.einsum("bh,bh->b", chosen - rejected, asked)
    return F.softplus(-difference, threshold=50).mean()


def gap_loop(margins, temperature, known_probabilities):
    gaps = []
    for margin, p in zip(margins.tolist(), known_probabilities.tolist(), strict=True):
        gaps.append((1 / (1 + np.exp(-margin / temperature)) - p) ** 2)
    return float(np.mean(gaps))


def gap_einsum(margins, temperature, known_probabilities):
    gap = torch.sigmoid(margins / temperature) - known_probabilities
    return torch.einsum("b,b->", gap, gap) / len(gap)


def best_of_n_loop(proxy, gold, n):
    total = 0.0
    for scores, truths in zip(proxy, gold, strict=True):
        best = 0
        for i in range(1, n):
            best = i if scores[i] > scores[best] else best
        total += truths[best]
    return total / len(proxy)


def best_of_n_torch(proxy, gold, n):
    best = torch.tensor(proxy)[:, :n].max(dim=1, keepdim=True).indices
    return torch.tensor(gold).gather(1, best).mean()


def pair_batch_loop(chosen, rejected, heads, pad):
    pairs = list(zip(chosen, rejected, heads.tolist(), strict=True))
    pairs.sort(key=lambda pair: -(len(pair[0]) + len(pair[1])))
    rows = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    longest = max(len(row) for row in rows)
    tokens = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    lengths = torch.tensor([len(row) for row in rows])
    return tokens, lengths, torch.tensor([pair[2] for pair in pairs])


def pair_batch_argsort(chosen, rejected, heads, pad):
    both = [*chosen, *rejected]
    lengths = torch.tensor([len(row) for row in both])
    tokens = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in both], batch_first=True, padding_value=pad
    )
    order = lengths.view(2, -1).sum(0).argsort(descending=True)
    rows = torch.cat([order, order + len(chosen)])
    return tokens[rows], lengths[rows], heads[order]


def ceiling_einsum(gold_a, gold_b, temperature):
    both = torch.stack([gold_a, gold_b]) / temperature
    right = both.softmax(0).amax(0)
    return torch.einsum("b->", right) / len(right)


def bradley_terry_softplus(
    chosen_rewards, rejected_rewards, margin=None, center_weight=0.0
):
    behind = rejected_rewards - chosen_rewards
    behind = behind if margin is None else behind + margin
    both = chosen_rewards + rejected_rewards
    return F.softplus(behind).mean() + center_weight * torch.dot(both, both) / len(both)


def last_token_taken_along(values, lengths):
    return torch.take_along_dim(values, (lengths - 1).unsqueeze(1), dim=1).squeeze(1)


def multi_head_softmax(chosen, rejected, dimension):
    at = torch.arange(len(dimension))
    both = torch.stack([chosen[at, dimension], rejected[at, dimension]], dim=1)
    return F.cross_entropy(both, torch.zeros_like(dimension))


def gap_library(margins, temperature, known_probabilities):
    return F.mse_loss(torch.sigmoid(margins / temperature), known_probabilities)


def best_of_n_taken_along(proxy, gold, n):
    best = np.argmax(proxy[:, :n], axis=-1, keepdims=True)
    return np.take_along_axis(gold, best, axis=-1).mean()


def pair_batch_zipped(chosen, rejected, heads, pad):
    pairs = list(zip(chosen, rejected, heads, strict=True))
    pairs.sort(key=lambda pair: len(pair[0]) + len(pair[1]), reverse=True)
    rows = [torch.tensor(pair[side]) for side in (0, 1) for pair in pairs]
    tokens = torch.nn.utils.rnn.pad_sequence(rows, True, pad)
    lengths = torch.tensor([len(row) for row in rows])
    return tokens, lengths, torch.stack([pair[2] for pair in pairs])


def designed_loop(counts, caps, weights, broken):
    rewards = []
    for row, rules in zip(counts.tolist(), broken.tolist(), strict=True):
        paid = zip(row, caps.tolist(), weights.tolist(), strict=True)
        worth = sum(w * min(c, cap) / cap for c, cap, w in paid) / weights.sum().item()
        rewards.append(0.0 if any(rules) else worth)
    return torch.tensor(rewards, dtype=counts.dtype)


def designed_clamped(counts, caps, weights, broken):
    worth = (counts / caps).clamp(max=1).mul(weights).sum(1) / weights.sum()
    return torch.where((broken > 0).any(dim=1), torch.zeros_like(worth), worth)


def designed_einsum(counts, caps, weights, broken):
    shares = torch.where(counts > caps, caps, counts) / caps
    kept = (broken <= 0).to(counts.dtype).prod(dim=1)
    return torch.einsum("bk,k,b->b", shares, weights / weights.sum(), kept)


STYLES = {
    "1.1": (ceiling_loop, ceiling_absolute, ceiling_einsum),
    "1.2": (
        bradley_terry_loop,
        bradley_terry_einsum,
        bradley_terry_softplus,
        losses.bradley_terry_loss,
    ),
    "1.3": (last_token_loop, last_token_gather, last_token_taken_along),
    "1.4": (multi_head_loop, multi_head_einsum, multi_head_softmax),
    "1.5": (gap_loop, gap_einsum, gap_library),
    "1.6": (best_of_n_loop, best_of_n_torch, best_of_n_taken_along),
    "1.7": (pair_batch_loop, pair_batch_argsort, pair_batch_zipped),
    "1.8": (designed_loop, designed_clamped, designed_einsum),
}


def test_a_mistake_that_only_shows_in_pairs_gets_two_rows():
    def answer(chosen, rejected, dimension):
        difference = (chosen - rejected)[torch.arange(len(dimension)), dimension]
        return -F.logsigmoid(difference).median()  # of two, the lower one

    diagnosis = check(EXERCISES["1.4"], answer)
    assert diagnosis.mistake == "rows mix"
    assert diagnosis.counterexample.inputs["chosen"].shape[0] == 2
