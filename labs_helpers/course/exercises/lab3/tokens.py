"""What the exercises on answers' tokens share: masks, padding, and how it gets in.

B answers, T tokens; an answer begins in the first column, and what follows it is
padding.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labs_helpers.course.exercises.draw import integers
from labs_helpers.course.exercises.exercise import Function, Mistake

Reduce = Callable[[Tensor, Tensor], Tensor]
Named = tuple[str, Function, str]


def answer_mask(rng: np.random.Generator, size: int, flavour: str) -> Tensor:
    """Which tokens count, (B, T): every row some, and every row with padding."""
    lengths = integers(rng, size, 2, 5)
    if flavour == "answers of one token":
        lengths = torch.ones_like(lengths)
    width = int(lengths.max()) + 2
    if flavour == "no padding":
        lengths, width = torch.full_like(lengths, 5), 5
    return torch.arange(width) < lengths[:, None]


def spoil_padding(flavour: str, mask: Tensor, *tensors: Tensor) -> None:
    """Write NaN where nothing counts, if the flavour says so."""
    if flavour == "padding is NaN":
        for tensor in tensors:
            tensor[~mask] = float("nan")


def is_last(mask: Tensor) -> Tensor:
    """Whether a token is the last of its answer that counts."""
    return mask & (mask.flip(1).cumsum(1).flip(1) == 1)


def token_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over what counts, by multiplication."""
    return (x * mask).sum() / mask.sum()


# Other means than that over the tokens that count: name, what it computes, message.
OTHER_MEANS: tuple[tuple[str, Reduce, str], ...] = (
    (
        "mean over padding too",
        lambda x, mask: (x * mask).sum() / mask.numel(),
        "it divides by all B x T places, padding included: the more padding a batch "
        "happens to have, the smaller its step. Divide by what counts.",
    ),
    (
        "sum for mean over tokens",
        lambda x, mask: (x * mask).sum(),
        "the terms of all tokens are added up, so that a larger batch or longer "
        "answers take larger steps. A mean over the tokens that count is asked for.",
    ),
    (
        "sum over tokens, mean over answers",
        lambda x, mask: (x * mask).sum(1).mean(),
        "it adds up the tokens of an answer and divides by the number of answers: a "
        "long answer weighs more. Here every token that counts weighs the same.",
    ),
    (
        "mean of the answers' means",
        lambda x, mask: ((x * mask).sum(1) / mask.sum(1)).mean(),
        "each answer is averaged over its own tokens first, so that a token of a "
        "short answer weighs more. Here every token that counts weighs the same.",
    ),
    (
        "mask ignored",
        lambda x, mask: x.mean(),
        "every place counts, padding too: the mask changes nothing.",
    ),
    (
        "mask upside down",
        lambda x, mask: (x * ~mask).sum() / (~mask).sum(),
        "it counts the padding and leaves out the answer. The mask is true where a "
        "token counts.",
    ),
    (
        "not reduced to one number",
        lambda x, mask: x * mask,
        "the result has shape (B, T), a term for each token. Training needs one "
        "number: their mean over what counts.",
    ),
    (
        "one number for each answer",
        lambda x, mask: (x * mask).sum(1) / mask.sum(1),
        "the result has shape (B,), one number for each answer. Training needs one "
        "number: the mean over all tokens that count.",
    ),
)

MASKED_WRONGLY = ("mask ignored", "mask upside down")


def per_token(term: Function, reduce: Reduce = token_mean) -> Function:
    """Answer with the mean (or another reduction) of a term of each token.

    Args:
        term: takes the inputs except the mask.
        reduce: takes the terms and the mask.
    """

    def answer(mask: Tensor, **inputs: Any) -> Tensor:
        return reduce(term(**inputs), mask)

    return answer


def without_padding(function: Function) -> Function:
    """Answer after everything masked has been made 0."""

    def answer(mask: Tensor, **inputs: Any) -> Any:
        clean = {
            name: value.masked_fill(~mask, 0.0)
            if isinstance(value, Tensor) and value.shape == mask.shape
            else value
            for name, value in inputs.items()
        }
        return function(mask=mask, **clean)

    return answer


def with_leaks(
    mistakes: Sequence[Named], never: Sequence[str] = ()
) -> tuple[Mistake, ...]:
    """Each mistake twice: masked as it should be, and with a NaN that gets in.

    Args:
        mistakes: names, functions that mask by multiplication, messages.
        never: names of those that no padding gets into.
    """
    once, clean, leaking = [], [], []
    for name, function, message in mistakes:
        if name in MASKED_WRONGLY:
            once.append(Mistake(name, function, message))
            continue
        clean.append(Mistake(name, without_padding(function), message))
        if name not in never:
            more = f"{message} Besides, a NaN in the padding gets into the result."
            name = f"{name}; what is masked gets in"
            leaking.append(Mistake(name, function, more))
    return (*once, *clean, *leaking)
