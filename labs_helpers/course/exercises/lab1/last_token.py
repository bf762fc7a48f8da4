"""Exercise 1.3: the reward of a padded sequence, read at its last token."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of, integers, normal
from labs_helpers.course.exercises.exercise import Exercise, Inputs, Mistake


def last_token_rewards(
    values: Float[Tensor, "B T"], lengths: Int[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Values at the last token that is not padding; padding is on the right."""
    return values[torch.arange(len(values)), lengths - 1]


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Outputs for every token, and how many tokens are real."""
    tokens = 1 if flavour == "one token" else int(rng.integers(size, size + 3)) + 1
    values = normal(rng, size, tokens, scale=2.0, dtype=dtype_of(flavour))
    lengths = integers(rng, size, 1, tokens)
    if flavour == "no padding":
        lengths = torch.full((size,), tokens)
    if flavour == "padding is NaN":
        lengths = integers(rng, size, 1, max(1, tokens - 1))
        values[~_real(values, lengths)] = float("nan")
    return {"values": values, "lengths": lengths}


def _real(values: Tensor, lengths: Tensor) -> Tensor:
    return torch.arange(values.shape[1]) < lengths[:, None]


def _at(values: Tensor, index: Tensor) -> Tensor:
    return values[torch.arange(len(values)), index]


def _selected(values: Tensor, lengths: Tensor, fill: float) -> Tensor:
    return values.masked_fill(~_real(values, lengths), fill)


MISTAKES = (
    Mistake(
        "last column",
        lambda values, lengths: values[:, -1],
        "for every row that is shorter than the longest one this reads a padding "
        "token. The model never learnt to say anything there.",
    ),
    Mistake(
        "one too late",
        lambda values, lengths: _at(values, lengths),
        "it reads one token after the end, and fails where a row has no padding. The "
        "first token has the index 0.",
    ),
    Mistake(
        "one too late, held inside",
        lambda values, lengths: _at(values, lengths.clamp(max=values.shape[1] - 1)),
        "it reads the first padding token, except where a row has none. The first "
        "token has the index 0.",
    ),
    Mistake(
        "one too early",
        lambda values, lengths: _at(values, lengths - 2),
        "it reads the token before the last: the end-of-sequence token counts as one "
        "of the `lengths` tokens.",
    ),
    Mistake(
        "first token",
        lambda values, lengths: values[:, 0],
        "it reads the first token, which has seen nothing of the answer yet: in a "
        "causal model a token knows only what stands before it.",
    ),
    Mistake(
        "mean over all tokens",
        lambda values, lengths: values.mean(1),
        "it averages over the row, padding included. Only one token has read the "
        "whole answer.",
    ),
    Mistake(
        "mean over the real tokens",
        lambda values, lengths: _selected(values, lengths, 0.0).sum(1) / lengths,
        "it averages over the real tokens, and most of them have not read the whole "
        "answer yet. One token has.",
    ),
    Mistake(
        "sum over the real tokens",
        lambda values, lengths: _selected(values, lengths, 0.0).sum(1),
        "it adds up the real tokens, so that long answers get far-out rewards. One "
        "token has read the whole answer.",
    ),
    Mistake(
        "largest value",
        lambda values, lengths: _selected(values, lengths, -torch.inf).amax(1),
        "it takes the largest value of a row, wherever it stands.",
    ),
    Mistake(
        "largest value, padding included",
        lambda values, lengths: values.amax(1),
        "it takes the largest value of a row, wherever it stands, even in the padding.",
    ),
    Mistake(
        "padding on the left",
        lambda values, lengths: _at(values, values.shape[1] - lengths),
        "counting from the right end would be the place to look if the padding were "
        "on the left. Here it is on the right.",
    ),
    Mistake(
        "flat index with the wrong stride",
        lambda values, lengths: values.flatten()[
            torch.arange(len(values)) * len(values) + lengths - 1
        ],
        "in the flattened tensor row i begins after i rows of T values. Your steps "
        "are as long as there are rows, not as a row has tokens.",
    ),
    Mistake(
        "columns of all rows",
        lambda values, lengths: values[:, lengths - 1],
        "the result has shape (B, B): `values[:, index]` picks the same columns in "
        "every row. Each row needs its own.",
    ),
    Mistake(
        "rows, not columns",
        lambda values, lengths: values[lengths - 1],
        "`values[index]` selects rows. Lengths say where to look within a row.",
    ),
    Mistake(
        "an axis left over",
        lambda values, lengths: values.gather(1, lengths[:, None] - 1),
        "the values are right, in shape (B, 1). Chosen minus rejected would be fine "
        "with it, but with a margin (B,) it broadcasts to (B, B).",
    ),
    Mistake(
        "mask by multiplication",
        lambda values, lengths: (
            values * (torch.arange(values.shape[1]) == lengths[:, None] - 1)
        ).sum(1),
        "right, as long as the padding holds ordinary numbers: 0 times NaN is NaN. "
        "Select, do not multiply.",
    ),
    Mistake(
        "one length for all",
        lambda values, lengths: values[:, int(lengths.max()) - 1],
        "every row is read where the longest one ends.",
    ),
)

EXERCISE = Exercise(
    id="1.3",
    title="The reward of the last token",
    reference=last_token_rewards,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=("plain", "float64", "no padding", "padding is NaN", "one token"),
    gradients=("values",),
    difficulty=2,
    minutes=10,
    points=2,
)
