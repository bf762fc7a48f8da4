"""AI feedback: a model says which answer keeps a principle better, or whether one does.

Verdicts are read from log-probs of the two possible replies, never sampled: that makes
them soft labels. Pairs are shown in both orders, for a model prefers what comes first
(or second) whatever it is; averaged in log-odds, that preference cancels. This is the
feedback of RLAIF in Constitutional AI (arXiv 2212.08073, section 4). In go a policy,
its tokenizer, prompts and answers; out come labels. Trains nothing, but has the
objective that trains on soft labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from labs_helpers.constitution.principles import Constitution
from labs_helpers.data import Preference, as_messages
from labs_helpers.estimates import Estimate, mean
from labs_helpers.judges import BothOrders
from labs_helpers.logprobs import response_logprobs
from labs_helpers.losses import PreferenceLoss, soft_dpo_loss
from labs_helpers.models import Policy, encode_chat, evaluating, pad_right
from labs_helpers.objectives import Encoded
from labs_helpers.preference_objectives import PairObjective, Reference

BATCH = 64


@dataclass(frozen=True)
class Comparisons:
    """What a model said of pairs of answers, by every principle, in both orders.

    Attributes:
        ids: the principles.
        a_shown_first: log-probs of the replies "the first is better" (column 0) and
            "the second is", with answer a shown first.
        b_shown_first: the same with b shown first: there column 0 speaks for b.
    """

    ids: tuple[str, ...]
    a_shown_first: Float[np.ndarray, "principles pairs 2"]
    b_shown_first: Float[np.ndarray, "principles pairs 2"]

    @property
    def log_odds(self) -> Float[np.ndarray, "principles pairs"]:
        """Log-odds that a is better, the mean of both orders."""
        first, second = (np.diff(x)[..., 0] for x in self._both)
        return (second - first) / 2

    @property
    def probability(self) -> Float[np.ndarray, " pairs"]:
        """The soft label: that a is better, by the principles' log-odds added up.

        A principle that an answer breaks and the other keeps is decisive; one that has
        nothing to say adds next to nothing.
        """
        return expit(self.log_odds.sum(axis=0))

    def orders(self, id: str) -> BothOrders:
        """What was said in either order by one principle: bias, disagreement."""
        row = self.ids.index(id)
        first, second = (np.diff(x)[row, :, 0] for x in self._both)
        return BothOrders(expit(-first), expit(second))

    @property
    def _both(self) -> tuple[np.ndarray, np.ndarray]:
        return self.a_shown_first, self.b_shown_first


def compare_by_principles(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    a: Sequence[str],
    b: Sequence[str],
    constitution: Constitution,
) -> Comparisons:
    """Ask which of two answers keeps each principle better, in both orders."""
    if not len(prompts) == len(a) == len(b):
        raise ValueError(
            "a comparison needs one answer of each side for each prompt; there are "
            f"{len(prompts)} prompts, {len(a)} answers a and {len(b)} answers b"
        )
    asked = [_question(prompt) for prompt in prompts]
    requests = [
        principle.compare(*triple)
        for principle in constitution
        for pairs in (zip(asked, a, b, strict=True), zip(asked, b, a, strict=True))
        for triple in pairs
    ]
    replies = (constitution.first, constitution.second)
    found = _replies(policy, tokenizer, requests, replies)
    shaped = found.reshape(len(constitution), 2, len(a), 2)
    return Comparisons(tuple(constitution.ids), shaped[:, 0], shaped[:, 1])


def judge_by_principles(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    answers: Sequence[str],
    constitution: Constitution,
) -> Float[np.ndarray, "principles answers"]:
    """The probability that each answer keeps each principle, says the policy.

    The critique's question, answered by the log-probs of its two beginnings.
    """
    requests = [
        [
            *as_messages(prompt),
            {"role": "assistant", "content": answer},
            {"role": "user", "content": principle.critique},
        ]
        for principle in constitution
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    replies = (constitution.kept, constitution.broken)
    found = _replies(policy, tokenizer, requests, replies)
    odds = found[:, 0] - found[:, 1]
    return expit(odds).reshape(len(constitution), len(answers))


def principle_scores(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    answers: Sequence[str],
    constitution: Constitution,
) -> dict[str, Estimate]:
    """By principle, the share of answers that keep it: the mean of the judge's labels.

    To compare policies, let one and the same judge read the answers of all.
    """
    kept = judge_by_principles(policy, tokenizer, prompts, answers, constitution)
    return {id: mean(row) for id, row in zip(constitution.ids, kept, strict=True)}


@dataclass(frozen=True)
class ConstitutionJudge:
    """Prefers the answer that keeps a constitution better, says a language model.

    Attributes:
        policy: any causal language model.
        tokenizer: its tokenizer.
        constitution: its principles weigh alike.
        tie_margin: log-odds that differ from 0 by no more than this are a tie.
    """

    policy: Policy
    tokenizer: PreTrainedTokenizerBase
    constitution: Constitution
    tie_margin: float = 0.0

    def compare(
        self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]
    ) -> np.ndarray:
        """Compare answers: 1 where `a` wins, 0.5 for a tie, 0 where `b` wins."""
        said = compare_by_principles(
            self.policy, self.tokenizer, prompts, a, b, self.constitution
        )
        odds = said.log_odds.sum(axis=0)
        wins, losses = odds > self.tie_margin, odds < -self.tie_margin
        return 0.5 + 0.5 * (wins.astype(float) - losses.astype(float))


def preferences_from(
    prompts: Sequence[Any],
    a: Sequence[str],
    b: Sequence[str],
    probabilities: Sequence[float],
    annotator: str = "AI feedback",
) -> list[Preference]:
    """Pairs with soft labels as preferences: the likelier answer is the chosen one.

    The label stands in `meta["probability"]`, at least 1/2; a file of these rows is a
    preference file like any other. Pairs of one and the same answer are left out.
    """
    rows = []
    for prompt, *pair, p in zip(prompts, a, b, probabilities, strict=True):
        if pair[0] == pair[1]:
            continue
        chosen, rejected = pair if p >= 0.5 else reversed(pair)
        meta = {
            **getattr(prompt, "meta", {}),
            "probability": float(max(p, 1 - p)),
        }
        rows.append(
            Preference(
                as_messages(prompt),
                [{"role": "assistant", "content": chosen}],
                [{"role": "assistant", "content": rejected}],
                annotator=annotator,
                meta=meta,
            )
        )
    return rows


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
        label = row.meta.get("probability", 1.0)
        if not 0 <= label <= 1:
            raise ValueError(f"a label is a probability, got {label!r} in {row}")
        return {**self._pairs.encode(row), "label": float(label)}

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


def _question(prompt: Any) -> str:
    """The last question; earlier turns before it, where there are any."""
    turns = as_messages(prompt)
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _replies(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Any],
    replies: tuple[str, str],
) -> Float[np.ndarray, "requests 2"]:
    """Log-probs of both replies to every request.

    Where they differ in their last token alone ("Answer A", "Answer B"), one pass
    through the model tells both.
    """
    said = [tokenizer(r, add_special_tokens=False)["input_ids"] for r in replies]
    shared = said[0][:-1]
    if said[1][:-1] != shared:
        logprobs = response_logprobs(
            policy,
            tokenizer,
            [request for request in requests for _ in replies],
            [*replies] * len(requests),
            end=False,
        )
        return logprobs.double().numpy().reshape(-1, 2)
    asked = [
        encode_chat(tokenizer, as_messages(r), add_generation_prompt=True)
        for r in requests
    ]
    last = torch.tensor([said[0][-1], said[1][-1]], device=policy.device)
    found = np.zeros((len(asked), 2))
    order = sorted(range(len(asked)), key=lambda i: -len(asked[i]))
    with evaluating(policy):
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            rows = [[*asked[i], *shared] for i in batch]
            tokens = pad_right(rows, 0)[0].to(policy.device)
            hidden = policy.get_decoder()(input_ids=tokens, use_cache=False)
            hidden = hidden.last_hidden_state
            total = torch.zeros(len(batch), 2, device=policy.device)
            for k in range(len(shared) + 1):
                at = [len(asked[i]) - 1 + k for i in batch]
                state = hidden[torch.arange(len(batch)), torch.tensor(at)]
                scores = policy.get_output_embeddings()(state).float().log_softmax(1)
                total += scores[:, [shared[k]]] if k < len(shared) else scores[:, last]
            found[batch] = total.double().cpu().numpy()
    return found
