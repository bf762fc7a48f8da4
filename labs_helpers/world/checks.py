"""The town's sums, opposites and order, checked exactly: verifiable rewards.

A check is a function of an answer and the reference answer, for `rl.verified`; so a
task of your own has one.
"""

from labs_helpers.data import Prompt
from labs_helpers.rl import Reward, verified
from labs_helpers.world.phrasebook import read

TASKS = ("sum", "opposite", "order")
FORMAT = r"It is \w+\."  # of a town's answer to a task, for `rl.formatted`


def says(answer: str, expected: str) -> bool:
    """Whether an answer says this word or number, and nothing else.

    >>> says("It is 7.", "7"), says("It is 7. It is 8.", "7"), says("7", "7")
    (True, False, False)
    """
    reading = read(answer)
    return reading.acts == (("say", expected),) and reading.well_formed


def expected_of(prompt: Prompt) -> str:
    """The right word or number of a sum, an opposite or an order.

    Raises:
        ValueError: the prompt asks for something else.
    """
    if prompt.meta.get("task") not in TASKS:
        raise ValueError(
            f"only a sum, an opposite or an order can be checked: {prompt.text!r} is "
            "none. `world.prompts.capability_prompts(split)` has them"
        )
    return prompt.meta["expected"]


# 1 for the right answer, and no other word, to a sum, an opposite or an order, else 0.
exact: Reward = verified(says, expected_of)
