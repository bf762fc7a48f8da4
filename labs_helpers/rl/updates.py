"""The update rules: what each algorithm makes of the same experience.

A rule takes a learner and an experience, moves the weights, and returns what it
measured. They differ only where the algorithms do. Know nothing of prompts, rewards
and how often they are called. `RLConfig.algorithm` is the name of one.
"""

from collections.abc import Callable

import torch

from labs_helpers.losses import (
    PolicyLoss,
    kl_estimate,
    length_weights,
    ppo_loss,
    reinforce_loss,
    rloo_loss,
    value_loss,
)
from labs_helpers.rl.experience import Experience, Outputs
from labs_helpers.rl.learner import Learner, Measured, mean_of_steps
from labs_helpers.rl.trust_region import trpo

__all__ = ["actor_critic", "grpo", "ppo", "reinforce", "rloo", "trpo"]


def reinforce(learner: Learner, experience: Experience) -> Measured:
    """One step along the policy gradient of Williams (1992).

    The advantages are returns here: collect no values for them.
    """

    def loss_of(now: Outputs, part: Experience) -> tuple[torch.Tensor, Measured]:
        return reinforce_loss(now.logprobs, part.advantages, part.mask), {}

    return learner.step(experience, _all(experience), loss_of)


def rloo(learner: Learner, experience: Experience) -> Measured:
    """Whole answers as actions, each compared with the others to its prompt.

    Ahmadian et al. (arXiv 2402.14740), clipped as PPO where a round serves again.
    """

    def policy_loss(*of: torch.Tensor, advantages: torch.Tensor, **how) -> PolicyLoss:
        return rloo_loss(*of, advantages=advantages[:, 0], **how)

    return _compared(learner, experience, policy_loss)


def grpo(learner: Learner, experience: Experience) -> Measured:
    """PPO's clip, with an answer's rank among those to its prompt at each token.

    Shao et al. (arXiv 2402.03300, section 4.1).
    """
    return _compared(learner, experience, ppo_loss)


def actor_critic(learner: Learner, experience: Experience) -> Measured:
    """One step along the policy gradient with GAE's advantages, and of the values.

    Schulman et al. (arXiv 1506.02438).
    """
    learner.center_values(experience)

    def loss_of(now: Outputs, part: Experience) -> tuple[torch.Tensor, Measured]:
        policy = reinforce_loss(now.logprobs, part.advantages, part.mask)
        return _with_values(policy, now, part, learner)

    return learner.step(experience, _all(experience), loss_of)


def ppo(learner: Learner, experience: Experience) -> Measured:
    """Several passes over the answers, each token's ratio clipped.

    Schulman et al. (arXiv 1707.06347, algorithm 1 and eq. 9).
    """
    learner.center_values(experience)

    def loss_of(now: Outputs, part: Experience) -> tuple[torch.Tensor, Measured]:
        policy = ppo_loss(
            now.logprobs,
            part.logprobs,
            part.advantages,
            part.mask,
            learner.config.clip,
        )
        loss, measured = _with_values(policy.loss, now, part, learner)
        measured["clip_fraction"] = policy.clip_fraction.item()
        measured["approx_kl"] = policy.approx_kl.item()
        return loss, measured

    return mean_of_steps(
        learner.step(experience, rows, loss_of)
        for _ in range(learner.config.passes)
        for rows in learner.minibatches(experience)
    )


def _compared(
    learner: Learner, experience: Experience, policy_loss: Callable[..., PolicyLoss]
) -> Measured:
    """Passes over answers whose advantages are their groups'."""
    config = learner.config

    def step(rows: torch.Tensor) -> Measured:
        mean_length = experience.mask[rows].sum() / len(rows)

        def loss_of(now: Outputs, part: Experience) -> tuple[torch.Tensor, Measured]:
            weights = length_weights(
                part.mask, config.normaliser, config.max_new_tokens, mean_length
            )
            old = part.logprobs if config.takes_ratios else now.logprobs.detach()
            policy = policy_loss(
                now.logprobs,
                old,
                advantages=part.advantages,
                mask=part.mask,
                clip=config.clip,
                clip_high=config.clip_high,
                weights=weights,
            )
            loss = policy.loss
            if config.kl_in_loss:
                # Times the ratio: the estimate's own gradient is not that of the KL
                # (DeepSeek-V3.2, arXiv 2512.02556).
                kl = kl_estimate(now.logprobs, part.reference_logprobs)
                kl = weights[:, None] * (now.logprobs - old).exp() * kl
                loss = loss + config.kl_weight * kl[part.mask].mean()
            return loss, {
                "policy_loss": policy.loss.item(),
                "clip_fraction": policy.clip_fraction.item(),
                "approx_kl": policy.approx_kl.item(),
            }

        return learner.step(experience, rows, loss_of)

    return mean_of_steps(
        step(rows)
        for _ in range(config.passes)
        for rows in learner.minibatches(experience)
    )


def _with_values(
    policy: torch.Tensor, now: Outputs, part: Experience, learner: Learner
) -> tuple[torch.Tensor, Measured]:
    values = value_loss(
        now.values, part.values, part.returns, part.mask, learner.config.clip
    )
    loss = policy + learner.config.value_weight * values
    return loss, {"policy_loss": policy.item(), "value_loss": values.item()}


def _all(experience: Experience) -> torch.Tensor:
    return torch.arange(len(experience), device=experience.tokens.device)
