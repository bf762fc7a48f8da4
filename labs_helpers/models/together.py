"""Sequences that begin alike, read as one row: their common beginning is read once.

Two answers to a prompt follow it in one row. The tokens of one do not see those of the
other, and each has the position that it has in its own sequence, so that its hidden
state is the one it would have alone, but for rounding (arXiv 2410.20305). In go lists
of token ids; out come the inputs of one forward pass, and where each token is in it.
"""

import inspect
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from labs_helpers.models import policies
from labs_helpers.models.limits import positions
from labs_helpers.models.memory import alike

Trunk = PreTrainedModel | PeftModel
# A sequence joins others only if that saves so much of its own cost: a mask is slower
# than none, and a beginning that all prompts have is not worth a long row.
WORTH = 0.2
_together: WeakKeyDictionary[Trunk, bool] = WeakKeyDictionary()


class Group(NamedTuple):
    """Sequences in one row: their numbers, and how many tokens they begin with."""

    members: list[int]
    shared: int

    def length(self, sequences: Sequence[Sequence[int]]) -> int:
        """Tokens of the row."""
        rest = sum(len(sequences[i]) - self.shared for i in self.members)
        return self.shared + rest


class Together(NamedTuple):
    """What a model reads, and where it reads token t of sequence b.

    Attributes:
        inputs: of its forward pass.
        rows: of each token; 0 where a sequence has ended.
        columns: likewise.
    """

    inputs: dict[str, Tensor]
    rows: Int[Tensor, "B T"]
    columns: Int[Tensor, "B T"]


def together(model: Trunk, sequences: Sequence[Sequence[int]]) -> Together:
    """Lay sequences out for one forward pass, without padding where that is cheaper."""
    groups = grouped(model, sequences)
    tokens, positions, segments = [], [], []
    rows, columns = [0] * len(sequences), [[]] * len(sequences)
    for row, (members, shared) in enumerate(groups):
        tokens.append([*sequences[members[0]][:shared]])
        positions.append([*range(shared)])
        segments.append([0] * shared)
        for segment, i in enumerate(members, 1):
            start, rest = len(tokens[row]), sequences[i][shared:]
            tokens[row] += rest
            positions[row] += range(shared, len(sequences[i]))
            segments[row] += [segment] * len(rest)
            rows[i], columns[i] = row, [*range(shared), *range(start, len(tokens[row]))]
    read, place, segment, column = (
        _stacked(ids).to(model.device) for ids in (tokens, positions, segments, columns)
    )
    inputs = {"input_ids": read}
    if len(groups) < len(sequences):
        seen = (segment[:, None] == segment[:, :, None]) | (segment[:, None] == 0)
        inputs |= {"attention_mask": seen.tril()[:, None], "position_ids": place}
    row_of = torch.tensor(rows, device=model.device)[:, None].expand_as(column)
    return Together(inputs, row_of, column)


def _stacked(ids: list[list[int]]) -> Int[Tensor, "B L"]:
    """Stack lists of several lengths, 0 behind the shorter ones."""
    length = max(map(len, ids))
    return torch.tensor([[*row, *[0] * (length - len(row))] for row in ids])


def grouped(model: Trunk, sequences: Sequence[Sequence[int]]) -> list[Group]:
    """Which sequences share a row; each has its own where that is no dearer."""
    alone = [Group([i], len(sequence)) for i, sequence in enumerate(sequences)]
    width = getattr(model.config.get_text_config(), "hidden_size", None)
    if len(sequences) < 2 or width is None:
        return alone

    def cost(length: int) -> int:
        # Of a layer's linear maps (12 width^2 a token) and its attention, as a ratio.
        return length * (6 * width + length)

    groups: list[Group] = []
    for i in sorted(range(len(sequences)), key=lambda i: sequences[i]):
        if groups:
            last = groups[-1]
            shared = min(last.shared, alike(sequences[last.members[0]], sequences[i]))
            joined = Group([*last.members, i], shared)
            more = cost(joined.length(sequences)) - cost(last.length(sequences))
            if more <= (1 - WORTH) * cost(len(sequences[i])):
                groups[-1] = joined
                continue
        groups.append(Group([i], len(sequences[i])))
    lengths = [group.length(sequences) for group in groups]
    padded = len(sequences) * cost(max(map(len, sequences)))
    cheaper = len(groups) * cost(max(lengths)) < (1 - WORTH) * padded
    return groups if cheaper and reads_together(model) else alone


def tokens_together(model: Trunk, sequences: Sequence[Sequence[int]]) -> int:
    """Tokens that are read for these sequences, padding included."""
    groups = grouped(model, sequences)
    return len(groups) * max(group.length(sequences) for group in groups)


def reads_together(model: Trunk) -> bool:
    """Whether a model can be told which tokens see each other, and where they are.

    It is tried once with a few tokens. Windows of attention would not be kept to.
    """
    if model not in _together:
        _together[model] = _heeds(model)
    return _together[model]


def _heeds(model: Trunk) -> bool:
    config = model.config.get_text_config()
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if (
        getattr(config, "_attn_implementation", None) != "sdpa"
        or getattr(config, "sliding_window", None)
        or "position_ids" not in inspect.signature(base.forward).parameters
        or (positions(model) or 5) < 5
        or config.vocab_size < 6
    ):
        return False
    tokens = torch.tensor([[1, 2, 3, 4, 5, 4]], device=model.device)  # 1 2 3 4, 1 2 5 4
    places = torch.tensor([[0, 1, 2, 3, 2, 3]], device=model.device)
    segments = torch.tensor([0, 0, 1, 1, 2, 2], device=model.device)
    seen = ((segments == segments[:, None]) | (segments == 0)).tril()[None, None]
    with policies.evaluating(model):
        apart = model(input_ids=tokens[:, [0, 1, 4, 5]], use_cache=False)[0][0, -1]
        try:
            read = model(
                input_ids=tokens,
                attention_mask=seen,
                position_ids=places,
                use_cache=False,
            )[0][0, -1]
        except (ValueError, TypeError, RuntimeError, IndexError):
            return False
    rounding = torch.finfo(model.dtype).eps ** 0.75
    return bool((read - apart).float().norm() <= rounding * apart.float().norm())
