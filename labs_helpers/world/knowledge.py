"""What is true in the town and how its people speak, read from data/world/*.yaml."""

import hashlib
from collections import ChainMap
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from labs_helpers.common.files import ROOT
from labs_helpers.data import SPLITS

DATA = ROOT / "data"
WORLD = DATA / "world"

# Shares of each kind's items (entities, tasks, topics) in train and validation; the
# rest is for tests. Sound-alikes and harmful requests keep more for tests, because
# over-refusal and attack rates need many items.
SPLIT_SHARES = {
    "places": (0.6, 0.15),
    "people": (0.6, 0.15),
    "absent": (0.6, 0.15),
    "howtos": (0.6, 0.15),
    "harmful": (0.5, 0.15),
    "soundalike": (0.4, 0.14),
    "jokes": (0.6, 0.15),
}
TASKS = ("howtos", "harmful", "soundalike")


@dataclass(frozen=True)
class Attribute:
    """A property that places or people have, and the sentences about it."""

    name: str
    of: str
    values: tuple[str, ...]
    claims: tuple[str, ...]
    questions: tuple[str, ...]
    indirect: str
    follow_up: str


@dataclass(frozen=True)
class Trait:
    """Something a principle can ask for: its wordings, and what a critique says."""

    name: str
    broken: str
    wordings: tuple[str, ...]


@dataclass(frozen=True)
class Knowledge:
    """Everything that the YAML files say.

    Attributes:
        facts: entity -> attribute name -> true value, for places and people.
        kinds: entity -> "places" or "people", absent entities included.
        absent: entities that do not exist.
        attributes: by name.
        howtos, harmful, soundalike: entries by id.
        jokes: topic -> tuple of (setup, punchline).
        language, principles, attacks, capability: the other files as they are.
        traits: by name.
        split: (kind, item) -> "train", "validation" or "test".
    """

    facts: dict[str, dict[str, str]]
    kinds: dict[str, str]
    absent: tuple[str, ...]
    attributes: dict[str, Attribute]
    howtos: dict[str, dict[str, Any]]
    harmful: dict[str, dict[str, Any]]
    soundalike: dict[str, dict[str, Any]]
    jokes: dict[str, tuple[tuple[str, str], ...]]
    language: dict[str, Any]
    principles: dict[str, Any]
    attacks: dict[str, list[str]]
    capability: dict[str, Any]
    traits: dict[str, Trait]
    split: dict[tuple[str, str], str]

    def attributes_of(self, entity: str) -> list[Attribute]:
        """The attributes that questions about `entity` can be about."""
        return [a for a in self.attributes.values() if a.of == self.kinds[entity]]

    def unknown_as(self, entity: str) -> str:
        """The kind of sentences that say that an entity does not exist."""
        place = self.kinds[entity] == "places"
        return "dont_know_place" if place else "dont_know_person"


def capitalised(text: str) -> str:
    """First letter large, the rest as it is."""
    return text[:1].upper() + text[1:]


def _read(name: str) -> Any:
    return yaml.safe_load((WORLD / f"{name}.yaml").read_text(encoding="utf-8"))


def _by_lot(items: list[str], kind: str) -> dict[tuple[str, str], str]:
    """Deal items into splits by a hash of their names, so that adding one moves few."""
    drawn = sorted(items, key=lambda x: hashlib.sha256(f"{kind}/{x}".encode()).digest())
    train, validation = SPLIT_SHARES[kind]
    first = round(train * len(drawn))
    second = first + round(validation * len(drawn))
    return {
        (kind, item): SPLITS[(i >= first) + (i >= second)]
        for i, item in enumerate(drawn)
    }


@cache
def knowledge() -> Knowledge:
    """Read data/world/*.yaml.

    Raises:
        FileNotFoundError: the data folder is not beside the package (the embedded
            world needs a checkout of the repository, not only the installed package).
    """
    if not WORLD.is_dir():
        raise FileNotFoundError(
            f"The embedded world's data is not at {WORLD}. Work in a checkout of the "
            "repository (git clone, then pip install -e .)."
        )
    facts, language, principles = map(_read, ("facts", "language", "principles"))
    places, people, absent = (facts[kind] for kind in ("places", "people", "absent"))
    kinds = {
        **dict.fromkeys([*places, *absent["places"]], "places"),
        **dict.fromkeys([*people, *absent["people"]], "people"),
    }
    attributes, traits = language["attributes"], principles["traits"]
    tasks = {name: {x["id"]: x for x in _read(name)} for name in TASKS}
    jokes = {
        x["topic"]: tuple((j["setup"], j["punchline"]) for j in x["jokes"])
        for x in _read("jokes")
    }
    nowhere = (*absent["places"], *absent["people"])
    dealt = {"places": places, "people": people, "absent": nowhere, "jokes": jokes}
    split = [_by_lot(list(found), kind) for kind, found in {**dealt, **tasks}.items()]
    return Knowledge(
        facts={**places, **people},
        kinds=kinds,
        absent=nowhere,
        attributes={n: Attribute(n, **_tuples(a)) for n, a in attributes.items()},
        **tasks,
        jokes=jokes,
        language=language,
        principles=principles,
        attacks=_read("attacks"),
        capability=_read("capability"),
        traits={n: Trait(n, **_tuples(t)) for n, t in traits.items()},
        split=dict(ChainMap(*split)),
    )


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
