"""Exercises of Lab 1, reward models: right answers and draws of inputs."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from labs_helpers.course.exercises.exercise import (
    Exercise,
    Inputs,
    tensors,
)

Rows = Sequence[Sequence[int]]


def bayes_ceiling(
    gold_a: Float[Tensor, " B"], gold_b: Float[Tensor, " B"], temperature: float
) -> Float[Tensor, ""]:
    """Mean of max(p, 1 - p), p the annotator's probability of preferring A."""
    p = torch.sigmoid((gold_a - gold_b) / temperature)
    return torch.maximum(p, 1 - p).mean()


def ceiling_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Gold scores of pairs of answers, and an annotator's temperature."""
    a, b = rng.normal(size=(2, size))
    b = a if flavour == "equal answers" else b
    low, high = (0.001, 0.004) if flavour == "sure annotator" else (0.2, 2.0)
    return tensors(flavour, gold_a=a, gold_b=b, temperature=rng.uniform(low, high))


def bradley_terry_loss(
    chosen_rewards: Float[Tensor, " B"],
    rejected_rewards: Float[Tensor, " B"],
    margin: Float[Tensor, " B"] | None = None,
    center_weight: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean of -log sigmoid(chosen - rejected - margin), and weighted squared sums."""
    difference = chosen_rewards - rejected_rewards
    if margin is not None:
        difference = difference - margin
    loss = -F.logsigmoid(difference)
    center = (chosen_rewards + rejected_rewards).square()
    return loss.mean() + center_weight * center.mean()


def bradley_terry_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Rewards of pairs, with and without margin and centring."""
    chosen, rejected = rng.normal(size=(2, size)) * (200 if "large" in flavour else 1.5)
    given: Inputs = {"chosen_rewards": chosen, "rejected_rewards": rejected}
    if "margin" in flavour:
        given["margin"] = rng.uniform(0.1, 2.0, size=size)
    if "centred" in flavour:
        given["center_weight"] = rng.uniform(0.05, 0.5)
    return tensors(flavour, **given)


def last_token_rewards(
    values: Float[Tensor, "B T"], lengths: Int[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Values at the last token that is not padding; padding is on the right."""
    rows = torch.arange(len(values), device=values.device)
    return values[rows, lengths - 1]


def last_token_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Outputs for every token, and how many tokens are real."""
    tokens = 1 if flavour == "one token" else int(rng.integers(size, size + 3)) + 1
    values = rng.normal(scale=2.0, size=(size, tokens))
    lengths = rng.integers(1, tokens + 1, size=size)
    if flavour == "no padding":
        lengths[:] = tokens
    if flavour == "padding is NaN":
        lengths = rng.integers(1, max(1, tokens - 1) + 1, size=size)
        values[np.arange(tokens) >= lengths[:, None]] = np.nan
    return tensors(flavour, values=values, lengths=lengths)


def multi_head_loss(
    chosen: Float[Tensor, "B H"],
    rejected: Float[Tensor, "B H"],
    dimension: Int[Tensor, " B"],
) -> Float[Tensor, ""]:
    """Bradley-Terry loss on the head of the dimension that each pair was judged on."""
    rows = torch.arange(len(dimension), device=dimension.device)
    difference = (chosen - rejected)[rows, dimension]
    return -F.logsigmoid(difference).mean()


def multi_head_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Rewards of every head, and the head that each pair was judged on."""
    heads = 1 if flavour == "one head" else int(rng.integers(3, 5))
    scale = 200.0 if "large" in flavour else 1.5
    chosen, rejected = rng.normal(scale=scale, size=(2, size, heads))
    dimension = rng.integers(heads, size=size)
    return tensors(flavour, chosen=chosen, rejected=rejected, dimension=dimension)


def probability_gap(
    margins: Float[Tensor, " B"],
    temperature: float,
    known_probabilities: Float[Tensor, " B"],
) -> Float[Tensor, ""]:
    """Mean squared gap E[(p_hat - p)²] with p_hat = sigmoid(margins / temperature)."""
    predicted = torch.sigmoid(margins / temperature)
    return (predicted - known_probabilities).square().mean()


def gap_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Differences of rewards, a fitted temperature, and the true probabilities."""
    return tensors(
        flavour,
        margins=rng.normal(scale=200.0 if "large" in flavour else 2.0, size=size),
        temperature=rng.choice([rng.uniform(0.3, 0.7), rng.uniform(1.5, 3)]),
        known_probabilities=rng.uniform(0.05, 0.95, size=size),
    )


def best_of_n(
    proxy: Float[np.ndarray, "prompts N"], gold: Float[np.ndarray, "prompts N"], n: int
) -> float:
    """Mean gold of the answer that the proxy likes best among each prompt's first n."""
    best = proxy[:, :n].argmax(axis=1)
    return float(gold[np.arange(len(gold)), best].mean())


def best_of_n_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Rewards by a proxy and in truth of N answers to each prompt."""
    samples = int(rng.integers(size + 2, size + 6))
    dtype = np.float32 if flavour == "float32" else np.float64
    proxy = rng.normal(size=(size, samples)).astype(dtype)
    shift = -50.0 if flavour == "all rewards negative" else 0.0
    scale = 1e6 if flavour == "large rewards" else 1.0
    n = {"n = 1": 1, "n = N": samples}.get(flavour) or int(rng.integers(2, samples))
    return {
        "proxy": ((proxy + shift) * scale).astype(dtype),
        "gold": rng.normal(size=(size, samples)).astype(dtype),
        "n": n,
    }


def pair_batch(
    chosen: Rows, rejected: Rows, heads: Int[Tensor, " B"], pad: int
) -> tuple[Int[Tensor, "R T"], Int[Tensor, " R"], Int[Tensor, " B"]]:
    """Pad B pairs of token lists on the right, pairs with the most tokens first.

    Row j holds the chosen answer of a pair, row B + j its rejected one, and head j what
    it was judged on. Gives tokens (2B, T), lengths (2B,), heads (B,).
    """
    total = [len(c) + len(r) for c, r in zip(chosen, rejected, strict=True)]
    order = sorted(range(len(total)), key=lambda i: -total[i])
    rows = [chosen[i] for i in order] + [rejected[i] for i in order]
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.full((len(rows), int(lengths.max())), pad)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    return tokens, lengths, heads[order]


def pair_batch_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Pairs of token lists, all pairs of different length together."""
    size += 1  # one pair cannot be put in a wrong order
    pad = 0 if flavour == "plain" else 2
    chosen, rejected = [], []
    for total in rng.permutation(np.arange(2, 2 + size) + int(rng.integers(1, 4))):
        cut = int(rng.integers(1, total))
        tokens = rng.integers(3, 100, size=total).tolist()
        if flavour == "padding is the end token":
            tokens[cut - 1] = tokens[-1] = pad
        chosen.append(tokens[:cut])
        rejected.append(tokens[cut:])
    heads = rng.integers(4, size=size)
    return tensors(flavour, chosen=chosen, rejected=rejected, heads=heads, pad=pad)


def designed_reward(
    counts: Float[Tensor, "B K"],
    caps: Float[Tensor, " K"],
    weights: Float[Tensor, " K"],
    broken: Float[Tensor, "B M"],
) -> Float[Tensor, " B"]:
    """Weighted mean of what each count reaches of its cap; 0 where a rule is broken."""
    reached = torch.minimum(counts, caps) / caps
    worth = reached @ weights / weights.sum()
    return worth * (broken == 0).all(dim=1)


def designed_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """What is counted in answers, from where on it no longer pays, and broken rules."""
    kinds, rules = int(rng.integers(2, 5)), int(rng.integers(2, 4))
    if flavour == "one count, one rule":
        kinds = rules = 1
    caps = rng.integers(2, 5, size=kinds).astype(float)
    least = 5 if flavour == "much of everything" else 0
    counts = rng.integers(least, 9, size=(size, kinds)).astype(float)
    broken = rng.integers(1, 4, size=(size, rules)) * (rng.random((size, rules)) < 0.3)
    if flavour in ("nothing broken", "much of everything"):
        broken[:] = 0
    weights = rng.uniform(0.5, 3.0, size=kinds)
    drawn = {"counts": counts, "caps": caps, "weights": weights}
    return tensors(flavour, **drawn, broken=broken.astype(float))


EXERCISES = (
    Exercise(
        "1.1",
        "The Bayes ceiling",
        bayes_ceiling,
        ceiling_inputs,
        "plain; float64; equal answers; sure annotator",
        (2, 10, 2),
    ),
    Exercise(
        "1.2",
        "The Bradley-Terry loss",
        bradley_terry_loss,
        bradley_terry_inputs,
        "plain; float64; large rewards; with a margin; centred; with a margin, centred",
        (2, 15, 3),
        gradients=("chosen_rewards", "rejected_rewards"),
    ),
    Exercise(
        "1.3",
        "The reward of the last token",
        last_token_rewards,
        last_token_inputs,
        "plain; float64; no padding; padding is NaN; one token",
        (2, 10, 2),
        gradients=("values",),
    ),
    Exercise(
        "1.4",
        "A loss for many heads",
        multi_head_loss,
        multi_head_inputs,
        "plain; float64; large rewards; one head",
        (3, 15, 3),
        gradients=("chosen", "rejected"),
    ),
    Exercise(
        "1.5",
        "Calibration against known probabilities",
        probability_gap,
        gap_inputs,
        "plain; float64; large margins",
        (2, 10, 2),
    ),
    Exercise(
        "1.6",
        "Best of n, judged in truth",
        best_of_n,
        best_of_n_inputs,
        "plain; float32; n = 1; n = N; all rewards negative; large rewards",
        (2, 10, 2),
    ),
    Exercise(
        "1.7",
        "A silent bug in the batch",
        pair_batch,
        pair_batch_inputs,
        "plain; another padding token; padding is the end token",
        (3, 20, 3),
    ),
    Exercise(
        "1.8",
        "A reward designed",
        designed_reward,
        designed_inputs,
        "plain; float64; nothing broken; much of everything; one count, one rule",
        (2, 15, 3),
    ),
)
