"""Reward functions made of others: a reward model's head, one scale, several judges.

A reward is any function of prompts and answers that gives each a number; so is what
comes out here. Knows nothing of how it is trained on.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from labs_helpers.models import RewardModel
from labs_helpers.rl.experience import Reward, as_scores


def model_reward(model: RewardModel, head: str | int = 0) -> Reward:
    """One head of a reward model, by name or number."""
    if head not in (*model.heads, *range(len(model.heads))):
        raise ValueError(
            f"the reward model has no head {head!r}; its heads are "
            f"{', '.join(model.heads)}"
        )
    column = model.heads.index(head) if isinstance(head, str) else head

    def reward(prompts: Sequence[Any], answers: Sequence[str]) -> Tensor:
        return model.score(prompts, answers)[:, column]

    return reward


def standardised(
    reward: Reward, prompts: Sequence[Any], answers: Sequence[str]
) -> Reward:
    """The same reward, with mean 0 and variance 1 over these answers.

    A reward model's scale is arbitrary. Over answers that the policy gives before it is
    trained, this makes a KL weight mean the same under every reward model.
    """
    scores = _scores(reward, prompts, answers)
    if not scores.isfinite().all():
        raise ValueError("the reward of some answers is not a finite number")
    mean, spread = scores.mean(), scores.std(correction=0)
    if not spread > 0:
        raise ValueError(
            f"all {len(answers)} answers earn {mean.item():.3g}: a reward that is "
            "constant over them has no scale. Give answers that differ"
        )

    def scaled(prompts: Sequence[Any], answers: Sequence[str]) -> Tensor:
        return (_scores(reward, prompts, answers) - mean) / spread

    return scaled


def ensemble(
    rewards: Sequence[Reward], how: Literal["mean", "worst"] = "mean"
) -> Reward:
    """Several rewards of one scale as one: their mean, or the worst of them.

    What one of them overrates, the others need not (arXiv 2310.02743).
    """
    if not rewards or how not in ("mean", "worst"):
        raise ValueError(
            f"an ensemble needs rewards and 'mean' or 'worst', got {len(rewards)} "
            f"rewards and {how!r}"
        )

    def joined(prompts: Sequence[Any], answers: Sequence[str]) -> Tensor:
        table = torch.stack([_scores(r, prompts, answers) for r in rewards])
        return table.mean(dim=0) if how == "mean" else table.amin(dim=0)

    return joined


def length_penalised(reward: Reward, weight: float, free: int = 0) -> Reward:
    """The same reward, less `weight` for every word beyond the `free` ones."""

    def penalised(prompts: Sequence[Any], answers: Sequence[str]) -> Tensor:
        words = torch.tensor([float(len(answer.split())) for answer in answers])
        return _scores(reward, prompts, answers) - weight * (words - free).clamp(min=0)

    return penalised


def _scores(
    reward: Reward, prompts: Sequence[Any], answers: Sequence[str]
) -> Float[Tensor, " B"]:
    try:
        return as_scores(reward(prompts, answers), len(answers))
    except ValueError as error:
        raise ValueError(
            f"a reward gives each of {len(answers)} answers a number: {error}"
        ) from error
