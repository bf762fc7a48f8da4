"""What `labs train` learns from: rows or prompts, those to evaluate on, and rewards.

In go the names of a settings file, out come rows, prompts and functions. Knows no model
but one that rewards.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labs_helpers.course.profile import located
from labs_helpers.data import (
    SPLITS,
    Preference,
    PreferenceReport,
    Unpaired,
    as_messages,
    as_rows,
    load_preferences,
    read_prompts,
)
from labs_helpers.data.files import hub_rows, read_rows
from labs_helpers.data.formats import explicit
from labs_tools.reward_files import Function, load_function
from labs_tools.training.settings import CAI, BadSettings, OnPolicy, Settings


@contextmanager
def saying(what: str) -> Iterator[None]:
    """Around what reads somebody's files: what is wrong there is a wrong setting."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise BadSettings(f"{what}{error}") from error


def rows_of(asked: Settings) -> tuple[list[Any], list[Any]]:
    """Rows to learn from, and rows to evaluate on, which may be none.

    Raises:
        BadSettings: there is no such data, or the method cannot learn from it.
    """
    rows, held_out = _read(asked, asked.data), getattr(asked, "validation", None)
    if isinstance(held_out, str):
        return rows, _read(asked, held_out)
    return _without(rows, held_out) if held_out else (rows, [])


def _read(asked: Settings, name: str) -> list[Any]:
    with saying(f"data {name!r}: "):
        if isinstance(asked, OnPolicy | CAI):
            return _prompts(name)
        if name in SPLITS:
            from labs_helpers.world.task import town_task

            rows = town_task().preferences(name)
        elif asked.method == "sft":
            rows = _conversations(name) or load_preferences(name)
        else:
            rows = load_preferences(name)
        return _suited(rows, asked.method)


def _suited(rows: list[Any], method: str) -> list[Any]:
    """The rows as a method takes them; what suits it in none is an error."""
    kept: list[Any] = []
    for row in rows:
        if method == "kto" and isinstance(row, Preference):
            for answer, is_good in ((row.chosen, True), (row.rejected, False)):
                kept.append(Unpaired(row.prompt, answer, is_good, row.meta))
        elif method == "sft" and isinstance(row, Unpaired):
            kept += [row] if row.label else []
        elif method in ("kto", "sft") or isinstance(row, Preference):
            kept.append(row)
        else:
            raise ValueError(
                f"{method} learns from pairs, and here is a single answer: rows have "
                "prompt, chosen and rejected; kto takes single ones"
            )
    return kept


def _conversations(name: str) -> list[Any]:
    """Conversations of a file, a folder or the hub; none if it holds other rows."""
    path = Path(name).expanduser()
    if path.exists():
        rows = [row for _, _, row in read_rows(path, PreferenceReport())]
    else:
        rows = list(hub_rows(name))
    answers = {"chosen", "rejected", "completion", "completions"}
    are_talks = bool(rows) and all(
        isinstance(row, Mapping) and "messages" in row and not answers & row.keys()
        for row in rows
    )
    return as_rows(rows) if are_talks else []


def _prompts(name: str) -> list[Any]:
    if name in SPLITS:
        from labs_helpers.world.task import town_task

        return town_task().prompts(name)
    if Path(name).expanduser().exists():
        return read_prompts(Path(name).expanduser())
    rows = [explicit(row) for row in hub_rows(name)]
    if not rows or "prompt" not in rows[0]:
        raise ValueError(
            f"its rows have {', '.join(rows[0]) if rows else 'nothing'}, expected a "
            "prompt"
        )
    return [row["prompt"] for row in rows]


def _without(rows: Sequence[Any], share: float) -> tuple[list[Any], list[Any]]:
    """Hold a share of the rows out, no prompt in both parts; always the same."""
    groups: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        asked = as_messages(getattr(row, "prompt", row))
        groups.setdefault(json.dumps(asked).casefold(), []).append(i)
    order = list(groups.values())
    random.Random(0).shuffle(order)
    held: set[int] = set()
    for group in order:
        if len(held) >= share * len(rows):
            break
        held |= {*group}
    if len(held) == len(rows):
        raise BadSettings(
            f"validation={share:g} of {len(rows)} rows to {len(order)} prompts leaves "
            "none to learn from: take a smaller share, or give a file"
        )
    kept = [row for i, row in enumerate(rows) if i not in held]
    return kept, [rows[i] for i in sorted(held)]


def reward_of(asked: OnPolicy) -> Function:
    """The reward that a file names.

    Raises:
        BadSettings: there is none of that name, or it does not suit the prompts.
    """
    if asked.reward == "gold":
        known = (None, *SPLITS)
        held_out = asked.validation if isinstance(asked.validation, str) else None
        if asked.data not in SPLITS or held_out not in known:
            raise BadSettings(
                "gold is the reward of the embedded world's prompts alone: set data to "
                "one of its splits, or reward to a reward model or file.py:function"
            )
        from labs_helpers.world.gold import Gold

        return Gold().scores
    with saying("reward: "):
        if asked.reward.endswith(".py"):
            raise ValueError(f"which function? Write {asked.reward}:function")
        if ".py:" in asked.reward:
            return load_function(*asked.reward.rsplit(":", 1))
        from labs_helpers.models import RewardModel
        from labs_helpers.rl import model_reward

        return model_reward(
            RewardModel.from_pretrained(located(asked.reward)), asked.head
        )
