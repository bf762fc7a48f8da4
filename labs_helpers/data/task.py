"""What is to be aligned: prompts, and where they exist truth, judge and probes.

A lab asks its task and never which model or data set stands behind it: that is how
one notebook runs on a small embedded world and on real preference data.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from labs_helpers.data.messages import Message
from labs_helpers.data.preferences import split
from labs_helpers.data.rows import Preference, Unpaired

FEW = 30
SPLITS = ("train", "validation", "test")
# Pairs set aside for fitting a judge: a share, of sets that can spare so many, and
# never more than are of use to a linear head.
JUDGE = "judge"
JUDGE_SHARE, JUDGE_FEWEST, JUDGE_MOST = 0.2, 100, 400
# For testing a tenth, or up to a quarter until there are as many as tell an accuracy
# of 0.57 from one half.
TEST_PAIRS = 200
OVERALL = (None, "overall")
# What a section may need: what it is called, and how to get it.
_SUITES = "LABS_SUITES takes {}, a file or a folder of such files"
_OWN = "items of data/safety's format with {}"
NEEDS = {
    "truth": ("the true reward", "Only the embedded world has one: unset LABS_DATA"),
    "judge": (
        "a judge that has seen no training pair",
        "LABS_JUDGE takes the name or folder of a reward model or language model, or "
        "an address, http://host/v1#model; without it one is fitted on pairs set "
        f"aside, where there are {round(JUDGE_FEWEST / JUDGE_SHARE)} or more",
    ),
    "heads": (
        "preferences for several goals",
        "HH-RLHF's folders, UltraFeedback's completions and HelpSteer have them, and "
        "rows with a dimension",
    ),
    "capability": (
        "a capability probe",
        "LABS_CAPABILITY takes a JSON Lines file in GSM8K's or ARC's format",
    ),
    "harmful": (
        "a suite of harmful prompts",
        _SUITES.format("XSTest, HarmBench, StrongREJECT or SimpleSafetyTests"),
    ),
    "soundalike": ("a suite of safe prompts", _SUITES.format("XSTest")),
    "honesty": ("a suite of questions", _SUITES.format("TruthfulQA")),
    "sycophancy": ("questions under pressure", _SUITES.format(_OWN.format("pressed"))),
    "consistency": (
        "questions in several wordings",
        _SUITES.format(_OWN.format("paraphrases")),
    ),
    "train": (
        "harmful and safe prompts to train on",
        _SUITES.format("XSTest, HarmBench, StrongREJECT or SimpleSafetyTests"),
    ),
}


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
        preferences: takes a split's name, gives its preference pairs: all in all or, by
            the name of a goal, those of people who were asked about that alone.
        heads: the goals, one head of a reward model each; the first is what is
            preferred all in all, where that was asked.
        judge: says which of two answers is better, and has seen no pair of any split;
            None where nothing can.
        truth: the true reward; None outside a world that knows it.
        capability: takes a split's name, gives the probe for the alignment tax.
        suites: safety suites by what they are for: harmful, soundalike, honesty,
            sycophancy, consistency, and train, which has no item of the others.
        self_check: asked after an answer, lets a model judge it before it is scored;
            None where the models have not learned that.
        many_prompts: gives more training prompts than there are recorded answers to,
            for training that samples its answers; None where there are no more.
    """

    name: str
    prompts: Callable[[str], list[Prompt]]
    preferences: Callable[..., list[Preference]]
    heads: tuple[str, ...] = ("reward",)
    judge: Judge | None = None
    truth: Truth | None = None
    capability: Callable[[str], Probe] | None = None
    suites: Mapping[str, Any] = field(default_factory=dict)
    self_check: str | None = None
    many_prompts: Callable[[], list[Prompt]] | None = None

    def practice(self) -> list[Prompt]:
        """Every training prompt: for answers that are sampled and not recorded."""
        return self.many_prompts() if self.many_prompts else self.prompts("train")

    def missing(self, *needed: str) -> str:
        """Say in a line what of this is not there and how to get it; else nothing.

        Args:
            needed: truth, judge, capability, heads (more than one), or a suite's name.
        """
        for name in needed:
            if name not in NEEDS:
                known = ", ".join(NEEDS)
                raise ValueError(f"{name!r} is no need; a section may need {known}")
            if name == "heads":
                there = len(self.heads) > 1
            else:
                there = getattr(self, name, None) or self.suites.get(name)
            if not there:
                what, way = NEEDS[name]
                return (
                    f"This section needs {what}, which {self.name} does not have: "
                    f"skipped. {way}."
                )
        return ""


def task_from_preferences(
    rows: Sequence[Preference | Unpaired], name: str, seed: int = 0
) -> Task:
    """Make a task of a preference set, no prompt in two splits.

    A tenth is for validation, and a tenth for testing or, of sets with fewer than 200
    pairs in that, up to a quarter. A fifth is the split "judge", for fitting one; it
    has 400 pairs at most, and none if it would have fewer than 100. The rest is for
    training. Of fewer than 30 pairs half are for training, a quarter each for
    validation and test: with one prompt nothing can be tested.

    Goals are the rows' dimensions. There is no truth, judge, probe or suite.

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
    goals = [*dict.fromkeys(row.dimension for row in pairs)]
    aspects = [goal for goal in goals if goal not in OVERALL]
    overall = len(aspects) < len(goals)
    if aspects and overall:
        pairs = [replace(row, dimension=row.dimension or "overall") for row in pairs]
        aspects = ["overall", *aspects]
    heads, parts = tuple(aspects) or ("reward",), _parts(pairs, seed)

    def rows_of(part: str) -> list[Preference]:
        if part not in parts:
            raise ValueError(f"no split {part!r}; there are {', '.join(SPLITS)}")
        return parts[part]

    def preferences(part: str, goal: str | None = None) -> list[Preference]:
        if goal is not None and goal not in heads:
            raise ValueError(f"no goal {goal!r}; {name} has {', '.join(heads)}")
        if goal is None and overall and aspects:
            goal = "overall"
        if goal is None or not aspects:
            return list(rows_of(part))
        return [row for row in rows_of(part) if row.dimension == goal]

    def prompts(part: str) -> list[Prompt]:
        once = {str(row.prompt): row for row in rows_of(part)}
        return [Prompt(tuple(row.prompt), row.meta) for row in once.values()]

    return Task(name, prompts, preferences, heads)


def _parts(pairs: list[Preference], seed: int) -> dict[str, list[Preference]]:
    prompts = len({str(row.prompt) for row in pairs})
    test = min(0.25, max(0.1, TEST_PAIRS / prompts))
    usual = (0.5, 0.25, 0.25) if len(pairs) < FEW else (0.9 - test, 0.1, test)
    shares = dict(zip(SPLITS, usual, strict=True))
    if prompts * JUDGE_SHARE >= JUDGE_FEWEST:
        kept = min(JUDGE_SHARE, JUDGE_MOST / prompts)
        shares |= {"train": shares["train"] - kept, JUDGE: kept}
    found = split(pairs, tuple(shares.values()), seed)
    return {JUDGE: [], **dict(zip(shares, found, strict=True))}


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
