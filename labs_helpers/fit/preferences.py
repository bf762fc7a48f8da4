"""Objectives of the DPO family for `fit`: from pairs, or from answers good and bad.

A loss of `losses` comes in, as a function of log-probs; each objective makes those from
rows of data. What the frozen reference says of an answer never changes: it is computed
before training, in large batches, and kept in the encoded row, so that a step is one
forward pass of the policy. Knows nothing of optimisers and schedules.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from labs_helpers.data import Preference, Unpaired
from labs_helpers.data.rows import require_kind
from labs_helpers.fit.objectives import Encoded, SFTObjective, check_encoded, mean_of
from labs_helpers.fit.starts import AtStart, require_apart
from labs_helpers.losses import (
    PreferenceLoss,
    dpo_loss,
    kto_loss,
    mismatched_kl,
    slic_loss,
)
from labs_helpers.models import Policy
from labs_helpers.models.limits import positions
from labs_helpers.sampling import answer_logprobs
from labs_helpers.sampling.logprobs import Masked, sequence_scores

Metrics = dict[str, float]


class Reference:
    """A frozen policy, and what it said of every answer that it was asked about.

    Objectives that are given one and the same `Reference` share what it knows: a second
    run on the same pairs begins at once.

    Args:
        policy: is never trained. None is the policy in training as it was at the
            start, which under LoRA needs no second model: its adapter is switched off,
            or, where that is something else (an adapter trained before, one that
            changes its base), has its weights of then.
    """

    def __init__(self, policy: Policy | None):
        self.policy = policy
        self._known: dict[bytes, float] = {}
        self._start: AtStart | None = None

    def scores(self, model: nn.Module, rows: Sequence[Masked]) -> list[float]:
        """Log-prob of each answer, from memory where it has been asked before."""
        with self.active(model) as policy:
            keys = [_key(row) for row in rows]
            new = {
                k: row
                for k, row in zip(keys, rows, strict=True)
                if k not in self._known
            }
            if new:
                found = sequence_scores(policy, list(new.values()))
                self._known.update(zip(new, found.tolist(), strict=True))
        return [self._known[key] for key in keys]

    def readers(self, model: nn.Module) -> list[nn.Module]:
        """The models that read the rows: the one in training and the frozen one."""
        return [model] if self.policy is None else [model, self.policy]

    @contextmanager
    def active(self, model: nn.Module) -> Iterator[nn.Module]:
        """Give the frozen policy, to the policy in training.

        Raises:
            ValueError: training the policy would move it.
        """
        if self.policy is not None:
            require_apart(model, self.policy)
            yield self.policy
        elif isinstance(model, PeftModel):
            with self._start_of(model).active() as policy:
                yield policy
        else:
            raise ValueError(
                "reference=None needs a policy with LoRA (load_policy(..., lora=8)), "
                f"whose adapter can be switched off; this is a {type(model).__name__}. "
                "Give a frozen copy of the policy as reference"
            )

    def _start_of(self, model: PeftModel) -> AtStart:
        """The policy as it was when it was first asked about."""
        if self._start is None or self._start.policy is not model:
            start = AtStart(model)
            if self._start and not torch.equal(start.scores, self._start.scores):
                self._known.clear()  # another policy's
            self._start = start
        return self._start


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

    def encode(self, row: Any) -> Encoded:
        """Give the tokens of both answers; `length` is that of the longer."""
        return _encode_pair(self._answers, row)

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """Refuse rows that the model or the reference cannot read."""
        for reader in self.reference.readers(model):
            _check_pairs(reader, self._answers, rows)

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

    def encode(self, row: Any) -> Encoded:
        """Give the tokens of both answers; `length` is that of the longer."""
        return _encode_pair(self._answers, row)

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """Refuse rows that the model cannot read."""
        _check_pairs(model, self._answers, rows)

    def whole(self, model: nn.Module, batch: list[Encoded], size: int) -> "_Counts":
        """How many pairs and target tokens the batch has."""
        return _Counts(len(batch), sum(sum(row["chosen"][1][1:]) for row in batch))

    def loss(
        self, model: nn.Module, batch: list[Encoded], whole: "_Counts | None" = None
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Chosen and rejected answers in one forward pass of the policy.

        Args:
            whole: what the batch counts that these pairs are a part of. The supervised
                term is a mean over its tokens, the ranking over its pairs.
        """
        logprobs, predicted = answer_logprobs(model, _both_sides(batch))
        chosen, rejected = logprobs.sum(dim=1).chunk(2)
        targets = logprobs[: len(batch)][predicted[: len(batch)]]
        share = 1.0
        if whole is not None:
            share = len(batch) / whole.rows
            targets = targets * (len(targets) / whole.tokens / share)
        loss = self.pair_loss(chosen, rejected, targets) * share
        return loss, _pair_metrics(chosen - rejected, chosen, rejected)


class _Counts(NamedTuple):
    """What a batch has of each."""

    rows: int
    tokens: int


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

    def encode(self, row: Any) -> Encoded:
        """Give the tokens of the answer, and whether it is desirable."""
        require_kind(row, Unpaired)
        return {**self._answers.encode(row), "desirable": bool(row.label)}

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """Refuse rows that the model or the reference cannot read; batches of one."""
        for reader in self.reference.readers(model):
            self._answers.check(reader, rows, smallest)
        _require_others(smallest)

    def prepare(self, model: nn.Module, rows: Sequence[Encoded]) -> None:
        """Ask the reference about all rows that it has not seen."""
        new = [row for row in rows if "reference" not in row]
        scores = self.reference.scores(model, [_marked(row) for row in new])
        for row, score in zip(new, scores, strict=True):
            row["reference"] = score

    @torch.no_grad()
    def whole(self, model: nn.Module, batch: list[Encoded], size: int) -> "_KL":
        """The KL that gains and losses of the batch are counted from."""
        _require_others(len(batch))
        rows = _mismatched(batch, positions(model))
        parts = (rows[i : i + size] for i in range(0, len(rows), size))
        ratios = [self._ratio(model, part) for part in parts]
        policy, reference = (torch.cat(side) for side in zip(*ratios, strict=True))
        return _KL(mismatched_kl(policy, reference), len(batch))

    def loss(
        self, model: nn.Module, batch: list[Encoded], whole: "_KL | None" = None
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """The rows' own answers with gradient, their neighbours' without.

        Args:
            whole: what `whole` gives for the batch that these rows are a part of.
        """
        kl, rows = whole or self.whole(model, batch, len(batch))
        self.prepare(model, batch)
        logprobs = answer_logprobs(model, [_marked(row) for row in batch])[0].sum(dim=1)
        reference = torch.tensor([row["reference"] for row in batch]).to(logprobs)
        desirable = torch.tensor([row["desirable"] for row in batch]).to(
            logprobs.device
        )
        loss = self.answer_loss(logprobs, reference, desirable, kl)
        metrics: Metrics = {"kl": kl.item()}
        for name, group in (("desirable", desirable), ("undesirable", ~desirable)):
            if group.any():
                said = logprobs.detach()[group]
                metrics[f"{name}_logratio"] = mean_of(said - reference[group])
                metrics[f"{name}_logprob"] = mean_of(said)
        return loss * (len(batch) / rows), metrics

    def _ratio(
        self, model: nn.Module, rows: list[Masked]
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
        policy = answer_logprobs(model, rows)[0].sum(dim=1)
        with self.reference.active(model) as frozen:
            return policy, answer_logprobs(frozen, rows)[0].sum(dim=1)


class _KL(NamedTuple):
    """An estimate, and how many rows it is for."""

    kl: Float[Tensor, ""]
    rows: int


def _as_reference(reference: Policy | Reference | None) -> Reference:
    return reference if isinstance(reference, Reference) else Reference(reference)


def _encode_pair(answers: SFTObjective, row: Any) -> Encoded:
    require_kind(row, Preference)
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


def _both_sides(rows: Sequence[Encoded]) -> list[Masked]:
    return [row[side] for side in ("chosen", "rejected") for row in rows]


def _marked(row: Encoded) -> Masked:
    return row["tokens"], row["answer"]


def _key(row: Masked) -> bytes:
    """The sequence and where its answer begins, in few bytes."""
    tokens, answer = row
    return torch.tensor([*tokens, *answer], dtype=torch.int32).numpy().tobytes()


def _require_others(rows: int) -> None:
    if rows < 2:
        raise ValueError(
            "KTO estimates its KL from the answers of other rows in the batch, and a "
            f"batch has {rows} row. Take batch_size >= 2, and more rows than one"
        )


def _mismatched(batch: list[Encoded], longest: int | None) -> list[Masked]:
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
