"""Safety suites: prompts, and what a good answer to each would be.

A suite is a JSON Lines file, one item a line:

    {"id": "...", "kind": "harmful", "category": "theft", "prompt": "..."}

- kind "harmful": to be refused. `paraphrases` are other wordings of the wish.
- kind "safe": to be answered, though it may sound harmful.
- kind "question": has `right` and `wrong` answers; `pressed` is the same question
  from somebody who believes a wrong one, `paraphrases` ask it in other words.

`meta` is handed on to whoever scores the answers. Files and rows come in, `Suite`s go
out; a broken line is named. Public suites are read in `public`.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from labs_helpers.data import PreferenceReport, Prompt, as_messages
from labs_helpers.data.files import read_as
from labs_helpers.data.report import Finding

Kind = Literal["harmful", "safe", "question"]


class BadSuite(ValueError):
    """A suite that cannot be used; the message names every broken line."""


@dataclass(frozen=True)
class Item:
    """One prompt of a suite, with whatever a truth needs to score answers.

    The category is one of harm, of the trap, or of the question; the id names the item
    in tables. See the format above for the rest.
    """

    prompt: Prompt
    kind: Kind
    category: str = ""
    id: str = ""
    paraphrases: tuple[str, ...] = ()
    pressed: str | None = None
    right: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """Items in the order of the file, and where they come from.

    The source is a file, a paper or a data set of the hub.
    """

    name: str
    items: tuple[Item, ...]
    source: str = ""

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def of(self, *kinds: Kind) -> "Suite":
        """The items of these kinds."""
        kept = tuple(item for item in self.items if item.kind in kinds)
        return Suite(self.name, kept, self.source)

    @property
    def prompts(self) -> list[Prompt]:
        """What is asked, in order."""
        return [item.prompt for item in self.items]

    @property
    def categories(self) -> list[str]:
        """Every category, in order of first appearance."""
        return list(dict.fromkeys(item.category for item in self.items))


def load_suite(path: str | Path) -> Suite:
    """Read a suite of this project's format.

    Raises:
        BadSuite: A line cannot be used. The message reports all such lines.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no safety suite {str(path)!r} in {Path.cwd()}")
    report = PreferenceReport()
    items: list[Item] = []
    seen: dict[str, int] = {}
    for file, line, row in read_as(_Row, path, report):
        fields = dict(row)
        prompt = Prompt(fields.pop("prompt"), fields.pop("meta"))
        items.append(Item(prompt, **fields))
        if row.id and row.id in seen:
            found = f"is {row.id!r:.60}, which stands in line {seen[row.id]} already"
            report.errors.append(Finding(file, line, "id", found, "Give it another id"))
        seen.setdefault(row.id, line)
    if not report.ok:
        raise BadSuite(str(report))
    if not items:
        raise BadSuite(f"{path} holds no item: expected one JSON object a line")
    return Suite(path.stem, tuple(items), str(path))


def save_suite(items: Iterable[Item], path: str | Path) -> None:
    """Write items as `load_suite` reads them."""
    lines = []
    for item in items:
        meta = dict(item.prompt.meta)
        values = {**vars(item), "prompt": item.prompt.content, "meta": meta}
        row = {name: values[name] for name in _Row.model_fields if values[name]}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    Path(path).write_text("".join(lines), encoding="utf-8")


def _content(prompt: Any) -> str | tuple[Any, ...]:
    messages = as_messages(prompt)
    return prompt if isinstance(prompt, str) else tuple(messages)


Texts = Annotated[
    tuple[Annotated[str, Field(pattern=r"\S")], ...],
    Field(description='Write a list such as ["...", "..."]'),
]


class _Row(BaseModel, extra="forbid"):
    id: str = Field("", coerce_numbers_to_str=True)
    kind: Kind = Field(description='Write "harmful", "safe" or "question"')
    category: str = ""
    prompt: Annotated[Any, AfterValidator(_content)] = Field(
        description="Write what is asked"
    )
    paraphrases: Texts = ()
    pressed: str | None = None
    right: Texts = ()
    wrong: Texts = ()
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _answered(self) -> "_Row":
        if self.kind == "question" and not (self.right and self.wrong):
            raise ValueError("right or wrong is missing: a question needs both")
        return self
