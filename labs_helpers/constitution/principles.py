"""A constitution: principles as data, read from YAML; whatever is wrong is named.

    defaults:
      critique: "Does this answer follow the rule: {text}?"
      revision: "Rewrite the answer so that it follows the rule: {text}."
      comparison: "Question: {prompt} A: {a} B: {b} Which follows the rule: {text}?"
    replies: {kept: "Yes", broken: "No", first: "A", second: "B"}
    principles:
      - id: harmless
        text: do not help with harmful things
        critique: "Is there anything harmful in this answer?"

Each principle may word its requests itself; those that it leaves out come from
`defaults`. A file or text comes in, a `Constitution` goes out. Asks no model.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from labs_helpers.data import BadFile
from labs_helpers.data.files import read_text, read_yaml

REQUESTS = {
    "critique": frozenset({"text"}),
    "revision": frozenset({"text"}),
    "comparison": frozenset({"text", "prompt", "a", "b"}),
}
NEEDED = {"comparison": frozenset({"prompt", "a", "b"})}
REPLIES = ("kept", "broken", "first", "second")
_SLOT = re.compile(r"\{(\w*)\}")
_ID = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")


class BadConstitution(ValueError):
    """A constitution that cannot be used; the message names line and reason."""


@dataclass(frozen=True)
class Principle:
    """One rule, and how a model is asked about it.

    Attributes:
        id: a short name, for tables.
        text: the rule in words.
        critique: asks whether the last answer keeps the rule.
        revision: asks for a better answer.
        comparison: asks which of two answers keeps it better; with {prompt}, {a} and
            {b}.
    """

    id: str
    text: str
    critique: str
    revision: str
    comparison: str

    def compare(self, prompt: str, first: str, second: str) -> str:
        """The question which of two answers keeps the rule better."""
        return _filled(self.comparison, {"prompt": prompt, "a": first, "b": second})


@dataclass(frozen=True)
class Constitution:
    """Principles, and the replies by which a model's verdicts are read.

    Attributes:
        principles: in the order in which answers are revised.
        kept: how a critique begins that finds the rule kept.
        broken: how one begins that finds it broken.
        first: the reply that the answer shown first is better.
        second: the reply that the other one is.
        defaults: wordings of requests, for principles that are added.
    """

    principles: tuple[Principle, ...]
    kept: str = "Yes"
    broken: str = "No"
    first: str = "A"
    second: str = "B"
    defaults: Mapping[str, str] | None = None

    def __len__(self) -> int:
        return len(self.principles)

    def __iter__(self) -> Iterator[Principle]:
        return iter(self.principles)

    def __getitem__(self, id: str) -> Principle:
        for principle in self.principles:
            if principle.id == id:
                return principle
        raise KeyError(f"no principle {id!r}; there are {', '.join(self.ids)}")

    @property
    def ids(self) -> list[str]:
        """The principles' names, in order."""
        return [principle.id for principle in self.principles]

    def only(self, *ids: str) -> "Constitution":
        """The same with these principles alone, in this order."""
        return replace(self, principles=tuple(self[id] for id in ids))

    def adding(self, id: str, text: str) -> "Constitution":
        """The same with one principle more, asked in the default wordings.

        >>> town = load_constitution("data/constitution.yaml")
        >>> town.adding("calm", "stay calm")["calm"].critique
        'Does this answer follow the rule: stay calm?'
        """
        if id in self.ids:
            raise ValueError(f"there is a principle {id!r} already: take another id")
        missing = sorted(set(REQUESTS) - set(self.defaults or {}))
        if missing:
            raise ValueError(
                f"the constitution has no defaults for {', '.join(missing)}: write "
                "the principle into its file, with requests of its own"
            )
        new = _principle({"id": id, "text": text}, dict(self.defaults or {}))
        return replace(self, principles=(*self.principles, new))


def load_constitution(path_or_text: str | Path) -> Constitution:
    """Read a constitution from a file, or from YAML text (with a line break in it).

    Raises:
        BadConstitution: The message names every problem with its line.
    """
    given = str(path_or_text)
    is_text = isinstance(path_or_text, str) and "\n" in path_or_text
    if is_text:
        name, text = "constitution", given
    else:
        path = Path(path_or_text)
        if not path.is_file():
            raise FileNotFoundError(f"no constitution {given!r} in {Path.cwd()}")
        name, text = given, None
    try:
        root, _ = read_yaml(read_text(given) if text is None else text, name)
    except BadFile as error:
        raise BadConstitution(str(error)) from error
    problems: list[tuple[int, str]] = []
    found = _read(root, problems)
    if problems:
        lines = [f"{name}:{line}: {said}" for line, said in sorted(problems)]
        raise BadConstitution("\n".join(lines))
    return found


def _read(root: Node | None, problems: list[tuple[int, str]]) -> Constitution:
    known = ("defaults", "replies", "principles")
    parts = _mapping(root, "the constitution", known, problems)
    defaults = _requests(parts.get("defaults"), problems)
    replies = _texts(parts.get("replies"), "replies", REPLIES, problems)
    if len(set(replies.values())) < len(replies):
        problems.append((_line(parts["replies"]), "replies: two of them are the same"))
    listed = parts.get("principles")
    principles: dict[str, Principle] = {}
    if not isinstance(listed, SequenceNode) or not listed.value:
        where = 1 if listed is None else _line(listed)
        problems.append((where, "principles: expected a list of at least one"))
    else:
        for node in listed.value:
            fields = _requests(node, problems, ("id", "text"))
            complaint = _complaint(fields, defaults, principles)
            if complaint:
                problems.append((_line(node), complaint))
            else:
                principles[fields["id"]] = _principle(fields, defaults)
    return Constitution(tuple(principles.values()), defaults=defaults, **replies)


def _complaint(
    fields: dict[str, str], defaults: dict[str, str], known: Mapping[str, Principle]
) -> str | None:
    """What keeps a principle from being used, beyond its single fields."""
    who = f"principle {fields['id']!r}" if "id" in fields else "a principle"
    missing = [name for name in ("id", "text") if name not in fields]
    missing += [r for r in REQUESTS if r not in fields and r not in defaults]
    if missing:
        return (
            f"{who}: {', '.join(missing)} is missing. Each principle needs id and "
            "text, and requests of its own where the defaults have none"
        )
    if not _ID.match(fields["id"]):
        return f"id: {fields['id']!r} is no short name of letters, digits, - and _"
    if fields["id"] in known:
        return f"id: there is a principle {fields['id']!r} already"
    return None


def _principle(fields: dict[str, str], defaults: dict[str, str]) -> Principle:
    requests = {
        name: _filled(fields.get(name) or defaults[name], {"text": fields["text"]})
        for name in REQUESTS
    }
    return Principle(fields["id"], fields["text"], **requests)


def _filled(request: str, values: Mapping[str, str]) -> str:
    """Fill the slots in one pass: what is put in is never searched for slots."""
    return _SLOT.sub(lambda slot: values.get(slot[1], slot[0]), request)


def _requests(
    node: Node | None,
    problems: list[tuple[int, str]],
    others: tuple[str, ...] = (),
) -> dict[str, str]:
    """Texts by name; those that are requests must have the right slots."""
    title = "a principle" if others else "defaults"
    texts = _texts(node, title, (*others, *REQUESTS), problems)
    for name in REQUESTS.keys() & texts.keys():
        slots = set(_SLOT.findall(texts[name]))
        line = _line(_mapping(node, title, (*others, *REQUESTS), [])[name])
        if unknown := slots - REQUESTS[name]:
            problems.append(
                (
                    line,
                    f"{name}: {{{min(unknown)}}} is no slot; there are "
                    + ", ".join(f"{{{slot}}}" for slot in sorted(REQUESTS[name])),
                )
            )
        if lacking := NEEDED.get(name, frozenset()) - slots:
            slots_needed = ", ".join(f"{{{slot}}}" for slot in sorted(lacking))
            problems.append((line, f"{name}: {slots_needed} is missing in the text"))
    return texts


def _texts(
    node: Node | None,
    title: str,
    known: tuple[str, ...],
    problems: list[tuple[int, str]],
) -> dict[str, str]:
    if node is None:
        return {}
    found = {}
    for name, value in _mapping(node, title, known, problems).items():
        if not isinstance(value, ScalarNode) or not value.value.strip():
            problems.append((_line(value), f"{name}: expected a text"))
        elif value.tag != "tag:yaml.org,2002:str":
            problems.append(
                (
                    _line(value),
                    f"{name}: YAML does not read {value.value!r:.60} as text: "
                    "put it in quotes",
                )
            )
        else:
            found[name] = value.value.strip()
    return found


def _mapping(
    node: Node | None,
    title: str,
    known: tuple[str, ...],
    problems: list[tuple[int, str]],
) -> dict[str, Node]:
    if not isinstance(node, MappingNode):
        where = 1 if node is None else _line(node)
        problems.append((where, f"{title}: expected fields {', '.join(known)}"))
        return {}
    found: dict[str, Node] = {}
    for key, value in node.value:
        if key.value not in known:
            problems.append(
                (
                    _line(key),
                    f"{title} has no field {key.value!r:.60}: fields are "
                    + ", ".join(known),
                )
            )
        elif key.value in found:
            problems.append((_line(key), f"{title} has two fields {key.value!r:.60}"))
        else:
            found[key.value] = value
    return found


def _line(node: Node) -> int:
    return node.start_mark.line + 1
