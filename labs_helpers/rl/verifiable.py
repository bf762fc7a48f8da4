"""Verifiable rewards: what a program can check, without a reward model.

In go a check, a pattern, or several rewards; out comes a reward for `train`. A task of
your own needs one function of an answer and its reference, and `verified`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from labs_helpers.data import as_messages
from labs_helpers.rl.rewards import Reward, scores_of

Check = Callable[[str, Any], Any]


def verified(
    check: Check, references: Mapping[str, Any] | Callable[[Any], Any]
) -> Reward:
    """Reward answers by a check against the reference answer of their prompt.

    Args:
        check: Given an answer and its reference, says whether it is right, or gives a
            number.
        references: The reference of each prompt by its text, which is that of its last
            message; or a function of a prompt.

    Raises (when a reward is asked for):
        ValueError: A prompt has no reference.

    >>> right = verified(lambda answer, number: number in answer, {"2 + 2?": "4"})
    >>> right(["2 + 2?", "2 + 2?"], ["It is 4.", "It is 5."])
    [1.0, 0.0]
    """

    def reference_of(prompt: Any) -> Any:
        if callable(references):
            return references(prompt)
        text = as_messages(prompt)[-1]["content"]
        if text not in references:
            raise ValueError(f"there is no reference for the prompt {text!r:.80}")
        return references[text]

    def reward(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
        pairs = zip(prompts, answers, strict=True)
        return [float(check(answer, reference_of(prompt))) for prompt, answer in pairs]

    return reward


def formatted(pattern: str) -> Reward:
    """1 for answers that a regular expression matches from end to end, else 0.

    >>> formatted(r"It is [0-9]+[.]")(["2 + 2?"] * 2, ["It is 5.", "4"])
    [1.0, 0.0]
    """
    whole = re.compile(pattern, re.DOTALL)

    def reward(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
        return [float(whole.fullmatch(answer) is not None) for answer in answers]

    return reward


def combined(*parts: tuple[float, Reward]) -> Reward:
    """The sum of rewards, each times its weight; `ensemble` has the worst of them.

    >>> right, short = verified(str.__contains__, {"2 + 2?": "4"}), formatted(".{,9}")
    >>> combined((1.0, right), (0.2, short))(["2 + 2?"], ["It is 4."])
    tensor([1.2000])
    """

    def reward(prompts: Sequence[Any], answers: Sequence[str]) -> Tensor:
        found = [weight * scores_of(r, prompts, answers) for weight, r in parts]
        return torch.stack(found).sum(dim=0)

    return reward
