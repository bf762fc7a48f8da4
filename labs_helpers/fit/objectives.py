"""What offline training minimises: encode a row once, then a loss for each batch.

An objective turns a row of data into token ids (before training, once) and a list of
encoded rows into a scalar loss. It pads on the right: a causal model's real tokens
never see what stands there.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from labs_helpers.data import Message, Preference, Unpaired, as_messages
from labs_helpers.data.rows import require_kind
from labs_helpers.losses import bradley_terry_loss
from labs_helpers.models import RewardModel, pad_right
from labs_helpers.models.chat import encode_answer, encode_conversation
from labs_helpers.models.limits import check_fits, each_named
from labs_helpers.models.vocabulary import states
from labs_helpers.sampling.logprobs import Masked, surprise

# "length" in tokens; and what an objective's own loss reads. Those here have "tokens"
# with a mark at each one of the "answer"; or a pair of "answers", chosen first, and as
# "target" what is to be learnt of them.
Encoded = dict[str, Any]
Metrics = dict[str, float]


class Objective:
    """What `fit` needs to know of a training method: `encode` and `loss`.

    A batch may be computed in parts. A loss that is a mean over rows needs nothing for
    that; one that is not gives what its parts need to know of the `whole`.
    """

    def encode(self, row: Any) -> Encoded:
        """Turn a row into token ids; "length" must be its number of tokens.

        `fit` calls this once a row and hands the same dicts to every later `loss`, with
        the row's "number" among those given.
        """
        raise NotImplementedError

    def loss(
        self, model: nn.Module, batch: list[Encoded], whole: Any = None
    ) -> tuple[Tensor, Metrics]:
        """Compute the mean loss of a batch, with gradient, and what else to log.

        What is logged are means over the batch's rows, or `Mean`s over something else.

        Args:
            whole: what `whole` gave for the batch that these rows are a part of: the
                parts' losses add up to the batch's.
        """
        raise NotImplementedError

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """Refuse rows before the first step; `smallest` is the least batch's size."""

    def prepare(self, model: nn.Module, rows: Sequence[Encoded]) -> None:
        """Look at all rows, and at the model as it is before the first step."""

    def whole(self, model: nn.Module, batch: list[Encoded], size: int) -> Any:
        """What parts of a batch need to know of it, from `size` rows at a time.

        None is nothing: each part's loss then weighs by its number of rows.
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


def encoded_pair(answers: list[Masked], target: Any = None) -> Encoded:
    """A row of two answers."""
    length = max(len(tokens) for tokens, _ in answers)
    return {"answers": answers, "target": target, "length": length}


def answers_of(row: Encoded) -> list[Masked]:
    """The row's answer or answers, as `answer_logprobs` takes them."""
    return [(row["tokens"], row["answer"])] if "tokens" in row else row["answers"]


def check_answers(model: nn.Module, tokenizer: Any, rows: Sequence[Encoded]) -> None:
    """Refuse rows that a model cannot read, by their numbers."""
    numbers, sequences = [], []
    for row in rows:
        for tokens, _ in answers_of(row):
            numbers.append(row["number"])
            sequences.append(tokens)
    check_fits(model, tokenizer, sequences, numbers=numbers)


class SFTObjective(Objective):
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
        check_answers(model, self.tokenizer, rows)

    def whole(self, model: nn.Module, batch: list[Encoded], size: int) -> int:
        """How many tokens of the batch are to be predicted."""
        return sum(sum(row["answer"][1:]) for row in batch)

    def loss(
        self, model: nn.Module, batch: list[Encoded], whole: int | None = None
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Cross-entropy of the answer tokens, vocabulary scores only where needed."""
        device = next(model.parameters()).device
        tokens = pad_right([row["tokens"] for row in batch])[0].to(device)
        answer = pad_right([row["answer"] for row in batch])[0].to(device)
        predicted = answer[:, 1:].bool()
        read = states(model, tokens[:, :-1], predicted)
        loss = read.each(surprise, tokens[:, 1:][predicted]).mean()
        return loss if whole is None else loss * (int(predicted.sum()) / whole), {}


class PretrainingObjective(Objective):
    """Another objective with a pretraining loss added, against forgetting.

    PPO-ptx's second term (arXiv 2203.02155, eq. 2) for training on rows. Parts of a
    batch replay rows of their own.

    Args:
        objective: what is to be learnt.
        pretraining_loss: of the model, weighted; `rl.pretraining_mix` makes one.
    """

    def __init__(
        self, objective: Objective, pretraining_loss: Callable[[nn.Module], Tensor]
    ):
        self.objective = objective
        self.pretraining_loss = pretraining_loss

    def encode(self, row: Any) -> Encoded:
        """As the objective does."""
        return self.objective.encode(row)

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """As the objective does."""
        self.objective.check(model, rows, smallest)

    def prepare(self, model: nn.Module, rows: Sequence[Encoded]) -> None:
        """As the objective does."""
        self.objective.prepare(model, rows)

    def whole(self, model: nn.Module, batch: list[Encoded], size: int) -> Any:
        """What the objective's parts need to know, and how many rows there are."""
        return self.objective.whole(model, batch, size), len(batch)

    def loss(
        self, model: nn.Module, batch: list[Encoded], whole: Any = None
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """The objective's loss and metrics, plus the pretraining loss."""
        known, rows = whole or (None, len(batch))
        loss, metrics = self.objective.loss(model, batch, known)
        share = len(batch) / rows
        if known is None:
            loss = loss * share
        return loss + share * self.pretraining_loss(model), metrics


class RewardObjective(Objective):
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
        """Give the tokens of both answers; their target is a head and the margin."""
        require_kind(row, Preference)
        if self.margin and row.margin is None:
            raise ValueError(
                f"margin=True needs a margin in every row; this one has none: {row}"
            )
        return self._encoded(row, row.margin if self.margin else 0.0)

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """Refuse rows that the model cannot read."""
        check_answers(self.reward_model.trunk, self.reward_model.tokenizer, rows)

    def loss(
        self, model: nn.Module, batch: list[Encoded], whole: Any = None
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Score chosen and rejected answers in one forward pass."""
        chosen, rejected, margin = self._rewards(model, batch)
        loss = bradley_terry_loss(chosen, rejected, margin, self.center_weight)
        return loss, {"accuracy": share_right(chosen - rejected)}

    def _encoded(self, row: Preference, target: float) -> Encoded:
        answers = []
        for answer in (row.chosen, row.rejected):
            *before, last = answer
            asked = [*as_messages(row.prompt), *before]
            answers.append((self.reward_model.encode(asked, last["content"]), ()))
        return encoded_pair(answers, (self._head(row), target))

    def _rewards(
        self, model: nn.Module, batch: list[Encoded]
    ) -> tuple[Float[Tensor, " B"], ...]:
        """Rewards of chosen and of rejected answers, by each row's head; targets."""
        sequences = [row["answers"][side][0] for side in (0, 1) for row in batch]
        tokens, lengths = pad_right(sequences)
        device = next(model.parameters()).device
        heads = torch.tensor([row["target"][0] for row in batch], device=device)
        targets = torch.tensor([row["target"][1] for row in batch], device=device)
        rewards = model(tokens.to(device), lengths.to(device)).float()
        chosen, rejected = rewards.gather(1, heads.repeat(2)[:, None])[:, 0].chunk(2)
        return chosen, rejected, targets

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


class SoftRewardObjective(RewardObjective):
    """A reward model on soft labels: RL-CAI's preference model (arXiv 2212.08073).

    The cross-entropy of `meta["probability"]` and of sigmoid(chosen - rejected); labels
    of 1 make it Bradley-Terry's loss. A pair that the judge could not decide pulls its
    rewards together.

    Args:
        reward_model: gives tokenizer and heads; `fit` trains the model it is given.
    """

    def __init__(self, reward_model: RewardModel):
        super().__init__(reward_model)

    def encode(self, row: Any) -> Encoded:
        """Give the tokens of both answers; their target is a head and the label."""
        require_kind(row, Preference)
        return self._encoded(row, soft_label(row))

    def loss(
        self, model: nn.Module, batch: list[Encoded], whole: Any = None
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Score chosen and rejected answers in one forward pass."""
        chosen, rejected, labels = self._rewards(model, batch)
        loss = F.binary_cross_entropy_with_logits(chosen - rejected, labels)
        return loss, {"accuracy": share_right(chosen - rejected)}


class RankingObjective(RewardObjective):
    """Bradley-Terry on all comparisons of a prompt's answers, each answer read once.

    A row is a list of `Preference`s with one prompt, as `by_prompt` makes them, and the
    batch size counts prompts (arXiv 2203.02155, section 3.5). The loss is the mean over
    comparisons.

    Args:
        reward_model: gives tokenizer and heads; `fit` trains the model it is given.
    """

    def __init__(self, reward_model: RewardModel):
        super().__init__(reward_model)

    def encode(self, row: Sequence[Preference]) -> Encoded:
        """Give the tokens of the answers; their target is who won against whom."""
        places: dict[str, int] = {}
        answers, compared = [], []
        for preference in row:
            require_kind(preference, Preference)
            pair = []
            for *before, last in (preference.chosen, preference.rejected):
                asked = [*row[0].prompt, *before]
                key = repr((before, last["content"]))
                if key not in places:
                    places[key] = len(answers)
                    tokens = self.reward_model.encode(asked, last["content"])
                    answers.append((tokens, ()))
                pair.append(places[key])
            compared.append((*pair, self._head(preference)))
        length = max(len(tokens) for tokens, _ in answers)
        return {"answers": answers, "target": compared, "length": length}

    def whole(self, model: nn.Module, batch: list[Encoded], size: int) -> int:
        """How many comparisons the batch has."""
        return sum(len(row["target"]) for row in batch)

    def loss(
        self, model: nn.Module, batch: list[Encoded], whole: int | None = None
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Score every answer once, then compare."""
        device = next(model.parameters()).device
        sequences = [tokens for row in batch for tokens, _ in row["answers"]]
        tokens, lengths = pad_right(sequences)
        rewards = model(tokens.to(device), lengths.to(device)).float()
        compared, start = [], 0
        for row in batch:
            compared += [(start + i, start + j, head) for i, j, head in row["target"]]
            start += len(row["answers"])
        first, second, head = torch.tensor(compared, device=device).T
        chosen, rejected = rewards[first, head], rewards[second, head]
        loss = bradley_terry_loss(chosen, rejected)
        if whole is not None:
            loss = loss * (len(compared) / whole)
        return loss, {"accuracy": mean_of((1 + (chosen - rejected).sign()) / 2)}


def soft_label(row: Preference) -> float:
    """The probability that the chosen answer is better; 1 where nothing is said."""
    label = row.meta.get("probability", 1.0)
    if not 0 <= label <= 1:
        raise ValueError(f"a label is a probability, got {label!r} in {row}")
    return float(label)


def share_right(margins: Float[Tensor, " B"]) -> float:
    """Share of pairs whose chosen answer comes first; equal ones are half."""
    return ((margins > 0).float() + (margins == 0).float() / 2).mean().item()
