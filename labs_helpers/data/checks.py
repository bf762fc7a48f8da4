"""Find what is wrong with a preference set: every finding, with its line and remedy.

In go rows as they stand in a file, out come the usable ones and a report.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from labs_helpers.data.files import NumberedRow, read_rows
from labs_helpers.data.formats import SIDES, dialogue, explicit
from labs_helpers.data.messages import BadMessages, Message, a_kind, as_messages
from labs_helpers.data.rated import SKIPPED, as_pairs
from labs_helpers.data.report import (
    BadPreferences,
    Finding,
    PreferenceReport,
    validated,
)
from labs_helpers.data.rows import (
    Preference,
    Row,
    Unpaired,
    comparable,
    contents,
    in_file,
    said,
)

# What others call a prompt.
PROMPTS = ("question", "instruction", "query", "input")
NO_PAIR = (
    "is not the same dialogue up to its last answer, or has no two different answers",
    f"{SKIPPED}, as HH has such rows",
)
NUMBER = "Write a finite number, or leave it out"
TIME = "Write text or seconds, or leave it out"
LABEL = "Write true for a desirable answer, false for an undesirable one"
T = TypeVar("T")
Problem = tuple[str, str, str]  # field, problem, remedy


def as_json(value: Any) -> str:
    """Write JSON that can be encoded; a ValueError says what keeps it from that."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no text") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot be written as JSON: {error!s:.100}") from None
    return text


def _content(value: Any) -> str | list[Message]:
    """A prompt or an answer, a string or messages, none of them empty."""
    messages = as_messages(value, "assistant")
    for i, message in enumerate(messages):
        if not message["content"].strip():
            place = "" if isinstance(value, str) else f"[{i}].content"
            raise BadMessages(place, "is empty", "Write a text, or remove the row")
    return value if isinstance(value, str) else messages


def _answer(value: str | list[Message]) -> str | list[Message]:
    if not isinstance(value, str) and value[-1]["role"] != "assistant":
        problem = f"ends with a message of the {value[-1]['role']}"
        raise BadMessages("", problem, "An answer's last message is the assistant's")
    return value


def _writable(value: Any) -> Any:
    as_json(value)
    return value


Content = Annotated[Any, AfterValidator(_content)]
Answer = Annotated[Content, AfterValidator(_answer)]
Optional = Annotated[T | None, AfterValidator(_writable)]


class _Row(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)
    prompt: Content
    margin: float | None = Field(None, description=NUMBER)
    dimension: Optional[str] = None
    annotator: Optional[str] = None
    time: Optional[str | float] = Field(None, description=TIME)
    meta: Optional[dict[str, Any]] = None


class _Pair(_Row):
    chosen: Answer
    rejected: Answer


class _Single(_Row):
    completion: Answer
    label: bool = Field(description=LABEL)


KNOWN = {*_Pair.model_fields, *_Single.model_fields}


def check_rows(
    source: str | Path | Iterable[Any], name: str = "rows", every_aspect: bool = False
) -> tuple[list[Row], PreferenceReport]:
    """Return the usable rows, and the report on all of them.

    Args:
        name: what rows in memory are called.
        every_aspect: also make a pair of each aspect in which answers are rated.
    """
    report, usable = PreferenceReport(), []
    formats: dict[str, str] = {}
    seen: dict[tuple, int] = {}
    is_file = isinstance(source, str | Path)
    read = read_rows(source, report) if is_file else _number(source, report, name)
    for file, line, given in as_pairs(read, report, every_aspect):
        spelt_out = explicit(given)
        fields, errors = _fields(spelt_out, file, line)
        kind = Preference if fields and "chosen" in fields else Unpaired
        row = fields and kind(**fields)
        if _are_dialogues(given):
            if not (row and _is_one_exchange(row)):
                report.warnings.append(Finding(file, line, "", *NO_PAIR))
                continue
            row = replace(row, dimension=row.dimension or _goal_of(file))
        if row:
            texts = {name: said(messages) for name, messages in contents(row).items()}
            own = {name: _format(fields[name]) for name in texts}
            formats = formats or {f"line {line}": own["prompt"]}
            problems = _problems(texts, own | formats)
            errors = [Finding(file, line, *problem) for problem in problems]
        report.errors += errors
        if not errors:
            usable.append(row)
            about = getattr(row, "dimension", None)
            odd = [*_oddities(texts, spelt_out), *_repeats(texts, about, seen, line)]
            report.warnings += [Finding(file, line, *problem) for problem in odd]
    report.rows = len(usable)
    if report.total == 0:
        name = str(source) if is_file else name
        remedy = "Expected one JSON object a line"
        report.errors.append(Finding(name, 1, "", "has no rows", remedy))
    return usable, report


def _number(rows: Any, report: PreferenceReport, name: str) -> Iterator[NumberedRow]:
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        what = f"this is {a_kind(rows)}"
        if isinstance(rows, Mapping):
            what = f"this is a table of {', '.join(map(str, rows))[:200]}"
        raise BadPreferences(
            f"{what}, expected one set of rows: take one split, as in "
            "dataset['train'], make rows of columns with "
            "datasets.Dataset.from_dict(table), or put a single row in a list"
        )
    given = list(rows)
    as_text = all(row.as_text for row in given if isinstance(row, Row))
    for line, row in enumerate(given, start=1):
        report.total += 1
        yield name, line, in_file(row, as_text) if isinstance(row, Row) else row


def _fields(
    row: Any, file: str, line: int
) -> tuple[dict[str, Any] | None, list[Finding]]:
    """What is set of a row's fields, or what is wrong with them."""
    names = row.keys() if isinstance(row, Mapping) else set()
    is_single = names & {"completion", "label"} and not names & set(SIDES)
    model, found = validated(_Single if is_single else _Pair, row, file, line)
    for i, finding in enumerate(found):
        if (finding.field, finding.problem) == ("prompt", "is missing"):
            other = next((name for name in PROMPTS if name in row), None)
            remedy = f"Rename {other!r} to 'prompt'" if other else finding.remedy
            if _has_turns(row.get("chosen")):
                remedy = "Write whole dialogues, Human: to Assistant:, on both sides"
            found[i] = replace(finding, remedy=remedy)
    return model and {k: v for k, v in model if v is not None}, found


def _are_dialogues(row: Any) -> bool:
    """Whether a row is one of Anthropic's HH: two whole dialogues, and no prompt."""
    if not isinstance(row, Mapping) or row.get("prompt") is not None:
        return False
    return all(dialogue(row.get(side)) is not None for side in SIDES)


def _goal_of(name: str) -> str | None:
    """What HH's people were asked about: its folder or configuration says it."""
    found = re.search(r"(?:^|[/:\\])(harmless|helpful)(?=[-/:.\\]|$)", name)
    return found and found[1]


def _is_one_exchange(row: Any) -> bool:
    alone = len(row.chosen) == len(row.rejected) == 1
    return alone and row.chosen != row.rejected


def _problems(texts: dict[str, str], formats: dict[str, str]) -> Iterator[Problem]:
    """What keeps a row from being used that has all its fields."""
    if len(set(formats.values())) > 1:
        kinds = ", ".join(f"{name} is {kind}" for name, kind in formats.items())
        remedy = "Use one format in a file: strings, or lists of messages"
        yield "", f"mixes formats: {kinds}", remedy
    _, *answers = (text.strip() for text in texts.values())
    if len(set(answers)) < len(answers):
        remedy = "Nothing is preferred here: remove the row"
        yield "rejected", "is identical to chosen", remedy


def _oddities(texts: dict[str, str], given: Mapping[str, Any]) -> Iterator[Problem]:
    """What is suspicious in a row that can be used."""
    for name in given:
        if name not in KNOWN:
            problem = "is an unknown field and not read"
            yield str(name), problem, "Move it into 'meta'"
    for name, text in texts.items():
        if any(sign in text for sign in ("\ufffd", "â€", "Ã©")):
            remedy = "Read the original as the encoding that it was written in"
            yield name, "holds characters of a wrongly decoded text", remedy
        if _has_turns(text):
            problem = "holds 'Human:' or 'Assistant:' turns in its text"
            yield name, problem, "Write whole dialogues and no prompt, or messages"


def _repeats(
    texts: dict[str, str], about: str | None, seen: dict[tuple, int], line: int
) -> Iterator[Problem]:
    prompt, *answers = map(comparable, texts.values())
    same, swapped = (prompt, *answers, about), (prompt, *answers[::-1], about)
    if same in seen:
        remedy = "Remove it unless two people gave the same judgement"
        yield "", f"repeats line {seen[same]}", remedy
    elif swapped in seen:
        problem = f"contradicts line {seen[swapped]}: the same pair, the other answer"
        yield "", f"{problem} chosen", "Fine where annotators differ; else remove one"
    seen.setdefault(same, line)


def _format(value: Any) -> str:
    return "string" if isinstance(value, str) else "message"


def _has_turns(value: Any) -> bool:
    turns = ("\n\nHuman:", "\n\nAssistant:")
    return isinstance(value, str) and any(turn in value for turn in turns)
