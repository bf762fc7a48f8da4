"""Find what is wrong with a preference set: every finding, with its line and remedy.

In go rows as they stand in a file, out come the usable ones and a report. Reads files,
changes none; knows the format and nothing of training.
"""

import difflib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labs_helpers.data_files import Finding, PreferenceReport, read_rows

PAIRED = ("prompt", "chosen", "rejected")
UNPAIRED = ("prompt", "completion", "label")
OPTIONAL = ("margin", "dimension", "annotator", "time", "meta")
ROLES = ("system", "user", "assistant")


def check_rows(
    source: str | Path | Iterable[Any],
) -> tuple[list[dict[str, Any]], PreferenceReport]:
    """Return the usable rows as dicts, and the report on all of them."""
    report = PreferenceReport()
    usable = []
    first_format: tuple[str, int] | None = None
    seen: dict[str, int] = {}
    numbered = (
        read_rows(Path(source), report)
        if isinstance(source, str | Path)
        else _number(source)
    )
    for file, line, row in numbered:
        report.total += 1
        if row is None:  # unreadable, and already reported
            continue
        check = _RowCheck(file, line, report)
        check.row(row)
        if check.format is not None:
            first_format = first_format or (check.format, line)
            if check.format != first_format[0]:
                check.error(
                    "",
                    f"is in {check.format} format, line {first_format[1]} in "
                    f"{first_format[0]} format",
                    "Use one format in a file: strings, or lists of messages",
                )
        if check.failed:
            continue
        usable.append(row)
        content = _content(row)
        if content in seen:
            check.warn(
                "",
                f"repeats line {seen[content]}",
                "Remove it unless two people gave the same judgement",
            )
        elif _swapped(row) in seen:
            check.warn(
                "",
                f"contradicts line {seen[_swapped(row)]}: the same pair, the other "
                "answer chosen",
                "Fine where annotators differ; else remove one",
            )
        seen.setdefault(content, line)
    report.rows = len(usable)
    if report.total == 0 and report.ok:
        file = str(source) if isinstance(source, str | Path) else "rows"
        report.errors.append(
            Finding(file, 1, "", "has no rows", "Expected one JSON object a line")
        )
    return usable, report


def _number(rows: Iterable[Any]) -> Iterator[tuple[str, int, Any]]:
    for line, row in enumerate(rows, start=1):
        if hasattr(row, "__dataclass_fields__"):
            row = as_row(row)
        yield "rows", line, row


def as_row(preference: Any) -> dict[str, Any]:
    """A dataclass as it stands in a file: without what is not set."""
    unset = {"meta": {}}
    return {
        name: value
        for name, value in vars(preference).items()
        if value is not None and (name not in unset or value)
    }


def _text(value: Any) -> str:
    """Text of a prompt or answer for comparisons: case and spacing do not count."""
    if isinstance(value, list):
        value = "\n".join(f"{m['role']}: {m['content']}" for m in value)
    return " ".join(value.split()).casefold()


def _content(row: dict[str, Any]) -> str:
    names = PAIRED if "chosen" in row else UNPAIRED[:2]
    return json.dumps([_text(row[name]) for name in names])


def _swapped(row: dict[str, Any]) -> str | None:
    if "chosen" not in row:
        return None
    return _content({**row, "chosen": row["rejected"], "rejected": row["chosen"]})


@dataclass
class _RowCheck:
    """The checks of one row; findings go to the report."""

    file: str
    line: int
    report: PreferenceReport
    failed: bool = False
    has_prompt: bool = False
    format: str | None = None

    def error(self, name: str, problem: str, remedy: str) -> None:
        self.failed = True
        self.report.errors.append(Finding(self.file, self.line, name, problem, remedy))

    def warn(self, name: str, problem: str, remedy: str) -> None:
        finding = Finding(self.file, self.line, name, problem, remedy)
        self.report.warnings.append(finding)

    def row(self, row: Any) -> None:
        if not isinstance(row, dict):
            self.error(
                "",
                f"is a {_kind(row)}, expected an object",
                'Write {"prompt": ..., "chosen": ..., "rejected": ...}',
            )
            return
        self.has_prompt = "prompt" in row
        is_unpaired = not {"chosen", "rejected"} & row.keys() and (
            {"completion", "label"} & row.keys()
        )
        required = UNPAIRED if is_unpaired else PAIRED
        self.names(row, required)
        texts = [name for name in required if name != "label" and name in row]
        valid = [name for name in texts if self.text(name, row[name])]
        formats = {name: _format(row[name]) for name in valid}
        if len(set(formats.values())) > 1:
            self.error(
                "",
                "mixes formats: "
                + ", ".join(f"{name} is {kind}" for name, kind in formats.items()),
                "Use one format in a row: strings, or lists of messages",
            )
        elif formats:
            self.format = next(iter(formats.values()))
            self.answers(row, valid)
        self.optional(row)
        if is_unpaired and "label" in row and not isinstance(row["label"], bool):
            self.error(
                "label",
                f"is {row['label']!r}, expected true or false",
                "Write true for a desirable answer, false for an undesirable one",
            )

    def names(self, row: dict[str, Any], required: tuple[str, ...]) -> None:
        unknown = [name for name in row if name not in (*required, *OPTIONAL)]
        for name in required:
            if name in row:
                continue
            close = difflib.get_close_matches(name, unknown, n=1)
            remedy = f"Add it; expected fields are {', '.join(required)}"
            if name == "prompt" and _is_dialogue(row.get("chosen")):
                remedy = "These look like whole dialogues: read the file with load_hh"
            elif close:
                remedy = f"Rename {close[0]!r} to {name!r}"
                unknown.remove(close[0])
            self.error(name, "is missing", remedy)
        for name in unknown:
            self.warn(
                str(name), "is an unknown field and not read", "Move it into 'meta'"
            )

    def text(self, name: str, value: Any) -> bool:
        """Check a prompt or an answer: a string, or a list of messages."""
        before = len(self.report.errors)
        if isinstance(value, str):
            self.content(name, value)
        elif isinstance(value, list) and value:
            for i, message in enumerate(value):
                self.message(f"{name}[{i}]", message)
        else:
            self.error(
                name,
                "is an empty list" if value == [] else f"is a {_kind(value)}",
                "Expected a string or a list of messages "
                '{"role": "user", "content": "..."}',
            )
        return len(self.report.errors) == before

    def message(self, name: str, message: Any) -> None:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            self.error(
                name,
                f"is no message: {message!r:.60}",
                'Expected {"role": "user", "content": "..."}',
            )
            return
        if message["role"] not in ROLES:
            self.error(
                f"{name}.role",
                f"is {message['role']!r}, an unknown role",
                f"Use one of {', '.join(ROLES)}",
            )
        if isinstance(message["content"], str):
            self.content(f"{name}.content", message["content"])
        else:
            self.error(
                f"{name}.content",
                f"is a {_kind(message['content'])}, expected a string",
                "Write the message's text",
            )

    def content(self, name: str, text: str) -> None:
        if not text.strip():
            self.error(name, "is empty", "Write a text, or remove the row")
        if "\ufffd" in text or "â€" in text or "Ã©" in text:
            self.warn(
                name,
                "holds characters of a wrongly decoded text",
                "Read the original as the encoding that it was written in",
            )
        if _is_dialogue(text) and self.has_prompt:
            self.warn(
                name,
                "holds 'Human:' or 'Assistant:' turns in its text",
                "Read HH dialogues with load_hh, or write messages",
            )

    def answers(self, row: dict[str, Any], valid: list[str]) -> None:
        for name in valid:
            ends_wrong = name != "prompt" and self.format == "message"
            if ends_wrong and row[name][-1]["role"] != "assistant":
                self.error(
                    name,
                    f"ends with a message of the {row[name][-1]['role']}",
                    "An answer's last message is the assistant's",
                )
        both = "chosen" in valid and "rejected" in valid
        if both and _spaced(row["chosen"]) == _spaced(row["rejected"]):
            self.error(
                "rejected",
                "is identical to chosen",
                "Nothing is preferred here: remove the row",
            )

    def optional(self, row: dict[str, Any]) -> None:
        margin = row.get("margin")
        if margin is not None:
            if isinstance(margin, bool) or not isinstance(margin, int | float):
                problem = f"is a {_kind(margin)}, expected a number"
                self.error("margin", problem, "Write a finite number, or leave it out")
            elif not math.isfinite(margin):
                problem = f"is {margin}"
                self.error("margin", problem, "Write a finite number, or leave it out")
        expected = {
            "dimension": (str, "a string"),
            "annotator": (str, "a string"),
            "time": (str | int | float, "a string or seconds"),
            "meta": (Mapping, "an object"),
        }
        for name, (kind, words) in expected.items():
            value = row.get(name)
            if value is not None and not isinstance(value, kind):
                problem = f"is a {_kind(value)}, expected {words}"
                self.error(name, problem, "Correct it, or leave it out")


def _spaced(value: Any) -> Any:
    """An answer without the white space around it."""
    if isinstance(value, str):
        return value.strip()
    return [(message["role"], message["content"].strip()) for message in value]


def _format(value: Any) -> str:
    return "string" if isinstance(value, str) else "message"


def _is_dialogue(value: Any) -> bool:
    return isinstance(value, str) and (
        "\n\nHuman:" in value or "\n\nAssistant:" in value
    )


def _kind(value: Any) -> str:
    names = {
        "NoneType": "null",
        "str": "string",
        "dict": "object",
        "int": "number",
        "float": "number",
        "bool": "true or false",
    }
    name = type(value).__name__
    return names.get(name, name)
