"""Messages over the pipe, those of a hostile writer included."""

import io

import numpy as np
import pytest
import torch
from safetensors.torch import save

from labs_tools.grading import protocol

VALUES = [
    *(None, True, 3, -(2**40), 0.1, float("inf"), "text", [1, [2.5, "x"]], (1, None)),
    {"a": (1.5, [2])},
]
DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool),
)
ARRAYS = save({"0": torch.ones(2), "half": torch.ones(2, dtype=torch.bfloat16)})


def crossed(value):
    packed = io.BytesIO(protocol.pack({"value": value}))
    return protocol.receive(packed.read)["value"]


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_plain_values_cross(value):
    assert crossed(value) == value
    assert type(crossed(value)) is type(value)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_cross(dtype):
    tensor = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).to(dtype).T
    assert crossed(tensor).dtype == dtype
    assert torch.equal(crossed(tensor), tensor)


def test_tensors_lose_their_class():
    class Mine(torch.Tensor):
        pass

    other = crossed(torch.ones(2).as_subclass(Mine))
    assert type(other) is torch.Tensor


@pytest.mark.parametrize("array", [np.zeros((0, 3)), np.float32(2), np.array([True])])
def test_arrays_cross(array):
    assert crossed(array).dtype == array.dtype
    assert np.array_equal(crossed(array), array)


def test_other_types_cross_as_their_names():
    assert type(crossed({1, 2})).__name__ == "set"
    assert type(crossed(torch.zeros(2, dtype=torch.complex64))).__name__ == "Tensor"


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{",
        b'{"a": {"is": "tensor"}}',
        b'{"a": {"is": "tensor", "of": "1"}}',
        b'{"a": {"is": "tensor", "of": ["0"]}}',
        b'{"a": {"is": "array", "of": "half"}}',
        b'{"a": {"is": "dict", "keys": [[]], "of": [1]}}',
        b'{"a": ' + b"[" * 50_000,
        b"9" * 5000,
    ],
)
def test_broken_messages_are_refused(header):
    with pytest.raises(protocol.BadMessage):
        received(header, ARRAYS)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8 + b"{}",
        ARRAYS[:-1],
        ARRAYS.replace(b"[2]", b"[9]"),
        ARRAYS.replace(b"[8,12]", b"[8,99]"),
        ARRAYS.replace(b"[8,12]", b"[12,8]"),
        ARRAYS.replace(b'"BF16"', b'"XX16"'),
    ],
)
def test_broken_arrays_are_refused(data):
    assert received(b"{}", ARRAYS) == {}
    with pytest.raises(protocol.BadMessage):
        received(b"{}", data)


def received(header, data):
    start = protocol.LENGTHS.pack(len(header), len(data))
    return protocol.receive(io.BytesIO(start + header + data).read)


def test_too_large_messages_are_refused():
    with pytest.raises(protocol.BadMessage):
        protocol.pack({"x": torch.zeros(1 << 24, dtype=torch.float64)})
    with pytest.raises(protocol.BadMessage):
        protocol.receive(io.BytesIO(b"\xff" * 8).read)


def test_message_cut_short_is_an_end():
    packed = protocol.pack({"x": [1, 2]})
    with pytest.raises(EOFError):
        protocol.receive(io.BytesIO(packed[:-1]).read)
