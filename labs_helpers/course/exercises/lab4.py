"""Exercises of Lab 4, Constitutional AI and its evaluation: right answers and draws."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labs_helpers.course.exercises.exercise import (
    Exercise,
    Inputs,
    logprobs,
    pair_inputs,
    tensors,
)

END = 1
NAMES = ("policy_a", "policy_b", "reference_a", "reference_b")


def soft_label(reply_logprobs: Float[Tensor, "N 2"]) -> Float[Tensor, " N"]:
    """Probability that the answer shown first is better, one for each pair.

    Of the log-probs of the replies A (the first is better) and B; a judge can say other
    things too, so a row's probabilities do not add up to 1.
    """
    return reply_logprobs.softmax(dim=1)[:, 0]


def soft_label_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of both replies, A and B.

    Very unlikely ones are of float64: float32 would leave four digits.
    """
    around = -900.0 if "hardly ever" in flavour else -3.0
    drawn = logprobs(rng, size, 2, around=around, scale=1.5).clip(max=-0.75)
    if flavour == "judge that is sure":
        sure, rows = rng.integers(2, size=size), np.arange(size)
        drawn[rows, sure] = -0.0625
        drawn[rows, 1 - sure] -= 60.0
    return tensors(flavour, reply_logprobs=drawn)


def unbiased_label(
    a_first: Float[Tensor, " N"], a_second: Float[Tensor, " N"]
) -> Float[Tensor, " N"]:
    """Probability that a is better, free of what its position adds to the log-odds.

    If the place adds c to the log-odds of what is shown first, then the log-odds of a
    are s + c with a in front and s - c with a behind: their mean is s.
    """
    odds = (torch.logit(a_first) + torch.logit(a_second)) / 2
    return torch.sigmoid(odds)


def position_bias_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Probabilities of a in both orders, with log-odds s + c and s - c."""
    strength = rng.normal(scale=1.5, size=size)
    noise = rng.normal(scale=0.3, size=size)
    bias = rng.normal(scale=1.0, size=size)
    if flavour == "judge that likes what comes first":
        bias = np.abs(bias) + 2.0
    if flavour == "judge that likes what comes second":
        bias = -np.abs(bias) - 2.0
    if flavour == "judge that is sure":
        strength = np.sign(strength) * (6.0 + np.abs(strength))
        bias = bias / 2
    odds = np.stack([strength + bias + noise, strength - bias])
    first, second = 1 / (1 + np.exp(-odds))
    return tensors(flavour, a_first=first, a_second=second)


def sl_cai_batch(
    transcripts: list[list[list[int]]], pad: int
) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Token ids of prompt and last revision, padded on the right, and a mask of it.

    A transcript is a list of turns, each closed by the end token: the prompt, the first
    answer, and for every round critique request, critique, revision request, revision.
    The mask is true at the tokens of the last one.
    """
    pairs = [(turns[0], turns[-1]) for turns in transcripts]
    width = max(len(prompt) + len(revision) for prompt, revision in pairs)
    tokens = torch.full((len(transcripts), width), pad)
    mask = torch.zeros((len(transcripts), width), dtype=torch.bool)
    for row, (prompt, revision) in enumerate(pairs):
        end = len(prompt) + len(revision)
        tokens[row, :end] = torch.tensor(prompt + revision)
        mask[row, len(prompt) : end] = True
    return tokens, mask


def sl_cai_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Transcripts with one round of revision or two."""
    transcripts = []
    for row in range(size):
        rounds = 2 if flavour == "two rounds" else 1
        if flavour == "one round or two":
            rounds = 1 + row % 2
        lengths = rng.integers(1, 5, size=2 + 4 * rounds)
        if flavour == "no padding":
            lengths[:] = 3
        if flavour == "nothing but the end token":
            lengths[-1] = 0
        transcripts.append(
            [[*rng.integers(2, 40, size=n).tolist(), END] for n in lengths]
        )
    pad = END if flavour == "padding is the end token" else 0
    return {"transcripts": transcripts, "pad": pad}


def soft_dpo_loss(
    policy_a: Float[Tensor, " B"],
    policy_b: Float[Tensor, " B"],
    reference_a: Float[Tensor, " B"],
    reference_b: Float[Tensor, " B"],
    labels: Float[Tensor, " B"],
    beta: float,
) -> Float[Tensor, ""]:
    """Mean of -p log sigmoid(beta m) - (1 - p) log sigmoid(-beta m).

    p is the label, the probability that a is better, m the log-ratio of a less that
    of b.
    """
    a, b = policy_a - reference_a, policy_b - reference_b
    margin = beta * (a - b)
    loss = -labels * F.logsigmoid(margin) - (1 - labels) * F.logsigmoid(-margin)
    return loss.mean()


def soft_dpo_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of answers a and b, soft labels on a binary grid, and beta."""
    given = pair_inputs(rng, size, flavour, NAMES)
    beta = given.pop("beta")
    labels = rng.integers(1, 16, size=size) / 16
    labels[labels == 0.5] = 0.625  # one half hides whatever swaps a and b
    if flavour == "undecided labels":
        labels[:] = 0.5
    if flavour == "labels of 0 and 1":
        labels = np.round(labels)
    return given | tensors(flavour, labels=labels, beta=beta)


def attack_success(
    succeeded: Float[Tensor, "A N"], z: float
) -> tuple[Float[Tensor, " A"], Float[Tensor, " A"], Float[Tensor, " A"]]:
    """Success rate of each attack (row), and both ends of Wilson's interval.

    An interval reaches z standard errors.
    """
    n = succeeded.shape[1]
    rate = succeeded.mean(dim=1)
    centre = (rate + z**2 / (2 * n)) / (1 + z**2 / n)
    spread = torch.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    half = z * spread / (1 + z**2 / n)
    return rate, centre - half, centre + half


def attack_success_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Outcomes of attacks on prompts, some of one kind in every row."""
    count = 2 * size + int(rng.integers(5, 12))
    successes = rng.integers(1, count, size=size)  # neither none nor all
    if flavour == "no attack succeeds":
        successes[:] = 0
    if flavour == "every attack succeeds":
        successes[:] = count
    order = np.stack([rng.permutation(count) for _ in successes])
    succeeded = (np.argsort(order) < successes[:, None]).astype(float)
    return tensors(flavour, succeeded=succeeded, z=rng.choice([1.25, 1.5, 2.0, 2.5]))


def agreement_beyond_chance(
    judge: Float[Tensor, " N"], people: Float[Tensor, " N"]
) -> Float[Tensor, ""]:
    """Cohen's kappa: 1 is perfect agreement, 0 what chance alone would give.

    Verdicts are 1 (a is better), 0 (b is), or 0.5 (a tie). By chance two agree whenever
    they happen to give the same verdict, each at their own frequencies.
    """
    agreed = (judge == people).double().mean()
    chance = sum(
        (judge == v).double().mean() * (people == v).double().mean()
        for v in (0.0, 0.5, 1.0)
    )
    return (agreed - chance) / (1 - chance)


def agreement_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Verdicts of both on the same pairs; never a single one on all of them."""
    count = 7 * size - 6
    shares = [0.35, 0.0, 0.65] if flavour == "no ties" else [0.3, 0.2, 0.5]
    people = rng.choice([0.0, 0.5, 1.0], size=count, p=shares)
    alike = rng.random(count) < 0.6
    judge = np.where(alike, people, rng.choice([0.0, 0.5, 1.0], size=count, p=shares))
    if flavour == "a nearly always better":
        people[:], judge[:] = 1.0, 1.0
        people[::5], judge[:: 4 + size] = 0.0, 0.0
    if flavour == "judge that always says the first":
        judge[:] = 1.0
    if flavour == "perfect agreement" and count > 1:
        people[:2] = 0.0, 1.0
        judge = people.copy()
    if flavour == "worse than chance":
        judge = 1 - people
    # One more pair on which they differ keeps chance below certainty.
    if flavour != "perfect agreement" or count == 1:
        people[0], judge[0] = (0.0, 1.0)
    return tensors(flavour, judge=judge, people=people)


def ai_labels(
    a_shown_first: Float[Tensor, "N 2"], b_shown_first: Float[Tensor, "N 2"]
) -> Float[Tensor, " N"]:
    """Probability that a is better, the two orders averaged in log-odds.

    Of the log-probs of the judge's replies A (what is shown first is better) and B.
    """
    both = torch.stack([a_shown_first, b_shown_first.flip(1)])
    return both.log_softmax(dim=2).mean(dim=0).softmax(dim=1)[:, 0]


def ai_labels_inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of the replies A and B, with a or with b shown first.

    Very unlikely ones are of float64: float32 would leave four digits.
    """
    around = -900.0 if "hardly ever" in flavour else -6.0
    first, second = logprobs(rng, 2, size, 2, around=around, scale=1.5)
    if flavour == "judge that always says A":
        first[:, 0] = first[:, 1] + 3.0
        second = first
    if flavour == "judge without a bias":
        second = first[:, ::-1].copy()
    return tensors(flavour, a_shown_first=first, b_shown_first=second)


EXERCISES = (
    Exercise(
        "4.1",
        "A soft label from two replies",
        soft_label,
        soft_label_inputs,
        "plain; float64; judge that is sure; replies that the judge hardly ever "
        "gives, float64",
        (1, 10, 2),
    ),
    Exercise(
        "4.2",
        "Position bias, removed",
        unbiased_label,
        position_bias_inputs,
        "plain; float64; judge that likes what comes first; judge that likes what "
        "comes second; judge that is sure",
        (2, 10, 2),
    ),
    Exercise(
        "4.3",
        "What SL-CAI learns from",
        sl_cai_batch,
        sl_cai_inputs,
        "one round; two rounds; one round or two; no padding; padding is the end "
        "token; nothing but the end token",
        (2, 15, 3),
    ),
    Exercise(
        "4.4",
        "DPO on soft labels",
        soft_dpo_loss,
        soft_dpo_inputs,
        "plain; float64; policy is the reference; undecided labels; labels of 0 and "
        "1; large differences",
        (2, 15, 3),
        gradients=("policy_a", "policy_b"),
    ),
    Exercise(
        "4.5",
        "Attack success and its interval",
        attack_success,
        attack_success_inputs,
        "plain; float64; no attack succeeds; every attack succeeds",
        (2, 15, 3),
    ),
    Exercise(
        "4.6",
        "Agreement beyond chance",
        agreement_beyond_chance,
        agreement_inputs,
        "plain; float64; no ties; a nearly always better; judge that always says the "
        "first; perfect agreement; worse than chance",
        (2, 15, 2),
    ),
    Exercise(
        "4.7",
        "A silent bug in the labels",
        ai_labels,
        ai_labels_inputs,
        "plain; float64; judge without a bias; judge that always says A; replies that"
        " the judge hardly ever gives, float64",
        (3, 20, 3),
    ),
)
