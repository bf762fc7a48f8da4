"""Who says which of two answers is better: the truth, or a reward model.

A judge compares answers pair by pair. It does not know where the answers come from,
and win rates are not its business (see `evaluation`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from labs_helpers.models import RewardModel
from labs_helpers.task import Judge, Truth

__all__ = ["Judge", "RewardJudge", "TruthJudge"]


@dataclass(frozen=True)
class TruthJudge:
    """Prefers the answer with the higher true score."""

    truth: Truth
    dimension: str = "gold"

    def compare(
        self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]
    ) -> np.ndarray:
        """Compare answers: 1 where `a` wins, 0.5 for equal scores, 0 where `b` wins."""
        _require_pairs(prompts, a, b)
        scores_a, scores_b = (
            self.truth.scores(prompts, answers, self.dimension) for answers in (a, b)
        )
        return _outcomes(scores_a - scores_b, tie_margin=0.0)


@dataclass(frozen=True)
class RewardJudge:
    """Prefers the answer with the higher reward.

    Attributes:
        reward_model: scores the answers.
        head: the head to go by, by name or number.
        tie_margin: rewards that differ by no more than this are a tie.
    """

    reward_model: RewardModel
    head: str | int = 0
    tie_margin: float = 0.0

    def compare(
        self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]
    ) -> np.ndarray:
        """Compare answers: 1 where `a` wins, 0.5 for a tie, 0 where `b` wins."""
        _require_pairs(prompts, a, b)
        heads = self.reward_model.heads
        if self.head not in (*heads, *range(len(heads))):
            raise ValueError(
                f"the reward model has no head {self.head!r}; its heads are "
                f"{', '.join(heads)}"
            )
        head = heads.index(self.head) if isinstance(self.head, str) else self.head
        rewards = self.reward_model.score([*prompts, *prompts], [*a, *b])[:, head]
        rewards_a, rewards_b = rewards.double().numpy().reshape(2, -1)
        return _outcomes(rewards_a - rewards_b, self.tie_margin)


def _outcomes(margins: np.ndarray, tie_margin: float) -> np.ndarray:
    wins, losses = margins > tie_margin, margins < -tie_margin
    return 0.5 + 0.5 * (wins.astype(float) - losses.astype(float))


def _require_pairs(prompts: Sequence, a: Sequence, b: Sequence) -> None:
    if not len(prompts) == len(a) == len(b):
        raise ValueError(
            "a judge compares one answer of each side for each prompt; there are "
            f"{len(prompts)} prompts, {len(a)} answers a and {len(b)} answers b"
        )
