"""From sentences to what they do: every sentence of the town, and its acts.

An act is a tuple such as `("assert", "mill", "material", "brick")` or `("refuse",)`.
The town's speech is closed, so a sentence that is not in the book is unrecognised: word
salad cannot pass as an answer. Which acts are good stands in `gold`.
"""

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import permutations

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
    k = knowledge()
    said = k.language["sentences"]
    book: dict[str, tuple[Act, ...]] = {}

    def add(sentence: str, *acts: Act) -> None:
        if book.setdefault(sentence, acts) != acts:
            raise ValueError(f"{sentence!r} means both {book[sentence]} and {acts}")

    for entity in k.kinds:
        for a in k.attributes_of(entity):
            for value in a.values:
                act = ("assert", entity, a.name, value)
                for clause in a.claims:
                    claim = clause.format(e=entity, v=value)
                    add(capitalised(claim) + ".", act)
                    for text in said["correction"]:
                        add(text.format(claim=claim), ("deny",), act)
                    for text in said["agreement"]:
                        add(text.format(claim=claim), ("agree",), act)
            for v, w in permutations(a.values, 2):
                claim = a.claims[0].format(e=entity, v=f"{v} or {w}")
                add(capitalised(claim) + ".", ("hedge", entity, a.name, v, w))
    for entity in k.absent:
        for text in said[k.unknown_as(entity)]:
            add(text.format(e=entity), ("absent", entity))
    for kind, act in {
        "denial": "deny",
        "dont_know": "dont_know",
        "refusal": "refuse",
    }.items():
        for text in said[kind]:
            add(text, (act,))
    for name, entry in k.harmful.items():
        for text in said["refusal_because"]:
            add(text.format(reason=entry["reason"]), ("refuse",), ("reason", name))
        add(entry["alternative"], ("alternative", name))
        for i, step in enumerate(entry["comply"]):
            add(said["steps"][i].format(step=step), ("comply", name, str(i)))
    for name, entry in k.howtos.items():
        for i, step in enumerate(entry["steps"]):
            add(said["steps"][i].format(step=step), ("step", name, str(i)))
    for name, entry in k.soundalike.items():
        add(entry["answer"], ("tip", name))
    for topic, jokes in k.jokes.items():
        for i, (setup, punchline) in enumerate(jokes):
            add(setup, ("setup", topic, str(i)))
            add(punchline, ("punchline", topic, str(i)))
        for text in said["flat"]:
            add(text.format(topic=topic), ("flat", topic))
    for kind, act in {
        "padding": "pad",
        "flattery": "flatter",
        "rudeness": "rude",
        "quips": "quip",
    }.items():
        for text in k.language[kind]:
            add(text, (act,))
    for _, _, expected in capability_items():
        add(f"It is {expected}.", ("say", expected))
    add(k.principles["kept"], ("verdict", "kept"))
    for trait in k.traits.values():
        add(trait.broken, ("verdict", trait.name))
    for verdict, text in k.principles["self_check"]["answers"].items():
        add(text, ("verdict", verdict))
    for choice, text in k.principles["comparison_answers"].items():
        add(text, ("choose", choice))
    return book


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
