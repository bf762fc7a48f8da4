"""The update rules: what each algorithm makes of the same experience.

A rule takes a learner and an experience, moves the weights, and returns what it
measured. They differ only where the algorithms do. Know nothing of prompts, rewards
and how often they are called. `RLConfig.algorithm` is the name of one.
"""

import torch

from labs_helpers.losses import ppo_loss, reinforce_loss, value_loss
from labs_helpers.rl.experience import Experience, Outputs
from labs_helpers.rl.learner import Learner, Measured, mean_of_steps
from labs_helpers.rl.trust_region import trpo

__all__ = ["actor_critic", "ppo", "reinforce", "trpo"]


def reinforce(learner: Learner, experience: Experience) -> Measured:
    """One step along the policy gradient of Williams (1992).

    The advantages are returns here: collect no values for them.
    """

    def loss_of(now: Outputs, part: Experience) -> tuple[torch.Tensor, Measured]:
        return reinforce_loss(now.logprobs, part.advantages, part.mask), {}

    return learner.step(experience, _all(experience), loss_of)


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
        for _ in range(learner.config.epochs)
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
