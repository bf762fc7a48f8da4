"""Preference data."""

from collections.abc import Sequence
from typing import Any

Message = dict[str, str]


def as_messages(prompt: Any) -> list[Message]:
    """Turn a prompt into messages: text becomes one user message.

    Args:
        prompt: Text, a list of messages, or anything with `.messages`.
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    messages = getattr(prompt, "messages", prompt)
    if isinstance(messages, Sequence) and all(isinstance(m, dict) for m in messages):
        return [dict(message) for message in messages]
    raise TypeError(
        "A prompt is text, a list of messages like {'role': 'user', 'content': ...}, "
        f"or an object with .messages; got {type(prompt).__name__}: {prompt!r:.80}"
    )
