"""What a grader and a submission say to each other: plain values over a pipe.

A message is JSON, and its arrays are safetensors. Nothing in it can run code, so that
the grader may read what a submission wrote. Copied into the sandbox: imports nothing of
the package.
"""

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

LENGTHS = struct.Struct(">II")
MOST_TEXT = 100_000  # characters, of a cell too
MOST_JSON = 1 << 20
MOST_DATA = 1 << 25
DEEPEST = 8


class BadMessage(Exception):
    """What arrived is no message of this protocol, or too large for one."""


class Function:
    """A function of the grader that a submission may call by this name."""

    def __init__(self, name: str):
        self.name = name


def stand_in(name: str) -> Any:
    """An object in place of one that does not cross; its type has the same name."""
    return type(name if name.isidentifier() else "object", (), {})()


def pack(message: dict[str, Any]) -> bytes:
    """Write a message as bytes."""
    arrays: dict[str, Tensor] = {}
    content = {key: _written(value, arrays) for key, value in message.items()}
    header, data = json.dumps(content).encode(), save(arrays)
    _require_small(len(header), len(data))
    return LENGTHS.pack(len(header), len(data)) + header + data


def receive(
    read: Callable[[int], bytes], called: Callable[[str], Any] = stand_in
) -> dict[str, Any]:
    """Read a message.

    Args:
        read: gives some of the bytes that it is asked for, and nothing at the end.
        called: turns the name of a function into one.

    Raises:
        EOFError: the other side hung up.
        BadMessage: it wrote something else.
    """

    def exactly(length: int) -> bytes:
        parts = []
        while length:
            if not (part := read(length)):
                raise EOFError
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    lengths = LENGTHS.unpack(exactly(LENGTHS.size))
    _require_small(*lengths)
    header, data = map(exactly, lengths)
    try:
        arrays = load(data)
        message = json.loads(header).items()
        return {key: _read(value, arrays, called) for key, value in message}
    except Exception as error:  # whatever a hostile writer makes of the reader
        raise BadMessage(f"a message cannot be read: {type(error).__name__}") from None


def _require_small(header: int, data: int) -> None:
    if header > MOST_JSON or data > MOST_DATA:
        raise BadMessage("a value is too large to be handed over")


def _written(value: Any, arrays: dict[str, Tensor], depth: int = 0) -> Any:
    """Turn a value into what JSON has; numbers of arrays go to `arrays`."""

    def each(items: Any) -> list[Any]:
        return [_written(item, arrays, depth + 1) for item in items]

    def array(kind: str, tensor: Tensor) -> dict[str, str]:
        _require_small(0, tensor.nbytes)
        number = str(len(arrays))
        arrays[number] = tensor.contiguous().clone()
        return {"is": kind, "of": number}

    if depth > DEEPEST:
        return {"is": "other", "of": "too deep"}
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value[:MOST_TEXT]
    if isinstance(value, list):
        return each(value)
    if isinstance(value, tuple):
        return {"is": "tuple", "of": each(value)}
    if isinstance(value, dict):
        return {"is": "dict", "keys": [*map(str, value)], "of": each(value.values())}
    if isinstance(value, Function):
        return {"is": "function", "of": value.name}
    if isinstance(value, Tensor) and not value.is_complex():
        return array("tensor", value.detach().as_subclass(Tensor).cpu())
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub":
        kind = "array" if isinstance(value, np.ndarray) else "scalar"
        return array(kind, torch.from_numpy(np.array(value)))
    return {"is": "other", "of": type(value).__name__[:40]}


def _read(
    value: Any, arrays: dict[str, Tensor], called: Callable[[str], Any], depth: int = 0
) -> Any:
    if depth > DEEPEST + 1:
        raise BadMessage("a value is nested too deeply")
    if isinstance(value, list):
        return [_read(item, arrays, called, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    kind, content = value["is"], value["of"]
    if kind in ("tuple", "dict"):
        items = _read(list(content), arrays, called, depth)
        return dict(zip(value["keys"], items)) if kind == "dict" else tuple(items)  # noqa: B905
    if kind == "function":
        return called(str(content))
    if kind == "other":
        return stand_in(str(content)[:40])
    array = arrays[content]
    if kind == "tensor":
        return array
    return array.numpy() if kind == "array" else array.numpy()[()]
