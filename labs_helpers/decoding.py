"""Read tokens with a cache: one forward a step, for rows padded on the left.

Knows token ids and a causal language model; nothing of text, nor of how the next
token is chosen.
"""

import inspect
from typing import Any

from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from labs_helpers.models import Policy


class Decoder:
    """A model reading on from its cache, for rows padded on the left."""

    def __init__(
        self,
        model: Policy,
        mask: Bool[Tensor, "B L"],
        room: int,
    ):
        accepted = inspect.signature(_causal_lm(model).forward).parameters
        self.model = model
        self.cache = DynamicCache(config=model.config)
        if all(type(layer) is DynamicLayer for layer in self.cache.layers):
            self.cache.layers = [_RoomyLayer(room) for _ in self.cache.layers]
        self.mask = mask
        self.padded = not bool(mask.all())
        self.has_positions = "position_ids" in accepted
        self.last_only = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        self.length = 0

    def read(self, tokens: Int[Tensor, "B new"]) -> Float[Tensor, "B V"]:
        """Read the next tokens, return the logits of what follows them."""
        start, self.length = self.length, self.length + tokens.shape[1]
        inputs = {}
        if self.padded:
            mask = self.mask[:, : self.length]
            inputs["attention_mask"] = mask.long()
            if self.has_positions:
                positions = mask.cumsum(dim=1)[:, start:] - 1
                inputs["position_ids"] = positions.clamp_(min=0)
        output = self.model(
            input_ids=tokens,
            past_key_values=self.cache,
            use_cache=True,
            **inputs,
            **self.last_only,
        )
        return output.logits[:, -1]

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep these rows, some of them perhaps several times."""
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]


class _RoomyLayer(DynamicLayer):
    """Keys and values with room for what is to come, so that growing copies nothing."""

    def __init__(self, room: int):
        super().__init__()
        self.room = room
        self.space: list[Tensor] = []

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        old = self.get_seq_length()
        end = old + key_states.shape[2]
        if not self.is_initialized:
            self.space = [
                states.new_empty(*states.shape[:2], end + self.room, states.shape[3])
                for states in (key_states, value_states)
            ]
            self.is_initialized = True
        for space, states in zip(self.space, (key_states, value_states), strict=True):
            space[:, :, old:end] = states
        return self._view(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        self.space = [space[indices] for space in self.space]
        self._view(self.get_seq_length())

    def _view(self, length: int) -> tuple[Tensor, Tensor]:
        self.keys, self.values = (space[:, :, :length] for space in self.space)
        return self.keys, self.values


def _causal_lm(model: Policy) -> PreTrainedModel:
    return model.get_base_model() if isinstance(model, PeftModel) else model
