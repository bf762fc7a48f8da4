"""Objectives as pure functions of tensors.

B sequences, T response tokens, V tokens in the vocabulary; a mask is 1 where a
response token counts, the end-of-sequence token included. A loss is the mean over what
counts. What is masked matters neither to the value nor to the gradient, not even a NaN
there. Knows nothing of models, tokenizers or data. The losses of the DPO family stand
in `preference_losses`; every name of theirs can be imported from here.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from labs_helpers.preference_losses import (
    PreferenceLoss,
    dpo_loss,
    ipo_loss,
    kto_loss,
    mismatched_kl,
    slic_loss,
    soft_dpo_loss,
)

__all__ = [
    "PreferenceLoss",
    "bradley_terry_loss",
    "dpo_loss",
    "ipo_loss",
    "kto_loss",
    "mismatched_kl",
    "reinforce_loss",
    "sequence_logprobs",
    "slic_loss",
    "soft_dpo_loss",
]


def bradley_terry_loss(
    chosen_rewards: Float[Tensor, " B"],
    rejected_rewards: Float[Tensor, " B"],
    margin: Float[Tensor, " B"] | None = None,
    center_weight: float = 0.0,
) -> Float[Tensor, ""]:
    """Negative log-likelihood of preferences under Bradley and Terry's model (1952).

    mean(-log sigmoid(chosen - rejected - margin)), where P(chosen is preferred) =
    sigmoid(chosen - rejected); the margin as in Llama 2 (arXiv 2307.09288, eq. 2).
    Preferences leave the rewards' zero open: centring adds
    center_weight * mean((chosen + rejected)^2) (arXiv 2312.09244, section 2).

    Equal rewards know nothing, which costs ln 2:

    >>> bradley_terry_loss(torch.zeros(3), torch.zeros(3))
    tensor(0.6931)
    """
    difference = chosen_rewards - rejected_rewards
    if margin is not None:
        difference = difference - margin
    loss = -F.logsigmoid(difference).mean()
    if center_weight:
        center = (chosen_rewards + rejected_rewards).square().mean()
        loss = loss + center_weight * center
    return loss


def sequence_logprobs(
    logits: Float[Tensor, "B T V"],
    tokens: Int[Tensor, "B T"],
    mask: Shaped[Tensor, "B T"],
) -> Float[Tensor, " B"]:
    """Log-probability of each response: the sum over its tokens, not their mean.

    Args:
        logits: Already aligned: logits[:, t] predict tokens[:, t]. Of a model's output
            over a whole sequence these are output[:, :-1] for sequence[:, 1:].
        tokens: What was answered; where masked, any number (-100, say).
        mask: 1 at response tokens.

    Two tokens out of four equally likely ones: 2 ln 1/4.

    >>> tokens, mask = torch.tensor([[0, 3]]), torch.ones(1, 2)
    >>> sequence_logprobs(torch.zeros(1, 2, 4), tokens, mask)
    tensor([-2.7726])
    """
    counts = mask.bool()
    logits = torch.where(counts[:, :, None], logits, 0.0)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
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
    counts = mask.bool()
    return _masked_mean(
        -torch.where(counts, advantages.detach(), 0.0)
        * torch.where(counts, logprobs, 0.0),
        counts,
    )


class PolicyLoss(NamedTuple):
    """PPO's loss and what tells how far the policy has moved from the one sampled.

    Attributes:
        loss: to minimise.
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
    counts = mask.bool()
    log_ratio = torch.where(counts, logprobs, 0.0) - torch.where(
        counts, old_logprobs.detach(), 0.0
    )
    advantages = torch.where(counts, advantages.detach(), 0.0)
    ratio = log_ratio.exp()
    surrogate = torch.min(
        ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    )
    with torch.no_grad():
        outside = ((ratio - 1).abs() > clip).to(ratio.dtype)
        clip_fraction = _masked_mean(outside, counts)
        approx_kl = _masked_mean(ratio - 1 - log_ratio, counts)
    loss = _masked_mean(-surrogate, counts)
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
    counts = mask.bool()
    values = torch.where(counts, values, 0.0)
    old_values = torch.where(counts, old_values.detach(), 0.0)
    returns = torch.where(counts, returns.detach(), 0.0)
    near = old_values + (values - old_values).clamp(-clip, clip)
    error = torch.max((values - returns).square(), (near - returns).square())
    return _masked_mean(error, counts) / 2


def entropy(
    logits: Float[Tensor, "B T V"], mask: Shaped[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean entropy of the next token's distribution, in nats a token.

    >>> entropy(torch.zeros(1, 1, 4), torch.ones(1, 1))  # ln 4
    tensor(1.3863)
    """
    counts = mask.bool()
    logits = torch.where(counts[:, :, None], logits, 0.0)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    logprobs = logits.log_softmax(dim=2)
    # An impossible token has p log p = 0, where the product alone would be NaN.
    possible = torch.where(logprobs.isfinite(), logprobs, 0.0)
    return _masked_mean(-(logprobs.exp() * possible).sum(dim=2), counts)


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
        return (-difference).exp() - 1 + difference
    raise ValueError(f"kind is 'k1', 'k2' or 'k3', got {kind!r}")


def _masked_mean(
    x: Float[Tensor, "B T"], counts: Shaped[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean over what counts; 0 where nothing does."""
    return torch.where(counts, x, 0.0).sum() / counts.sum().clamp(min=1)
