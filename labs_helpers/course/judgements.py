"""A pair of answers to compare, and a person's judgement on it as a row of a file.

In come pairs in whatever form somebody has them, and rows of an annotation file; out
go `Pair`s, rows and `Preference`s. Knows nothing of disks and screens.
"""

import json
from dataclasses import dataclass
from typing import Any

from labs_helpers.data import Preference, as_messages
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

    @property
    def is_text(self) -> bool:
        """Whether prompt and answers are text."""
        return all(isinstance(x, str) for x in (self.prompt, self.first, self.second))

    @property
    def fits_text(self) -> bool:
        """Whether text can say it: a turn of the user, and one of the assistant."""
        answers = [as_messages(x, "assistant") for x in (self.first, self.second)]
        turns = [as_messages(self.prompt), *answers]
        roles = [[message["role"] for message in messages] for messages in turns]
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
        raise ValueError(f"pair {number} is a {type(given).__name__}, expected {FORMS}")
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


def as_row(pair: Pair, choice: str, swapped: bool, in_text: bool) -> dict[str, Any]:
    """A choice as it stands in a file, whose rows are all in one format.

    Args:
        pair: that was shown.
        choice: A, B, tie or skip.
        swapped: whether the second answer was A.
        in_text: whether the file is in text, not in messages.
    """

    def written(content: Any, role: str) -> Any:
        messages = as_messages(content, role)
        return messages[0]["content"] if in_text else messages

    row = {"prompt": written(pair.prompt, "user")}
    answers = (pair.second, pair.first) if swapped else (pair.first, pair.second)
    if choice in ("A", "B"):
        chosen, rejected = answers if choice == "A" else reversed(answers)
        row["chosen"] = written(chosen, "assistant")
        row["rejected"] = written(rejected, "assistant")
    else:
        row["answers"] = [text_of(answer) for answer in answers]
    if pair.dimension is not None:
        row["dimension"] = pair.dimension
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
    if not isinstance(row.get("meta"), dict | None):
        raise ValueError(f"has a meta that is a {type(row['meta']).__name__}")
    if not isinstance(row.get("time"), str | int | float | None):
        raise ValueError(f"has a time that is a {type(row['time']).__name__}")
    return _pair(row["prompt"], *answers, row.get("dimension")).key


def choice_of(row: dict[str, Any]) -> str:
    """What was said in a row: preferred, tie or skip."""
    if "chosen" in row:
        return "preferred"
    return "tie" if (row.get("meta") or {}).get("choice") == "tie" else "skip"


def as_preference(pair: Pair, row: dict[str, Any]) -> Preference:
    """The preference in a row, in the format of the pair that it is about."""
    chosen, rejected = pair.first, pair.second
    if text_of(row["chosen"]) != text_of(chosen):
        chosen, rejected = rejected, chosen
    return Preference(
        pair.prompt,
        chosen,
        rejected,
        dimension=pair.dimension,
        annotator=row["annotator"],
        time=row.get("time"),
        meta=row.get("meta") or {},
    )


def _pair(prompt: Any, first: Any, second: Any, dimension: Any = None) -> Pair:
    if not isinstance(dimension, str | None):
        kind = type(dimension).__name__
        raise ValueError(f"has a dimension that is a {kind}, expected text")
    as_messages(prompt)
    for answer in (first, second):
        as_messages(answer, "assistant")
    return Pair(prompt, first, second, dimension)
