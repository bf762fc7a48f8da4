"""How much memory reading tokens takes, measured on a few, and how many fit.

What a backward pass needs is counted as autograd puts it aside, so that architecture,
adapter, precision and gradient checkpointing are all in the figure. In go models and
lengths of rows; out come bytes, and rows cut into parts that fit. Parts of a batch give
its mean, but for rounding.
"""

import ctypes
import platform
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import psutil
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from labs_helpers.models.limits import positions

# A CPU gains nothing by larger parts: they leave its caches.
CPU_BYTES = 2**31
FORWARD_BYTES = 2**28  # of a forward without gradient
CHUNK_BYTES = 2**26  # of the vocabulary's scores in float32, at a time
SHARE = 0.9  # of what is free
PROBED = (32, 64, 96)  # tokens of a row
# A layer's gradients are there beside what it has put aside, and so are the scores of
# the vocabulary: copies of a chunk.
LAYERS, CHUNKS = 2, 4
# glibc does not take back large aligned blocks with small ones between them (its bug
# 14581). So of each layer that has an adapter this share of `layer` is lost, whatever
# is kept: measured, 1.1 MB a token of SmolLM2-135M, computed again or not.
LOST = 0.6


class Footprint(NamedTuple):
    """Bytes that reading takes.

    Attributes:
        once: put aside however little is read: weights in another precision.
        token: put aside by all layers for the backward pass, for each token.
        square: likewise, for each token of its row: attention that keeps its scores.
        layer: held by one layer as it computes.
        lost: to holes in the heap.
        scores: of the vocabulary; 0 without a vocabulary head.
    """

    once: float
    token: float
    square: float
    layer: float
    lost: float
    scores: float

    def rows(self, rows: int, length: int) -> float:
        """Bytes of a forward and a backward pass over rows of a length."""
        each = self.token + LAYERS * self.layer + self.lost + self.square * length
        scores = min(rows * length * self.scores, CHUNK_BYTES)
        return self.once + rows * length * each + CHUNKS * scores


def footprint(model: nn.Module) -> Footprint | None:
    """Measure a model as it is: its mode, its precision; None if it reads no tokens."""
    inner = language_model(model)
    if inner is None:
        return None
    limit = positions(inner) or max(PROBED)
    lengths = [min(length, limit) for length in PROBED]
    once, token, square = _curve(lengths, [_put_aside(inner, n) for n in lengths])
    head = inner.get_output_embeddings()
    scores = 0 if head is None else 4 * head.weight.shape[0]
    layer = layer_bytes(inner)
    return Footprint(once, token, square, layer, _lost(inner, layer), scores)


def _lost(model: PreTrainedModel | PeftModel, layer: float) -> float:
    """Bytes of a token that are lost under an adapter, in the heap of glibc."""
    adapted = any(isinstance(module, BaseTunerLayer) for module in model.modules())
    if not adapted or model.device.type != "cpu" or platform.libc_ver()[0] != "glibc":
        return 0.0
    config: Any = model.config
    return LOST * layer * getattr(config, "num_hidden_layers", 1)


def _curve(lengths: list[int], sizes: list[int]) -> list[float]:
    """Of a parabola through three points its coefficients, none below 0."""
    if len(set(lengths)) < len(lengths):  # a model that reads few tokens
        return [0.0, sizes[-1] / lengths[-1], 0.0]
    powers = np.vander(lengths, increasing=True)
    return [max(0.0, float(x)) for x in np.linalg.solve(powers, sizes).round(3)]


def language_model(model: nn.Module) -> PreTrainedModel | PeftModel | None:
    """What of a model reads tokens, if that is one of Hugging Face's."""
    inner = getattr(model, "trunk", model)
    return inner if isinstance(inner, PreTrainedModel | PeftModel) else None


def recompute(model: PreTrainedModel | PeftModel, on: bool = True) -> None:
    """Let layers compute again what the backward pass needs of them, or no longer."""
    new = hasattr(model, "activation_checkpointing_enable")
    name = "activation_checkpointing" if new else "gradient_checkpointing"
    if on:
        getattr(model, f"{name}_enable")({"use_reentrant": False})
    else:
        getattr(model, f"{name}_disable")()


def layer_bytes(model: nn.Module) -> float:
    """What the linear maps of one layer give for a token, in bytes, about."""
    heads = set()
    if isinstance(model, PreTrainedModel | PeftModel):
        heads = {id(model.get_output_embeddings())}
    widths = sum(
        getattr(module, "out_features", 0) or getattr(module, "nf", 0)  # GPT-2's
        for module in model.modules()
        if id(module) not in heads
    )
    config: Any = getattr(model, "config", None)
    layers = getattr(config, "num_hidden_layers", None) or 1
    return 4 * widths / layers


def forward_rows(model: nn.Module, length: int) -> int:
    """How many rows of a length a forward without gradient may take at once."""
    device = next(model.parameters()).device
    limit = free_bytes(device) / 4 if device.type == "cuda" else FORWARD_BYTES
    return max(1, int(limit / max(1, layer_bytes(model) * length)))


def _put_aside(model: PreTrainedModel | PeftModel, length: int) -> int:
    """Bytes that autograd keeps of a row, beside the weights."""
    weights = {t.untyped_storage().data_ptr() for t in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    tokens = torch.zeros(1, length, dtype=torch.long, device=model.device)
    cuda = [model.device] if model.device.type == "cuda" else []
    with (
        torch.random.fork_rng(cuda),
        torch.enable_grad(),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        output = model(input_ids=tokens, use_cache=False)
        del output
    return sum(kept.values())


def free_bytes(device: torch.device) -> float:
    """What may be taken for a step's rows."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return SHARE * (torch.cuda.mem_get_info(device)[0] + idle)
    return min(CPU_BYTES, SHARE * psutil.virtual_memory().available)


def give_back() -> None:
    """Return to the system what is free within the heap, where that is glibc's."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def in_parts(
    lengths: Sequence[int],
    at_least: int = 1,
    fits: Callable[[int, int], bool] = lambda rows, length: True,
    beside: Sequence[int] | None = None,
) -> list[list[int]]:
    """Cut rows into parts of similar length, each of which fits, if a row does.

    Args:
        lengths: of the rows, in tokens.
        at_least: parts, where there are as many rows.
        fits: whether so many rows do, padded to a length.
        beside: of each row the number of its kin, next to which it stays.

    Returns:
        The rows' numbers, shorter ones (or those of shorter kin) first.
    """
    kin = range(len(lengths)) if beside is None else beside
    longest: dict[int, int] = {}
    for number, length in zip(kin, lengths, strict=True):
        longest[number] = max(length, longest.get(number, 0))
    order = sorted(range(len(lengths)), key=lambda row: (longest[kin[row]], kin[row]))
    parts: list[list[int]] = []
    for row in order:
        if not parts or not fits(len(parts[-1]) + 1, longest[kin[row]]):
            parts.append([])
        parts[-1].append(row)
    if len(parts) >= min(at_least, len(order)):
        return parts
    for number in range(at_least, len(order)):
        equal = [part.tolist() for part in np.array_split(order, number)]
        if all(fits(len(part), longest[kin[part[-1]]]) for part in equal):
            return equal
    return [[row] for row in order]


def kin(sequences: Sequence[Sequence[int]]) -> list[int]:
    """Number sequences so that those which begin alike, by half, have one number."""
    numbers, last = [0] * len(sequences), -1
    for i in sorted(range(len(sequences)), key=lambda i: sequences[i]):
        shorter = min(len(sequences[last]), len(sequences[i]))
        near = last >= 0 and alike(sequences[last], sequences[i]) >= shorter / 2
        numbers[i] = numbers[last] if near else i
        last = i
    return numbers


def alike(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    both = min(len(first), len(second))
    return next((i for i, (a, b) in pairs if a != b), both)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is an allocator's last word."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)
