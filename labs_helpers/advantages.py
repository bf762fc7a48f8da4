"""Who deserves the reward: shaped rewards, advantages, returns, whitening.

B sequences, T response tokens; a mask is 1 where a response token counts, the end
token included. All functions are pure and without gradient; what is masked never
matters, not even a NaN there, and reads 0 in what they return. Knows nothing of models.
"""

from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


@torch.no_grad()
def shape_rewards(
    scores: Float[Tensor, " B"],
    logprobs: Float[Tensor, "B T"],
    reference_logprobs: Float[Tensor, "B T"],
    mask: Shaped[Tensor, "B T"],
    kl_weight: float,
) -> Float[Tensor, "B T"]:
    """Reward of every token: a KL penalty each, and the score at the answer's last.

    -kl_weight * (log policy - log reference) (arXiv 2203.02155, eq. 2, token by
    token), so that a sequence's sum is its score less kl_weight times the estimated KL.

    >>> scores, mask = torch.tensor([1.0]), torch.tensor([[1, 1, 0]])
    >>> policy, reference = torch.full((1, 3), -1.0), torch.full((1, 3), -2.0)
    >>> shape_rewards(scores, policy, reference, mask, kl_weight=0.1)
    tensor([[-0.1000,  0.9000,  0.0000]])
    """
    counts = mask.bool()
    rewards = torch.where(counts, -kl_weight * (logprobs - reference_logprobs), 0.0)
    is_last = counts & (counts.flip(1).cumsum(dim=1).flip(1) == 1)
    return rewards + torch.where(is_last, scores[:, None], 0.0)


@torch.no_grad()
def gae(
    rewards: Float[Tensor, "B T"],
    values: Float[Tensor, "B T"],
    mask: Shaped[Tensor, "B T"],
    gamma: float = 1.0,
    lam: float = 0.95,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Generalised advantage estimates, and the returns to fit values to.

    A_t = sum_k (gamma lam)^k delta_{t+k}, delta_t = r_t + gamma V_{t+1} - V_t (arXiv
    1506.02438, eq. 16); returns are A + V. Nothing follows an answer's last token. A
    masked token between two that count is skipped as if it were not there.

    lam = 1 is the return less the value, lam = 0 the error of one step:

    >>> rewards, values = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.25]])
    >>> gae(rewards, values, torch.ones(1, 2), lam=1.0)
    (tensor([[0.5000, 0.7500]]), tensor([[1., 1.]]))
    >>> gae(rewards, values, torch.ones(1, 2), lam=0.0)[0]
    tensor([[-0.2500,  0.7500]])
    """
    counts = mask.bool()
    rewards = torch.where(counts, rewards, 0.0)
    values = torch.where(counts, values, 0.0)
    advantages = torch.zeros_like(values)
    advantage = next_value = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        here = counts[:, t]
        advantage = torch.where(here, delta + gamma * lam * advantage, advantage)
        next_value = torch.where(here, values[:, t], next_value)
        advantages[:, t] = torch.where(here, advantage, 0.0)
    return advantages, advantages + values


@torch.no_grad()
def group_advantages(
    scores: Float[Tensor, " B"],
    answers: int,
    baseline: Literal["leave_one_out", "mean"] = "leave_one_out",
    scale: bool = False,
) -> Float[Tensor, " B"]:
    """How much better each answer is than the others to its prompt.

    leave_one_out takes off the mean of the others, on which an answer has no influence,
    so that the gradient stays unbiased (RLOO, arXiv 2402.14740). mean takes off that of
    all, which is the same times (n - 1) / n (GRPO, arXiv 2402.03300, section 4.1).

    Args:
        answers: to a prompt; they stand together.
        scale: divide by the group's standard deviation, as GRPO does. Groups that
            hardly differ then count as much as others (Dr. GRPO, arXiv 2503.20783,
            leaves it out). 1e-4 is added to it, as in TRL.

    >>> scores = torch.tensor([1.0, 0.0, 0.0, 5.0, 5.0, 5.0])
    >>> group_advantages(scores, answers=3)
    tensor([ 1.0000, -0.5000, -0.5000,  0.0000,  0.0000,  0.0000])
    >>> group_advantages(scores, 3, "mean", scale=True)
    tensor([ 1.1545, -0.5773, -0.5773,  0.0000,  0.0000,  0.0000])
    """
    if answers < 2 or len(scores) % answers:
        raise ValueError(
            "groups are two or more answers to each prompt, one group after another; "
            f"got {len(scores)} scores in groups of {answers}"
        )
    if baseline not in ("leave_one_out", "mean"):
        raise ValueError(f"baseline is 'leave_one_out' or 'mean', got {baseline!r}")
    groups = scores.view(-1, answers)
    advantages = groups - groups.mean(dim=1, keepdim=True)
    if baseline == "leave_one_out":
        advantages = advantages * (answers / (answers - 1))
    if scale:
        advantages = advantages / (groups.std(dim=1, keepdim=True) + 1e-4)
    return advantages.flatten()


@torch.no_grad()
def whiten(
    x: Float[Tensor, "B T"], mask: Shaped[Tensor, "B T"], shift_mean: bool = True
) -> Float[Tensor, "B T"]:
    """Scale to variance 1 over what counts, and shift to mean 0 or keep the mean.

    What is the same everywhere has no variance: its deviations stay 0.

    >>> whiten(torch.tensor([[1.0, 3.0, 9.0]]), torch.tensor([[1, 1, 0]]))
    tensor([[-1.,  1.,  0.]])
    """
    counts = mask.bool()
    number = counts.sum().clamp(min=1)
    mean = torch.where(counts, x, 0.0).sum() / number
    deviation = torch.where(counts, x - mean, 0.0)
    variance = deviation.square().sum() / number
    whitened = deviation * (variance + 1e-8).rsqrt()
    return whitened if shift_mean else torch.where(counts, whitened + mean, 0.0)
