"""Objectives of the DPO family for `fit`: from pairs, or from answers good and bad.

A loss of `losses` comes in, as a function of log-probs; each objective makes those from
rows of data. What the frozen reference says of an answer never changes: it is computed
before training, in large batches, so that a step is one forward pass of the policy.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from labs_helpers.data import Preference, Unpaired
from labs_helpers.data.rows import require_kind
from labs_helpers.fit.objectives import (
    Encoded,
    Metrics,
    Objective,
    SFTObjective,
    answers_of,
    check_answers,
    encoded_pair,
    mean_of,
    share_right,
    soft_label,
)
from labs_helpers.fit.references import Reference
from labs_helpers.losses import (
    PreferenceLoss,
    dpo_loss,
    kto_loss,
    mismatched_kl,
    slic_loss,
    soft_dpo_loss,
)
from labs_helpers.models import Policy
from labs_helpers.models.limits import positions
from labs_helpers.sampling import answer_logprobs
from labs_helpers.sampling.logprobs import Masked


class PairObjective(Objective):
    """DPO, IPO, or any loss of a pair's log-probs under policy and reference.

    `PairObjective(tokenizer, reference, partial(dpo_loss, beta=0.05))`

    Args:
        tokenizer: the policy's.
        reference: a frozen policy, a `Reference` to share, or None (see there).
        loss: takes log-probs, each (B,): the policy's of the chosen and of the rejected
            answers, then the reference's; gives a `PreferenceLoss`, or the loss alone.
    """

    def __init__(
        self,
        tokenizer: Any,
        reference: Policy | Reference | None,
        loss: Callable[..., PreferenceLoss | Tensor] = dpo_loss,
    ):
        self.reference = _as_reference(reference)
        self.pair_loss = loss
        self._answers = SFTObjective(tokenizer)

    def encode(self, row: Any) -> Encoded:
        """Give the tokens of both answers."""
        return _encode_pair(self._answers, row)

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """Refuse rows that the model or the reference cannot read."""
        for reader in self.reference.readers(model):
            check_answers(reader, self._answers.tokenizer, rows)

    def prepare(self, model: nn.Module, rows: Sequence[Encoded]) -> None:
        """Ask the reference about all rows that it has not seen."""
        self.reference.scores(model, _answers(rows))

    def loss(
        self, model: nn.Module, batch: list[Encoded], whole: Any = None
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Chosen and rejected answers in one forward pass of the policy."""
        answers = _answers(batch)
        known = self.reference.scores(model, answers)
        logprobs = answer_logprobs(model, answers)[0].sum(dim=1)
        reference = torch.tensor(known).to(logprobs)
        labels = [row["target"] for row in batch if row["target"] is not None]
        result = self.pair_loss(
            *logprobs.chunk(2),
            *reference.chunk(2),
            *([torch.tensor(labels).to(logprobs)] if labels else []),
        )
        chosen, rejected = (logprobs.detach() - reference).chunk(2)
        metrics = _pair_metrics(chosen - rejected, logprobs)
        metrics["chosen_logratio"] = chosen.mean().item()
        metrics["rejected_logratio"] = rejected.mean().item()
        if isinstance(result, PreferenceLoss):  # it knows the rewards' unit
            margins = result.chosen_rewards - result.rejected_rewards
            metrics["reward_margin"] = margins.mean().item()
            result = result.loss
        return result, metrics


class SoftPairObjective(PairObjective):
    """DPO on soft labels: rows with `meta["probability"]` of the chosen answer.

    Args:
        tokenizer: the policy's.
        reference: as for `PairObjective`.
        loss: takes log-probs as `dpo_loss` does, then the labels (B,); 1 where a row
            has none.
    """

    def __init__(
        self,
        tokenizer: Any,
        reference: Policy | Reference | None,
        loss: Callable[..., PreferenceLoss | Tensor] = soft_dpo_loss,
    ):
        super().__init__(tokenizer, reference, loss)

    def encode(self, row: Any) -> Encoded:
        """Give the tokens of both answers, and the label."""
        return {**super().encode(row), "target": soft_label(row)}


class SLiCObjective(Objective):
    """SLiC on pairs: rank them by a margin, keep the chosen answers likely.

    `SLiCObjective(tokenizer, partial(slic_loss, delta=2.0, weight=0.1))`

    There is no reference. The targets of the supervised term are the chosen answers'
    tokens, so that its weight is measured against the usual supervised loss.
    """

    def __init__(self, tokenizer: Any, loss: Callable[..., Tensor] = slic_loss):
        self.pair_loss = loss
        self._answers = SFTObjective(tokenizer)

    def encode(self, row: Any) -> Encoded:
        """Give the tokens of both answers."""
        return _encode_pair(self._answers, row)

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """Refuse rows that the model cannot read."""
        check_answers(model, self._answers.tokenizer, rows)

    def whole(
        self, model: nn.Module, batch: list[Encoded], size: int
    ) -> tuple[int, int]:
        """How many pairs and target tokens the batch has."""
        return len(batch), sum(sum(row["answers"][0][1][1:]) for row in batch)

    def loss(
        self,
        model: nn.Module,
        batch: list[Encoded],
        whole: tuple[int, int] | None = None,
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """Chosen and rejected answers in one forward pass of the policy.

        The supervised term is a mean over the tokens, the ranking over the pairs.
        """
        tokens, predicted = answer_logprobs(model, _answers(batch))
        logprobs = tokens.sum(dim=1)
        chosen, rejected = logprobs.chunk(2)
        targets = tokens[: len(batch)][predicted[: len(batch)]]
        share = 1.0
        if whole is not None:
            share = len(batch) / whole[0]
            targets = targets * (len(targets) / whole[1] / share)
        loss = self.pair_loss(chosen, rejected, targets) * share
        return loss, _pair_metrics(chosen - rejected, logprobs)


class KTOObjective(Objective):
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
        return {**self._answers.encode(row), "target": bool(row.label)}

    def check(self, model: nn.Module, rows: Sequence[Encoded], smallest: int) -> None:
        """Refuse rows that the model or the reference cannot read; batches of one."""
        for reader in self.reference.readers(model):
            check_answers(reader, self._answers.tokenizer, rows)
        _require_others(smallest)

    def prepare(self, model: nn.Module, rows: Sequence[Encoded]) -> None:
        """Ask the reference about all rows that it has not seen."""
        self.reference.scores(model, _answers(rows))

    @torch.no_grad()
    def whole(self, model: nn.Module, batch: list[Encoded], size: int) -> "_KL":
        """The KL that gains and losses of the batch are counted from."""
        _require_others(len(batch))
        rows = _mismatched(_answers(batch), positions(model))
        parts = [rows[i : i + size] for i in range(0, len(rows), size)]
        policy = [answer_logprobs(model, part)[0].sum(dim=1) for part in parts]
        with self.reference.active(model) as frozen:
            reference = [answer_logprobs(frozen, part)[0].sum(dim=1) for part in parts]
        return _KL(mismatched_kl(torch.cat(policy), torch.cat(reference)), len(batch))

    def loss(
        self, model: nn.Module, batch: list[Encoded], whole: "_KL | None" = None
    ) -> tuple[Float[Tensor, ""], Metrics]:
        """The rows' own answers with gradient, their neighbours' without."""
        kl, rows = whole or self.whole(model, batch, len(batch))
        answers = _answers(batch)
        known = self.reference.scores(model, answers)
        logprobs = answer_logprobs(model, answers)[0].sum(dim=1)
        reference = torch.tensor(known).to(logprobs)
        desirable = torch.tensor([row["target"] for row in batch]).to(logprobs.device)
        loss = self.answer_loss(logprobs, reference, desirable, kl)
        metrics: Metrics = {"kl": kl.item()}
        for name, group in (("desirable", desirable), ("undesirable", ~desirable)):
            if group.any():
                said = logprobs.detach()[group]
                metrics[f"{name}_logratio"] = mean_of(said - reference[group])
                metrics[f"{name}_logprob"] = mean_of(said)
        return loss * (len(batch) / rows), metrics


class _KL(NamedTuple):
    """An estimate, and how many rows it is for."""

    kl: Float[Tensor, ""]
    rows: int


def _as_reference(reference: Policy | Reference | None) -> Reference:
    return reference if isinstance(reference, Reference) else Reference(reference)


def _encode_pair(answers: SFTObjective, row: Any) -> Encoded:
    require_kind(row, Preference)
    both = (Unpaired(row.prompt, said, True) for said in (row.chosen, row.rejected))
    return encoded_pair([answers_of(answers.encode(one))[0] for one in both])


def _answers(rows: Sequence[Encoded]) -> list[Masked]:
    """All rows' first answers, then their second ones if they have two."""
    sides = zip(*map(answers_of, rows), strict=True)
    return [answer for side in sides for answer in side]


def _require_others(rows: int) -> None:
    if rows < 2:
        raise ValueError(
            "KTO estimates its KL from the answers of other rows in the batch, and a "
            f"batch has {rows} row. Take batch_size >= 2, and more rows than one"
        )


def _mismatched(answers: list[Masked], longest: int | None) -> list[Masked]:
    """Each row's prompt with the answer of the row before it, as TRL matches them.

    What exceeds the longest sequence that the model reads is cut off.
    """
    rows = []
    others = [answers[-1], *answers[:-1]]
    for (tokens, marks), (theirs, said) in zip(answers, others, strict=True):
        start, begin = marks.index(1), said.index(1)
        joined = [*tokens[:start], *theirs[begin:]]
        rows.append((joined[:longest], [*[0] * start, *said[begin:]][:longest]))
    return rows


def _pair_metrics(margins: Tensor, logprobs: Tensor) -> Metrics:
    chosen, rejected = logprobs.detach().chunk(2)
    return {
        "accuracy": share_right(margins),
        "chosen_logprob": chosen.mean().item(),
        "rejected_logprob": rejected.mean().item(),
    }
