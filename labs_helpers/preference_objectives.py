"""Objectives of the DPO family for `fit`: from pairs, or from answers good and bad.

A loss of `losses` comes in, as a function of log-probs; each objective makes those from
rows of data. What the frozen reference says of an answer never changes: it is computed
before training, in large batches, and kept in the encoded row, so that a step is one
forward pass of the policy. Knows nothing of optimisers and schedules.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from labs_helpers.data import Preference, Unpaired
from labs_helpers.limits import positions
from labs_helpers.logprobs import Marked, answer_logprobs, sequence_scores
from labs_helpers.losses import (
    PreferenceLoss,
    dpo_loss,
    kto_loss,
    mismatched_kl,
    slic_loss,
)
from labs_helpers.models import Policy
from labs_helpers.objectives import Encoded, SFTObjective, check_encoded

Metrics = dict[str, float]


class Reference:
    """A frozen policy, and what it said of every answer that it was asked about.

    Objectives that are given one and the same `Reference` share what it knows: a second
    run on the same pairs begins at once.

    Args:
        policy: is never trained. None is the policy in training with its LoRA adapter
            switched off, which needs no second model.
    """

    def __init__(self, policy: Policy | None):
        self.policy = policy
        self._known: dict[bytes, float] = {}

    def scores(self, model: nn.Module, rows: Sequence[Marked]) -> list[float]:
        """Log-prob of each answer, from memory where it has been asked before."""
        keys = [_key(row) for row in rows]
        new = {
            k: row for k, row in zip(keys, rows, strict=True) if k not in self._known
        }
        if new:
            with self.active(model) as policy:
                found = sequence_scores(policy, list(new.values()))
            self._known.update(zip(new, found.tolist(), strict=True))
        return [self._known[key] for key in keys]

    @contextmanager
    def active(self, model: nn.Module) -> Iterator[nn.Module]:
        """Give the frozen policy, to the policy in training."""
        if self.policy is not None:
            if self.policy is model:
                raise ValueError(
                    "the reference is the very model in training, so it would move "
                    "with it. Load it a second time, or train with LoRA and give "
                    "reference=None: the adapter is then switched off"
                )
            yield self.policy
        elif isinstance(model, PeftModel):
            with model.disable_adapter():
                yield model
        else:
            raise ValueError(
                "reference=None needs a policy with LoRA (load_policy(..., lora=8)), "
                f"whose adapter can be switched off; this is a {type(model).__name__}. "
                "Give a frozen copy of the policy as reference"
            )


class PairObjective:
    """DPO, IPO, or any loss of a pair's log-probs under policy and reference.

    `PairObjective(tokenizer, reference, partial(dpo_loss, beta=0.05))`

    Args:
        tokenizer: the policy's.
        reference: a frozen policy, a `Reference` to share, or None (see there).
        loss: takes log-probs, each (B,): the policy's of the chosen and of the rejected
            answers, then the reference's.
    """

    def __init__(
        self,
        tokenizer: Any,
        reference: Policy | Reference | None,
        loss: Callable[..., PreferenceLoss] = dpo_loss,
    ):
        self.reference = _as_reference(reference)
        self.pair_loss = loss
        self._answers = SFTObjective(tokenizer)

    def encode(self, row: Preference) -> Encoded:
        """Give the tokens of both answers; `length` is that of the longer."""
        return _encode_pair(self._answers, row)

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """Refuse rows that the model cannot read."""
        _check_pairs(model, self._answers, rows)

    def prepare(self, model: nn.Module, rows: Sequence[Encoded]) -> None:
        """Ask the reference about all rows that it has not seen."""
        new = [row for row in rows if "reference" not in row]
        scores = self.reference.scores(model, _both_sides(new))
        for row, *pair in zip(new, scores[: len(new)], scores[len(new) :], strict=True):
            row["reference"] = pair

    def loss(
        self, model: nn.Module, batch: list[Encoded]
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Chosen and rejected answers in one forward pass of the policy."""
        self.prepare(model, batch)
        logprobs, _ = answer_logprobs(model, _both_sides(batch))
        chosen, rejected = logprobs.sum(dim=1).chunk(2)
        reference = torch.tensor([row["reference"] for row in batch]).to(chosen)
        result = self.pair_loss(chosen, rejected, *reference.unbind(dim=1))
        margins = result.chosen_rewards - result.rejected_rewards
        return result.loss, {
            "reward_margin": margins.mean().item(),
            **_pair_metrics(margins, chosen, rejected),
        }


class SLiCObjective:
    """SLiC on pairs: rank them by a margin, keep the chosen answers likely.

    `SLiCObjective(tokenizer, partial(slic_loss, delta=2.0, weight=0.1))`

    There is no reference. The targets of the supervised term are the chosen answers'
    tokens, so that its weight is measured against the usual supervised loss.
    """

    def __init__(self, tokenizer: Any, loss: Callable[..., Tensor] = slic_loss):
        self.pair_loss = loss
        self._answers = SFTObjective(tokenizer)

    def encode(self, row: Preference) -> Encoded:
        """Give the tokens of both answers; `length` is that of the longer."""
        return _encode_pair(self._answers, row)

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """Refuse rows that the model cannot read."""
        _check_pairs(model, self._answers, rows)

    def loss(
        self, model: nn.Module, batch: list[Encoded]
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Chosen and rejected answers in one forward pass of the policy."""
        logprobs, predicted = answer_logprobs(model, _both_sides(batch))
        chosen, rejected = logprobs.sum(dim=1).chunk(2)
        targets = logprobs[: len(batch)][predicted[: len(batch)]]
        loss = self.pair_loss(chosen, rejected, targets)
        return loss, _pair_metrics(chosen - rejected, chosen, rejected)


class KTOObjective:
    """KTO on answers that are desirable or not, no pairs needed.

    `KTOObjective(tokenizer, reference, partial(kto_loss, beta=0.1))`

    The KL that gains and losses are counted from is estimated in every batch, from each
    prompt with the answer of the row before it (arXiv 2402.01306, section 4). Batches
    match anew, so a step has two more forward passes, of policy and reference, without
    gradient.

    Args:
        tokenizer: the policy's.
        reference: a frozen policy, a `Reference` to share, or None (see there).
        loss: takes log-probs under policy and reference, labels and KL.
    """

    def __init__(
        self,
        tokenizer: Any,
        reference: Policy | Reference | None,
        loss: Callable[..., Tensor] = kto_loss,
    ):
        self.reference = _as_reference(reference)
        self.answer_loss = loss
        self._answers = SFTObjective(tokenizer)

    def encode(self, row: Unpaired) -> Encoded:
        """Give the tokens of the answer, and whether it is desirable."""
        return {**self._answers.encode(row), "desirable": bool(row.label)}

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """Refuse rows that the model cannot read, and batches of one."""
        self._answers.check(model, rows, smallest)
        _require_others(smallest)

    def prepare(self, model: nn.Module, rows: Sequence[Encoded]) -> None:
        """Ask the reference about all rows that it has not seen."""
        new = [row for row in rows if "reference" not in row]
        scores = self.reference.scores(model, [_marked(row) for row in new])
        for row, score in zip(new, scores, strict=True):
            row["reference"] = score

    def loss(
        self, model: nn.Module, batch: list[Encoded]
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """The rows' own answers with gradient, their neighbours' without."""
        _require_others(len(batch))
        self.prepare(model, batch)
        logprobs = answer_logprobs(model, [_marked(row) for row in batch])[0].sum(dim=1)
        reference = torch.tensor([row["reference"] for row in batch]).to(logprobs)
        desirable = torch.tensor([row["desirable"] for row in batch]).to(
            logprobs.device
        )
        kl = self._kl(model, batch)
        loss = self.answer_loss(logprobs, reference, desirable, kl)
        metrics = {"kl": kl.item()}
        for name, group in (("desirable", desirable), ("undesirable", ~desirable)):
            if group.any():
                ratios = (logprobs.detach() - reference)[group]
                metrics[f"{name}_logratio"] = ratios.mean().item()
                metrics[f"{name}_logprob"] = logprobs.detach()[group].mean().item()
        return loss, metrics

    @torch.no_grad()
    def _kl(self, model: nn.Module, batch: list[Encoded]) -> Float[Tensor, ""]:
        rows = _mismatched(batch, positions(model))
        policy = answer_logprobs(model, rows)[0].sum(dim=1)
        with self.reference.active(model) as frozen:
            reference = answer_logprobs(frozen, rows)[0].sum(dim=1)
        return mismatched_kl(policy, reference)


def _as_reference(reference: Policy | Reference | None) -> Reference:
    return reference if isinstance(reference, Reference) else Reference(reference)


def _encode_pair(answers: SFTObjective, row: Preference) -> Encoded:
    encoded = {
        side: _marked(answers.encode(Unpaired(row.prompt, answer, True)))
        for side, answer in (("chosen", row.chosen), ("rejected", row.rejected))
    }
    return {**encoded, "length": max(len(tokens) for tokens, _ in encoded.values())}


def _check_pairs(
    model: nn.Module, answers: SFTObjective, rows: Sequence[Encoded]
) -> None:
    for side in ("chosen", "rejected"):
        sequences = [row[side][0] for row in rows]
        check_encoded(model, answers.tokenizer, rows, sequences)


def _both_sides(rows: Sequence[Encoded]) -> list[Marked]:
    return [row[side] for side in ("chosen", "rejected") for row in rows]


def _marked(row: Encoded) -> Marked:
    return row["tokens"], row["answer"]


def _key(row: Marked) -> bytes:
    """The sequence and where its answer begins, in few bytes."""
    tokens, answer = row
    return torch.tensor([*tokens, *answer], dtype=torch.int32).numpy().tobytes()


def _require_others(rows: int) -> None:
    if rows < 2:
        raise ValueError(
            "KTO estimates its KL from the answers of other rows in the batch, and a "
            f"batch, or a part of one, has {rows} row. Take batch_size >= 2, an "
            "`accumulate` that leaves two rows to each part, and more rows than one"
        )


def _mismatched(batch: list[Encoded], longest: int | None) -> list[Marked]:
    """Each row's prompt with the answer of the row before it, as TRL matches them.

    What exceeds the longest sequence that the model reads is cut off.
    """
    rows = []
    for row, other in zip(batch, [batch[-1], *batch[:-1]], strict=True):
        start, begin = row["answer"].index(1), other["answer"].index(1)
        tokens = [*row["tokens"][:start], *other["tokens"][begin:]]
        answer = [*[0] * start, *other["answer"][begin:]]
        rows.append((tokens[:longest], answer[:longest]))
    return rows


def _pair_metrics(margins: Tensor, chosen: Tensor, rejected: Tensor) -> Metrics:
    right = (margins > 0).float() + (margins == 0).float() / 2
    return {
        "accuracy": right.mean().item(),
        "chosen_logprob": chosen.mean().item(),
        "rejected_logprob": rejected.mean().item(),
    }
