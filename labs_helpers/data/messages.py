"""The one check of messages, at every door through which prompts and answers enter.

Whatever stands for a conversation comes in, a list of {"role", "content"} goes out, or
a sentence that says what is wrong with it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Message = dict[str, str]

# And what others call them: ShareGPT, Gemma, OpenAI.
ROLES = {"system": "system", "user": "user", "assistant": "assistant"}
ROLES |= {"human": "user", "gpt": "assistant", "model": "assistant"}
ROLES["developer"] = "system"
_EXPECTED = 'Expected a string or a list of messages {"role": "user", "content": "..."}'
_EXAMPLE = 'Expected {"role": "user", "content": "..."}'


class BadMessages(ValueError):
    """No prompt and no answer: where in it, what is wrong, what to do about it."""

    def __init__(self, place: str, problem: str, remedy: str, name: str = ""):
        self.place, self.problem, self.remedy = place, problem, remedy
        super().__init__(f"{name}{place} {problem}. {remedy}.")


def as_messages(x: Any, role: str = "user") -> list[Message]:
    """Turn a prompt or an answer into messages: text becomes one message of the role.

    Args:
        x: Text; messages as dicts, {"role", "content"} or ShareGPT's {"from", "value"},
            whose content is text or a list of parts of type "text", or as objects with
            .role and .content; or anything with `.messages`.
        role: Of text: "user" for a prompt, "assistant" for an answer.

    Raises:
        BadMessages: The sentence names the message, what is wrong with it, and what to
            do. An answer may be empty, a prompt may not.
    """
    return _read(x, role, "an answer" if role == "assistant" else "a prompt")


def as_conversations(prompts: Any, role: str = "user") -> list[list[Message]]:
    """Turn prompts or answers into messages; `BadMessages` names the row, from 0."""
    what = "answer" if role == "assistant" else "prompt"
    if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
        problem = f"are {a_kind(prompts)}, expected a list"
        remedy = f"Put a single {what} in a list: [{what}]"
        raise BadMessages("", problem, remedy, f"{what}s")
    return [_read(x, role, f"{what} {i}") for i, x in enumerate(prompts)]


def as_exchanges(
    prompts: Any, answers: Any
) -> list[tuple[list[Message], list[Message]]]:
    """Turn prompts and answers into messages; a ValueError if they do not match."""
    asked, said = as_conversations(prompts), as_conversations(answers, "assistant")
    if len(asked) != len(said):
        raise ValueError(
            f"{len(said)} answers came to {len(asked)} prompts, expected one to each: "
            "repeat a prompt for each of its answers"
        )
    return list(zip(asked, said, strict=True))


def answer_text(x: Any) -> str:
    """The text of an answer, given as text or as the assistant's one message."""
    messages = as_messages(x, "assistant")
    roles = [message["role"] for message in messages]
    if roles != ["assistant"]:
        problem = f"holds messages of {', '.join(roles)}"
        remedy = "Give one message of the assistant, or its text"
        raise BadMessages("", problem, remedy, "an answer")
    return messages[0]["content"]


def plain(value: Any) -> Any:
    """A single value without numpy's, pandas' or torch's wrapping."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def a_kind(value: Any) -> str:
    """What a value is called in a sentence, with its article: JSON's names, if any."""
    names = {"NoneType": "null", "str": "string", "dict": "object", "int": "number"}
    names |= {"float": "number", "bool": "true or false"}
    name = names.get(type(value).__name__, type(value).__name__)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _read(x: Any, role: str, name: str) -> list[Message]:
    try:
        messages = _messages(getattr(x, "messages", x), role)
        if role != "assistant" and not any(m["content"].strip() for m in messages):
            raise BadMessages("", "is empty", "Write a text")
    except BadMessages as error:
        raise BadMessages(error.place, error.problem, error.remedy, name) from None
    return messages


def _messages(x: Any, role: str) -> list[Message]:
    if isinstance(x, str):
        return [{"role": role, "content": _written("", x)}]
    if isinstance(x, bytes | Mapping) or not isinstance(x, Iterable):
        remedy = _EXPECTED
        if isinstance(x, Mapping) and {"role", "from"} & x.keys():
            remedy = "A message stands in a list: [message]"
        raise BadMessages("", f"is {a_kind(x)}", remedy)
    messages = [_message(f"[{i}]", message) for i, message in enumerate(x)]
    if not messages:
        raise BadMessages("", "is an empty list", _EXPECTED)
    return messages


def _message(place: str, message: Any) -> Message:
    names = ("role", "content")
    if isinstance(message, Mapping):
        names = names if "role" in message else ("from", "value")
        found = [message[name] for name in names if name in message]
    else:
        found = [getattr(message, name) for name in names if hasattr(message, name)]
    if len(found) < 2:
        remedy = _EXAMPLE
        if isinstance(message, list | tuple):
            remedy = "One list holds one conversation, not several"
        raise BadMessages(place, f"is no message: {message!r:.60}", remedy)
    role, content = found
    known = ROLES.get(role.casefold()) if isinstance(role, str) else None
    if known is None:
        problem = f"is {role!r:.40}, an unknown role"
        remedy = "Use one of system, user, assistant"
        raise BadMessages(f"{place}.{names[0]}", problem, remedy)
    return {"role": known, "content": _content(f"{place}.{names[1]}", content)}


def _content(place: str, content: Any) -> str:
    """The text of a message: as it stands, or put together from parts."""
    if isinstance(content, str):
        return _written(place, content)
    if isinstance(content, bytes | Mapping) or not isinstance(content, Iterable):
        problem = f"is {a_kind(content)}, expected a string"
        raise BadMessages(place, problem, "Write the message's text")
    texts = []
    for i, part in enumerate(content):
        is_part = isinstance(part, Mapping) and part.get("type", "text") == "text"
        text = part.get("text") if is_part else part
        if not isinstance(text, str):
            problem = f"is {part!r:.60}, expected text or a part of type 'text'"
            remedy = "Only text is read: leave the row out, or write it as text"
            raise BadMessages(f"{place}[{i}]", problem, remedy)
        texts.append(_written(f"{place}[{i}]", text))
    return "".join(texts)


def _written(place: str, text: str) -> str:
    """The text as a plain str (numpy's is another) that can be encoded."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = f"half of a surrogate pair, U+{ord(text[error.start]):04X}"
        problem = f"holds {half}, at character {error.start + 1}, which is no text"
        remedy = "Write the whole character, or leave it out"
        raise BadMessages(place, problem, remedy) from None
    return str(text)
