"""What sampled answers are worth: gold where it is known, else what a judge prefers.

A task, prompts and several answers to each come in, a table of worths goes out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from labs_helpers.data import Task


@dataclass(frozen=True)
class Worth:
    """What each answer is worth, and by what measure.

    Attributes:
        name: of the measure.
        by: what measures.
        values: one row a prompt, one column an answer to it.
    """

    name: str
    by: str
    values: Float[np.ndarray, "prompts n"]


def worth_of_answers(
    task: Task, prompts: Sequence[Any], answers: Sequence[Sequence[str]]
) -> Worth:
    """Measure answers by the task's truth or, where it has none, by its judge.

    By a judge an answer is worth the share of the other answers to its prompt that it
    beats, ties half: 0.5 on average. All comparisons are asked for in one call.

    Args:
        task: has a truth or a judge.
        prompts: each asked several times.
        answers: of each prompt, equally many; two at least for a judge.

    Raises:
        ValueError: there is neither truth nor judge, or nothing to compare with.
    """
    texts = np.array(answers, dtype=object)
    if texts.ndim != 2 or len(texts) != len(prompts):
        raise ValueError("expected equally many answers to each of the prompts")
    if task.truth is not None:
        asked = [prompt for prompt in prompts for _ in texts[0]]
        gold = task.truth.scores(asked, texts.ravel().tolist())
        return Worth("gold", "gold", np.reshape(gold, texts.shape))
    pairs = [*combinations(range(texts.shape[1]), 2)]
    if task.judge is None or not pairs:
        raise ValueError(
            f"{task.name} has no truth: answers are measured by a judge, against each "
            "other. It needs a judge, and two answers to a prompt or more"
        )
    first, second = (list(side) for side in zip(*pairs, strict=True))
    asked = [prompt for prompt in prompts for _ in pairs]
    a, b = (texts[:, side].ravel().tolist() for side in (first, second))
    outcomes = np.reshape(task.judge.compare(asked, a, b), (len(prompts), -1))
    won = np.zeros(texts.shape)
    for column, (i, j) in enumerate(pairs):
        won[:, i] += outcomes[:, column]
        won[:, j] += 1 - outcomes[:, column]
    return Worth("win rate", "the judge", won / (texts.shape[1] - 1))
