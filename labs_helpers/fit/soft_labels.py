"""Soft labels: AI feedback as preferences, and the objectives that learn from it.

A judge's probabilities come in, preferences go out, each with the probability of its
chosen answer in `meta["probability"]`; for `fit` there are DPO and a reward model on
such rows (arXiv 2212.08073, section 4). Asks no judge.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labs_helpers.data import Preference
from labs_helpers.fit.objectives import Encoded, RewardObjective, share_right
from labs_helpers.fit.preferences import PairObjective, Reference
from labs_helpers.losses import PreferenceLoss, soft_dpo_loss
from labs_helpers.models import Policy, RewardModel


class SoftPairObjective:
    """DPO on soft labels, for `fit`: rows with `meta["probability"]` of the chosen one.

    Args:
        tokenizer: the policy's.
        reference: as for `PairObjective`.
        loss: takes log-probs as `dpo_loss` does, then the labels (B,); gives a
            `PreferenceLoss`, or the loss alone.
    """

    def __init__(
        self,
        tokenizer: Any,
        reference: Policy | Reference | None,
        loss: Callable[..., PreferenceLoss | Tensor] = soft_dpo_loss,
    ):
        self.soft_loss = loss
        self._pairs = PairObjective(tokenizer, reference)

    def encode(self, row: Preference) -> Encoded:
        """Give the tokens of both answers, and the label; 1 where there is none."""
        return {**self._pairs.encode(row), "label": _label(row)}

    def prepare(self, model: nn.Module, rows: Sequence[Encoded]) -> None:
        """Ask the reference about all rows that it has not seen."""
        self._pairs.prepare(model, rows)

    def loss(
        self, model: nn.Module, batch: list[Encoded]
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Both answers in one forward pass of the policy."""
        labels = torch.tensor([row["label"] for row in batch])
        self._pairs.pair_loss = partial(self._with_labels, labels)
        return self._pairs.loss(model, batch)

    def _with_labels(self, labels: Tensor, *logprobs: Tensor) -> PreferenceLoss:
        chosen, rejected, *reference = logprobs
        found = self.soft_loss(chosen, rejected, *reference, labels.to(chosen))
        if isinstance(found, PreferenceLoss):
            return found
        ratios = chosen.detach() - reference[0], rejected.detach() - reference[1]
        return PreferenceLoss(found, *ratios)


class SoftRewardObjective:
    """A reward model on soft labels, for `fit`: RL-CAI's preference model.

    The cross-entropy of the label and of sigmoid(chosen - rejected); labels of 1 make
    it Bradley-Terry's loss. A pair that the judge could not decide pulls its rewards
    together.

    Args:
        reward_model: gives tokenizer and heads; `fit` trains the model it is given.
    """

    def __init__(self, reward_model: RewardModel):
        self._pairs = RewardObjective(reward_model)

    def encode(self, row: Preference) -> Encoded:
        """Give the tokens of both answers, and the label; 1 where there is none."""
        return {**self._pairs.encode(row), "label": _label(row)}

    def loss(
        self, model: nn.Module, batch: list[Encoded]
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Score chosen and rejected answers in one forward pass."""
        chosen, rejected = self._pairs.rewards(model, batch)
        labels = torch.tensor([row["label"] for row in batch]).to(chosen)
        loss = F.binary_cross_entropy_with_logits(chosen - rejected, labels)
        return loss, {"accuracy": share_right(chosen, rejected)}


def _label(row: Preference) -> float:
    label = row.meta.get("probability", 1.0)
    if not 0 <= label <= 1:
        raise ValueError(f"a label is a probability, got {label!r} in {row}")
    return float(label)
