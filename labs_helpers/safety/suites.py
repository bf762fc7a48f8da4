"""Safety suites: prompts, and what a good answer to each would be.

A suite is a JSON Lines file, one item a line:

    {"id": "...", "kind": "harmful", "category": "theft", "prompt": "..."}

- kind "harmful": to be refused. `paraphrases` are other wordings of the wish.
- kind "safe": to be answered, though it may sound harmful.
- kind "question": has `right` and `wrong` answers; `pressed` is the same question
  from somebody who believes a wrong one, `paraphrases` ask it in other words.

`meta` is handed on to whoever scores the answers. Files and rows come in, `Suite`s go
out; a broken line is named. Public suites are read in `public`. Runs no model.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from labs_helpers.data import BadMessages, PreferenceReport, Prompt, as_messages
from labs_helpers.data.files import read_rows
from labs_helpers.data.report import Finding

Kind = Literal["harmful", "safe", "question"]
FIELDS = {
    "id", "kind", "category", "prompt", "paraphrases", "pressed", "right", "wrong",
    "meta",
}  # fmt: skip


class BadSuite(ValueError):
    """A suite that cannot be used; the message names every broken line."""


@dataclass(frozen=True)
class Item:
    """One prompt of a suite.

    Attributes:
        prompt: what is asked, with whatever a truth needs to score answers.
        kind: "harmful", "safe" or "question".
        category: of harm, of the trap, or of the question.
        id: names the item in tables.
        paraphrases: the same in other words.
        pressed: the question from somebody who believes a wrong answer.
        right: answers that are right.
        wrong: answers that are wrong.
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
    """Items, and where they come from.

    Attributes:
        name: stands in reports.
        items: in the order of the file.
        source: of the items: a file, a paper, a data set of the hub.
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
    for file, line, row in read_rows(path, report):
        report.total += 1
        found = list(_problems(row, line, seen))
        report.errors += [Finding(file, line, *problem) for problem in found]
        if not found:
            report.rows += 1
            items.append(_item(row))
    if not report.ok:
        raise BadSuite(str(report))
    if not items:
        raise BadSuite(f"{path} holds no item: expected one JSON object a line")
    return Suite(path.stem, tuple(items), str(path))


def save_suite(items: Iterable[Item], path: str | Path) -> None:
    """Write items as `load_suite` reads them."""
    lines = [json.dumps(_row(item), ensure_ascii=False) for item in items]
    Path(path).write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _problems(
    row: Any, line: int, seen: dict[str, int]
) -> Iterator[tuple[str, str, str]]:
    """Field, problem and remedy of everything that is wrong with a row."""
    if not isinstance(row, dict):
        yield "", f"is a {type(row).__name__}", "Write an object with kind and prompt"
        return
    for name in sorted(set(row) - FIELDS):
        known = ", ".join(sorted(FIELDS))
        yield name[:40], "is no field of a suite", f"Fields are {known}"
    if row.get("kind") not in get_args(Kind):
        found = f"is {row.get('kind')!r:.40}"
        yield "kind", found, 'Write "harmful", "safe" or "question"'
    try:
        as_messages(row["prompt"])
    except KeyError:
        yield "prompt", "is no text and no list of messages", "Write what is asked"
    except BadMessages as error:
        yield f"prompt{error.place}", error.problem, error.remedy
    for name in ("paraphrases", "right", "wrong"):
        if not _is_texts(row.get(name, [])):
            yield name, "is no list of texts", 'Write a list such as ["...", "..."]'
        needed = row.get("kind") == "question" and name != "paraphrases"
        if needed and not row.get(name):
            yield name, "is missing", "A question needs right and wrong answers"
    for name in ("pressed", "category"):
        if not isinstance(row.get(name, ""), str):
            yield name, "is no text", "Write a text, or leave it out"
    if not isinstance(row.get("meta", {}), dict):
        yield "meta", "is no object", "Write an object, or leave it out"
    if (id := row.get("id")) is not None and not isinstance(id, str | int):
        yield "id", "is no text", "Write a short name"
    elif id is not None:
        if str(id) in seen:
            first = seen[str(id)]
            found = f"{id!r:.60} stands in line {first} already"
            yield "id", found, "Give it another id"
        seen.setdefault(str(id), line)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(text, str) and text.strip() for text in value
    )


def _item(row: dict[str, Any]) -> Item:
    content = row["prompt"]
    if not isinstance(content, str):
        content = tuple(as_messages(content))
    return Item(
        prompt=Prompt(content, row.get("meta", {})),
        kind=row["kind"],
        category=row.get("category", ""),
        id=str(row.get("id", "")),
        paraphrases=_texts(row, "paraphrases"),
        pressed=row.get("pressed"),
        right=_texts(row, "right"),
        wrong=_texts(row, "wrong"),
    )


def _texts(row: dict[str, Any], name: str) -> tuple[str, ...]:
    return tuple(row.get(name, ()))


def _row(item: Item) -> dict[str, Any]:
    content = item.prompt.content
    row: dict[str, Any] = {
        "id": item.id,
        "kind": item.kind,
        "category": item.category,
        "prompt": content if isinstance(content, str) else list(content),
        "paraphrases": list(item.paraphrases),
        "pressed": item.pressed,
        "right": list(item.right),
        "wrong": list(item.wrong),
        "meta": dict(item.prompt.meta),
    }
    return {name: value for name, value in row.items() if value}


def repeated(suite: Sequence[Item] | Suite, n: int) -> list[Item]:
    """Each item n times in a row, as `sample(..., n=n)` orders its answers."""
    return [item for item in suite for _ in range(n)]
