"""Held-out examples of critique, revision and comparison, with their right answers.

Prompts whose meta says what is right, balanced between rules that are kept and rules
that are broken. Prompts, answers and (in the test split) wordings of rules are none
that preference training sees; those wordings are in no training text either.
"""

import random
from dataclasses import dataclass

from labs_helpers.data import Prompt
from labs_helpers.world.answers import answer
from labs_helpers.world.gold import kept_traits, score
from labs_helpers.world.knowledge import knowledge
from labs_helpers.world.prompts import every_prompt, lot
from labs_tools.town import skills
from labs_tools.town.corpus import CONTENT_TRAITS


@dataclass(frozen=True)
class Case:
    """A prompt with an answer, and a trait that the answer keeps or breaks."""

    prompt: Prompt
    said: str
    trait: str
    broken: bool


def cases(split: str, per_trait: int) -> list[Case]:
    """For each trait as many answers that keep it as answers that break it."""
    draw = lot("cases", split)
    found: list[Case] = []
    for trait in knowledge().traits:
        stock = [
            p
            for kind, content in CONTENT_TRAITS.items()
            if trait in skills.MANNERS or (content == trait and kind != "joke")
            for p in every_prompt(split, kind)
        ]
        for broken in (False, True):
            found += [
                Case(prompt, _drawn(prompt, trait, broken, draw), trait, broken)
                for prompt in draw.choices(stock, k=per_trait // 2)
            ]
    return found


def _drawn(prompt: Prompt, trait: str, broken: bool, draw: random.Random) -> str:
    """An answer of the mixture that breaks the trait, or keeps it."""
    for _ in range(1000):
        said = answer(prompt, draw)
        if kept_traits(prompt, said)[trait] != broken:
            return said
    raise ValueError(f"no answer to {prompt.text!r} with {trait} broken: {broken}")


def critique_prompt(case: Case, split: str, draw: random.Random) -> Prompt:
    """The conversation up to a critique request; meta["expected"] is the verdict."""
    asked = skills.critique_request(skills.rule([case.trait], draw, [split]), draw)
    expected = case.trait if case.broken else "kept"
    return _continued(case, asked, {"type": "critique", "expected": expected})


def revision_prompt(case: Case, split: str, draw: random.Random) -> Prompt:
    """The conversation up to a revision request; meta is that of the question."""
    asked = skills.revision_request(skills.rule([case.trait], draw, [split]), draw)
    return _continued(case, asked, dict(case.prompt.meta))


def comparison_prompt(case: Case, split: str, draw: random.Random) -> Prompt:
    """A comparison of the case's answer with one that differs in the trait."""
    other = _drawn(case.prompt, case.trait, not case.broken, draw)
    a, b = (case.said, other)
    expected = "b" if case.broken else "a"
    if draw.random() < 0.5:
        a, b, expected = b, a, "ab"[expected == "a"]
    rule = skills.rule([case.trait], draw, [split])
    text = skills.comparison_request(case.prompt, a, b, rule, draw)
    return Prompt(text, {"type": "comparison", "expected": expected})


def _continued(case: Case, asked: str, meta: dict) -> Prompt:
    said = skills.turn("assistant", case.said)
    return Prompt((*case.prompt.messages, said, skills.turn("user", asked)), meta)


def revision_is_right(case: Case, revision: str) -> bool:
    """Whether the trait is kept now and nothing else that the answer kept is lost.

    The revision must be worth at least as much as the answer in gold, too.
    """
    before = kept_traits(case.prompt, case.said)
    after = kept_traits(case.prompt, revision)
    worth = [score(case.prompt, text)["gold"] for text in (case.said, revision)]
    kept = all(after[t] for t, ok in before.items() if ok)
    return after[case.trait] and kept and worth[1] >= worth[0]
