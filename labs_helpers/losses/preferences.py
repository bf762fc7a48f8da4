"""Objectives on preferences: of rewards, and of the log-probs of whole answers.

B pairs or answers, a number each. A loss is the mean over them.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor


def bradley_terry_loss(
    chosen_rewards: Float[Tensor, " B"],
    rejected_rewards: Float[Tensor, " B"],
    margin: Float[Tensor, " B"] | None = None,
    center_weight: float = 0.0,
) -> Float[Tensor, ""]:
    """Negative log-likelihood of preferences under Bradley and Terry's model (1952).

    mean(-log sigmoid(chosen - rejected - margin)), the margin as in Llama 2 (arXiv
    2307.09288, eq. 2). Preferences leave the rewards' zero open: centring adds
    center_weight * mean((chosen + rejected)^2) (arXiv 2312.09244, section 2).

    >>> bradley_terry_loss(torch.zeros(3), torch.zeros(3))
    tensor(0.6931)
    """
    difference = chosen_rewards - rejected_rewards
    if margin is not None:
        difference = difference - margin
    loss = -F.logsigmoid(difference).mean()
    if not center_weight:
        return loss
    return loss + center_weight * (chosen_rewards + rejected_rewards).square().mean()


class PreferenceLoss(NamedTuple):
    """A loss, and the rewards beta * log(policy / reference) that the policy implies.

    They are true up to a constant a prompt (arXiv 2305.18290, eq. 5); no gradient.
    """

    loss: Float[Tensor, ""]
    chosen_rewards: Float[Tensor, " B"]
    rejected_rewards: Float[Tensor, " B"]


def dpo_loss(
    policy_chosen: Float[Tensor, " B"],
    policy_rejected: Float[Tensor, " B"],
    reference_chosen: Float[Tensor, " B"],
    reference_rejected: Float[Tensor, " B"],
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> PreferenceLoss:
    """Direct preference optimisation (arXiv 2305.18290, eq. 7).

    mean -log sigmoid(beta h), where h is log(policy / reference) of the chosen answer
    less that of the rejected one. For preferences by sigmoid(reward difference) its
    minimum is the optimum of E[reward] - beta KL: the policy proportional to
    reference * exp(reward / beta).

    Args:
        policy_chosen: log-probs of the answers, summed; so are the other three.
        beta: what a nat of KL costs, in units of reward.
        label_smoothing: the share of labels that are taken to be flipped: conservative
            DPO (Mitchell, "A note on DPO with noisy preferences", 2023).

    A policy that is still its reference knows nothing, which costs ln 2:

    >>> start = torch.tensor([-5.0, -9.0])
    >>> dpo_loss(start, start - 1, start, start - 1).loss
    tensor(0.6931)
    """
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(
            "label_smoothing is the share of flipped labels, at least 0 and below 0.5; "
            f"got {label_smoothing}"
        )
    chosen = beta * (policy_chosen - reference_chosen)
    rejected = beta * (policy_rejected - reference_rejected)
    loss = -F.logsigmoid(chosen - rejected)
    if label_smoothing:
        flipped = -F.logsigmoid(rejected - chosen)
        loss = (1 - label_smoothing) * loss + label_smoothing * flipped
    return PreferenceLoss(loss.mean(), chosen.detach(), rejected.detach())


def soft_dpo_loss(
    policy_a: Float[Tensor, " B"],
    policy_b: Float[Tensor, " B"],
    reference_a: Float[Tensor, " B"],
    reference_b: Float[Tensor, " B"],
    labels: Float[Tensor, " B"],
    beta: float = 0.1,
) -> PreferenceLoss:
    """DPO on labels that are probabilities, as a judge's replies give them.

    mean -p log sigmoid(beta h) - (1 - p) log sigmoid(-beta h), with h as in `dpo_loss`
    and p the label: the cross-entropy, which stops pulling where sigmoid(beta h) is p.
    Labels of 1 make it `dpo_loss` (arXiv 2212.08073 trains its reward model so).

    Args:
        labels: the probability that a is better.

    >>> start, undecided = torch.tensor([-5.0, -9.0]), torch.tensor([0.5, 0.5])
    >>> soft_dpo_loss(start, start - 1, start, start - 1, undecided).loss
    tensor(0.6931)
    """
    a = beta * (policy_a - reference_a)
    b = beta * (policy_b - reference_b)
    loss = -labels * F.logsigmoid(a - b) - (1 - labels) * F.logsigmoid(b - a)
    return PreferenceLoss(loss.mean(), a.detach(), b.detach())


def ipo_loss(
    policy_chosen: Float[Tensor, " B"],
    policy_rejected: Float[Tensor, " B"],
    reference_chosen: Float[Tensor, " B"],
    reference_rejected: Float[Tensor, " B"],
    beta: float = 0.1,
) -> PreferenceLoss:
    """Identity preference optimisation (arXiv 2310.12036, eq. 17).

    mean (h - 1 / (2 beta))^2 with the h of `dpo_loss`, which pushes it up without end
    where nobody ever disagrees; here 1 / (2 beta) nats are enough (beta is the paper's
    tau). h is of summed log-probs, as in the paper; TRL divides them by their lengths.

    A policy that is still its reference pays 1 / (4 beta^2):

    >>> start = torch.tensor([-5.0, -9.0])
    >>> ipo_loss(start, start - 1, start, start - 1, beta=0.1).loss
    tensor(25.)
    """
    chosen = policy_chosen - reference_chosen
    rejected = policy_rejected - reference_rejected
    loss = (chosen - rejected - 1 / (2 * beta)).square().mean()
    return PreferenceLoss(loss, beta * chosen.detach(), beta * rejected.detach())


def slic_loss(
    policy_chosen: Float[Tensor, " B"],
    policy_rejected: Float[Tensor, " B"],
    target_logprobs: Float[Tensor, " N"] | None = None,
    delta: float = 1.0,
    weight: float = 0.0,
) -> Float[Tensor, ""]:
    """Sequence likelihood calibration (arXiv 2305.10425, section 2): no reference.

    mean max(0, delta - chosen + rejected) - weight * mean(target_logprobs): a pair
    ranked by a margin of delta nats trains nothing more, and a supervised term keeps
    the policy on the ground in the reference's stead.

    Args:
        target_logprobs: of what is to stay likely, one number an answer as in the
            paper, or one a token (the usual supervised loss, as in TRL's CPO).

    Equal log-probs pay the margin:

    >>> slic_loss(torch.tensor([-4.0]), torch.tensor([-4.0]), delta=2.0)
    tensor(2.)
    """
    loss = F.relu(delta - policy_chosen + policy_rejected).mean()
    if not weight:
        return loss
    if target_logprobs is None:
        raise ValueError(
            f"weight={weight} needs target_logprobs: the policy's log-probs of the "
            "answers that are to stay likely"
        )
    return loss - weight * target_logprobs.mean()


def mismatched_kl(
    policy: Float[Tensor, " B"], reference: Float[Tensor, " B"]
) -> Float[Tensor, ""]:
    """KTO's point of reference: policy from reference in nats, without gradient.

    max(0, mean log(policy / reference)) over answers that belong to other prompts
    (arXiv 2402.01306, section 4), for there is no time to sample the policy's own.

    >>> mismatched_kl(torch.tensor([-3.0, -4.0]), torch.tensor([-4.0, -5.0]))
    tensor(1.)
    """
    return (policy - reference).mean().clamp(min=0).detach()


def kto_loss(
    policy: Float[Tensor, " B"],
    reference: Float[Tensor, " B"],
    desirable: Shaped[Tensor, " B"],
    kl: Float[Tensor, ""] | float,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Float[Tensor, ""]:
    """Kahneman-Tversky optimisation (arXiv 2402.01306, section 4): answers unpaired.

    mean weight * (1 - sigmoid(±beta (log(policy / reference) - kl))), + for desirable
    answers and - for the others: gains and losses saturate, as people's do, and are
    counted from what an answer is worth on average, beta * kl (the paper's z_0).

    Args:
        policy: log-probs of the answers, summed, as are the reference's.
        desirable: true (or 1) for good answers.
        kl: in nats, at least 0, a constant (`mismatched_kl`).
        beta: how fast gains and losses saturate.
        desirable_weight: times the number of desirable answers, 1 to 4/3 of the same
            product for undesirable ones, says the paper.

    At the start every answer pays half of its weight:

    >>> start, labels = torch.tensor([-5.0, -9.0]), torch.tensor([True, False])
    >>> kto_loss(start, start, labels, kl=0.0)
    tensor(0.5000)
    """
    kl = torch.as_tensor(kl).detach()
    gain = beta * (policy - reference - kl)
    good = desirable.bool()
    value = torch.sigmoid(torch.where(good, gain, -gain))
    weight = torch.where(good, desirable_weight, undesirable_weight)
    return (weight * (1 - value)).mean()
