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

from labs_helpers.data.files import NumberedRow, read_rows
from labs_helpers.data.messages import BadMessages, Message, a_kind, as_messages
from labs_helpers.data.report import BadPreferences, Finding, PreferenceReport
from labs_helpers.data.row_formats import explicit

PAIRED = ("prompt", "chosen", "rejected")
UNPAIRED = ("prompt", "completion", "label")
# What others call a prompt.
PROMPTS = ("question", "instruction", "query", "input")
OPTIONAL = ("margin", "dimension", "annotator", "time", "meta")


def check_rows(
    source: str | Path | Iterable[Any],
) -> tuple[list[dict[str, Any]], PreferenceReport]:
    """Return the usable rows as dicts, and the report on all of them."""
    report = PreferenceReport()
    usable = []
    first_format: tuple[str, int] | None = None
    seen: dict[tuple[str, ...], int] = {}
    numbered = (
        read_rows(Path(source), report)
        if isinstance(source, str | Path)
        else _number(source)
    )
    for file, line, row in numbered:
        report.total += 1
        check = _RowCheck(file, line, report)
        row = check.row(explicit(row))
        if check.format is not None:
            first_format = first_format or (check.format, line)
            if check.format != first_format[0]:
                check.error(
                    "",
                    f"is in {check.format} format, line {first_format[1]} in "
                    f"{first_format[0]} format",
                    "Use one format in a file: strings, or lists of messages",
                )
        if check.failed or row is None:
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


def _number(rows: Iterable[Any]) -> Iterator[NumberedRow]:
    if isinstance(rows, Mapping):
        raise BadPreferences(
            f"this is a table of {', '.join(map(str, rows))[:200]}, expected one set "
            "of rows: take one split, as in dataset['train'], make rows of columns "
            "with datasets.Dataset.from_dict(table), or put a single row in a list"
        )
    if not isinstance(rows, Iterable):
        raise BadPreferences(
            f"this is {a_kind(rows)}, expected rows: a list, a table or a path"
        )
    given = list(rows)
    in_memory = [row for row in given if hasattr(row, "in_file")]
    as_text = all(row.as_text for row in in_memory)
    for line, row in enumerate(given, start=1):
        yield "rows", line, row.in_file(as_text) if hasattr(row, "in_file") else row


def _text(value: Any) -> str:
    """Text of a prompt or answer for comparisons: case and spacing do not count."""
    if isinstance(value, list):
        value = "\n".join(f"{m['role']}: {m['content']}" for m in value)
    return " ".join(value.split()).casefold()


def _content(row: dict[str, Any]) -> tuple[str, ...]:
    names = PAIRED if "chosen" in row else UNPAIRED[:2]
    return tuple(_text(row[name]) for name in names)


def _swapped(row: dict[str, Any]) -> tuple[str, ...] | None:
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

    def row(self, row: Any) -> dict[str, Any] | None:
        """Check a row; give it back with its messages as they are read."""
        if not isinstance(row, dict):
            self.error(
                "",
                f"is {a_kind(row)}, expected an object",
                'Write {"prompt": ..., "chosen": ..., "rejected": ...}',
            )
            return None
        self.has_prompt = "prompt" in row
        is_unpaired = not {"chosen", "rejected"} & row.keys() and (
            {"completion", "label"} & row.keys()
        )
        required = UNPAIRED if is_unpaired else PAIRED
        self.names(row, required)
        texts = [name for name in required if name != "label" and name in row]
        read = {name: self.text(name, row[name]) for name in texts}
        valid = {name: value for name, value in read.items() if value is not None}
        formats = {name: _format(value) for name, value in valid.items()}
        if len(set(formats.values())) > 1:
            self.error(
                "",
                "mixes formats: "
                + ", ".join(f"{name} is {kind}" for name, kind in formats.items()),
                "Use one format in a row: strings, or lists of messages",
            )
        elif formats:
            self.format = next(iter(formats.values()))
            self.answers(valid)
        self.optional(row)
        if is_unpaired and "label" in row and not isinstance(row["label"], bool):
            self.error(
                "label",
                f"is {row['label']!r:.60}, expected true or false",
                "Write true for a desirable answer, false for an undesirable one",
            )
        return {**row, **valid}

    def names(self, row: dict[str, Any], required: tuple[str, ...]) -> None:
        unknown = [name for name in row if name not in (*required, *OPTIONAL)]
        for name in required:
            if name in row:
                continue
            close = difflib.get_close_matches(name, unknown, n=1)
            if name == "prompt":
                close = close or [other for other in PROMPTS if other in unknown]
            remedy = f"Add it; expected fields are {', '.join(required)}"
            if name == "prompt" and _is_dialogue(row.get("chosen")):
                remedy = "Write whole dialogues, Human: to Assistant:, on both sides"
            elif close:
                remedy = f"Rename {close[0]!r} to {name!r}"
                unknown.remove(close[0])
            self.error(name, "is missing", remedy)
        for name in unknown:
            self.warn(
                str(name), "is an unknown field and not read", "Move it into 'meta'"
            )

    def text(self, name: str, value: Any) -> str | list[Message] | None:
        """Read a prompt or an answer, a string or messages; None if it is neither."""
        before = len(self.report.errors)
        try:
            # As an answer: what is empty is reported below, with its place.
            messages = as_messages(value, "assistant")
        except BadMessages as error:
            self.error(name + error.place, error.problem, error.remedy)
            return None
        if isinstance(value, str):
            self.content(name, value)
        else:
            for i, message in enumerate(messages):
                self.content(f"{name}[{i}].content", message["content"])
        if len(self.report.errors) > before:
            return None
        return value if isinstance(value, str) else messages

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

    def answers(self, row: dict[str, Any]) -> None:
        for name in row:
            ends_wrong = name != "prompt" and self.format == "message"
            if ends_wrong and row[name][-1]["role"] != "assistant":
                self.error(
                    name,
                    f"ends with a message of the {row[name][-1]['role']}",
                    "An answer's last message is the assistant's",
                )
        both = "chosen" in row and "rejected" in row
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
                problem = f"is {a_kind(margin)}, expected a number"
                self.error("margin", problem, "Write a finite number, or leave it out")
            elif not _is_finite(margin):
                problem = f"is {margin}" if isinstance(margin, float) else "is too big"
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
                problem = f"is {a_kind(value)}, expected {words}"
                self.error(name, problem, "Correct it, or leave it out")
            elif value is not None and (problem := unwritable(value)):
                self.error(name, problem, "Correct it, or leave it out")


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an integer beyond all floats
        return False


def unwritable(value: Any) -> str | None:
    """What keeps a value from being written as JSON in UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        return "holds half of a surrogate pair, which is no text"
    except (TypeError, ValueError, RecursionError) as error:
        return f"cannot be written as JSON: {error!s:.100}"
    return None


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
