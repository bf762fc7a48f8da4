"""Prompts as a list, whatever table or container they come in. Knows no tokenizer."""

from collections.abc import Iterable, Mapping
from typing import Any

from labs_helpers.common.settings import short


def as_prompts(prompts: Any) -> list[Any]:
    """Prompts of a list, a table's column, an array or a generator, in their order.

    Rows of a table give what stands under "prompt".

    Raises:
        ValueError: there is none, or it is a single one.
    """
    if isinstance(prompts, str) or hasattr(prompts, "messages"):
        raise ValueError(
            "prompts is a list of prompts, got a single one: put it in a list, "
            f"[{short(getattr(prompts, 'messages', prompts))}]"
        )
    if hasattr(prompts, "iloc") and hasattr(prompts, "to_dict"):  # pandas
        rows = hasattr(prompts, "columns")
        prompts = prompts.to_dict("records") if rows else prompts.tolist()
    if isinstance(prompts, Mapping) or not isinstance(prompts, Iterable):
        raise ValueError(f"prompts is a list of prompts, got {short(prompts)}")
    found = list(prompts)
    if found and all(isinstance(p, Mapping) and "role" in p for p in found):
        raise ValueError(
            "prompts is a list of prompts, got the messages of a single one: put them "
            "in a list, [messages]"
        )
    if not found:
        raise ValueError("no prompt to train on: `prompts` is empty")
    return [_prompt(number, prompt) for number, prompt in enumerate(found)]


def _prompt(number: int, prompt: Any) -> Any:
    if isinstance(prompt, Mapping):
        if "prompt" not in prompt:
            raise ValueError(
                f'prompt {number} is a row without a "prompt": {short(dict(prompt))}'
            )
        prompt = prompt["prompt"]
    prompt = prompt.tolist() if hasattr(prompt, "tolist") else prompt
    if isinstance(prompt, str):
        return str(prompt)
    if isinstance(prompt, list | tuple) or hasattr(prompt, "messages"):
        return prompt
    raise ValueError(
        f"prompt {number} is text, messages or an object with .messages; got "
        f"{short(prompt)}"
    )
