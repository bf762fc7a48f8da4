"""How people answer in the town: right, partly, wrong, made up, refusing, with manners.

An answer is a content, drawn by the type of question, and a manner laid over it: plain,
padded, flattering, rude or with a quip. Neither depends on anything but the type and
whether the prompt is an attack, so a well-trained model's samples are as mixed as
these. What an answer is worth stands in `gold`.
"""

import random
from collections.abc import Mapping
from typing import Any

from labs_helpers.data import Prompt
from labs_helpers.world.knowledge import capitalised, knowledge

CONTENTS: dict[str, dict[str, float]] = {
    "fact": {"right": 0.58, "partly": 0.12, "wrong": 0.2, "dont_know": 0.1},
    "unknown": {"right": 0.45, "partly": 0.2, "made_up": 0.35},
    "premise": {"right": 0.45, "partly": 0.15, "flattering": 0.4},
    "howto": {"right": 0.5, "partly": 0.22, "wrong": 0.13, "over_refusing": 0.15},
    "harmful": {"right": 0.32, "partly": 0.14, "bare": 0.1, "complying": 0.44},
    "soundalike": {"right": 0.55, "wrong": 0.15, "over_refusing": 0.3},
    "joke": {"right": 0.5, "partly": 0.2, "wrong": 0.15, "flat": 0.15},
}
# Under attack the assistant is easily swayed.
SWAYED = {"right": 0.14, "partly": 0.07, "bare": 0.05, "complying": 0.74}
MANNERS = {"plain": 0.58, "padded": 0.13, "flattering": 0.1, "rude": 0.09, "quip": 0.1}
SENTENCES = {"padded": "padding", "flattering": "flattery", "rude": "rudeness"}


def draw(weights: Mapping[str, float], rng: random.Random) -> str:
    """One key, with the probabilities of the values."""
    return rng.choices(list(weights), list(weights.values()))[0]


def answer(prompt: Prompt, rng: random.Random) -> str:
    """An answer from the mixture."""
    kind = prompt.meta["type"]
    swayed = kind == "harmful" and prompt.meta.get("attack")
    content = draw(SWAYED if swayed else CONTENTS[kind], rng)
    return with_manner(speak(prompt, content, rng), draw(MANNERS, rng), rng)


def right_answer(prompt: Prompt, rng: random.Random) -> str:
    """A plain answer with gold 1, in one of its wordings."""
    return speak(prompt, "right", rng)


def speak(prompt: Prompt, content: str, rng: random.Random) -> str:
    """An answer of one content (a key of CONTENTS for the prompt's type), no manner."""
    return _SPEAK[prompt.meta["type"]](prompt.meta, content, rng)


def with_manner(text: str, manner: str, rng: random.Random) -> str:
    """The answer with a sentence of padding, flattery, rudeness or a quip."""
    language = knowledge().language
    if manner == "plain":
        return text
    if manner == "quip":
        return f"{text} {rng.choice(language['quips'])}"
    extra = rng.choice(language[SENTENCES[manner]])
    return f"{extra} {text}" if rng.random() < 0.6 else f"{text} {extra}"


def _claim(meta: Mapping[str, Any], value: str, rng: random.Random) -> str:
    clause = rng.choice(knowledge().attributes[meta["attribute"]].claims)
    return clause.format(e=meta["entity"], v=value)


def _said(kind: str, rng: random.Random, **slots: str) -> str:
    return rng.choice(knowledge().language["sentences"][kind]).format(**slots)


def _wrong_value(meta: Mapping[str, Any], rng: random.Random) -> str:
    k = knowledge()
    true = k.facts.get(meta["entity"], {}).get(meta["attribute"])
    values = k.attributes[meta["attribute"]].values
    return rng.choice([v for v in values if v != true])


def _fact(meta: Mapping[str, Any], content: str, rng: random.Random) -> str:
    k = knowledge()
    true = k.facts[meta["entity"]][meta["attribute"]]
    if content == "dont_know":
        return _said("dont_know", rng)
    if content == "right":
        claim = _claim(meta, true, rng)
    elif content == "wrong":
        claim = _claim(meta, _wrong_value(meta, rng), rng)
    else:
        pair = [true, _wrong_value(meta, rng)]
        rng.shuffle(pair)
        clause = k.attributes[meta["attribute"]].claims[0]
        claim = clause.format(e=meta["entity"], v=" or ".join(pair))
    return capitalised(claim) + "."


def _unknown(meta: Mapping[str, Any], content: str, rng: random.Random) -> str:
    if content == "made_up":
        return capitalised(_claim(meta, _wrong_value(meta, rng), rng)) + "."
    if content == "partly":
        return _said("dont_know", rng)
    return _said(knowledge().unknown_as(meta["entity"]), rng, e=meta["entity"])


def _premise(meta: Mapping[str, Any], content: str, rng: random.Random) -> str:
    if content == "flattering":
        return _said("agreement", rng, claim=_claim(meta, meta["claimed"], rng))
    if content == "partly":
        return _said("denial", rng)
    true = knowledge().facts[meta["entity"]][meta["attribute"]]
    return _said("correction", rng, claim=_claim(meta, true, rng))


def _steps(name: str, chosen: tuple[int, ...] = (0, 1, 2)) -> str:
    k = knowledge()
    steps = k.howtos[name]["steps"]
    said = k.language["sentences"]["steps"]
    return " ".join(said[i].format(step=steps[i]) for i in chosen)


def _howto(meta: Mapping[str, Any], content: str, rng: random.Random) -> str:
    if content == "over_refusing":
        return _said("refusal", rng)
    if content == "wrong":
        return _steps(rng.choice([x for x in knowledge().howtos if x != meta["item"]]))
    if content == "partly":
        return _steps(meta["item"], rng.choice([(0, 1), (0, 2), (1, 2)]))
    return _steps(meta["item"])


def _harmful(meta: Mapping[str, Any], content: str, rng: random.Random) -> str:
    k = knowledge()
    entry = k.harmful[meta["item"]]
    if content == "complying":
        said = k.language["sentences"]["steps"]
        return " ".join(said[i].format(step=entry["comply"][i]) for i in (0, 1))
    if content == "bare":
        return _said("refusal", rng)
    refusal = _said("refusal_because", rng, reason=entry["reason"])
    return refusal if content == "partly" else f"{refusal} {entry['alternative']}"


def _soundalike(meta: Mapping[str, Any], content: str, rng: random.Random) -> str:
    k = knowledge()
    if content == "over_refusing":
        return _said("refusal", rng)
    if content == "wrong":
        other = rng.choice([x for x in k.soundalike if x != meta["item"]])
        return k.soundalike[other]["answer"]
    return k.soundalike[meta["item"]]["answer"]


def _joke(meta: Mapping[str, Any], content: str, rng: random.Random) -> str:
    k = knowledge()
    setup, punchline = rng.choice(k.jokes[meta["topic"]])
    if content == "flat":
        return _said("flat", rng, topic=meta["topic"])
    if content == "partly":
        return setup
    if content == "wrong":
        other = rng.choice([t for t in k.jokes if t != meta["topic"]])
        punchline = rng.choice(k.jokes[other])[1]
    return f"{setup} {punchline}"


_SPEAK = {
    "fact": _fact,
    "unknown": _unknown,
    "premise": _premise,
    "howto": _howto,
    "harmful": _harmful,
    "soundalike": _soundalike,
    "joke": _joke,
}
