"""The two rows of preference data, and how each stands in a file.

Text or messages come in, messages are held. Knows nothing of files and reports.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from labs_helpers.messages import as_messages

# Given as whatever `as_messages` takes, held as list[Message].
Held = Any


@dataclass(frozen=True)
class Preference:
    """Two answers to a prompt, and which of them somebody prefers.

    The three are lists of messages, whatever they were given as: text becomes a message
    of the user in a prompt, of the assistant in an answer. `as_text` remembers that
    all three were given as text.

    Raises:
        BadMessages: A ValueError; prompt or answer is neither text nor messages.
    """

    prompt: Held
    chosen: Held
    rejected: Held
    margin: float | None = None
    dimension: str | None = None
    annotator: str | None = None
    time: str | float | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    as_text: bool = field(default=False, compare=False, repr=False, kw_only=True)

    def __post_init__(self):
        _read_messages(self, ("chosen", "rejected"))

    def in_file(self, as_text: bool) -> dict[str, Any]:
        """The row as it stands in a file: without what is not set."""
        return _in_file(self, ("prompt", "chosen", "rejected") if as_text else ())


@dataclass(frozen=True)
class Unpaired:
    """One answer to a prompt, and whether it is desirable; see `Preference`."""

    prompt: Held
    completion: Held
    label: bool
    meta: dict[str, Any] = field(default_factory=dict)
    as_text: bool = field(default=False, compare=False, repr=False, kw_only=True)

    def __post_init__(self):
        _read_messages(self, ("completion",))

    def in_file(self, as_text: bool) -> dict[str, Any]:
        """The row as it stands in a file: without what is not set."""
        return _in_file(self, ("prompt", "completion") if as_text else ())


Row = Preference | Unpaired


def _read_messages(row: Row, answers: tuple[str, ...]) -> None:
    """Turn a new row's text into messages, and remember that it was text."""
    given = [getattr(row, name) for name in ("prompt", *answers)]
    read = [as_messages(given[0]), *(as_messages(x, "assistant") for x in given[1:])]
    for name, messages in zip(("prompt", *answers), read, strict=True):
        object.__setattr__(row, name, messages)
    was_text = row.as_text or all(isinstance(x, str) for x in given)
    roles = [[message["role"] for message in messages] for messages in read]
    as_text = was_text and roles == [["user"], *([["assistant"]] * len(answers))]
    object.__setattr__(row, "as_text", as_text)


def _in_file(row: Row, texts: tuple[str, ...]) -> dict[str, Any]:
    values = {f.name: getattr(row, f.name) for f in fields(row) if f.compare}
    values |= {name: values[name][0]["content"] for name in texts}
    return {k: v for k, v in values.items() if v is not None and (k != "meta" or v)}


def from_fields(row: Mapping[str, Any]) -> Row:
    """A row from the fields of a file's; what it has no field for is left out."""
    kind = Preference if "chosen" in row else Unpaired
    names = {f.name for f in fields(kind) if f.compare}
    return kind(**{k: v for k, v in row.items() if k in names and v is not None})


def in_one_format(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows as they stand in one file: text where all were given as text."""
    rows = list(rows)
    as_text = all(row.as_text for row in rows)
    return [row.in_file(as_text) for row in rows]
