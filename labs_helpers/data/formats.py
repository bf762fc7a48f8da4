r"""Every legal layout of a preference row, turned into the one of our files.

In goes a row as somebody wrote it, out comes one with prompt, chosen and rejected, or
prompt, completion and label. What is in no known layout is handed back as it came, for
the checks to name what is missing.

- prompt, chosen, rejected: TRL's; a prompt may be implicit, the beginning that chosen
  and rejected have in common, where they are messages or HH dialogues.
- HH (Anthropic): chosen and rejected are texts of "\n\nHuman:" and "\n\nAssistant:"
  turns; or the prompt is one that ends with "\n\nAssistant:".
- UltraFeedback, binarized: a prompt in plain text, and chosen and rejected as messages
  that begin with it; the difference of the scores becomes the margin. The original,
  with completions, is turned into pairs by `rated`.
- ShareGPT: conversations, and chosen and rejected as one {"from", "value"} each.
- KTO: prompt, completion, label, as text or messages.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from labs_helpers.data.messages import BadMessages, Message, as_messages, plain
from labs_helpers.data.rated import best_and_worst
from labs_helpers.data.rows import Preference, Unpaired, in_file

SIDES = ("chosen", "rejected")
# Pairs of columns whose difference is the margin, and what else comes with them.
_SCORES = [
    ("score_chosen", "score_rejected"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_score", "rejected_score"),
]
_BESIDE_SCORES = {"messages", "prompt_id"}.union(*_SCORES)


def explicit(row: Any) -> Any:
    """A row in the layout of our files, in messages, its prompt spelt out."""
    if isinstance(row, Preference | Unpaired):
        return in_file(row, as_text=False)
    if not isinstance(row, Mapping):
        return row
    row = _without_nulls({name: plain(value) for name, value in row.items()})
    if isinstance(row.get("meta"), str):
        row["meta"] = _object(row["meta"])
    if "completions" in row and "chosen" not in row:
        row = best_and_worst(row) or row
    for side in SIDES:  # ShareGPT writes one message, without a list
        if isinstance(row.get(side), Mapping):
            row[side] = [row[side]]
    if "prompt" not in row and isinstance(row.get("conversations"), list):
        row["prompt"] = row.pop("conversations")
    row = _with_turns(_with_margin(row))
    return _with_prompt(row) if set(SIDES) <= row.keys() else row


def dialogue(text: Any) -> list[Message] | None:
    """The messages of an HH dialogue; None for anything else."""
    if not isinstance(text, str):
        return None
    before, *turns = re.split(r"\n\n(Human|Assistant):", text)
    if not turns or before.strip():
        return None
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[speaker], "content": said.strip()}
        for speaker, said in zip(turns[::2], turns[1::2], strict=True)
    ]


def _without_nulls(row: dict[str, Any]) -> dict[str, Any]:
    """A table's rows hold all of its columns; what one does not have is null."""
    kept = {k: v for k, v in row.items() if v is not None}
    if "completion" in kept or set(SIDES) <= kept.keys():
        return kept
    return {k: v for k, v in row.items() if v is not None or k in ("prompt", *SIDES)}


def _object(text: str) -> Any:
    """`to_trl` writes meta as a JSON string; any other text stays what it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, dict) else text


def _with_margin(row: dict[str, Any]) -> dict[str, Any]:
    for better, worse in _SCORES:
        scores = row.get(better), row.get(worse)
        if all(isinstance(x, int | float) for x in scores):
            row = {k: v for k, v in row.items() if k not in _BESIDE_SCORES}
            return {"margin": scores[0] - scores[1], **row}
    return row


def _with_turns(row: dict[str, Any]) -> dict[str, Any]:
    """A prompt that is an open HH dialogue becomes messages, and its answers too."""
    turns = dialogue(row.get("prompt"))
    if not turns or turns[-1] != {"role": "assistant", "content": ""}:
        return row
    answers = {
        name: [{"role": "assistant", "content": row[name].strip()}]
        for name in (*SIDES, "completion")
        if isinstance(row.get(name), str)
    }
    return {**row, "prompt": turns[:-1], **answers}


def _with_prompt(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its prompt taken out of the answers, where they repeat it."""
    as_text = any(isinstance(row[side], str) for side in SIDES)
    repeats_prompt = isinstance(row.get("prompt"), str) and not as_text
    if "prompt" in row and not repeats_prompt:
        return row
    try:
        chosen, rejected = (
            dialogue(row[side]) if as_text else as_messages(row[side], "assistant")
            for side in SIDES
        )
    except BadMessages:
        return row  # the checks say what is wrong with it
    if chosen is None or rejected is None:
        return row
    same = 0
    # Equal dialogues have equal answers, and not none.
    longest = min(len(chosen), len(rejected)) - 1
    while same < longest and chosen[same] == rejected[same]:
        same += 1
    if repeats_prompt and same == 0:
        return row
    answers = {"chosen": chosen[same:], "rejected": rejected[same:]}
    return {**row, "prompt": chosen[:same], **answers}
