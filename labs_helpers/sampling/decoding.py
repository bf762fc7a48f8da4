"""Read prompts, then one token a step, through a model's cache.

Knows token ids and a causal language model, not how the next token is chosen. Where all
layers attend to everything, prompts are read in groups of similar length, the cache
grows without copies and its mask is made once. A model whose cache does not give what
its plain forward gives, which is measured once (state-space models with padding, say),
is read whole for every token: slower, and right.
"""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from labs_helpers.models import Policy, logits_and_hidden
from labs_helpers.models.limits import positions, vocabulary
from labs_helpers.models.policies import require_causal

# Smaller or more groups would cost more in calls than they save in padding.
GROUP_ROWS = 16
GROUPS = 4
# Hidden states that a forward holds at once for a token, about.
REREAD_WIDTHS = 64
TRIAL = 6  # tokens that a cache is tried on


class Decoder:
    """Rows of tokens, padded on the left, to which a model adds on the right."""

    def __init__(
        self, model: Policy, prompts: Sequence[Sequence[int]], room: int, pad: int
    ):
        """Prepare for prompts, in ascending length, and `room` tokens after them."""
        causal_lm = model.get_base_model() if isinstance(model, PeftModel) else model
        accepted = inspect.signature(causal_lm.forward).parameters
        self.model = model
        self.has_positions = "position_ids" in accepted
        self.last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.attends_to_all = (
            self.has_positions
            and model.config._attn_implementation in ("sdpa", "eager")
            and not getattr(model.config, "alibi", False)
            and all(
                type(layer) is DynamicLayer
                for layer in DynamicCache(config=model.config).layers
            )
        )
        self.prompts, self.room, self.pad = prompts, room, pad
        lengths = [len(ids) for ids in prompts]
        self.length = lengths[-1]
        self.padded = lengths[0] < lengths[-1]
        self.positions = torch.tensor(lengths, device=model.device)
        self.mask = _mask(self.positions, self.length, self.length + room)
        if self.attends_to_all:  # what attention adds to its scores
            hidden = self.mask[:, None, None] == 0
            self.mask = torch.zeros_like(hidden, dtype=model.dtype)
            self.mask.masked_fill_(hidden, torch.finfo(model.dtype).min)

    def read_prompts(self) -> Float[Tensor, "B V"]:
        """Read the prompts, return the logits of what follows them."""
        size = len(self.prompts)
        if self.attends_to_all:
            size = max(GROUP_ROWS, -(-size // GROUPS))
        caches, logits = [], []
        for start in range(0, len(self.prompts), size):
            caches.append(DynamicCache(config=self.model.config))
            group = self.prompts[start : start + size]
            logits.append(self._read_group(group, caches[-1]))
        self.cache = caches[0]
        if self.attends_to_all:
            self.cache.layers = [
                _RoomyLayer(groups, self.length, self.room)
                for groups in zip(*(cache.layers for cache in caches), strict=True)
            ]
        return torch.cat(logits)

    def read(self, tokens: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        """Read one more token a row, return the logits of what follows it."""
        positions, self.positions = self.positions, self.positions + 1
        self.length += 1
        mask = self.mask[..., : self.length] if self.padded else None
        return self._forward(tokens[:, None], self.cache, mask, positions[:, None])

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep these rows, some of them perhaps several times."""
        self.cache.batch_select_indices(rows)
        self.positions, self.mask = self.positions[rows], self.mask[rows]

    def _read_group(
        self, prompts: Sequence[Sequence[int]], cache: DynamicCache
    ) -> Float[Tensor, "group V"]:
        rows = [torch.tensor(ids) for ids in prompts]
        tokens = pad_sequence(rows, True, self.pad, "left").to(self.model.device)
        mask = positions = None
        if len(prompts[0]) < len(prompts[-1]):
            lengths = torch.tensor([len(ids) for ids in prompts], device=tokens.device)
            mask = _mask(lengths, tokens.shape[1], tokens.shape[1])
            positions = (mask.cumsum(dim=1) - 1).clamp_(min=0)
        return self._forward(tokens, cache, mask, positions)

    def _forward(
        self,
        tokens: Int[Tensor, "B new"],
        cache: DynamicCache,
        mask: Tensor | None,
        positions: Int[Tensor, "B new"] | None,
    ) -> Float[Tensor, "B V"]:
        given = dict(self.last_only)
        if mask is not None and self.has_positions:
            given["position_ids"] = positions
        output = self.model(
            input_ids=tokens,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **given,
        )
        return output.logits[:, -1]


def _mask(
    lengths: Int[Tensor, " B"], end: int, columns: int
) -> Int[Tensor, "B columns"]:
    """0 at the padding to the left of prompts that end in column `end`, else 1."""
    every = torch.arange(columns, device=lengths.device)
    return (every >= end - lengths[:, None]).long()


class Rereader:
    """As `Decoder`, for models without a cache to trust: reads all for every token.

    Rows are padded on the right, where no earlier token of a causal model can see it.
    """

    def __init__(
        self, model: Policy, prompts: Sequence[Sequence[int]], room: int, pad: int
    ):
        """Prepare for prompts, in ascending length, and `room` tokens after them."""
        self.model = model
        padded = [torch.tensor([*ids, *[pad] * room]) for ids in prompts]
        self.tokens = pad_sequence(padded, True, pad).to(model.device)
        self.lengths = torch.tensor([len(ids) for ids in prompts], device=model.device)

    def read_prompts(self) -> Float[Tensor, "B V"]:
        """Read the prompts, return the logits of what follows them."""
        tokens = self.tokens[:, : int(self.lengths.max())]
        columns = torch.arange(tokens.shape[1], device=tokens.device)
        last = columns == self.lengths[:, None] - 1
        return logits_and_hidden(self.model, tokens, last)[0]

    def read(self, tokens: Int[Tensor, " B"]) -> Float[Tensor, "B V"]:
        """Read one more token a row, return the logits of what follows it."""
        self.tokens[torch.arange(len(tokens)), self.lengths] = tokens
        self.lengths = self.lengths + 1
        return self.read_prompts()

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep these rows, some of them perhaps several times."""
        self.tokens, self.lengths = self.tokens[rows], self.lengths[rows]


class Reading(NamedTuple):
    """How a model is read token by token, and the bytes that a row's token takes."""

    decoder: type[Decoder] | type[Rereader]
    token_bytes: int


_READINGS: WeakKeyDictionary[nn.Module, Reading] = WeakKeyDictionary()


def reading(model: Policy) -> Reading:
    """Choose by trying: does the model's cache give what its plain forward gives?

    Raises:
        ValueError: the model sees what comes after a token (see `require_causal`).
    """
    if model not in _READINGS:
        require_causal(model)
        _READINGS[model] = _try_cache(model)
    return _READINGS[model]


def _try_cache(model: Policy) -> Reading:
    width = model.get_output_embeddings().weight.shape[1]
    whole = Reading(Rereader, REREAD_WIDTHS * width * model.dtype.itemsize)
    if (positions(model) or TRIAL) < TRIAL:
        return whole
    size = vocabulary(model)
    rows = [[n % size for n in ids] for ids in ([5, 6], [1, 2, 3, 4, 5])]
    new = torch.tensor([8, 9], device=model.device) % size

    def tried(decoder: Decoder | Rereader) -> list[Tensor]:
        prompts = decoder.read_prompts()
        decoder.keep(torch.tensor([1, 0], device=model.device))
        return [prompts, decoder.read(new)]

    expected = tried(Rereader(model, rows, 1, 0))
    try:
        cached = Decoder(model, rows, 1, 0)
        found = tried(cached)
        held = sum(
            layer.keys.nbytes + layer.values.nbytes
            for layer in cached.cache.layers
            if getattr(layer, "keys", None) is not None
        )
    except Exception:  # each family has its own way of not taking this cache
        return whole
    near = torch.finfo(model.dtype).eps ** 0.5
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape or (a - b).float().norm() > near * b.float().norm():
            return whole
    return Reading(Decoder, held // (2 * (len(rows[-1]) + 1)))


class _RoomyLayer(DynamicLayer):
    """Keys and values with room for what is to come, so that growing copies nothing."""

    def __init__(self, groups: Sequence[DynamicLayer], length: int, room: int):
        """Join groups of rows, the shorter ones padded on the left."""
        super().__init__()
        self.space = [
            _join([getattr(group, name) for group in groups], length, room)
            for name in ("keys", "values")
        ]
        self.is_initialized = True
        self._view(length)

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        old = self.get_seq_length()
        end = old + key_states.shape[2]
        for space, states in zip(self.space, (key_states, value_states), strict=True):
            space[:, :, old:end] = states
        return self._view(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        self.space = [space[indices] for space in self.space]
        self._view(self.get_seq_length())

    def _view(self, length: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (space[:, :, :length] for space in self.space)
        return self.keys, self.values


def _join(groups: list[Tensor], length: int, room: int) -> Tensor:
    """Groups of rows below each other; zeros around them, which the mask hides."""
    return torch.cat(
        [F.pad(group, (0, 0, length - group.shape[2], room)) for group in groups]
    )
