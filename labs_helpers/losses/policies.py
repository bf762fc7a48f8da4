"""Objectives of policies and values, token by token.

B sequences, T response tokens, V tokens in the vocabulary; a mask is 1 where a
response token counts, the end-of-sequence token included. A loss is the mean over what
counts. What is masked matters neither to the value nor to the gradient, not even a NaN
there.
"""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor


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
    """A clipped loss and what tells how far the policy has moved from the one sampled.

    Attributes:
        clip_fraction: share of the tokens whose ratio lies outside the clip.
        approx_kl: KL from the old policy to the new, nats per token (k3 estimate).
        ratio: new over old probability, detached: of each token, 1 where masked; in
            `rloo_loss` of each answer, which is that of all its tokens.
    """

    loss: Float[Tensor, ""]
    clip_fraction: Float[Tensor, ""]
    approx_kl: Float[Tensor, ""]
    ratio: Float[Tensor, "..."]


def ppo_loss(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Shaped[Tensor, "B T"],
    clip: float = 0.2,
    clip_high: float | None = None,
    weights: Float[Tensor, " B"] | None = None,
) -> PolicyLoss:
    """Clipped surrogate of PPO (arXiv 1707.06347, eq. 7), its mean over the tokens.

    -min(ratio * advantage, clamp(ratio, 1 - clip, 1 + clip) * advantage): what pushes
    a ratio further out than the clip has no gradient. Old log-probs and advantages are
    taken as constants. With an answer's advantage at each of its tokens it is GRPO's
    loss (arXiv 2402.03300, eq. 3).

    Args:
        clip_high: the limit above 1, where it is another than below: a larger one lets
            rare tokens grow (DAPO, arXiv 2503.14476, section 3.1).
        weights: of each answer's tokens; `length_weights` has those of a normaliser.

    A ratio of 1.5 earns no more than 1.2 where the advantage is 1:

    >>> old, mask = torch.zeros(1, 1), torch.ones(1, 1)
    >>> ppo_loss(torch.full((1, 1), 1.5).log(), old, torch.ones(1, 1), mask).loss
    tensor(-1.2000)
    """
    logprobs, old_logprobs, advantages = _kept(
        mask, logprobs, old_logprobs.detach(), advantages.detach()
    )
    ratio = (logprobs - old_logprobs).exp()
    costs, outside = _clipped(ratio, advantages, clip, clip_high)
    if weights is not None:
        costs = weights[:, None] * costs
    moved = _masked_mean(kl_estimate(old_logprobs, logprobs.detach()), mask)
    return PolicyLoss(
        _masked_mean(costs, mask), _masked_mean(outside, mask), moved, ratio.detach()
    )


def rloo_loss(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, " B"],
    mask: Shaped[Tensor, "B T"],
    clip: float = 0.2,
    clip_high: float | None = None,
    weights: Float[Tensor, " B"] | None = None,
) -> PolicyLoss:
    """Clipped surrogate of whole answers, each of them one action; a token's share.

    The ratio is that of an answer's probabilities (RLOO, arXiv 2402.14740). The sum
    over the answers is divided by their tokens, so that a learning rate means what it
    means to other losses: times the mean length it is the mean over the answers.

    Args:
        clip_high: as in `ppo_loss`; so are the weights.

    Two tokens of ratio 1.05 are an answer of ratio 1.1025, half of it for each:

    >>> now, old = torch.full((1, 2), 1.05).log(), torch.zeros(1, 2)
    >>> rloo_loss(now, old, torch.ones(1), torch.ones(1, 2)).loss
    tensor(-0.5512)
    """
    logprobs, old_logprobs = _kept(mask, logprobs, old_logprobs.detach())
    ratio = (logprobs - old_logprobs).sum(dim=1).exp()
    costs, outside = _clipped(ratio, advantages.detach(), clip, clip_high)
    if weights is not None:
        costs = weights * costs
    tokens = mask.bool().sum().clamp(min=1)
    clipped = _masked_mean(outside[:, None].expand(mask.shape), mask)
    moved = _masked_mean(kl_estimate(old_logprobs, logprobs.detach()), mask)
    return PolicyLoss(costs.sum() / tokens, clipped, moved, ratio.detach())


Normaliser = Literal["token", "sequence", "constant"]


@torch.no_grad()
def length_weights(
    mask: Shaped[Tensor, "B T"],
    normaliser: Normaliser,
    longest: int,
    mean_length: Float[Tensor, ""] | None = None,
) -> Float[Tensor, " B"]:
    """Weights of the answers by which a mean over tokens has another normaliser.

    token: 1, all tokens count alike (DAPO, arXiv 2503.14476, section 3.3). sequence:
    mean length / length, all answers count alike, and a token of a long one less (GRPO,
    arXiv 2402.03300, eq. 3). constant: mean length / longest, the answers' sums over
    what does not depend on them (Dr. GRPO, arXiv 2503.20783, section 3.2).

    Args:
        mean_length: of the answers of a whole step, where these are a part of it.

    >>> mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    >>> length_weights(mask, "sequence", 4), length_weights(mask, "constant", 4)
    (tensor([0.6667, 2.0000]), tensor([0.5000, 0.5000]))
    """
    lengths = mask.bool().sum(dim=1).float()
    if mean_length is None:
        mean_length = lengths.mean()
    if normaliser == "token":
        return torch.ones_like(lengths)
    if normaliser == "sequence":
        return mean_length / lengths.clamp(min=1)
    if normaliser == "constant":
        return mean_length / torch.full_like(lengths, longest)
    raise ValueError(
        f"normaliser is 'token', 'sequence' or 'constant', got {normaliser!r}"
    )


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


def _kept(mask: Shaped[Tensor, "B T"], *parts: Float[Tensor, "B T"]) -> list[Tensor]:
    """Each part where it counts, elsewhere 0, which has no gradient."""
    return [torch.where(mask.bool(), part, 0.0) for part in parts]


def _kept_scores(
    mask: Shaped[Tensor, "B T"], logits: Float[Tensor, "B T V"]
) -> Float[Tensor, "B T V"]:
    """Vocabulary scores where they count, elsewhere 0; half precision as float32."""
    logits = torch.where(mask.bool()[:, :, None], logits, 0.0)
    return logits.float() if logits.dtype.itemsize == 2 else logits


def _clipped(
    ratio: Float[Tensor, "*B"],
    advantages: Float[Tensor, "*B"],
    clip: float,
    clip_high: float | None,
) -> tuple[Float[Tensor, "*B"], Float[Tensor, "*B"]]:
    """PPO's cost of each ratio, and 1 for those outside the clip."""
    high = clip if clip_high is None else clip_high
    clipped = ratio.clamp(1 - clip, 1 + high)
    moved = ratio.detach() - 1
    outside = ((moved > high) | (moved < -clip)).to(ratio.dtype)
    return -torch.min(ratio * advantages, clipped * advantages), outside


def _masked_mean(x: Float[Tensor, "B T"], mask: Shaped[Tensor, "B T"]) -> Tensor:
    """Mean over what counts; 0 where nothing does."""
    counts = mask.bool()
    return torch.where(counts, x, 0.0).sum() / counts.sum().clamp(min=1)
