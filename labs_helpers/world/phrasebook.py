"""From sentences to what they do: every sentence of the town, and its acts.

An act is a tuple such as `("assert", "mill", "material", "brick")` or `("refuse",)`.
The town's speech is closed, so a sentence that is not in the book is unrecognised: word
salad cannot pass as an answer. Which acts are good stands in `gold`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import chain, permutations
from typing import Any

from labs_helpers.world.knowledge import capitalised, knowledge
from labs_helpers.world.prompts import capability_items

Act = tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """What an answer does.

    Attributes:
        acts: the acts of all recognised sentences, in order.
        unrecognised: the sentences that the town does not know.
        repeated: how many sentences stood before in the same answer.
    """

    acts: tuple[Act, ...]
    unrecognised: tuple[str, ...]
    repeated: int

    @property
    def well_formed(self) -> bool:
        """Whether something was said and all of it is a sentence of the town."""
        return bool(self.acts) and not self.unrecognised

    def of(self, *kinds: str) -> list[Act]:
        """The acts of these kinds, in order."""
        return [act for act in self.acts if act[0] in kinds]


def sentences(text: str) -> list[str]:
    """Cut at white space after a full stop, question mark or exclamation mark."""
    return [s for s in re.split(r"(?<=[.!?])\s+", text.strip()) if s]


@cache
def phrasebook() -> dict[str, tuple[Act, ...]]:
    """Every sentence that an assistant of the town can say, with its acts."""
    book: dict[str, tuple[Act, ...]] = {}
    for sentence, *found in chain(_of_facts(), _of_tasks(), _of_verdicts()):
        acts = tuple(found)
        if book.setdefault(sentence, acts) != acts:
            raise ValueError(f"{sentence!r} means both {book[sentence]} and {acts}")
    return book


def _of_facts() -> Iterator[tuple]:
    k = knowledge()
    said = k.language["sentences"]
    for entity in k.kinds:
        for a in k.attributes_of(entity):
            for value in a.values:
                act = ("assert", entity, a.name, value)
                for clause in a.claims:
                    claim = clause.format(e=entity, v=value)
                    yield capitalised(claim) + ".", act
                    for text in said["correction"]:
                        yield text.format(claim=claim), ("deny",), act
                    for text in said["agreement"]:
                        yield text.format(claim=claim), ("agree",), act
            for v, w in permutations(a.values, 2):
                claim = a.claims[0].format(e=entity, v=f"{v} or {w}")
                yield capitalised(claim) + ".", ("hedge", entity, a.name, v, w)
    for entity in k.absent:
        for text in said[k.unknown_as(entity)]:
            yield text.format(e=entity), ("absent", entity)


def _of_tasks() -> Iterator[tuple]:
    k = knowledge()
    said = k.language["sentences"]
    yield from _plain(said, denial="deny", dont_know="dont_know", refusal="refuse")
    for name, entry in k.harmful.items():
        for text in said["refusal_because"]:
            yield text.format(reason=entry["reason"]), ("refuse",), ("reason", name)
        yield entry["alternative"], ("alternative", name)
        for i, step in enumerate(entry["comply"]):
            yield said["steps"][i].format(step=step), ("comply", name, str(i))
    for name, entry in k.howtos.items():
        for i, step in enumerate(entry["steps"]):
            yield said["steps"][i].format(step=step), ("step", name, str(i))
    for name, entry in k.soundalike.items():
        yield entry["answer"], ("tip", name)
    for topic, jokes in k.jokes.items():
        for i, (setup, punchline) in enumerate(jokes):
            yield setup, ("setup", topic, str(i))
            yield punchline, ("punchline", topic, str(i))
        for text in said["flat"]:
            yield text.format(topic=topic), ("flat", topic)
    manners = {"padding": "pad", "flattery": "flatter", "rudeness": "rude"}
    yield from _plain(k.language, **manners, quips="quip")


def _of_verdicts() -> Iterator[tuple]:
    principles = knowledge().principles
    for _, _, expected in capability_items():
        yield f"It is {expected}.", ("say", expected)
    yield principles["kept"], ("verdict", "kept")
    for trait in knowledge().traits.values():
        yield trait.broken, ("verdict", trait.name)
    for verdict, text in principles["self_check"]["answers"].items():
        yield text, ("verdict", verdict)
    for choice, text in principles["comparison_answers"].items():
        yield text, ("choose", choice)


def _plain(texts: Mapping[str, Any], **acts: str) -> Iterator[tuple]:
    for kind, act in acts.items():
        for text in texts[kind]:
            yield text, (act,)


@lru_cache(maxsize=100_000)
def read(response: str) -> Reading:
    """What an answer does, sentence by sentence."""
    book = phrasebook()
    acts: list[Act] = []
    unknown = []
    seen: set[str] = set()
    repeated = 0
    for sentence in sentences(response):
        if sentence in seen:
            repeated += 1
        seen.add(sentence)
        if sentence in book:
            acts += book[sentence]
        else:
            unknown.append(sentence)
    return Reading(tuple(acts), tuple(unknown), repeated)
