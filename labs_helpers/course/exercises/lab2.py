"""Exercises of Lab 2, direct preferences: right answers and draws of inputs."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labs_helpers.course.exercises.exercise import (
    Exercise,
    Inputs,
    draw_beta,
    logprobs,
    pair_inputs,
    tensors,
)
from labs_helpers.losses import sequence_logprobs


def optimal_policy(
    reference: Float[Tensor, " K"], rewards: Float[Tensor, " K"], beta: float
) -> Float[Tensor, " K"]:
    """Argmax of E[reward] - beta KL(policy || reference) over K answers.

    Proportional to reference * exp(reward / beta) (arXiv 2305.18290, eq. 4).
    """
    total = reference.sum().item()
    if abs(total - 1) > 1e-3:
        raise ValueError(f"probabilities add up to 1; the reference's to {total:g}")
    scores = reference.log() + rewards / beta
    return torch.softmax(scores, dim=0)


def optimal_policy_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Probabilities of K answers under the reference, their rewards, a price of KL.

    A lone answer has all the probability whatever anybody does with it.
    """
    rewards, weights = rng.normal(size=(2, size))
    reference = np.exp(weights) / np.exp(weights).sum()
    beta = rng.choice([rng.uniform(0.3, 0.7), rng.uniform(1.5, 3)])
    if flavour == "large rewards, float64":
        rewards = rewards * 2000
    if flavour == "rewards far from 0, float64":
        rewards = rewards + 3000
    if flavour.startswith("an answer that the reference never gives") and size > 1:
        reference = np.append(reference[1:] / (1 - reference[0]), 0.0)
        rewards[-1] = 200
        order = rng.permutation(size)
        reference, rewards = reference[order], rewards[order]
    return tensors(flavour, reference=reference, rewards=rewards, beta=beta)


def answer_logprob(
    logits: Float[Tensor, "B T V"],
    tokens: Int[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
) -> Float[Tensor, " B"]:
    """Sum of the log-probs of the tokens that count; aligned logits."""
    logits = logits.masked_fill(~mask[:, :, None], 0.0)
    tokens = tokens.masked_fill(~mask, 0)
    logprobs = logits.log_softmax(2).gather(2, tokens[:, :, None])[:, :, 0]
    return (logprobs * mask).sum(1)


def answer_logprob_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Aligned logits, the tokens that they predict, and which tokens count.

    Large logits are of float64: float32 would leave four digits of a gradient.
    """
    width = int(rng.integers(size, size + 3)) + 3
    vocabulary = width + 3  # more than tokens, or a wrong axis goes unnoticed
    scale = 800.0 if flavour.startswith("large logits") else 1.5
    logits = rng.normal(scale=scale, size=(size, width, vocabulary))
    tokens = rng.integers(0, vocabulary, size=(size, width))
    mask = np.ones((size, width), bool)
    if flavour != "everything counts":
        begin = rng.integers(0, width - 1, size=(size, 1))
        end = rng.integers(begin + 2, width + 1)
        if size == 1:
            begin, end = np.array([[1]]), np.array([[width - 1]])
        columns = np.arange(width)
        mask = (columns >= begin) & (columns < end)
    if flavour == "masked logits are NaN":
        logits[~mask] = np.nan
    if flavour == "masked tokens are -100":
        tokens[~mask] = -100
    return tensors(flavour, logits=logits, tokens=tokens, mask=mask)


def dpo_loss(
    policy_chosen: Float[Tensor, " B"],
    policy_rejected: Float[Tensor, " B"],
    reference_chosen: Float[Tensor, " B"],
    reference_rejected: Float[Tensor, " B"],
    beta: float,
) -> Float[Tensor, ""]:
    """Mean of -log sigmoid(beta * difference of the log-ratios)."""
    chosen = policy_chosen - reference_chosen
    rejected = policy_rejected - reference_rejected
    return -F.logsigmoid(beta * (chosen - rejected)).mean()


def ipo_loss(
    policy_chosen: Float[Tensor, " B"],
    policy_rejected: Float[Tensor, " B"],
    reference_chosen: Float[Tensor, " B"],
    reference_rejected: Float[Tensor, " B"],
    beta: float,
) -> Float[Tensor, ""]:
    """Mean of (h - 1 / (2 beta))², h the difference of the log-ratios."""
    chosen = policy_chosen - reference_chosen
    rejected = policy_rejected - reference_rejected
    return (chosen - rejected - 1 / (2 * beta)).square().mean()


def kto_loss(
    policy: Float[Tensor, " B"],
    reference: Float[Tensor, " B"],
    desirable: Bool[Tensor, " B"],
    kl: Float[Tensor, ""],
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Float[Tensor, ""]:
    """Mean of weight * (1 - sigmoid(±beta (log-ratio - kl))), kl being a constant."""
    ratio = policy - reference
    gain = beta * (ratio - kl.detach())
    signed = torch.where(desirable, gain, -gain)
    weight = torch.where(desirable, desirable_weight, undesirable_weight).to(gain.dtype)
    return (weight * torch.sigmoid(-signed)).mean()


def kto_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of single answers, what people said of them, KL, beta and weights."""
    large = flavour == "large differences"
    around, scale = (-9000.0, 3000.0) if large else (-8.0, 2.0)
    policy, reference = logprobs(rng, 2, size, around=around, scale=scale)
    if flavour == "policy is the reference":
        reference = policy
    desirable = rng.random(size) < 0.5
    if size > 1:
        desirable[:2] = True, False
    if flavour.startswith("only"):
        desirable[:] = flavour == "only desirable"
    return tensors(
        flavour,
        policy=policy,
        reference=reference,
        desirable=desirable,
        kl=np.asarray(abs(logprobs(rng, around=1.5, scale=0.4))),
        beta=draw_beta(rng),
        desirable_weight=rng.uniform(1.1, 2),
        undesirable_weight=rng.uniform(0.4, 0.9),
    )


def slic_loss(
    policy_chosen: Float[Tensor, " B"],
    policy_rejected: Float[Tensor, " B"],
    target_logprobs: Float[Tensor, " N"],
    delta: float,
    weight: float,
) -> Float[Tensor, ""]:
    """Mean of max(0, delta - chosen + rejected), less weight * mean(target)."""
    short = delta - policy_chosen + policy_rejected
    hinge = F.relu(short)
    return hinge.mean() - weight * target_logprobs.mean()


def slic_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of pairs and of answers to be kept likely, a margin, a weight."""
    chosen, rejected = logprobs(rng, 2, size)
    if flavour == "all pairs far enough apart":
        chosen = rejected + 9 + np.abs(logprobs(rng, size, around=3))
    targets = size if flavour == "as many targets as pairs" else size + 2
    target_logprobs = logprobs(rng, targets)
    delta = rng.choice([rng.integers(6, 13), rng.integers(20, 60)]) / 16
    return tensors(
        flavour,
        policy_chosen=chosen,
        policy_rejected=rejected,
        target_logprobs=target_logprobs,
        delta=delta + 1 / 32,  # off the grid of the log-probs: no pair at the bend
        weight=rng.choice([rng.uniform(0.2, 0.7), rng.uniform(1.5, 2)]),
    )


def judged_in_both_orders(
    first: Float[Tensor, " N"], second: Float[Tensor, " N"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, ""]]:
    """Outcomes for a, where both orders favour it 1, b 0, else 1/2; the judge's bias.

    Given are the probabilities of a where a is shown first, and where it is second. The
    bias is what being shown first adds to the probability, on average.
    """
    won = (first > 0.5) & (second > 0.5)
    lost = (first < 0.5) & (second < 0.5)
    outcomes = 0.5 + 0.5 * (won.to(first.dtype) - lost.to(first.dtype))
    bias = first.mean() - second.mean()
    return outcomes, bias


def both_orders_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Probabilities of answer a in both orders."""
    count = 3 * size - 2  # enough for every kind of pair
    first, second = rng.uniform(0.02, 0.98, size=(2, count))
    if flavour == "undecided judge":
        first[rng.random(count) < 0.4] = 0.5
        second[rng.random(count) < 0.4] = 0.5
        if size == 1:
            second[:] = 0.5
    if flavour == "judge that likes what comes first":
        first, second = 0.5 + first / 2, second / 2
    if flavour == "judge that likes what comes second":
        first, second = first / 2, 0.5 + second / 2
    if flavour == "sure judge":
        first, second = np.round(first), np.round(second)
    return tensors(flavour, first=first, second=second)


def pair_logprobs(
    logits: Float[Tensor, "B T V"],
    tokens: Int[Tensor, "B T"],
    prompt_lengths: Int[Tensor, " B"],
    lengths: Int[Tensor, " B"],
) -> Float[Tensor, " B"]:
    """Log-prob of each answer, from the model's output over prompt and answer.

    Logits at t predict the token at t + 1; lengths count prompt, answer and end token.
    """
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    answer = (positions >= prompt_lengths[:, None]) & (positions < lengths[:, None])
    return sequence_logprobs(logits[:, :-1], tokens[:, 1:], answer[:, 1:])


def pair_logprobs_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """A model's output over padded rows of prompt and answer."""
    prompt_lengths, answers = (
        rng.integers(1, 5, size=size),
        rng.integers(3, 7, size=size),
    )
    if flavour == "nothing but the end token":
        answers[:] = 1
    if flavour == "no padding":
        answers = 9 - prompt_lengths
    lengths = prompt_lengths + answers
    width = int(lengths.max()) + (0 if flavour == "no padding" else 3)
    vocabulary = 11
    tokens = rng.integers(2, vocabulary, size=(size, width))
    padding = np.arange(width) >= lengths[:, None]
    tokens[padding] = 1 if flavour == "padding is the end token" else 0
    tokens[np.arange(size), lengths - 1] = 1
    logits = rng.normal(size=(size, width, vocabulary))
    if flavour == "padding is NaN":
        logits[padding] = np.nan
    return tensors(
        flavour,
        logits=logits,
        tokens=tokens,
        prompt_lengths=prompt_lengths,
        lengths=lengths,
    )


def alignment_tax(
    before: Float[Tensor, "P n"], after: Float[Tensor, "P n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """How much the share of right answers fell, and the standard error of that.

    Given is 1 for each right answer, else 0: n answers to each of P prompts. Prompts
    are independent, answers to one prompt are not.
    """
    fallen = before.mean(dim=1) - after.mean(dim=1)
    fall = fallen.mean()
    error = fallen.std() / len(fallen) ** 0.5
    return fall, error


def tax_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Answers to the same prompts before and after, some prompts easy, some hard."""
    prompts, answers = size + 1, 2 + size
    if flavour == "one answer to each prompt":
        answers = 1
    easy = rng.uniform(0.1, 0.9, size=(prompts, 1))
    before = rng.random((prompts, answers)) < easy + 0.2
    after = rng.random((prompts, answers)) < easy - 0.2
    before[0], after[0] = True, False  # something has changed, and not for all alike
    after[1] = before[1]
    if flavour == "it rose":
        before, after = after, before
    if flavour == "nothing changed":
        after = before
    return tensors(flavour, before=before * 1.0, after=after * 1.0)


EXERCISES = (
    Exercise(
        "2.1",
        "The optimum of reward minus KL",
        optimal_policy,
        optimal_policy_inputs,
        "plain; float64; large rewards, float64; rewards far from 0, float64; "
        "an answer that the reference never gives, float64",
        (2, 10, 2),
    ),
    Exercise(
        "2.2",
        "The log-probability of an answer",
        answer_logprob,
        answer_logprob_inputs,
        "plain; float64; everything counts; large logits, float64; masked logits are "
        "NaN; masked tokens are -100",
        (3, 20, 3),
        gradients=("logits",),
    ),
    Exercise(
        "2.3",
        "The DPO loss",
        dpo_loss,
        pair_inputs,
        "plain; float64; policy is the reference; long answers; large differences",
        (3, 20, 4),
        gradients=("policy_chosen", "policy_rejected"),
    ),
    Exercise(
        "2.4",
        "The IPO loss",
        ipo_loss,
        pair_inputs,
        "plain; float64; policy is the reference; long answers",
        (2, 10, 2),
        gradients=("policy_chosen", "policy_rejected"),
    ),
    Exercise(
        "2.5",
        "The KTO loss",
        kto_loss,
        kto_inputs,
        "plain; float64; policy is the reference; only desirable; only undesirable; "
        "large differences",
        (4, 20, 4),
        gradients=("policy", "kl"),
    ),
    Exercise(
        "2.6",
        "The SLiC loss",
        slic_loss,
        slic_inputs,
        "plain; float64; as many targets as pairs; all pairs far enough apart",
        (2, 10, 2),
        gradients=("policy_chosen", "policy_rejected", "target_logprobs"),
    ),
    Exercise(
        "2.7",
        "A judge asked in both orders",
        judged_in_both_orders,
        both_orders_inputs,
        "plain; float64; judge that likes what comes first; judge that likes what "
        "comes second; sure judge; undecided judge",
        (2, 10, 2),
    ),
    Exercise(
        "2.8",
        "A silent bug in the mask",
        pair_logprobs,
        pair_logprobs_inputs,
        "plain; float64; no padding; nothing but the end token; padding is the end "
        "token; padding is NaN",
        (3, 20, 3),
        gradients=("logits",),
    ),
    Exercise(
        "2.9",
        "The alignment tax and its standard error",
        alignment_tax,
        tax_inputs,
        "plain; float64; one answer to each prompt; it rose; nothing changed",
        (3, 15, 3),
    ),
)
