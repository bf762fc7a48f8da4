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
`defaults`. A file or text comes in, a `Constitution` goes out.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    StringConstraints,
    model_validator,
)

from labs_helpers.data import BadFile
from labs_helpers.data.files import read_text, read_yaml
from labs_helpers.data.report import Finding, validated

REQUESTS = ("critique", "revision", "comparison")
_SLOT = re.compile(r"\{(\w*)\}")


class BadConstitution(ValueError):
    """A constitution that cannot be used; the message names line and reason."""


@dataclass(frozen=True)
class Principle:
    """One rule, and the requests by which a model is asked about it.

    The critique asks whether the last answer keeps the rule, the revision for a better
    answer, the comparison which of two keeps it better, with {prompt}, {a} and {b}.
    """

    id: str
    text: str
    critique: str
    revision: str
    comparison: str

    def compare(self, prompt: str, first: str, second: str) -> str:
        """The question which of two answers keeps the rule better."""
        return _filled(self.comparison, prompt=prompt, a=first, b=second)


@dataclass(frozen=True)
class Constitution:
    """Principles in the order of revision, and the replies by which verdicts are read.

    A critique begins with `kept` or `broken`; `first` and `second` say which of two
    answers is better. The defaults word the requests of principles that are added.
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
        requests = self.defaults or {}
        if id in self.ids:
            raise ValueError(f"there is a principle {id!r} already: take another id")
        if missing := [name for name in REQUESTS if name not in requests]:
            raise ValueError(
                f"the constitution has no defaults for {', '.join(missing)}: write "
                "the principle into its file, with requests of its own"
            )
        new = _principle({"id": id, "text": text, **requests})
        return replace(self, principles=(*self.principles, new))


def load_constitution(path_or_text: str | Path) -> Constitution:
    """Read a constitution from a file, or from YAML text (with a line break in it).

    Raises:
        BadConstitution: The message names every problem with its line.
    """
    name = text = str(path_or_text)
    is_text = isinstance(path_or_text, str) and "\n" in path_or_text
    if not is_text and not Path(name).is_file():
        raise FileNotFoundError(f"no constitution {name!r} in {Path.cwd()}")
    name = "constitution" if is_text else name
    try:
        root, value = read_yaml(text if is_text else read_text(name), name)
    except BadFile as error:
        raise BadConstitution(str(error)) from error
    found, problems = validated(_File, value, name, root or 1)
    if not problems:
        defaults = found.defaults.model_dump(exclude_none=True)
        rules = [
            {**defaults, **x.model_dump(exclude_none=True)} for x in found.principles
        ]
        nodes = next(node for key, node in root.value if key.value == "principles")
        lines = [node.start_mark.line + 1 for node in nodes.value]
        problems = [
            Finding(name, line, f"principles[{i}]", *problem)
            for i, line in enumerate(lines)
            if (problem := _problem(rules[i], rules[:i]))
        ]
    if problems:
        raise BadConstitution("\n".join(map(str, problems)))
    principles = tuple(map(_principle, rules))
    return Constitution(principles, defaults=defaults, **vars(found.replies))


def _problem(
    rule: dict[str, str], earlier: list[dict[str, str]]
) -> tuple[str, str] | None:
    """What keeps a principle from being used beside the defaults and the others."""
    if missing := [name for name in REQUESTS if name not in rule]:
        remedy = "Write it there, or a default for all principles"
        return f"has no {' and no '.join(missing)}", remedy
    if rule["id"] in [x["id"] for x in earlier]:
        return f"id: there is a principle {rule['id']!r} already", "Take another id"
    return None


def _principle(rule: dict[str, str]) -> Principle:
    requests = {name: _filled(rule[name], text=rule["text"]) for name in REQUESTS}
    return Principle(rule["id"], rule["text"], **requests)


def _filled(request: str, **values: str) -> str:
    """Fill the slots in one pass: what is put in is never searched for slots."""
    return _SLOT.sub(lambda slot: values.get(slot[1], slot[0]), request)


def _request(*needed: str) -> Any:
    """The type of a request: all that is needed, {text} and no other slot in it."""

    def check(text: str) -> str:
        slots, known = _SLOT.findall(text), ("text", *needed)
        if unknown := set(slots) - set(known):
            there_are = ", ".join(f"{{{slot}}}" for slot in known)
            raise ValueError(f"{{{min(unknown)}}} is no slot; there are {there_are}")
        if lacking := [f"{{{slot}}}" for slot in needed if slot not in slots]:
            raise ValueError(f"{', '.join(lacking)} is missing in the text")
        return text

    return Annotated[str, _NOT_BLANK, AfterValidator(check)] | None


_QUOTES = "Write a text; what YAML takes for something else (yes, 1e-4) in quotes"
_NOT_BLANK = StringConstraints(strip_whitespace=True, min_length=1)
_Text = Annotated[str, _NOT_BLANK, Field(description=_QUOTES)]


class _Requests(BaseModel, extra="forbid"):
    critique: _request() = Field(None, description=_QUOTES)
    revision: _request() = Field(None, description=_QUOTES)
    comparison: _request("prompt", "a", "b") = Field(None, description=_QUOTES)


class _Rule(_Requests):
    id: str = Field(
        pattern="^[a-z0-9][a-z0-9_-]*$",
        description="Write a short name of small letters, digits, - and _",
    )
    text: _Text


class _Replies(BaseModel, extra="forbid"):
    kept: _Text = "Yes"
    broken: _Text = "No"
    first: _Text = "A"
    second: _Text = "B"

    @model_validator(mode="after")
    def _differ(self) -> "_Replies":
        if len(set(vars(self).values())) < 4:
            raise ValueError("two of them are the same")
        return self


class _File(BaseModel, extra="forbid"):
    defaults: _Requests = _Requests()
    replies: _Replies = _Replies()
    principles: list[_Rule] = Field(min_length=1)
