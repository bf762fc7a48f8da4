"""Recorded answers: what town-s says to every prompt of every split, and pairs."""

import json
from functools import cache
from itertools import combinations
from pathlib import Path

from labs_helpers.data import Prompt
from labs_helpers.world.annotators import Pair
from labs_helpers.world.knowledge import DATA
from labs_helpers.world.prompts import lot

ANSWERS = DATA / "preferences" / "answers.jsonl"


@cache
def recorded_answers(split: str) -> tuple[tuple[Prompt, tuple[str, ...]], ...]:
    """Every prompt of a split with its distinct sampled answers."""
    found = []
    with ANSWERS.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["split"] == split:
                content = row["prompt"]
                if not isinstance(content, str):
                    content = tuple(content)
                found.append((Prompt(content, row["meta"]), tuple(row["answers"])))
    return tuple(found)


def pairs(split: str, n: int | None = None, seed: int = 0) -> list[Pair]:
    """Pairs of different answers to the same prompt, in a shuffled order.

    Args:
        split: train, validation or test.
        n: how many; all of them when None.
        seed: of the order, and of which answer comes first.
    """
    draw = lot("pairs", split, seed)
    found = []
    for prompt, answers in recorded_answers(split):
        for a, b in combinations(answers, 2):
            found.append(Pair(prompt, *draw.sample((a, b), 2)))
    draw.shuffle(found)
    return found[:n]


def record(path: Path, rows: list[dict]) -> None:
    """Write recorded answers, one JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
