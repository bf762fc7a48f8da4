"""Read prompts, then one token a step, through a model's cache.

Knows token ids and a causal language model; nothing of text, nor of how the next
token is chosen. Every model that decodes with a cache is read correctly. Where all
layers attend to everything, prompts are read in groups of similar length, the cache
grows without copies and its mask is made once.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from labs_helpers.policies import Policy

# Smaller or more groups would cost more in calls than they save in padding.
GROUP_ROWS = 16
GROUPS = 4


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
        self.prompts = prompts
        self.room = room
        self.pad = pad
        lengths = [len(ids) for ids in prompts]
        self.length = lengths[-1]
        self.padded = lengths[0] < lengths[-1]
        self.positions = torch.tensor(lengths, device=model.device)
        columns = torch.arange(self.length + room, device=model.device)
        self.mask = columns >= self.length - self.positions[:, None]
        self.bias = torch.zeros_like(self.mask, dtype=model.dtype)
        self.bias.masked_fill_(~self.mask, torch.finfo(model.dtype).min)

    def read_prompts(self) -> Float[Tensor, "B V"]:
        """Read the prompts, return the logits of what follows them."""
        size = len(self.prompts)
        if self.attends_to_all:
            size = max(GROUP_ROWS, -(-size // GROUPS))
        caches, logits = [], []
        for start in range(0, len(self.prompts), size):
            caches.append(DynamicCache(config=self.model.config))
            logits.append(
                self._read_group(self.prompts[start : start + size], caches[-1])
            )
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
        mask = None
        if self.padded and self.attends_to_all:
            mask = self.bias[:, None, None, : self.length]
        elif self.padded:
            mask = self.mask[:, : self.length].long()
        return self._forward(tokens[:, None], self.cache, mask, positions[:, None])

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep these rows, some of them perhaps several times."""
        self.cache.batch_select_indices(rows)
        self.positions = self.positions[rows]
        self.mask, self.bias = self.mask[rows], self.bias[rows]

    def _read_group(
        self, prompts: Sequence[Sequence[int]], cache: DynamicCache
    ) -> Float[Tensor, "group V"]:
        width = len(prompts[-1])
        padding = [[self.pad] * (width - len(ids)) for ids in prompts]
        tokens = [[*left, *ids] for left, ids in zip(padding, prompts, strict=True)]
        mask = positions = None
        if padding[0]:
            mask = torch.tensor(
                [[0] * len(left) + [1] * (width - len(left)) for left in padding],
                device=self.model.device,
            )
            positions = (mask.cumsum(dim=1) - 1).clamp_(min=0)
        tokens = torch.tensor(tokens, device=self.model.device)
        return self._forward(tokens, cache, mask, positions)

    def _forward(
        self,
        tokens: Int[Tensor, "B new"],
        cache: DynamicCache,
        mask: Tensor | None,
        positions: Int[Tensor, "B new"] | None,
    ) -> Float[Tensor, "B V"]:
        position_ids = {}
        if mask is not None and self.has_positions:
            position_ids["position_ids"] = positions
        output = self.model(
            input_ids=tokens,
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **position_ids,
            **self.last_only,
        )
        return output.logits[:, -1]


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
    rows = sum(len(group) for group in groups)
    _, heads, _, size = groups[0].shape
    space = groups[0].new_zeros(rows, heads, length + room, size)
    first = 0
    for group in groups:
        end = first + len(group)
        space[first:end, :, length - group.shape[2] : length] = group
        first = end
    return space
