"""The one check of messages.

Whatever stands for a conversation comes in, a list of {"role", "content"} goes out, or
a sentence that says what is wrong with it. Every door through
which a person's prompt or answer enters uses it. Knows nothing of files and models.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Message = dict[str, str]

ROLES = ("system", "user", "assistant")
# What others call the three: ShareGPT, Gemma, OpenAI.
_ALIASES = {"human": "user", "gpt": "assistant", "model": "assistant"}
_ALIASES["developer"] = "system"
_EXPECTED = 'Expected a string or a list of messages {"role": "user", "content": "..."}'
_EXAMPLE = 'Expected {"role": "user", "content": "..."}'


class BadMessages(ValueError):
    """No prompt and no answer: where in it, what is wrong, what to do about it."""

    def __init__(self, place: str, problem: str, remedy: str, what: str = ""):
        self.place, self.problem, self.remedy = place, problem, remedy
        super().__init__(f"{what}{place} {problem}. {remedy}.")


def as_messages(x: Any, role: str = "user") -> list[Message]:
    """Turn a prompt or an answer into messages: text becomes one message of the role.

    Args:
        x: Text; messages as dicts, {"role", "content"} or ShareGPT's {"from", "value"},
            whose content is text or a list of parts of type "text", or as objects with
            .role and .content; or anything with `.messages`.
        role: Of text: "user" for a prompt, "assistant" for an answer.

    Raises:
        BadMessages: A ValueError; the sentence names the message, what is wrong with
            it, and what to do. An answer may be empty, a prompt may not.
    """
    what = "an answer" if role == "assistant" else "a prompt"
    try:
        messages = list(_messages(getattr(x, "messages", x), role))
        if role != "assistant" and not any(m["content"].strip() for m in messages):
            raise BadMessages("", "is empty", "Write a text")
    except BadMessages as error:
        raise BadMessages(error.place, error.problem, error.remedy, what) from None
    return messages


def as_conversations(prompts: Any, role: str = "user") -> list[list[Message]]:
    """Turn prompts or answers into lists of messages; an error names the row, from 0.

    Raises:
        BadMessages: Some row is none, or `prompts` is a single one.
    """
    what = "answer" if role == "assistant" else "prompt"
    if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
        raise BadMessages(
            "",
            f"are {a_kind(prompts)}, expected a list",
            f"Put a single {what} in a list: [{what}]",
            f"{what}s",
        )
    conversations = []
    for i, x in enumerate(prompts):
        try:
            conversations.append(as_messages(x, role))
        except BadMessages as error:
            place, problem, remedy = error.place, error.problem, error.remedy
            raise BadMessages(place, problem, remedy, f"{what} {i}") from None
    return conversations


def as_exchanges(
    prompts: Any, answers: Any
) -> list[tuple[list[Message], list[Message]]]:
    """Turn prompts and their answers into messages, an answer to each prompt.

    Raises:
        ValueError: Some row is none, or there are more of the one than of the other.
    """
    asked, said = as_conversations(prompts), as_conversations(answers, "assistant")
    if len(asked) != len(said):
        raise ValueError(
            f"{len(said)} answers came to {len(asked)} prompts, expected one to each: "
            "repeat a prompt for each of its answers"
        )
    return list(zip(asked, said, strict=True))


def answer_text(x: Any) -> str:
    """The text of an answer: as text, or as the assistant's one message.

    Raises:
        BadMessages: It is neither, or several messages.
    """
    messages = as_messages(x, "assistant")
    if [message["role"] for message in messages] != ["assistant"]:
        roles = ", ".join(message["role"] for message in messages)
        remedy = "Give one message of the assistant, or its text"
        raise BadMessages("", f"holds messages of {roles}", remedy, "an answer")
    return messages[0]["content"]


def plain(value: Any) -> Any:
    """A single value without numpy's, pandas' or torch's wrapping."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def a_kind(value: Any) -> str:
    """What a value is called in a sentence, with its article: JSON's names, if any."""
    names = {
        "NoneType": "null",
        "str": "string",
        "dict": "object",
        "int": "number",
        "float": "number",
        "bool": "true or false",
    }
    name = names.get(type(value).__name__, type(value).__name__)
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _messages(x: Any, role: str) -> Iterator[Message]:
    if isinstance(x, str):
        yield {"role": role, "content": _written("", x)}
        return
    if isinstance(x, bytes | Mapping) or not isinstance(x, Iterable):
        if isinstance(x, bytes):
            remedy = "Decode it: .decode('utf-8')"
        elif isinstance(x, Mapping) and ({"role", "from"} & x.keys()):
            remedy = "A message stands in a list: [message]"
        else:
            remedy = _EXPECTED
        raise BadMessages("", f"is {a_kind(x)}", remedy)
    given = list(x)
    if not given:
        raise BadMessages("", "is an empty list", _EXPECTED)
    for i, message in enumerate(given):
        yield _message(f"[{i}]", message)


def _message(place: str, message: Any) -> Message:
    if isinstance(message, Mapping):
        names = ("role", "content") if "role" in message else ("from", "value")
        if not set(names) <= message.keys():
            raise BadMessages(place, f"is no message: {message!r:.60}", _EXAMPLE)
        role, content = (message[name] for name in names)
    elif hasattr(message, "role") and hasattr(message, "content"):
        names, role, content = ("role", "content"), message.role, message.content
    else:
        remedy = _EXAMPLE
        if isinstance(message, list | tuple):
            remedy = "One list holds one conversation, not several"
        raise BadMessages(place, f"is no message: {message!r:.60}", remedy)
    known = str(role).casefold()
    known = _ALIASES.get(known, known)
    if not isinstance(role, str) or known not in ROLES:
        problem = f"is {role!r:.40}, an unknown role"
        remedy = f"Use one of {', '.join(ROLES)}"
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
        text = part
        if isinstance(part, Mapping) and part.get("type", "text") == "text":
            text = part.get("text")
        if not isinstance(text, str):
            kind = a_kind(part)
            if isinstance(part, Mapping):
                kind = f"a part of type {part.get('type', 'text')!r:.40} without text"
            raise BadMessages(
                f"{place}[{i}]",
                f"is {kind}, expected a part of type 'text'",
                "Only text is read: leave the row out, or write it as text",
            )
        texts.append(_written(f"{place}[{i}]", text))
    return "".join(texts)


def _written(place: str, text: str) -> str:
    """The text as a plain str (numpy's is another) that can be encoded."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadMessages(
            place,
            f"holds half of a surrogate pair, U+{ord(text[error.start]):04X}, at "
            f"character {error.start + 1}, which is no text",
            "Write the whole character, or leave it out",
        ) from None
    return str(text)
