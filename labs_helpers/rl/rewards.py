"""Reward functions: what they may give, those made of others, a second opinion on them.

A reward is any function of prompts and answers that gives each a number; so is what
comes out here. Knows nothing of how it is trained on.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from labs_helpers.common.settings import short
from labs_helpers.fit import TrainingStopped
from labs_helpers.models import Policy, RewardModel
from labs_helpers.sampling import sample

Reward = Callable[[Sequence[Any], Sequence[str]], Any]


def scores_of(
    reward: Reward, prompts: Sequence[Any], answers: Sequence[str]
) -> Float[Tensor, " B"]:
    """Ask a reward function; its numbers, on the CPU in float32.

    Raises:
        ValueError: it gave not one number for each answer.
    """
    return _as_scores(reward(prompts, answers), len(answers))


def scores_in_training(
    reward: Reward, prompts: Sequence[Any], answers: Sequence[str]
) -> Float[Tensor, " B"]:
    """Ask a reward function and believe it only if it gives a finite number an answer.

    Raises:
        TrainingStopped: it failed, or its numbers cannot be used.
    """
    try:
        given = reward(prompts, answers)
    except Exception as error:
        raise TrainingStopped(
            f"the reward function failed on {len(answers)} answers with "
            f"{type(error).__name__}: {error}. The first answer was {answers[0]!r:.80}"
        ) from error
    try:
        scores = _as_scores(given, len(answers))
    except ValueError as error:
        raise TrainingStopped(str(error)) from error
    if not scores.isfinite().all():
        row = int((~scores.isfinite()).nonzero()[0])
        raise TrainingStopped(
            f"the reward of answer {row} is {scores[row].item()}: {answers[row]!r:.80} "
            f"to {prompts[row]!s:.80}. Let the reward function give a finite "
            "number for every text, the empty one too"
        )
    return scores


def _as_scores(given: Any, number: int) -> Float[Tensor, " B"]:
    expected = f"expected {number} numbers, one an answer"
    try:
        if isinstance(given, Tensor):
            scores = given.detach().to("cpu", torch.float32)
        elif hasattr(given, "__array__") or isinstance(given, int | float):
            scores = torch.as_tensor(np.asarray(given, dtype=np.float32))
        else:
            numbers = [x.item() if isinstance(x, Tensor) else x for x in given]
            scores = torch.as_tensor(numbers, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"the reward gave {short(given)}, {expected}") from error
    if scores.shape != (number,):
        hint = ""
        if scores.ndim == 2 and len(scores) == number:
            hint = "; of a reward model, choose one head: score(...)[:, 0]"
        raise ValueError(
            f"the reward gave shape {tuple(scores.shape)} for {number} answers, "
            f"expected ({number},): one number an answer{hint}"
        )
    return scores


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
    scores = scores_of(reward, prompts, answers)
    if not scores.isfinite().all():
        raise ValueError("the reward of some answers is not a finite number")
    mean, spread = scores.mean(), scores.std(correction=0)
    if not spread > 0:
        raise ValueError(
            f"all {len(answers)} answers earn {mean.item():.3g}: a reward that is "
            "constant over them has no scale. Give answers that differ"
        )

    def scaled(prompts: Sequence[Any], answers: Sequence[str]) -> Tensor:
        return (scores_of(reward, prompts, answers) - mean) / spread

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
        table = torch.stack([scores_of(r, prompts, answers) for r in rewards])
        return table.mean(dim=0) if how == "mean" else table.amin(dim=0)

    return joined


def length_penalised(reward: Reward, weight: float, free: int = 0) -> Reward:
    """The same reward, less `weight` for every word beyond the `free` ones."""

    def penalised(prompts: Sequence[Any], answers: Sequence[str]) -> Tensor:
        words = torch.tensor([float(len(answer.split())) for answer in answers])
        scores = scores_of(reward, prompts, answers)
        return scores - weight * (words - free).clamp(min=0)

    return penalised


class SecondOpinion:
    """An `evaluate` for `train`: two judges on the same held-out answers.

    A reward model that is being gamed goes on rising where a judge that is not
    optimised falls behind; `alarms` looks for that. The judge may be a reward model of
    other comparisons, a language model, people: whatever was kept out of training.
    """

    def __init__(
        self,
        reward: Reward,
        judge: Reward,
        prompts: Sequence[Any],
        start: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int = 48,
        seed: int = 0,
    ):
        """Put both judges on one scale: 0 and variance 1 over the answers at the start.

        Args:
            reward: What is optimised.
            judge: What is not.
            prompts: Kept out of training; the more, the sooner a gap can be told.
            start: An answer to each, by the policy before it is trained.
        """
        both = (standardised(judging, prompts, start) for judging in (reward, judge))
        self.reward, self.judge = both
        self.prompts, self.tokenizer = prompts, tokenizer
        self.max_new_tokens, self.seed = max_new_tokens, seed
        self.at_start = self.reward(prompts, start) - self.judge(prompts, start)

    def __call__(self, policy: Policy) -> dict[str, float]:
        """Let the policy answer, and ask both; the figures for the history."""
        limit, seed = self.max_new_tokens, self.seed
        answers = sample(
            policy, self.tokenizer, self.prompts, max_new_tokens=limit, seed=seed
        )
        return self.about(answers.texts)

    def about(self, answers: Sequence[str]) -> dict[str, float]:
        """What both say of one answer to each prompt.

        `second_opinion_error` is the standard error of the difference between the other
        two, the answers at the start taken off prompt by prompt.
        """
        rewards = self.reward(self.prompts, answers)
        grown = rewards - self.judge(self.prompts, answers) - self.at_start
        reward = rewards.mean().item()
        return {
            "held_out_reward": reward,
            "second_opinion": reward - grown.mean().item(),
            "second_opinion_error": grown.std().item() / len(grown) ** 0.5,
        }
