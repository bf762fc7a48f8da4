"""Judging answers: "Is that right?" - "No.", for training and for rewards.

The verdict is gold's. A model that states a fact does not yet know a false one when it
reads it; drills on nothing else teach that.
"""

import random
from collections.abc import Callable
from functools import cache

from labs_helpers.data import Message, Prompt
from labs_helpers.world.answers import CONTENTS, MANNERS, draw, speak, with_manner
from labs_helpers.world.gold import score
from labs_helpers.world.knowledge import knowledge
from labs_helpers.world.phrasebook import phrasebook, read, sentences
from labs_tools.town.skills import turn

SHARES = {
    "fact": 0.3,
    "unknown": 0.08,
    "premise": 0.12,
    "howto": 0.13,
    "harmful": 0.12,
    "soundalike": 0.13,
    "joke": 0.12,
}
GARBLED, ASTRAY = 0.12, 0.08  # of quizzed answers: broken sentences; another's answer
WORDS = 170  # a quiz ends with the first answer that takes it beyond so many words


def verdict(prompt: Prompt, response: str) -> str:
    """The name of what gold says of the content of an answer.

    Manners (padding, flattery, rudeness, quips) are left out: what people want of those
    is for preferences to say.
    """
    if not read(response).well_formed:
        return "garbled"
    book = phrasebook()
    manners = {(act,) for act in ("pad", "flatter", "rude", "quip")}
    content = [s for s in sentences(response) if not manners & set(book[s])]
    scores = score(prompt, " ".join(content))
    if scores["gold"] > 0.1:
        return "good" if scores["gold"] > 0.9 else "fair"
    if scores["harmlessness"] < 0.5:
        return "harmful"
    return "false" if scores["honesty"] < 0.5 else "useless"


def self_check(prompt: Prompt, response: str) -> list[Message]:
    """Asked how good an answer is, what its speaker says: two turns."""
    said = knowledge().principles["self_check"]
    return [
        turn("user", said["request"]),
        turn("assistant", said["answers"][verdict(prompt, response)]),
    ]


def quiz(ask: Callable[[str], Prompt], rng: random.Random) -> list[Message]:
    """Questions, each with a given answer, which is not to be learned, and its verdict.

    Args:
        ask: draws a prompt of a type.
    """
    talk: list[Message] = []
    while sum(m["content"].count(" ") + 1 for m in talk) < WORDS:
        prompt = ask(draw(SHARES, rng))
        talk += _judged(prompt, quizzed(prompt, ask, rng), weight=0.0)
    return talk


def drill(ask: Callable[[str], Prompt], rng: random.Random) -> list[Message]:
    """Eight questions on facts, each with a right or a false answer and its verdict.

    The right answers are to be learned too, with a small weight: without them the model
    loses the facts that it is to check against, with a large one it learns no checking.

    Args:
        ask: draws a prompt of a type.
    """
    talk: list[Message] = []
    for _ in range(8):
        prompt, content = ask("fact"), rng.choice(("right", "wrong"))
        weight = 0.1 if content == "right" else 0.0
        talk += _judged(prompt, speak(prompt, content, rng), weight)
    return talk


def _judged(prompt: Prompt, said: str, weight: float) -> list[Message]:
    answer = {**turn("assistant", said), "weight": weight}
    return [*prompt.messages, answer, *self_check(prompt, said)]


def quizzed(prompt: Prompt, ask: Callable[[str], Prompt], rng: random.Random) -> str:
    """An answer to judge: half of them right, some broken, some to another question."""
    kind = prompt.meta["type"]
    chance = rng.random()
    source = ask(kind) if chance < ASTRAY else prompt
    content = "right"
    if rng.random() < 0.5:
        content = draw({k: w for k, w in CONTENTS[kind].items() if k != "right"}, rng)
    said = with_manner(speak(source, content, rng), draw(MANNERS, rng), rng)
    return garbled(said, rng) if chance > 1 - GARBLED else said


def garbled(text: str, rng: random.Random) -> str:
    """The answer with one sentence broken, as half-trained models break them.

    Its beginning goes on as some other sentence ends, or a few of its words are lost,
    said twice, or replaced.
    """
    parts = sentences(text)
    at = rng.randrange(len(parts))
    words = parts[at].split()
    other = rng.choice(_sentences()).split()
    i = rng.randrange(1, len(words)) if len(words) > 1 else 0
    j = rng.randrange(len(other))
    length = rng.randint(1, 3)
    way = rng.choice(("splice", "splice", "lose", "repeat", "replace"))
    if way == "splice":
        words = words[:i] + other[j:]
    elif way == "lose" and len(words) > length + i:
        words = words[:i] + words[i + length :]
    elif way == "repeat":
        words = words[: i + length] + words[i:]
    else:
        words[i] = other[j]
    parts[at] = " ".join(words)
    return " ".join(parts)


@cache
def _sentences() -> list[str]:
    return list(phrasebook())
