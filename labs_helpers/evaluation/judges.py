"""Who says which answer is better: the truth, a reward model, a language model, people.

A judge compares answers pair by pair. It does not know where the answers come from,
and win rates are not its business (see `evaluation`).
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, permutations
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from labs_helpers.data import BadFile, Judge, Truth, as_messages
from labs_helpers.data.files import read_json_lines
from labs_helpers.data.messages import a_kind, answer_text
from labs_helpers.data.row_formats import explicit
from labs_helpers.evaluation.estimates import Estimate, mean, proportion
from labs_helpers.models import Policy, RewardModel
from labs_helpers.models.chat import encode_answers
from labs_helpers.sampling import response_logprobs

__all__ = [
    "BothOrders",
    "Judge",
    "LanguageModelJudge",
    "RecordedJudge",
    "RewardJudge",
    "TruthJudge",
]

COMPARISON = (
    "Question: {prompt}\n\nAnswer A: {a}\n\nAnswer B: {b}\n\n"
    "Which answer is better? Reply with A or B only."
)


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


@dataclass(frozen=True)
class BothOrders:
    """What a judge said of each pair, asked with either answer in front.

    Attributes:
        a_first: the probability that `a` is better, with `a` shown first.
        a_second: the same with `a` shown second.
    """

    a_first: Float[np.ndarray, " pairs"]
    a_second: Float[np.ndarray, " pairs"]

    @property
    def outcomes(self) -> Float[np.ndarray, " pairs"]:
        """1 where `a` wins in both orders, 0 where `b` does, else 0.5."""
        wins = (self.a_first > 0.5) & (self.a_second > 0.5)
        losses = (self.a_first < 0.5) & (self.a_second < 0.5)
        return 0.5 + 0.5 * (wins.astype(float) - losses.astype(float))

    @property
    def position_bias(self) -> Estimate:
        """How often the answer shown first wins, whichever it is: 0.5 is no bias."""
        first = np.stack([self.a_first, 1 - self.a_second])
        return mean((0.5 + 0.5 * np.sign(first - 0.5)).mean(axis=0))

    @property
    def disagreement(self) -> Estimate:
        """Share of pairs in which the verdict depends on the order."""
        return proportion(float((self.outcomes == 0.5).sum()), len(self.a_first))


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

    def compare(
        self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]
    ) -> np.ndarray:
        """Compare answers: 1 where `a` wins, 0.5 for a tie, 0 where `b` wins."""
        return self.both_orders(prompts, a, b).outcomes

    def both_orders(
        self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]
    ) -> BothOrders:
        """Compare answers and keep what was said in either order."""
        _require_pairs(prompts, a, b)
        triples = [*zip(prompts, a, b, strict=True), *zip(prompts, b, a, strict=True)]
        asked = [self._ask(*triple) for triple in triples]
        self._require_different_choices()
        logprobs = response_logprobs(
            self.policy,
            self.tokenizer,
            [request for request in asked for _ in self.choices],
            [*self.choices] * len(asked),
            end=False,
        )
        first, second = logprobs.double().numpy().reshape(-1, 2).T
        shown_first = 1 / (1 + np.exp(second - first))
        a_first, b_first = shown_first.reshape(2, -1)
        return BothOrders(a_first, 1 - b_first)

    def _require_different_choices(self) -> None:
        """A reply that another one begins with is always the likelier of the two."""
        replies = encode_answers(
            self.tokenizer, ["Which?"] * 2, self.choices, end=False
        )
        said = [list(compress(*reply)) for reply in replies]
        if any(a == b[: len(a)] for a, b in permutations(said, 2)):
            raise ValueError(
                f"choices are two different replies, got {self.choices}: by their "
                f"tokens, {said}, one begins with the other, which could never win"
            )

    def _ask(self, prompt: Any, first: str, second: str) -> Any:
        first, second = answer_text(first), answer_text(second)
        if not isinstance(self.request, str):
            return self.request(prompt, first, second)
        turns = as_messages(prompt)
        text = turns[0]["content"]
        if len(turns) > 1:
            text = "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
        try:
            return self.request.format(prompt=text, a=first, b=second)
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
            left out.
            Where a pair was judged more than once, the majority counts.
    """

    def __init__(self, rows: Iterable[Any]):
        self._points: dict[str, list[float]] = {}
        for row in rows:
            row = explicit(row.in_file(False) if hasattr(row, "in_file") else row)
            if not isinstance(row, Mapping):
                raise TypeError(f"a judgement is an object, got {a_kind(row)}")
            meta = row.get("meta")
            tied = isinstance(meta, Mapping) and meta.get("choice") == "tie"
            if "chosen" in row:
                first, second, points = row["chosen"], row.get("rejected"), 1.0
            elif tied and len(row.get("answers") or ()) == 2:
                first, second, points = *row["answers"], 0.0
            else:
                continue
            key, sign = _pair_key(row.get("prompt"), first, second)
            self._points.setdefault(key, []).append(points * sign)

    @classmethod
    def read(cls, *paths: str | Path) -> "RecordedJudge":
        """Read JSON Lines files of preferences and of ties; missing ones are empty."""
        found = [Path(path) for path in paths if Path(path).exists()]
        if not found:
            raise FileNotFoundError(
                f"no judgements are recorded in {', '.join(map(str, paths))}"
            )
        rows = []
        for path in found:
            for line, row in read_json_lines(path):
                try:
                    cls([row])
                except (TypeError, ValueError) as error:
                    problem = f"is no judgement: {error}".rstrip(".")
                    raise BadFile(path, line, problem, _JUDGEMENT) from None
                rows.append(row)
        return cls(rows)

    def knows(
        self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]
    ) -> np.ndarray:
        """Say of each pair whether a judgement is recorded, in either order."""
        _require_pairs(prompts, a, b)
        triples = zip(prompts, a, b, strict=True)
        return np.array([_pair_key(*t)[0] in self._points for t in triples], dtype=bool)

    def compare(
        self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]
    ) -> np.ndarray:
        """Compare answers: 1 where `a` wins, 0.5 for a tie, 0 where `b` wins."""
        known = self.knows(prompts, a, b)
        if not known.all():
            raise ValueError(
                f"{(~known).sum()} of {len(known)} pairs were never judged. Judge them "
                "too, or leave them out: knows(prompts, a, b) says which are recorded"
            )
        keys = [_pair_key(*triple) for triple in zip(prompts, a, b, strict=True)]
        margins = [sign * sum(self._points[key]) for key, sign in keys]
        return _outcomes(np.array(margins), tie_margin=0.0)


_JUDGEMENT = 'Write {"prompt": ..., "chosen": ..., "rejected": ...}, or mend the file'


def _pair_key(prompt: Any, first: Any, second: Any) -> tuple[str, float]:
    """The same key for both orders, and 1 or -1 for the order."""
    texts = [as_messages(x, "assistant")[-1]["content"] for x in (first, second)]
    sign = 1.0 if texts == sorted(texts) else -1.0
    return json.dumps([as_messages(prompt), sorted(texts)]), sign


def _outcomes(margins: np.ndarray, tie_margin: float) -> np.ndarray:
    wins, losses = margins > tie_margin, margins < -tie_margin
    return 0.5 + 0.5 * (wins.astype(float) - losses.astype(float))


def _require_pairs(prompts: Sequence, a: Sequence, b: Sequence) -> None:
    if not len(prompts) == len(a) == len(b):
        raise ValueError(
            "a judge compares one answer of each side for each prompt; there are "
            f"{len(prompts)} prompts, {len(a)} answers a and {len(b)} answers b"
        )
