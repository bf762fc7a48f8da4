"""A pair of answers to compare, and a person's judgement on it as a row of a file.

In come pairs in whatever form somebody has them, and rows of an annotation file; out
go `Pair`s, rows and `Preference`s.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from labs_helpers.data import Preference, as_messages
from labs_helpers.data.messages import a_kind
from labs_helpers.data.rows import in_file

FORMS = "a Pair, a Preference, or a tuple of prompt, two answers and maybe a dimension"


@dataclass(frozen=True)
class Pair:
    """A prompt with two answers to compare, on a dimension if there is one.

    Prompt and answers are text or messages.
    """

    prompt: Any
    first: Any
    second: Any
    dimension: str | None = None

    @property
    def key(self) -> str:
        """The same for the same pair, whichever way round it is shown."""
        answers = sorted([text_of(self.first), text_of(self.second)])
        return json.dumps([as_messages(self.prompt), answers, self.dimension])

    @property
    def differs(self) -> bool:
        """Whether there is something to compare: two answers that say different."""
        first, second = text_of(self.first).strip(), text_of(self.second).strip()
        return bool(first and second) and first != second

    def turned(self) -> "Pair":
        """The same with its answers the other way round."""
        return replace(self, first=self.second, second=self.first)

    @property
    def is_text(self) -> bool:
        """Whether prompt and answers are text."""
        return all(isinstance(x, str) for x in (self.prompt, self.first, self.second))

    @property
    def fits_text(self) -> bool:
        """Whether text can say it: a turn of the user, and one of the assistant."""
        row = in_file(Preference(self.prompt, self.first, self.second), as_text=False)
        roles = [[message["role"] for message in said] for said in row.values()]
        return roles == [["user"], ["assistant"], ["assistant"]]


def as_pair(number: int, given: Any) -> Pair:
    """Take a pair in any form; a ValueError names its number."""
    parts = given
    if isinstance(given, Preference):
        row = in_file(given, given.as_text)
        parts = row["prompt"], row["chosen"], row["rejected"], given.dimension
    elif isinstance(given, Pair):
        parts = given.prompt, given.first, given.second, given.dimension
    if not isinstance(parts, list | tuple) or len(parts) not in (3, 4):
        raise ValueError(f"pair {number} is {a_kind(given)}, expected {FORMS}")
    try:
        return _pair(*parts)
    except ValueError as error:
        raise ValueError(f"pair {number}: {error}") from error


def text_of(content: Any) -> str:
    """What a prompt or an answer says: one message alone, several with their roles."""
    messages = as_messages(content, "assistant")
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def as_row(pair: Pair, choice: str, in_text: bool) -> dict[str, Any]:
    """A choice as it stands in a file, whose rows are all in one format.

    Args:
        pair: that was shown, its first answer as A.
        choice: A, B, tie or skip.
        in_text: whether the file is in text, not in messages.
    """
    answers = pair.first, pair.second
    chosen, rejected = answers[::-1] if choice == "B" else answers
    preference = Preference(pair.prompt, chosen, rejected, dimension=pair.dimension)
    row = in_file(preference, in_text)
    if choice not in ("A", "B"):
        row["answers"] = [text_of(row.pop("chosen")), text_of(row.pop("rejected"))]
    return row


def key_of(row: dict[str, Any]) -> str:
    """The key of the pair that a row is about; a ValueError says what is wrong."""
    answers = row.get("answers")
    if "chosen" in row or "rejected" in row:
        answers = [row.get("chosen"), row.get("rejected")]
    if row.get("prompt") is None or not isinstance(answers, list) or len(answers) != 2:
        raise ValueError(
            "is no comparison, expected an object with prompt, chosen and rejected"
        )
    for name, kind in (("meta", dict), ("time", str | int | float)):
        if not isinstance(row.get(name), kind | None):
            raise ValueError(f"has a {name} that is {a_kind(row[name])}")
    return _pair(row["prompt"], *answers, row.get("dimension")).key


def choice_of(row: dict[str, Any]) -> str:
    """What was said in a row: preferred, tie or skip."""
    if "chosen" in row:
        return "preferred"
    return "tie" if (row.get("meta") or {}).get("choice") == "tie" else "skip"


def said_of(pair: Pair, row: dict[str, Any] | None) -> float:
    """A row's verdict on a pair: 1 its first answer, 0 the other, 0.5 a tie; or NaN."""
    if row is None or choice_of(row) == "skip":
        return float("nan")
    if choice_of(row) == "tie":
        return 0.5
    return float(text_of(row["chosen"]) == text_of(pair.first))


def as_preference(pair: Pair, row: dict[str, Any]) -> Preference:
    """The preference in a row, in the format of the pair that it is about."""
    chosen, rejected = pair.first, pair.second
    if text_of(row["chosen"]) != text_of(chosen):
        chosen, rejected = rejected, chosen
    others = {name: row.get(name) for name in ("annotator", "time")}
    others |= {"dimension": pair.dimension, "meta": row.get("meta") or {}}
    return Preference(pair.prompt, chosen, rejected, **others)


def _pair(prompt: Any, first: Any, second: Any, dimension: Any = None) -> Pair:
    if not isinstance(dimension, str | None):
        raise ValueError(f"has a dimension that is {a_kind(dimension)}, expected text")
    Preference(prompt, first, second)  # raises where they are no messages
    return Pair(prompt, first, second, dimension)
