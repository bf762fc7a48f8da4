"""Objectives as pure functions of tensors.

B sequences, T response tokens, V tokens in the vocabulary; a mask is 1 where a
response token counts, the end-of-sequence token included. A loss is the mean over what
counts. What is masked matters neither to the value nor to the gradient, not even a NaN
there. Knows nothing of models, tokenizers or data. The losses of the DPO family stand
in `preference_losses`; every name of theirs can be imported from here.
"""

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


def _masked_mean(
    x: Float[Tensor, "B T"], counts: Shaped[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean over what counts; 0 where nothing does."""
    return torch.where(counts, x, 0.0).sum() / counts.sum().clamp(min=1)
