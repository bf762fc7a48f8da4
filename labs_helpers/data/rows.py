"""The two rows of preference data, and how each stands in a file.

Text or messages come in, messages are held.
"""

import sys
from dataclasses import dataclass, field, fields
from typing import Any

from labs_helpers.data.messages import Message, a_kind, as_messages, plain

# Given as whatever can be read: held as list[Message], a number, true or false.
Held = Any
CONTENTS = ("prompt", "chosen", "rejected", "completion")


@dataclass(frozen=True)
class Preference:
    """Two answers to a prompt, and which of them somebody prefers.

    The three are lists of messages, whatever they were given as: text becomes a message
    of the user in a prompt, of the assistant in an answer. `as_text` remembers that
    all three were given as text.

    Raises:
        ValueError: Prompt or answer is neither text nor messages (`BadMessages`), or
            the margin is no finite number.
    """

    prompt: Held
    chosen: Held
    rejected: Held
    margin: Held = None
    dimension: str | None = None
    annotator: str | None = None
    time: str | float | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    as_text: bool = field(default=False, compare=False, repr=False, kw_only=True)

    def __post_init__(self):
        _read_messages(self)
        margin = plain(self.margin)
        is_number = type(margin) in (int, float) and abs(margin) <= sys.float_info.max
        if margin is not None and not is_number:
            raise ValueError(
                f"margin is {self.margin!r:.40}, expected a finite number: by how much "
                "the chosen answer is better. Leave it out where that is not known"
            )
        object.__setattr__(self, "margin", margin)


@dataclass(frozen=True)
class Unpaired:
    """One answer to a prompt, and whether it is desirable; see `Preference`.

    A label other than true, false, 1 and 0 is a ValueError.
    """

    prompt: Held
    completion: Held
    label: Held
    meta: dict[str, Any] = field(default_factory=dict)
    as_text: bool = field(default=False, compare=False, repr=False, kw_only=True)

    def __post_init__(self):
        _read_messages(self)
        label = plain(self.label)
        if label not in (True, False):  # "no" is true, to Python
            raise ValueError(
                f"label is {self.label!r:.40}, expected true for a desirable answer or "
                "false for an undesirable one"
            )
        object.__setattr__(self, "label", bool(label))


Row = Preference | Unpaired


def _read_messages(row: Row) -> None:
    """Turn a new row's text into messages, and remember that it was text."""
    is_text, is_short = True, True
    for name, given in contents(row).items():
        role = "user" if name == "prompt" else "assistant"
        messages = as_messages(given, role)
        is_text = is_text and isinstance(given, str)
        is_short = is_short and [m["role"] for m in messages] == [role]
        object.__setattr__(row, name, messages)
    object.__setattr__(row, "as_text", (is_text or row.as_text) and is_short)


def require_kind(row: Any, kind: Any, name: str = "") -> None:
    """Refuse what is not the row that is needed, and say what makes one."""
    if isinstance(row, kind):
        return
    wanted, remedy = "Preference or Unpaired", "load_preferences(path) and from_trl"
    if kind in (Preference, Unpaired):
        wanted = kind.__name__
    if isinstance(row, Preference):
        remedy = "Unpaired(row.prompt, row.chosen, True), and the rejected with False,"
    raise ValueError(f"{name}is {a_kind(row)}, expected {wanted}: {remedy} make it")


def contents(row: Row) -> dict[str, Any]:
    """Prompt and answers by name."""
    return {name: getattr(row, name) for name in CONTENTS if hasattr(row, name)}


def said(messages: list[Message]) -> str:
    """The text of messages, without their roles."""
    return "\n".join(message["content"] for message in messages)


def comparable(text: str) -> str:
    """A text for comparisons: case and spacing do not count."""
    return " ".join(text.split()).casefold()


def in_file(row: Row, as_text: bool) -> dict[str, Any]:
    """A row as it stands in a file, of text or of messages: without what is not set."""
    values = {f.name: getattr(row, f.name) for f in fields(row) if f.compare}
    if as_text:
        values |= {name: said(messages) for name, messages in contents(row).items()}
    return {k: v for k, v in values.items() if v is not None and (k != "meta" or v)}
