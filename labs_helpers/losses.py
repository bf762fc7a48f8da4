"""Objectives as pure functions of tensors.

B sequences, T response tokens, V tokens in the vocabulary; a mask is 1 where a
response token counts, the end-of-sequence token included. A loss is the mean over what
counts. What is masked matters neither to the value nor to the gradient, not even a NaN
there.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
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


def sequence_logprobs(
    logits: Float[Tensor, "B T V"],
    tokens: Int[Tensor, "B T"],
    mask: Shaped[Tensor, "B T"],
) -> Float[Tensor, " B"]:
    """Log-probability of each response: the sum over its tokens, not their mean.

    Args:
        logits: Aligned: logits[:, t] predict tokens[:, t]. Of a model's output over a
            whole sequence these are output[:, :-1] for sequence[:, 1:].
        tokens: Where masked, any number (-100, say).

    >>> tokens, mask = torch.tensor([[0, 3]]), torch.ones(1, 2)
    >>> sequence_logprobs(torch.zeros(1, 2, 4), tokens, mask)
    tensor([-2.7726])
    """
    logits, counts = _kept_scores(mask, logits), mask.bool()
    tokens = torch.where(counts, tokens, 0).long()
    chosen = logits.gather(dim=2, index=tokens[:, :, None])[:, :, 0]
    logprobs = chosen - logits.logsumexp(dim=2)
    return torch.where(counts, logprobs, 0.0).sum(dim=1)


def reinforce_loss(
    logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Shaped[Tensor, "B T"],
) -> Float[Tensor, ""]:
    """Policy gradient loss of Williams (1992): mean of -advantage * log-prob per token.

    Its gradient is minus the policy gradient; its value means nothing. Advantages are
    taken as constants.

    >>> reinforce_loss(torch.tensor([[-2.0]]), torch.tensor([[0.5]]), torch.ones(1, 1))
    tensor(1.)
    """
    logprobs, advantages = _kept(mask, logprobs, advantages.detach())
    return _masked_mean(-advantages * logprobs, mask)


class PolicyLoss(NamedTuple):
    """PPO's loss and what tells how far the policy has moved from the one sampled.

    Attributes:
        clip_fraction: share of the tokens whose ratio lies outside 1 -+ clip.
        approx_kl: KL from the old policy to the new, nats per token (k3 estimate).
        ratio: new over old probability of each token, detached; 1 where masked.
    """

    loss: Float[Tensor, ""]
    clip_fraction: Float[Tensor, ""]
    approx_kl: Float[Tensor, ""]
    ratio: Float[Tensor, "B T"]


def ppo_loss(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Shaped[Tensor, "B T"],
    clip: float = 0.2,
) -> PolicyLoss:
    """Clipped surrogate of PPO (arXiv 1707.06347, eq. 7), its mean over the tokens.

    -min(ratio * advantage, clamp(ratio, 1 - clip, 1 + clip) * advantage): what pushes
    a ratio further out than the clip has no gradient. Old log-probs and advantages are
    taken as constants.

    A ratio of 1.5 earns no more than 1.2 where the advantage is 1:

    >>> old, mask = torch.zeros(1, 1), torch.ones(1, 1)
    >>> ppo_loss(torch.full((1, 1), 1.5).log(), old, torch.ones(1, 1), mask).loss
    tensor(-1.2000)
    """
    logprobs, old_logprobs, advantages = _kept(
        mask, logprobs, old_logprobs.detach(), advantages.detach()
    )
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    loss = _masked_mean(-torch.min(ratio * advantages, clipped * advantages), mask)
    with torch.no_grad():
        outside = ((ratio - 1).abs() > clip).to(ratio.dtype)
        clip_fraction = _masked_mean(outside, mask)
        approx_kl = _masked_mean(kl_estimate(old_logprobs, logprobs), mask)
    return PolicyLoss(loss, clip_fraction, approx_kl, ratio.detach())


def value_loss(
    values: Float[Tensor, "B T"],
    old_values: Float[Tensor, "B T"],
    returns: Float[Tensor, "B T"],
    mask: Shaped[Tensor, "B T"],
    clip: float = 0.2,
) -> Float[Tensor, ""]:
    """Half the squared error of the values, which may move by `clip` from the old.

    mean(max((V - R)^2, (clamp(V, V_old - clip, V_old + clip) - R)^2)) / 2, as in
    OpenAI's PPO (arXiv 2005.12729, section 3). Old values and returns are constants.

    >>> one, mask = torch.ones(1, 1), torch.ones(1, 1)
    >>> value_loss(0 * one, 0 * one, 2 * one, mask)
    tensor(2.)
    """
    values, old_values, returns = _kept(
        mask, values, old_values.detach(), returns.detach()
    )
    near = old_values + (values - old_values).clamp(-clip, clip)
    error = torch.max((values - returns).square(), (near - returns).square())
    return _masked_mean(error, mask) / 2


def entropy(
    logits: Float[Tensor, "B T V"], mask: Shaped[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean entropy of the next token's distribution, in nats a token.

    >>> entropy(torch.zeros(1, 1, 4), torch.ones(1, 1))  # ln 4
    tensor(1.3863)
    """
    return _masked_mean(token_entropy(_kept_scores(mask, logits)), mask)


def token_entropy(logits: Float[Tensor, "*tokens V"]) -> Float[Tensor, "*tokens"]:
    """Entropy of the next token's distribution, in nats, token by token."""
    logprobs = logits.log_softmax(dim=-1)
    # An impossible token has p log p = 0, where the product alone would be NaN.
    possible = torch.where(logprobs.isfinite(), logprobs, 0.0)
    return -(logprobs.exp() * possible).sum(dim=-1)


def kl_estimate(
    logprobs: Float[Tensor, "*tokens"],
    reference_logprobs: Float[Tensor, "*tokens"],
    kind: Literal["k1", "k2", "k3"] = "k3",
) -> Float[Tensor, "*tokens"]:
    """Estimate KL(policy || reference), token by token sampled from the policy.

    With d = log policy - log reference (Schulman 2020, "Approximating KL divergence"):
    k1 = d is unbiased, and often negative; k2 = d^2 / 2 is never negative, and biased;
    k3 = exp(-d) - 1 + d is both never negative and unbiased. In nats.

    >>> d = torch.tensor([0.5])
    >>> [kl_estimate(d, 0 * d, kind).item() for kind in ("k1", "k2", "k3")]
    [0.5, 0.125, 0.1065...]
    """
    difference = logprobs - reference_logprobs
    if kind == "k1":
        return difference
    if kind == "k2":
        return difference.square() / 2
    if kind == "k3":
        return torch.expm1(-difference) + difference
    raise ValueError(f"kind is 'k1', 'k2' or 'k3', got {kind!r}")


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


def _kept(mask: Shaped[Tensor, "B T"], *parts: Float[Tensor, "B T"]) -> list[Tensor]:
    """Each part where it counts, elsewhere 0, which has no gradient."""
    return [torch.where(mask.bool(), part, 0.0) for part in parts]


def _kept_scores(
    mask: Shaped[Tensor, "B T"], logits: Float[Tensor, "B T V"]
) -> Float[Tensor, "B T V"]:
    """Vocabulary scores where they count, elsewhere 0; half precision as float32."""
    logits = torch.where(mask.bool()[:, :, None], logits, 0.0)
    return logits.float() if logits.dtype.itemsize == 2 else logits


def _masked_mean(x: Float[Tensor, "B T"], mask: Shaped[Tensor, "B T"]) -> Tensor:
    """Mean over what counts; 0 where nothing does."""
    counts = mask.bool()
    return torch.where(counts, x, 0.0).sum() / counts.sum().clamp(min=1)
