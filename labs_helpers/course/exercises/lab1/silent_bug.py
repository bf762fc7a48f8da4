"""Exercise 1.7, the silent bug: a batch that looks right and teaches the wrong thing.

The notebook gives `pair_batch` as a colleague wrote it: to save padding it sorts the
chosen and the rejected answers by length, each half for itself. Shapes, lengths and
dtypes are right and the loss falls, for good answers are better than bad ones on
average; but an answer is compared with the answer to another prompt, on a dimension
that neither was judged on. The student repairs it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from labs_helpers.course.exercises.draw import integers
from labs_helpers.course.exercises.exercise import Exercise, Inputs, Mistake

Rows = Sequence[Sequence[int]]


def pair_batch(
    chosen: Rows, rejected: Rows, heads: Int[Tensor, " B"], pad: int
) -> tuple[Int[Tensor, "R T"], Int[Tensor, " R"], Int[Tensor, " B"]]:
    """Pad B pairs of token lists on the right, pairs with the most tokens first.

    Pair j of the batch is row j, its chosen answer, and row B + j, its rejected one,
    judged on the j-th of the heads that come back.

    Returns:
        Tokens (2B, T), lengths (2B,), heads (B,).
    """
    order = _longest_first(
        [len(c) + len(r) for c, r in zip(chosen, rejected, strict=True)]
    )
    rows = [chosen[i] for i in order] + [rejected[i] for i in order]
    return *_padded(rows, pad), heads[order]


def buggy_pair_batch(
    chosen: Rows, rejected: Rows, heads: Tensor, pad: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Build the batch as the notebook gives it: each half is sorted for itself."""
    rows = sorted(chosen, key=len, reverse=True)
    rows += sorted(rejected, key=len, reverse=True)
    return *_padded(rows, pad), heads


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Pairs of token lists, all pairs of different length together."""
    size += 1  # one pair cannot be put in a wrong order
    pad = 0 if flavour == "plain" else 2
    chosen, rejected = [], []
    for total in rng.permutation(np.arange(2, 2 + size) + int(rng.integers(1, 4))):
        cut = int(rng.integers(1, total))
        tokens = rng.integers(3, 100, size=total).tolist()
        if flavour == "padding is the end token":
            tokens[cut - 1] = tokens[-1] = pad
        chosen.append(tokens[:cut])
        rejected.append(tokens[cut:])
    return {
        "chosen": chosen,
        "rejected": rejected,
        "heads": integers(rng, size, 0, 3),
        "pad": pad,
    }


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda i: -lengths[i])


def _padded(rows: Rows, pad: int) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.full((len(rows), int(lengths.max())), pad)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = torch.tensor(row)
    return tokens, lengths


def _totals(chosen: Rows, rejected: Rows) -> list[int]:
    return [len(c) + len(r) for c, r in zip(chosen, rejected, strict=True)]


def _taken(rows: Rows, order: Sequence[int]) -> list[Sequence[int]]:
    return [rows[i] for i in order]


def _ordered_by(order_of):
    """Answer with right pairs in another order."""

    def answer(chosen, rejected, heads, pad):
        order = order_of(chosen, rejected)
        rows = _taken(chosen, order) + _taken(rejected, order)
        return *_padded(rows, pad), heads[order]

    return answer


def _changed(change):
    """Answer with something done to a right batch."""

    def answer(chosen, rejected, heads, pad):
        batch = pair_batch(chosen, rejected, heads, pad)
        return change(*batch, chosen=chosen, rejected=rejected, given=heads, pad=pad)

    return answer


def _only_chosen_sorted(chosen, rejected, heads, pad):
    order = _longest_first(_totals(chosen, rejected))
    return *_padded(_taken(chosen, order) + list(rejected), pad), heads[order]


def _aligned_heads_only(chosen, rejected, heads, pad):
    order = _longest_first([len(row) for row in chosen])
    tokens, lengths, _ = buggy_pair_batch(chosen, rejected, heads, pad)
    return tokens, lengths, heads[order]


def _left_padded(tokens, lengths, heads, *, pad, **_):
    rows = [row[:n].tolist() for row, n in zip(tokens, lengths, strict=True)]
    width = tokens.shape[1]
    padded = [[pad] * (width - len(row)) + row for row in rows]
    return torch.tensor(padded), lengths, heads


def _cut(tokens, lengths, heads, **_):
    shortest = int(lengths.min())
    return tokens[:, :shortest], lengths.clamp(max=shortest), heads


def _interleaved(tokens, lengths, heads, **_):
    order = torch.arange(len(tokens)).reshape(2, -1).T.flatten()
    return tokens[order], lengths[order], heads


MISTAKES = (
    Mistake(
        "halves sorted apart",
        buggy_pair_batch,
        "the bug is still there. Take two pairs whose longer answers are chosen in "
        "one and rejected in the other, and print rows j and B + j side by side: "
        "whose answers are these?",
    ),
    Mistake(
        "halves sorted apart, heads moved along",
        _aligned_heads_only,
        "the heads now follow the chosen answers, and the rejected ones still go "
        "their own way. Print rows j and B + j side by side: whose answers are these?",
    ),
    Mistake(
        "only the chosen half sorted",
        _only_chosen_sorted,
        "the chosen answers are in their new order and the rejected ones in the old "
        "one. Print rows j and B + j side by side.",
    ),
    Mistake(
        "heads in the old order",
        _changed(lambda tokens, lengths, heads, given, **_: (tokens, lengths, given)),
        "the pairs are together again, and the heads still stand in the order in "
        "which they came: each pair is judged on another pair's dimension.",
    ),
    Mistake(
        "lengths in the old order",
        _changed(
            lambda tokens, lengths, heads, chosen, rejected, **_: (
                tokens,
                torch.tensor([len(row) for row in [*chosen, *rejected]]),
                heads,
            )
        ),
        "the tokens are right; the lengths stand in the order in which the pairs "
        "came, so that rewards are read inside an answer or in the padding.",
    ),
    Mistake(
        "lengths by counting what is not padding",
        _changed(
            lambda tokens, lengths, heads, pad, **_: (
                tokens,
                (tokens != pad).sum(1),
                heads,
            )
        ),
        "it works until the padding token also ends an answer, as in many real "
        "tokenizers: the end is then taken for padding.",
    ),
    Mistake(
        "lengths of the padded rows",
        _changed(
            lambda tokens, lengths, heads, **_: (
                tokens,
                torch.full_like(lengths, tokens.shape[1]),
                heads,
            )
        ),
        "every length is that of the longest row: rewards would be read at the "
        "padding.",
    ),
    Mistake(
        "not sorted",
        _ordered_by(lambda chosen, rejected: list(range(len(chosen)))),
        "pairs, lengths and heads belong together again. The docstring also promises "
        "that the longest pairs come first: keep the sorting, sort pairs.",
    ),
    Mistake(
        "shortest first",
        _ordered_by(lambda c, r: _longest_first(_totals(c, r))[::-1]),
        "everything belongs together again, in the opposite order: the docstring "
        "promises the longest pairs first.",
    ),
    Mistake(
        "sorted by the chosen answer",
        _ordered_by(lambda c, r: _longest_first([len(row) for row in c])),
        "everything belongs together again. The docstring counts the tokens of both "
        "answers of a pair; you sort by the chosen one's.",
    ),
    Mistake(
        "sorted by the longer answer",
        _ordered_by(
            lambda c, r: _longest_first(
                [max(len(a), len(b)) for a, b in zip(c, r, strict=True)]
            )
        ),
        "everything belongs together again. The docstring counts the tokens of both "
        "answers of a pair; you sort by the longer one's.",
    ),
    Mistake(
        "rejected half first",
        _changed(
            lambda tokens, lengths, heads, **_: (
                tokens.roll(len(heads), 0),
                lengths.roll(len(heads), 0),
                heads,
            )
        ),
        "the rejected answers come first: the model would learn to prefer them.",
    ),
    Mistake(
        "chosen and rejected in turns",
        _changed(_interleaved),
        "rows go chosen, rejected, chosen, ... The docstring puts all chosen rows "
        "first: row B + j belongs to row j.",
    ),
    Mistake(
        "padding on the left",
        _changed(_left_padded),
        "the padding is on the left, and `lengths` counts from there: rewards would "
        "be read in the middle.",
    ),
    Mistake(
        "cut to the shortest",
        _changed(_cut),
        "every row is cut to the length of the shortest one, so that no answer is "
        "read to its end.",
    ),
)

EXERCISE = Exercise(
    id="1.7",
    title="A silent bug in the batch",
    reference=pair_batch,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=("plain", "another padding token", "padding is the end token"),
    difficulty=3,
    minutes=20,
    points=3,
)
