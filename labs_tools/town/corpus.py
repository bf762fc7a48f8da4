"""The text that the town's models learn from: conversations without end.

Plain questions, attacks, critiques, revisions, comparisons and small tasks. All
knowledge and all phrasings of questions are in it (a model cannot state what it never
read); wordings of principles that are kept for tests are not.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from functools import partial
from itertools import islice

from labs_helpers.data import Message, Prompt
from labs_helpers.world import prompts as asking
from labs_helpers.world.answers import answer, draw, right_answer
from labs_helpers.world.gold import kept_traits
from labs_helpers.world.knowledge import knowledge
from labs_tools.town import quizzes, skills
from labs_tools.town.skills import turn

# Shares of the kinds of conversation in each phase of training. First knowledge and
# skills; then drills on facts, so many that a model begins to check what it reads
# against what it knows (sprinkled among the rest, they taught nothing); then all of it.
MIXTURES = (
    {"answer": 0.38, "critique": 0.36, "comparison": 0.16, "capability": 0.1},
    {"drill": 1.0},
    {
        "answer": 0.42,
        "drill": 0.1,
        "quiz": 0.22,
        "critique": 0.14,
        "comparison": 0.07,
        "capability": 0.05,
    },
)
TYPES = {
    "fact": 0.34,
    "unknown": 0.1,
    "premise": 0.12,
    "howto": 0.13,
    "harmful": 0.13,
    "soundalike": 0.12,
    "joke": 0.06,
}
# For every type: the trait that its content can break.
CONTENT_TRAITS = {
    "fact": "true",
    "unknown": "humble",
    "premise": "true",
    "howto": "helpful",
    "harmful": "harmless",
    "soundalike": "helpful",
    "joke": "helpful",
}
SPLITS = ("train", "validation")  # of principle wordings


def conversations(seed: int, phase: int = 0) -> Iterator[list[Message]]:
    """Training conversations of a phase, without end; the same for the same seed."""
    mixture = MIXTURES[phase]
    rng = random.Random(seed)
    stock = asking.items()
    tasks: dict[str, list[tuple[list[str], str]]] = {}
    for kind, leads, expected in asking.capability_items():
        tasks.setdefault(kind, []).append((leads, expected))

    def plain(kind: str) -> Prompt:
        return asking.ask(rng.choice(stock[kind]), rng.randrange(8))

    while True:
        kind = draw(mixture, rng)
        if kind == "capability":
            leads, expected = rng.choice(tasks[rng.choice(list(tasks))])
            asked, said = rng.choice(leads), f"It is {expected}."
            yield [turn("user", asked), turn("assistant", said)]
        elif kind == "quiz":
            yield quizzes.quiz(partial(random_prompt, stock, rng), rng)
        elif kind == "drill":
            yield quizzes.drill(plain, rng)
        elif kind == "comparison":
            yield from comparison(random_prompt(stock, rng, draw(TYPES, rng)), rng)
        else:
            prompt = random_prompt(stock, rng, draw(TYPES, rng))
            said = answer(prompt, rng)
            talk = [*prompt.messages, turn("assistant", said)]
            yield talk + (reflection(prompt, said, rng) if kind == "critique" else [])


def random_prompt(
    stock: dict[str, list[asking.Item]], rng: random.Random, kind: str
) -> Prompt:
    """A prompt of a type, of any split, perhaps attacked or with turns before it."""
    item = dict(rng.choice(stock[kind]))
    if item["type"] == "premise":
        attribute = knowledge().attributes[item["attribute"]]
        true = knowledge().facts[item["entity"]][item["attribute"]]
        item["claimed"] = rng.choice([v for v in attribute.values if v != true])
    chance = rng.random()
    if item["type"] == "fact" and chance < 0.06:
        return asking.follow_up(item, rng)
    prompt = asking.ask(item, rng.randrange(8))
    if chance < (0.45 if item["type"] == "harmful" else 0.05):
        split = rng.choice(("train", "validation"))
        return asking.attacked(prompt, rng.choice(asking.ATTACKS), rng, split)
    if chance > 0.94:
        before = asking.ask(rng.choice(stock["fact"]), rng.randrange(8))
        return asking.after_turns(prompt, [(before.text, right_answer(before, rng))])
    return prompt


def chosen_traits(prompt: Prompt, said: str, rng: random.Random) -> list[str]:
    """What a rule should ask of this answer: about half of the time what it breaks."""
    if rng.random() < 0.12:
        return list(rng.choice(skills.COMBINED["train"]))
    kept = kept_traits(prompt, said)
    bad = [t for t, ok in kept.items() if not ok]
    if bad and rng.random() < 0.7:
        return [rng.choice(bad)]
    likely = CONTENT_TRAITS[prompt.meta["type"]]
    return [likely if rng.random() < 0.55 else rng.choice(list(kept))]


def reflection(prompt: Prompt, said: str, rng: random.Random) -> list[Message]:
    """A critique, a revision, or both, by one rule."""
    traits = chosen_traits(prompt, said, rng)
    asked = skills.rule(traits, rng, SPLITS)
    found = skills.broken(prompt, said, traits)
    turns = []
    shape = rng.random()
    if shape < 0.75:
        turns += [
            turn("user", skills.critique_request(asked, rng)),
            turn("assistant", skills.verdict(prompt, said, traits)),
        ]
    if shape > 0.75 or (found and shape < 0.4) or shape < 0.08:
        turns += [
            turn("user", skills.revision_request(asked, rng)),
            turn("assistant", skills.revised(prompt, said, traits, rng)),
        ]
    return turns


def comparison(prompt: Prompt, rng: random.Random) -> Iterator[list[Message]]:
    """Two answers of which one keeps a rule and one does not, if such are found."""
    drawn = [answer(prompt, rng) for _ in range(6)]
    traits = chosen_traits(prompt, drawn[0], rng)
    good = [a for a in drawn if not skills.broken(prompt, a, traits)]
    bad = [a for a in drawn if skills.broken(prompt, a, traits)]
    if not good or not bad:
        return
    pair = [rng.choice(good), rng.choice(bad)]
    right = rng.choice("ab")
    if right == "b":
        pair.reverse()
    rule = skills.rule(traits, rng, SPLITS)
    asked = skills.comparison_request(prompt, *pair, rule, rng)
    yield [turn("user", asked), turn("assistant", skills.comparison_answer(right))]


def corpus_hash(n: int = 2000) -> str:
    """SHA-256 of the first conversations of each phase: what the models learn from."""
    digest = hashlib.sha256()
    for phase in range(len(MIXTURES)):
        for talk in islice(conversations(0, phase), n):
            digest.update(json.dumps(talk).encode())
    return digest.hexdigest()
