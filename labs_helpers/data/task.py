"""What is to be aligned: prompts, and where they exist truth, judge and probes.

A lab asks its task and never which model or data set stands behind it: that is how
one notebook runs on a small embedded world and on real preference data.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from labs_helpers.data.messages import Message
from labs_helpers.data.preferences import split
from labs_helpers.data.rows import Preference, Unpaired

FEW = 30
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Prompt:
    """What a model is asked, and what is known about the question.

    Attributes:
        content: the text, or the messages of a conversation that ends with the user.
        meta: whatever a truth or a probe needs in order to score an answer.
    """

    content: str | tuple[Message, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> list[Message]:
        """The conversation in chat format."""
        if isinstance(self.content, str):
            return [{"role": "user", "content": self.content}]
        return [dict(message) for message in self.content]

    @property
    def text(self) -> str:
        """The last thing that the user said."""
        said = [m["content"] for m in self.messages if m["role"] == "user"]
        return said[-1] if said else ""

    def __hash__(self) -> int:
        return hash(self.text)


@runtime_checkable
class Truth(Protocol):
    """The true reward of every answer, where a world knows it."""

    dimensions: tuple[str, ...]

    def score(self, prompt: Prompt, response: str) -> dict[str, float]:
        """Score one answer: every dimension, and `gold`, their documented scalar."""

    def scores(
        self,
        prompts: Sequence[Prompt],
        responses: Sequence[str],
        dimension: str = "gold",
    ) -> np.ndarray:
        """Score many answers on one dimension."""


@runtime_checkable
class Judge(Protocol):
    """Who says which of two answers is better."""

    def compare(
        self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]
    ) -> np.ndarray:
        """Compare answers prompt by prompt: 1 where `a` wins, 0.5 a tie, 0 `b`."""


@dataclass(frozen=True)
class Probe:
    """Questions with answers that are right or wrong, to measure what was forgotten."""

    prompts: list[Prompt]
    correct: Callable[[Prompt, str], bool]

    def score(self, responses: Sequence[str]) -> np.ndarray:
        """Say of each response whether it is right: 1 or 0, in the prompts' order."""
        pairs = zip(self.prompts, responses, strict=True)
        return np.array([float(self.correct(*pair)) for pair in pairs])


@dataclass(frozen=True)
class Task:
    """Prompts and preferences by split, and what judges the answers.

    Attributes:
        name: shown in figures and reports.
        prompts: takes a split's name, gives its prompts.
        preferences: takes a split's name, gives its preference pairs.
        judge: says which of two answers is better; None where nothing can.
        truth: the true reward; None outside a world that knows it.
        capability: takes a split's name, gives the probe for the alignment tax.
        self_check: asked after an answer, lets a model judge it before it is scored;
            None where the models have not learned that.
        many_prompts: gives more training prompts than there are recorded answers to,
            for training that samples its answers; None where there are no more.
    """

    name: str
    prompts: Callable[[str], list[Prompt]]
    preferences: Callable[[str], list[Preference]]
    judge: Judge | None = None
    truth: Truth | None = None
    capability: Callable[[str], Probe] | None = None
    self_check: str | None = None
    many_prompts: Callable[[], list[Prompt]] | None = None

    def practice(self) -> list[Prompt]:
        """Every training prompt: for answers that are sampled and not recorded."""
        return self.many_prompts() if self.many_prompts else self.prompts("train")


def task_from_preferences(
    rows: Sequence[Preference | Unpaired], name: str, seed: int = 0
) -> Task:
    """Make a task of a preference set: 80 % train, 10 % validation, 10 % test.

    No prompt is in two splits. Of fewer than 30 pairs half are for training, a quarter
    each for validation and test: with one prompt nothing can be tested. There is no
    truth, judge or probe.

    Of unpaired rows, a prompt's desirable answers are paired with its undesirable ones,
    in their order; what is left over, and answers to different prompts, make no pair.

    Raises:
        ValueError: There is no pair.
    """
    pairs = [row for row in rows if isinstance(row, Preference)] + _paired(rows)
    if not pairs:
        raise ValueError(
            f"{name} has {len(rows)} rows and no preference pair among them: a task "
            "needs rows with prompt, chosen and rejected, or a desirable and an "
            "undesirable answer to the same prompt"
        )
    shares = (0.8, 0.1, 0.1) if len(pairs) >= FEW else (0.5, 0.25, 0.25)
    parts = dict(zip(SPLITS, split(pairs, shares, seed), strict=True))

    def preferences(part: str) -> list[Preference]:
        if part not in parts:
            raise ValueError(f"no split {part!r}; there are {', '.join(SPLITS)}")
        return parts[part]

    def prompts(part: str) -> list[Prompt]:
        once = {str(row.prompt): row for row in preferences(part)}
        return [Prompt(tuple(row.prompt), row.meta) for row in once.values()]

    return Task(name, prompts, preferences)


def _paired(rows: Sequence[Preference | Unpaired]) -> list[Preference]:
    answers: dict[str, dict[bool, list[Unpaired]]] = {}
    for row in rows:
        if isinstance(row, Unpaired):
            both = answers.setdefault(json.dumps(row.prompt), {True: [], False: []})
            both[row.label].append(row)
    return [
        Preference(good.prompt, good.completion, bad.completion, meta=good.meta)
        for both in answers.values()
        for good, bad in zip(both[True], both[False], strict=False)
        if good.completion != bad.completion
    ]
