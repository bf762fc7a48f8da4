"""Wrong answers to Lab 4.

Author and checker are the same here: who wrote these had written the checks and their
banks of mistakes, so the share of them that is named says less than for other labs.
"""

import torch
import torch.nn.functional as F

from .answers import Wrong


def on_columns(change):
    """Answer from the columns of A and B."""
    return lambda reply_logprobs: change(reply_logprobs[:, 0], reply_logprobs[:, 1])


# 4.3


def batch_of(rows, masks, pad):
    width = max(map(len, rows))
    tokens = [row + [pad] * (width - len(row)) for row in rows]
    mask = [m + [False] * (width - len(m)) for m in masks]
    return torch.tensor(tokens), torch.tensor(mask)


def sl_cai(parts):
    """Answer with rows made of pairs of turn and whether it counts."""

    def answer(transcripts, pad):
        rows = [[x for turn, _ in parts(t) for x in turn] for t in transcripts]
        masks = [[c for turn, c in parts(t) for _ in turn] for t in transcripts]
        return batch_of(rows, masks, pad)

    return answer


def sl_cai_not_padded(transcripts, pad):
    rows = [turns[0] + turns[-1] for turns in transcripts]
    return torch.tensor(rows), torch.ones(len(rows), len(rows[0]), dtype=torch.bool)


def sl_cai_end_masked(transcripts, pad):
    rows = [turns[0] + turns[-1] for turns in transcripts]
    masks = [
        [False] * len(t[0]) + [True] * (len(t[-1]) - 1) + [False] for t in transcripts
    ]
    return batch_of(rows, masks, pad)


def sl_cai_shifted(transcripts, pad):
    rows = [turns[0] + turns[-1] for turns in transcripts]
    masks = [
        [False] * (len(t[0]) - 1) + [True] * len(t[-1]) + [False] for t in transcripts
    ]
    return batch_of(rows, masks, pad)


def sl_cai_cut(transcripts, pad):
    rows = [turns[0] + turns[-1] for turns in transcripts]
    masks = [[False] * len(t[0]) + [True] * len(t[-1]) for t in transcripts]
    width = min(map(len, rows))
    return torch.tensor([r[:width] for r in rows]), torch.tensor(
        [m[:width] for m in masks]
    )


def sl_cai_tokens_only(transcripts, pad):
    return sl_cai(lambda t: [(t[0], False), (t[-1], True)])(transcripts, pad)[0]


# 4.4


def soft_dpo(change):
    """Answer from the margin in nats, labels and beta."""

    def answer(policy_a, policy_b, reference_a, reference_b, labels, beta):
        margin = (policy_a - reference_a) - (policy_b - reference_b)
        return change(margin, labels, beta)

    return answer


def soft_dpo_no_reference(policy_a, policy_b, reference_a, reference_b, labels, beta):
    return F.binary_cross_entropy_with_logits(beta * (policy_a - policy_b), labels)


# 4.5


def wilson(rate, n, z):
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * (rate * (1 - rate) / n + z**2 / (4 * n**2)).sqrt() / (1 + z**2 / n)
    return rate, centre - half, centre + half


def attack_wald(succeeded, z):
    rate, n = succeeded.mean(1), succeeded.shape[1]
    half = z * (rate * (1 - rate) / n).sqrt()
    return rate, rate - half, rate + half


def attack_plus_two(succeeded, z):
    n = succeeded.shape[1] + 4
    rate = (succeeded.sum(1) + 2) / n
    half = z * (rate * (1 - rate) / n).sqrt()
    return succeeded.mean(1), rate - half, rate + half


def attack_t(succeeded, z):
    half = z * succeeded.std(1) / succeeded.shape[1] ** 0.5
    rate = succeeded.mean(1)
    return rate, rate - half, rate + half


def attack_counts(succeeded, z):
    rate, low, high = wilson(succeeded.mean(1), succeeded.shape[1], z)
    n = succeeded.shape[1]
    return rate * n, low * n, high * n


def attack_percent(succeeded, z):
    return tuple(100 * x for x in wilson(succeeded.mean(1), succeeded.shape[1], z))


def attack_stacked(succeeded, z):
    return torch.stack(wilson(succeeded.mean(1), succeeded.shape[1], z), dim=1)


# 4.6


def share(condition):
    return condition.double().mean()


def chance_of(judge, people):
    return sum(share(judge == v) * share(people == v) for v in (0.0, 0.5, 1.0))


def kappa(agreed, chance):
    return (agreed - chance) / (1 - chance)


ANSWERS = {
    "4.1": (
        Wrong(
            "column of B",
            lambda reply_logprobs: reply_logprobs.softmax(1)[:, 1],
            "other answer|second",
        ),
        Wrong("A alone", on_columns(lambda a, b: a.exp()), "normal|alone"),
        Wrong("difference", on_columns(lambda a, b: a - b), "log-odds"),
        Wrong(
            "sign of the difference",
            on_columns(lambda a, b: torch.sigmoid(b - a)),
            "other answer|second",
        ),
        Wrong(
            "overflow",
            on_columns(lambda a, b: a.exp() / (a.exp() + b.exp())),
            "round|overflow",
        ),
        Wrong("hard label", on_columns(lambda a, b: (a > b).float()), "verdict|sure"),
        Wrong("no index", lambda reply_logprobs: reply_logprobs.softmax(-1), "column"),
        Wrong("axis", lambda reply_logprobs: reply_logprobs.softmax(0)[:, 0], "pairs"),
        Wrong("base 2", on_columns(lambda a, b: 1 / (1 + 2 ** (b - a))), "base"),
        Wrong(
            "1 for A, -1 for B",
            on_columns(lambda a, b: torch.tanh((a - b) / 2)),
            "probabilit|-1",
        ),
        Wrong(
            "first row for first column",
            lambda reply_logprobs: reply_logprobs.softmax(1)[0],
            "row|column|shape",
        ),
    ),
    "4.2": (
        Wrong("mean", lambda a_first, a_second: (a_first + a_second) / 2, "log-odds"),
        Wrong(
            "second turned round",
            lambda a_first, a_second: (a_first + (1 - a_second)) / 2,
            "already|second",
        ),
        Wrong(
            "geometric mean",
            lambda a_first, a_second: (a_first * a_second) ** 0.5,
            "geometric|logarithm",
        ),
        Wrong(
            "sum of log-odds",
            lambda a_first, a_second: (a_first.logit() + a_second.logit()).sigmoid(),
            "sure|half",
        ),
        Wrong(
            "no way back",
            lambda a_first, a_second: (a_first.logit() + a_second.logit()) / 2,
            "log-odds|probabilit",
        ),
        Wrong(
            "logit of the mean",
            lambda a_first, a_second: ((a_first + a_second) / 2).logit(),
            "log-odds|probabilit",
        ),
        Wrong(
            "odds upside down",
            lambda a_first, a_second: torch.sigmoid(
                (((1 - a_first) / a_first).log() + ((1 - a_second) / a_second).log())
                / 2
            ),
            "other answer|way up",
        ),
        Wrong(
            "larger of the two",
            lambda a_first, a_second: torch.maximum(a_first, a_second),
        ),
        Wrong(
            "less sure of the two",
            lambda a_first, a_second: torch.minimum(a_first, a_second),
        ),
        Wrong(
            "bias of probabilities taken off",
            lambda a_first, a_second: a_first - (a_first - a_second).mean() / 2,
            "bias|average",
        ),
        Wrong(
            "half of the difference taken off",
            lambda a_first, a_second: a_first - (a_first - a_second) / 2,
            "log-odds",
        ),
    ),
    "4.3": (
        Wrong(
            "everything kept",
            sl_cai(lambda t: [(x, x is t[-1]) for x in t]),
            "critique|answer",
        ),
        Wrong(
            "prompt counts", sl_cai(lambda t: [(t[0], True), (t[-1], True)]), "prompt"
        ),
        Wrong("end masked", sl_cai_end_masked, "end"),
        Wrong(
            "end removed", sl_cai(lambda t: [(t[0], False), (t[-1][:-1], True)]), "end"
        ),
        Wrong("shifted", sl_cai_shifted, "left|early|predict"),
        Wrong("not padded", sl_cai_not_padded, "raises|length"),
        Wrong("cut to the shortest", sl_cai_cut, "shape|longest"),
        Wrong("no prompt", sl_cai(lambda t: [(t[-1], True)]), "prompt"),
        Wrong(
            "first answer",
            sl_cai(lambda t: [(t[0], False), (t[1], True)]),
            "first answer|before any",
        ),
        Wrong(
            "sixth turn", sl_cai(lambda t: [(t[0], False), (t[5], True)]), "two|round"
        ),
        Wrong("tokens alone", sl_cai_tokens_only, "tuple"),
        Wrong(
            "only words of the revision and its request",
            sl_cai(lambda t: [(t[0], False), (t[-2], True), (t[-1], True)]),
            "request",
        ),
    ),
    "4.4": (
        Wrong(
            "turned round",
            soft_dpo(lambda m, p, b: F.binary_cross_entropy_with_logits(-b * m, p)),
            "round|worse",
        ),
        Wrong(
            "rounded",
            soft_dpo(
                lambda m, p, b: F.binary_cross_entropy_with_logits(b * m, p.round())
            ),
            "round|hard",
        ),
        Wrong(
            "first term only",
            soft_dpo(lambda m, p, b: -(p * F.logsigmoid(b * m)).mean()),
            "half|missing",
        ),
        Wrong(
            "no beta",
            soft_dpo(lambda m, p, b: F.binary_cross_entropy_with_logits(m, p)),
            "beta",
        ),
        Wrong("no reference", soft_dpo_no_reference, "reference"),
        Wrong(
            "sum",
            soft_dpo(
                lambda m, p, b: F.binary_cross_entropy_with_logits(
                    b * m, p, reduction="sum"
                )
            ),
            "sum|grows",
        ),
        Wrong(
            "probabilities into the loss that takes logits",
            soft_dpo(
                lambda m, p, b: F.binary_cross_entropy_with_logits((b * m).sigmoid(), p)
            ),
            "twice|logits",
        ),
        Wrong(
            "cross-entropy of probabilities",
            soft_dpo(
                lambda m, p, b: (
                    -(
                        p * (b * m).sigmoid().log()
                        + (1 - p) * (1 - (b * m).sigmoid()).log()
                    ).mean()
                )
            ),
            "overflow|moderate|finite",
        ),
        Wrong(
            "cross-entropy clamped inside",
            soft_dpo(lambda m, p, b: F.binary_cross_entropy((b * m).sigmoid(), p)),
            "overflow|moderate|clamp|large",
        ),
        Wrong(
            "squared",
            soft_dpo(lambda m, p, b: ((b * m).sigmoid() - p).square().mean()),
            "square",
        ),
        Wrong(
            "label as a weight",
            soft_dpo(lambda m, p, b: -(p * F.logsigmoid(b * m)).sum() / p.sum()),
        ),
        Wrong(
            "centred label as a weight",
            soft_dpo(lambda m, p, b: -((2 * p - 1) * F.logsigmoid(b * m)).mean()),
            "difference|term|sign|labels is 1",
        ),
    ),
    "4.5": (
        Wrong("plain standard error", attack_wald, "wald|standard error"),
        Wrong("two successes and two failures added", attack_plus_two),
        Wrong("sample standard deviation", attack_t),
        Wrong(
            "pooled",
            lambda succeeded, z: wilson(succeeded.mean(), succeeded.numel(), z),
            "all attacks",
        ),
        Wrong(
            "columns",
            lambda succeeded, z: wilson(succeeded.mean(0), len(succeeded), z),
            "prompts|axis",
        ),
        Wrong(
            "z fixed",
            lambda succeeded, z: wilson(succeeded.mean(1), succeeded.shape[1], 1.96),
            "z |1.96",
        ),
        Wrong("counts", attack_counts, "count|factor|n"),
        Wrong("percent", attack_percent, "factor|100"),
        Wrong("stacked", attack_stacked, "tuple"),
        Wrong(
            "refusals",
            lambda succeeded, z: wilson(1 - succeeded.mean(1), succeeded.shape[1], z),
            "refus|withstood|succe",
        ),
        Wrong(
            "number of all outcomes",
            lambda succeeded, z: wilson(succeeded.mean(1), succeeded.numel(), z),
            "cells|narrow",
        ),
    ),
    "4.6": (
        Wrong("raw", lambda judge, people: share(judge == people), "chance"),
        Wrong(
            "chance of a half",
            lambda judge, people: kappa(share(judge == people), 0.5),
            "half",
        ),
        Wrong(
            "not scaled",
            lambda judge, people: share(judge == people) - chance_of(judge, people),
            "scale|perfect",
        ),
        Wrong(
            "scaled by chance",
            lambda judge, people: (
                (share(judge == people) - (c := chance_of(judge, people)))
                / c.clamp(min=1e-6)
            ),
            "divide|chance",
        ),
        Wrong(
            "means for shares",
            lambda judge, people: kappa(
                share(judge == people), judge.double().mean() * people.double().mean()
            ),
            "chance|win|tie",
        ),
        Wrong(
            "ties ignored",
            lambda judge, people: kappa(
                share(judge == people),
                share(judge == 1) * share(people == 1)
                + share(judge == 0) * share(people == 0),
            ),
            "tie",
        ),
        Wrong(
            "verdicts of a only",
            lambda judge, people: (
                share((judge == 1) & (people == 1)) / share(people == 1).clamp(min=1e-6)
            ),
        ),
        Wrong(
            "wrong sign",
            lambda judge, people: (
                -kappa(share(judge == people), chance_of(judge, people))
            ),
            "sign|smaller",
        ),
        Wrong(
            "scaled to -1 and 1",
            lambda judge, people: 2 * share(judge == people) - 1,
            "chance|half",
        ),
        Wrong(
            "each pair",
            lambda judge, people: (judge == people).to(judge),
            "shape|number|mean",
        ),
    ),
    "4.7": (
        Wrong(
            "one flip more",
            lambda a_shown_first, b_shown_first: (
                torch.stack([a_shown_first.flip(0), b_shown_first.flip(0)])
                .log_softmax(2)
                .mean(0)
                .softmax(1)[:, 0]
            ),
            "swap|rows|pairs|order",
        ),
        Wrong(
            "no flip",
            lambda a_shown_first, b_shown_first: (
                torch.stack([a_shown_first, b_shown_first])
                .log_softmax(2)
                .mean(0)
                .softmax(1)[:, 0]
            ),
            "swap|A speaks",
        ),
        Wrong(
            "flip of the stack's orders",
            lambda a_shown_first, b_shown_first: (
                torch.stack([a_shown_first, b_shown_first])
                .flip(0)
                .log_softmax(2)
                .mean(0)
                .softmax(1)[:, 0]
            ),
            "swap|A speaks",
        ),
        Wrong(
            "flip after the mean",
            lambda a_shown_first, b_shown_first: (
                torch.stack([a_shown_first, b_shown_first])
                .log_softmax(2)
                .mean(0)
                .softmax(1)
                .flip(1)[:, 0]
            ),
            "turned|swap|both",
        ),
        Wrong(
            "both flipped",
            lambda a_shown_first, b_shown_first: (
                torch.stack([a_shown_first.flip(1), b_shown_first.flip(1)])
                .log_softmax(2)
                .mean(0)
                .softmax(1)[:, 0]
            ),
            "both|turned",
        ),
        Wrong(
            "first order flipped",
            lambda a_shown_first, b_shown_first: (
                torch.stack([a_shown_first.flip(1), b_shown_first])
                .log_softmax(2)
                .mean(0)
                .softmax(1)[:, 0]
            ),
            "b ",
        ),
        Wrong(
            "mean of softmax",
            lambda a_shown_first, b_shown_first: (
                torch.stack([a_shown_first, b_shown_first.flip(1)])
                .softmax(2)
                .mean(0)[:, 0]
            ),
            "probabilit",
        ),
        Wrong(
            "softmax along the orders",
            lambda a_shown_first, b_shown_first: (
                torch.stack([a_shown_first, b_shown_first.flip(1)])
                .log_softmax(0)
                .mean(0)
                .softmax(1)[:, 0]
            ),
        ),
        Wrong(
            "flip in both axes",
            lambda a_shown_first, b_shown_first: (
                torch.stack([a_shown_first, b_shown_first.flip(0, 1)])
                .log_softmax(2)
                .mean(0)
                .softmax(1)[:, 0]
            ),
            "pairs|replies",
        ),
        Wrong(
            "as given",
            lambda a_shown_first, b_shown_first: (
                torch.stack([a_shown_first, b_shown_first.flip(0)])
                .log_softmax(2)
                .mean(0)
                .softmax(1)[:, 0]
            ),
            "still|colleague",
        ),
        Wrong(
            "last column",
            lambda a_shown_first, b_shown_first: (
                torch.stack([a_shown_first, b_shown_first.flip(1)])
                .log_softmax(2)
                .mean(0)
                .softmax(1)[:, 1]
            ),
            "b ",
        ),
    ),
}
