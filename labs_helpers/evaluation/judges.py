"""Who says which answer is better: the truth, a reward model, a language model, people.

A judge compares answers pair by pair: prompts and two answers to each come in, outcomes
go out, 1 where the first wins, 0.5 for a tie, 0 where the second wins.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from labs_helpers.data import BadFile, Truth, as_messages
from labs_helpers.data.files import read_json_lines
from labs_helpers.data.formats import explicit
from labs_helpers.data.messages import a_kind, answer_text
from labs_helpers.evaluation.estimates import Estimate, rate
from labs_helpers.evaluation.win_rates import outcomes_of
from labs_helpers.models import Policy, RewardModel
from labs_helpers.models.chat import encode_answers
from labs_helpers.models.limits import check_fits
from labs_helpers.models.policies import in_batches
from labs_helpers.sampling.logprobs import answer_states, sequence_scores

Prompts, Texts = Sequence[Any], Sequence[str]
COMPARISON = (
    "Question: {prompt}\n\nAnswer A: {a}\n\nAnswer B: {b}\n\n"
    "Which answer is better? Reply with A or B only."
)
_JUDGEMENT = 'Write {"prompt": ..., "chosen": ..., "rejected": ...}, or mend the file'


@dataclass(frozen=True)
class TruthJudge:
    """Prefers the answer with the higher true score."""

    truth: Truth
    dimension: str = "gold"

    def compare(self, prompts: Prompts, a: Texts, b: Texts) -> np.ndarray:
        """Compare answers: 1 where `a` wins, 0.5 for equal scores, 0 where `b` wins."""
        require_pairs(prompts, a, b)
        scores = [self.truth.scores(prompts, x, self.dimension) for x in (a, b)]
        return outcomes_of(scores[0] - scores[1])


@dataclass(frozen=True)
class RewardJudge:
    """Prefers the answer with the higher reward, by a head's name or number.

    Rewards that differ by no more than `tie_margin` are a tie; `batch_size` answers are
    read at once.
    """

    reward_model: RewardModel
    head: str | int = 0
    tie_margin: float = 0.0
    batch_size: int = 64

    def compare(self, prompts: Prompts, a: Texts, b: Texts) -> np.ndarray:
        """Compare answers: 1 where `a` wins, 0.5 for a tie, 0 where `b` wins."""
        require_pairs(prompts, a, b)
        heads = self.reward_model.heads
        if self.head not in (*heads, *range(len(heads))):
            raise ValueError(
                f"the reward model has no head {self.head!r}; its heads are "
                f"{', '.join(heads)}"
            )
        head = heads.index(self.head) if isinstance(self.head, str) else self.head
        asked, said = [*prompts, *prompts], [*a, *b]
        rewards = self.reward_model.score(asked, said, self.batch_size)[:, head]
        of_a, of_b = rewards.double().numpy().reshape(2, -1)
        return outcomes_of(of_a - of_b, self.tie_margin)


@dataclass(frozen=True)
class BothOrders:
    """What a judge said of each pair: the probability that `a` is better.

    With `a` shown first in `a_first`, second in `a_second`.
    """

    a_first: Float[np.ndarray, " pairs"]
    a_second: Float[np.ndarray, " pairs"]

    @property
    def outcomes(self) -> Float[np.ndarray, " pairs"]:
        """1 where `a` wins in both orders, 0 where `b` does, else 0.5."""
        first, second = (
            outcomes_of(self.a_first - 0.5),
            outcomes_of(self.a_second - 0.5),
        )
        return np.where(first == second, first, 0.5)

    @property
    def position_bias(self) -> Estimate:
        """How often the answer shown first wins, whichever it is: 0.5 is no bias."""
        first = np.stack([self.a_first, 1 - self.a_second])
        return rate(outcomes_of(first - 0.5).mean(axis=0))

    @property
    def disagreement(self) -> Estimate:
        """Share of pairs in which the verdict depends on the order."""
        return rate(self.outcomes == 0.5)


@dataclass(frozen=True)
class LanguageModelJudge:
    """Asks a language model which answer is better, in both orders.

    Its verdict is read from the log-probs of the two replies, not sampled. A verdict
    that turns with the order is a tie (arXiv 2306.05685, section 3.4).

    Attributes:
        policy: any causal language model.
        tokenizer: its tokenizer.
        request: what it is asked: text with {prompt}, {a} and {b}, or a function of
            prompt and two answers that gives text or messages.
        choices: its replies for the first and the second answer.
    """

    policy: Policy
    tokenizer: PreTrainedTokenizerBase
    request: str | Callable[[Any, str, str], Any] = COMPARISON
    choices: tuple[str, str] = ("A", "B")

    def compare(self, prompts: Prompts, a: Texts, b: Texts) -> np.ndarray:
        """Compare answers: 1 where `a` wins, 0.5 for a tie, 0 where `b` wins."""
        return self.both_orders(prompts, a, b).outcomes

    def both_orders(self, prompts: Prompts, a: Texts, b: Texts) -> BothOrders:
        """Compare answers and keep what was said in either order."""
        require_pairs(prompts, a, b)
        triples = [*zip(prompts, a, b, strict=True), *zip(prompts, b, a, strict=True)]
        asked = [self._ask(*triple) for triple in triples]
        said = reply_logprobs(self.policy, self.tokenizer, asked, self.choices)
        a_first, b_first = (1 / (1 + np.exp(said[:, 1] - said[:, 0]))).reshape(2, -1)
        return BothOrders(a_first, 1 - b_first)

    def _ask(self, prompt: Any, first: str, second: str) -> Any:
        first, second = answer_text(first), answer_text(second)
        if not isinstance(self.request, str):
            return self.request(prompt, first, second)
        try:
            return self.request.format(prompt=question(prompt), a=first, b=second)
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(
                "request is text with {prompt}, {a} and {b}, in which other braces are "
                f"doubled, {{{{ }}}}; filling it in failed: {error!r}"
            ) from error


class RecordedJudge:
    """Repeats judgements that were made before, by people as a rule.

    Args:
        rows: `Preference`s, or rows as in a preference file; a row with two "answers"
            and the choice "tie" in its `meta` is a tie, any other without "chosen" is
            left out. Where a pair was judged more than once, the majority counts.
    """

    def __init__(self, rows: Iterable[Any]):
        self._points: dict[str, float] = {}
        for row in rows:
            self._record(row)

    @classmethod
    def read(cls, *paths: str | Path) -> "RecordedJudge":
        """Read JSON Lines files of preferences and of ties; missing ones are empty."""
        found = [Path(path) for path in paths if Path(path).exists()]
        if not found:
            raise FileNotFoundError(
                f"no judgements are recorded in {', '.join(map(str, paths))}"
            )
        judge = cls([])
        for path in found:
            for line, row in read_json_lines(path):
                try:
                    judge._record(row)
                except (TypeError, ValueError) as error:
                    problem = f"is no judgement: {error}".rstrip(".")
                    raise BadFile(path, line, problem, _JUDGEMENT) from None
        return judge

    def knows(self, prompts: Prompts, a: Texts, b: Texts) -> np.ndarray:
        """Say of each pair whether a judgement is recorded, in either order."""
        require_pairs(prompts, a, b)
        pairs = zip(prompts, a, b, strict=True)
        return np.array([_pair_key(*x)[0] in self._points for x in pairs], dtype=bool)

    def compare(self, prompts: Prompts, a: Texts, b: Texts) -> np.ndarray:
        """Compare answers: 1 where `a` wins, 0.5 for a tie, 0 where `b` wins."""
        known = self.knows(prompts, a, b)
        if not known.all():
            raise ValueError(
                f"{(~known).sum()} of {len(known)} pairs were never judged. Judge them "
                "too, or leave them out: knows(prompts, a, b) says which are recorded"
            )
        keys = [_pair_key(*pair) for pair in zip(prompts, a, b, strict=True)]
        return outcomes_of([sign * self._points[key] for key, sign in keys])

    def _record(self, row: Any) -> None:
        row = explicit(row)
        if not isinstance(row, Mapping):
            raise TypeError(f"a judgement is an object, got {a_kind(row)}")
        meta = row.get("meta")
        tied = isinstance(meta, Mapping) and meta.get("choice") == "tie"
        if "chosen" in row:
            pair, points = (row["chosen"], row.get("rejected")), 1.0
        elif tied and len(row.get("answers") or ()) == 2:
            pair, points = row["answers"], 0.0
        else:
            return
        key, sign = _pair_key(row.get("prompt"), *pair)
        self._points[key] = self._points.get(key, 0.0) + points * sign


def _pair_key(prompt: Any, first: Any, second: Any) -> tuple[str, float]:
    """The same key for both orders, and 1 or -1 for the order."""
    texts = [as_messages(x, "assistant")[-1]["content"] for x in (first, second)]
    sign = 1.0 if texts == sorted(texts) else -1.0
    return json.dumps([as_messages(prompt), sorted(texts)]), sign


def question(prompt: Any) -> str:
    """A prompt as one text, for a judge: a conversation is told turn by turn."""
    turns = as_messages(prompt)
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def require_pairs(prompts: Prompts, a: Texts, b: Texts) -> None:
    """Refuse anything but one answer of each side for each prompt."""
    if not len(prompts) == len(a) == len(b):
        raise ValueError(
            "a judge compares one answer of each side for each prompt; there are "
            f"{len(prompts)} prompts, {len(a)} answers a and {len(b)} answers b"
        )


def reply_logprobs(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Any],
    replies: tuple[str, str],
) -> Float[np.ndarray, "requests 2"]:
    """Log-probs of two replies to every request, without the end of the turn.

    Where they differ in their last token alone ("Answer A", "Answer B"), one pass
    through the model tells both.

    Raises:
        ValueError: one reply begins with the other, or a request does not fit the model
            or its template.
    """
    rows, others = (
        encode_answers(tokenizer, requests, [reply] * len(requests), end=False)
        for reply in replies
    )
    for encoded in (rows, others):
        check_fits(policy, tokenizer, [tokens for tokens, _ in encoded])
    pairs = zip(rows, others, strict=True)
    said = {tuple(tuple(compress(*row)) for row in pair) for pair in pairs}
    for one, other in said:
        if one == other[: len(one)] or other == one[: len(other)]:
            raise ValueError(
                f"choices are two different replies, got {replies}: by their tokens, "
                f"{one} and {other}, one begins with the other, which could never win"
            )
    if len(said) != 1 or one[:-1] != other[:-1]:
        scores = [sequence_scores(policy, encoded) for encoded in (rows, others)]
        return torch.stack(scores, dim=1).double().numpy()

    def both(batch: Sequence[tuple[list[int], list[int]]]) -> Tensor:
        read = answer_states(policy, batch).states
        scores = read.scores(read.hidden).log_softmax(1)
        scores = scores.reshape(len(batch), len(one), -1)
        before = scores[:, range(len(one) - 1), one[:-1]].sum(dim=1, keepdim=True)
        return before + scores[:, -1, [one[-1], other[-1]]]

    return in_batches(policy, rows, both, 64, "judging").double().numpy()
