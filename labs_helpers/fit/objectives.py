"""What offline training minimises: encode a row once, then a loss for each batch.

An objective turns a row of data into token ids (before training, once) and a list of
encoded rows into a scalar loss. It pads on the right and passes no attention mask: a
causal model's real tokens never see what stands to their right, and without a mask
the attention takes its fast path. Knows nothing of optimisers and schedules.
"""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from labs_helpers.data import Message, Preference, Unpaired, as_messages
from labs_helpers.data.rows import require_kind
from labs_helpers.losses import bradley_terry_loss
from labs_helpers.models import RewardModel, logits_and_hidden, pad_right
from labs_helpers.models.chat import encode_answer, encode_conversation
from labs_helpers.models.limits import check_fits, each_named

Encoded = dict[str, Any]


@runtime_checkable
class Objective(Protocol):
    """What `fit` needs to know of a training method.

    One that has a `prepare(model, rows)` too is shown all encoded rows and the model
    once before the first step, to put into the rows what training does not change (a
    reference's log-probs). One that has a `check(model, rows, smallest)` may refuse
    them even before that: `smallest` is the least number of rows in a batch,
    and a row's "number" its place among those that `fit` was given.

    A batch may be computed in parts. Where its loss is not a mean over rows, so that
    parts of it need to know the whole, the objective has a `whole(model, batch, size)`
    too: what it gives (a count of tokens, an estimate from all rows, made from `size`
    of them at a time) is the third argument of every part's `loss`, whose parts then
    add up to the loss of the batch.
    """

    def encode(self, row: Any) -> Encoded:
        """Turn a row into token ids; `length` must be its number of tokens.

        `fit` calls this once a row and hands the same dicts to every later `loss`.
        """

    def loss(
        self, model: nn.Module, batch: list[Encoded]
    ) -> tuple[Tensor, dict[str, float]]:
        """Compute the mean loss of a batch, with gradient, and what else to log.

        What is logged are means over the batch's rows, or `Mean`s over something else.
        """


class Mean(float):
    """A figure to log that is the mean of `count` things; parts weigh by it."""

    count: float


def mean_of(values: Tensor) -> Mean:
    """The mean of these values, to log."""
    mean = Mean(values.mean().item())
    mean.count = values.numel()
    return mean


def encode_rows(
    rows: Sequence[Any], objective: Objective, max_length: int | None
) -> list[Encoded]:
    """Encode every row once, with its "number" among those given.

    Raises:
        ValueError: a row cannot be encoded, or none is at most `max_length` long.
    """
    each = each_named("row", objective.encode, zip(rows))
    encoded = [{**row, "number": number} for number, row in enumerate(each)]
    if max_length is not None:
        kept = [row for row in encoded if row["length"] <= max_length]
        if len(kept) < len(encoded):
            left_out = len(encoded) - len(kept)
            print(f"{left_out} of {len(encoded)} rows exceed {max_length} tokens: out")
        encoded = kept
    if not encoded:
        raise ValueError(
            f"no row to train on: {len(rows)} came in, none has at most "
            f"{max_length} tokens"
            if rows
            else "no row to train on: `rows` is empty"
        )
    return encoded


class SFTObjective:
    """Supervised fine-tuning: cross-entropy on what the assistant says.

    A conversation (a list of messages) trains all of its assistant's turns; a
    `Preference` only its chosen answer, an `Unpaired` only its completion. The token
    that ends a turn counts. The loss is the mean over the batch's answer tokens.
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def encode(self, row: Sequence[Message] | Preference | Unpaired) -> Encoded:
        """Give the tokens, and for each whether the loss is to predict it."""
        if isinstance(row, Preference | Unpaired):
            answer = row.chosen if isinstance(row, Preference) else row.completion
            tokens, marks = encode_answer(self.tokenizer, row.prompt, answer)
        else:
            tokens, marks = encode_conversation(self.tokenizer, as_messages(row))
        return {"tokens": tokens, "answer": marks, "length": len(tokens)}

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """Refuse rows that the model cannot read."""
        check_encoded(model, self.tokenizer, rows, [row["tokens"] for row in rows])

    def whole(self, model: nn.Module, batch: list[Encoded], size: int) -> int:
        """How many tokens of the batch are to be predicted."""
        return sum(sum(row["answer"][1:]) for row in batch)

    def loss(
        self, model: nn.Module, batch: list[Encoded], whole: int | None = None
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Cross-entropy of the answer tokens, vocabulary scores only where needed.

        Args:
            whole: tokens of the batch that these rows are a part of.
        """
        device = next(model.parameters()).device
        tokens = pad_right([row["tokens"] for row in batch])[0].to(device)
        answer = pad_right([row["answer"] for row in batch])[0].to(device)
        predicted: Bool[Tensor, "B T"] = answer[:, 1:].bool()
        logits, _ = logits_and_hidden(model, tokens[:, :-1], predicted)
        loss = F.cross_entropy(logits.float(), tokens[:, 1:][predicted])
        return loss if whole is None else loss * (int(predicted.sum()) / whole), {}


class RewardObjective:
    """A reward model from preferences: Bradley-Terry on the pairs' rewards.

    A row trains the head named by its `dimension`, or the model's only head.

    Args:
        reward_model: gives tokenizer and heads; `fit` trains the model it is given.
        margin: ask for a reward difference of at least the row's `margin`.
        center_weight: pulls the mean reward of a pair towards 0.
    """

    def __init__(
        self,
        reward_model: RewardModel,
        margin: bool = False,
        center_weight: float = 0.0,
    ):
        self.reward_model = reward_model
        self.margin = margin
        self.center_weight = center_weight

    def encode(self, row: Any) -> Encoded:
        """Give the tokens of both answers, the head and the margin."""
        require_kind(row, Preference)
        chosen, rejected = (
            self._encode_answer(row.prompt, answer)
            for answer in (row.chosen, row.rejected)
        )
        if self.margin and row.margin is None:
            raise ValueError(
                f"margin=True needs a margin in every row; this one has none: {row}"
            )
        return {
            "chosen": chosen,
            "rejected": rejected,
            "head": self._head(row),
            "margin": row.margin if self.margin else 0.0,
            "length": max(len(chosen), len(rejected)),
        }

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """Refuse rows that the model cannot read."""
        trunk, tokenizer = self.reward_model.trunk, self.reward_model.tokenizer
        for side in ("chosen", "rejected"):
            check_encoded(trunk, tokenizer, rows, [row[side] for row in rows])

    def loss(
        self, model: nn.Module, batch: list[Encoded]
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """Score chosen and rejected answers in one forward pass."""
        chosen, rejected = self.rewards(model, batch)
        margin = torch.tensor([row["margin"] for row in batch], device=chosen.device)
        loss = bradley_terry_loss(chosen, rejected, margin, self.center_weight)
        return loss, {"accuracy": share_right(chosen, rejected)}

    def rewards(
        self, model: nn.Module, batch: list[Encoded]
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        """The rewards of chosen and of rejected answers, by each row's own head."""
        sequences = [row[side] for side in ("chosen", "rejected") for row in batch]
        tokens, lengths = pad_right(sequences)
        device = next(model.parameters()).device
        heads = torch.tensor([row["head"] for row in batch], device=device)
        rewards = model(tokens.to(device), lengths.to(device)).float()
        chosen, rejected = rewards.gather(1, heads.repeat(2)[:, None])[:, 0].chunk(2)
        return chosen, rejected

    def _encode_answer(
        self, prompt: str | list[Message], answer: str | list[Message]
    ) -> list[int]:
        return self.reward_model.encode(*_asked_and_said(prompt, answer))

    def _head(self, row: Preference) -> int:
        heads = self.reward_model.heads
        if len(heads) == 1:
            return 0
        if row.dimension not in heads:
            raise ValueError(
                f"a row has dimension {row.dimension!r}, the reward model has heads "
                f"{', '.join(heads)}. Filter the rows, or build the model with "
                "RewardModel.from_policy(policy, heads=(...)) to match them"
            )
        return heads.index(row.dimension)


def check_encoded(
    model: nn.Module,
    tokenizer: Any,
    rows: Sequence[Encoded],
    sequences: Sequence[Sequence[int]],
) -> None:
    """Refuse the rows whose token sequences the model cannot read, by their numbers."""
    check_fits(model, tokenizer, sequences, numbers=[row["number"] for row in rows])


def share_right(chosen: Float[Tensor, " B"], rejected: Float[Tensor, " B"]) -> float:
    """Share of pairs whose chosen answer has the higher reward; equal ones are half."""
    right = (chosen > rejected).float() + (chosen == rejected).float() / 2
    return right.mean().item()


def _asked_and_said(
    prompt: str | list[Message], answer: str | list[Message]
) -> tuple[list[Message], str]:
    """All messages before the last of an answer, and what that says."""
    *before, last = _answer_messages(answer)
    return [*as_messages(prompt), *before], last["content"]


def _answer_messages(answer: str | list[Message]) -> list[Message]:
    if isinstance(answer, str):
        return [{"role": "assistant", "content": answer}]
    return list(answer)
