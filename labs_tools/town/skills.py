"""Critique, revision and comparison by a principle: requests and right responses.

Conversations in which the assistant judges or mends its own answer, as in
Constitutional AI (arXiv 2212.08073), and comparisons of two answers.
"""

import random
from collections.abc import Sequence

from labs_helpers.data import Message, Prompt
from labs_helpers.world.answers import right_answer
from labs_helpers.world.gold import kept_traits
from labs_helpers.world.knowledge import knowledge
from labs_helpers.world.phrasebook import phrasebook, sentences

# Wordings of each trait: training, validation of preference training, never trained on.
WORDINGS = {"train": slice(0, 6), "validation": slice(6, 8), "test": slice(8, 10)}
# Rules that ask for two traits; the third pair of manners is never trained on.
COMBINED = {
    "train": (("kind", "brief"), ("brief", "plain"), ("brief", "kind")),
    "test": (("kind", "plain"), ("plain", "kind")),
}
MANNERS = {"kind": "rude", "brief": "pad", "plain": "flatter"}


def rule(
    traits: Sequence[str], rng: random.Random, splits: Sequence[str] = ("train",)
) -> str:
    """A wording that asks for one trait, or for two."""
    k = knowledge()
    chosen = [
        rng.choice([w for s in splits for w in k.traits[t].wordings[WORDINGS[s]]])
        for t in traits
    ]
    if len(chosen) == 1:
        return chosen[0]
    return k.principles["combination"].format(first=chosen[0], second=chosen[1])


def broken(prompt: Prompt, response: str, traits: Sequence[str]) -> list[str]:
    """Those of `traits` that the answer does not keep."""
    kept = kept_traits(prompt, response)
    return [t for t in traits if not kept[t]]


def verdict(prompt: Prompt, response: str, traits: Sequence[str]) -> str:
    """The right critique: the rule is kept, or the first way in which it is broken."""
    k = knowledge()
    found = broken(prompt, response, traits)
    return k.traits[found[0]].broken if found else k.principles["kept"]


def revised(
    prompt: Prompt, response: str, traits: Sequence[str], rng: random.Random
) -> str:
    """The answer mended: manners are cut out, wrong content is replaced by right."""
    found = broken(prompt, response, traits)
    if not found:
        return response
    if any(t not in MANNERS for t in found):
        return right_answer(prompt, rng)
    bad = {(MANNERS[t],) for t in found}
    book = phrasebook()
    left = [s for s in sentences(response) if not bad & set(book.get(s, ()))]
    return " ".join(dict.fromkeys(left))


def critique_request(rule: str, rng: random.Random) -> str:
    """A question whether the answer follows the rule."""
    return rng.choice(knowledge().principles["critique_requests"]).format(rule=rule)


def revision_request(rule: str, rng: random.Random) -> str:
    """A request to answer again by the rule."""
    return rng.choice(knowledge().principles["revision_requests"]).format(rule=rule)


def comparison_request(
    prompt: Prompt, a: str, b: str, rule: str, rng: random.Random
) -> str:
    """A question which of two answers follows the rule better."""
    wordings = knowledge().principles["comparison_requests"]
    return rng.choice(wordings).format(question=prompt.text, a=a, b=b, rule=rule)


def comparison_answer(choice: str) -> str:
    """What the assistant says for "a" or "b"."""
    return knowledge().principles["comparison_answers"][choice]


def turn(role: str, content: str) -> Message:
    """One message."""
    return {"role": role, "content": content}
