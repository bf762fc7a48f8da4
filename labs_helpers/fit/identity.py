"""What a run is: all that its result depends on, so that two runs can be compared.

`describe` flattens a value into words: {"loss": "dpo_loss", "loss.beta": 0.1, ...}.
Tensors and long texts come as digests of their content, functions as their code with
defaults, closure and the globals that they use, objects as their class and attributes.
No address and no order of a hash table enters: the same program gives the same words
in every process. Knows nothing of files and of training.
"""

import argparse
import enum
import hashlib
import json
import re
import types
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from functools import partial
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labs_helpers.fit import functions

_SHORT = ("datetime", "decimal", "fractions", "operator", "uuid")  # told by str()
Word = str | int | float | bool | None
Identity = dict[str, Word]

DIGEST = "content "
FEW = 32  # entries of a container that are named one by one
DEEP, MANY = 16, 20_000  # where a walk through strange objects ends


def describe(name: str, value: Any, known: Mapping[int, str] | None = None) -> Identity:
    """Say what a value is, under this name and names that begin with it.

    Args:
        known: of objects described elsewhere, by `id`: what to say of them instead.
    """
    walk = _Walk(known or {})
    walk.add(name, value)
    return walk.found


def digest(value: Any) -> str:
    """Tell plain data, tensors and objects apart by content; the order counts."""
    try:
        text = json.dumps(value, sort_keys=True, default=_plain)
    except (TypeError, ValueError, RecursionError):  # keys of several types, cycles
        text = json.dumps(_plain(value), sort_keys=True)
    return DIGEST + _hash(text.encode("utf-8", "surrogatepass"))


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Tell sets of weights apart by names, types, shapes and every byte."""
    return digest({name: _word(tensor) for name, tensor in tensors.items()})


def differences(saved: Identity, now: Identity, moving: Sequence[str] = ()) -> list:
    """What differs between two identities, each in a few words.

    Args:
        moving: names whose values a run changes by itself: counters, what it has seen.
    """
    said: dict[str, str] = {}
    for name in dict.fromkeys((*now, *saved)):
        if saved.get(name, _ABSENT) == now.get(name, _ABSENT):
            continue
        if not any(_under(name, other) for other in (*moving, *said)):
            said[name] = _difference(name, saved, now)
    return list(said.values())


def moved(before: Identity, after: Identity) -> list[str]:
    """Names whose value is another afterwards."""
    names = dict.fromkeys((*before, *after))
    return [n for n in names if before.get(n, _ABSENT) != after.get(n, _ABSENT)]


_ABSENT = object()


def _difference(name: str, saved: Identity, now: Identity) -> str:
    if name not in saved:
        return f"{name} is new"
    if name not in now:
        return f"{name} is gone"
    if str(saved[name]).startswith(DIGEST) and str(now[name]).startswith(DIGEST):
        return f"{name}: not the same"
    was, is_ = (str(v).removeprefix(DIGEST) for v in (saved[name], now[name]))
    return f"{name} was {was}, is {is_}"


def _under(name: str, other: str) -> bool:
    return name == other or (
        name.startswith(other) and name[len(other)] in functions.JOINTS
    )


class _Walk:
    """Goes through a value and writes down what it finds."""

    def __init__(self, known: Mapping[int, str]):
        self.known, self.found, self.within = known, {}, set()

    def add(self, name: str, value: Any) -> None:
        """Describe a value under a name; what contains itself is cut short."""
        if id(value) in self.known:
            self.found[name] = self.known[id(value)]
            return
        try:
            plain = _word(value)
            if plain is not _ABSENT:
                self.found[name] = plain
            elif (
                id(value) in self.within
                or len(self.within) > DEEP
                or len(self.found) > MANY
            ):
                self.found[name] = functions.type_name(value)
            else:
                self.within.add(id(value))
                self._add_parts(name, value)
                self.within.discard(id(value))
        except Exception:  # whatever a strange object raises when it is looked at
            self.found[name] = functions.type_name(value)
            self.within.discard(id(value))

    def _add_parts(self, name: str, value: Any) -> None:
        if isinstance(value, nn.Module):
            self._add_module(name, value)
        elif _is_tokenizer(value):
            self.found[name] = _tokenizer_digest(value)
        elif isinstance(value, Mapping):
            self._add_mapping(name, value)
        elif isinstance(value, types.SimpleNamespace | argparse.Namespace):
            self._add_mapping(name, vars(value))
        elif isinstance(value, set | frozenset):
            members = sorted(digest(member) for member in value)
            self.found[name] = digest(members)
        elif isinstance(value, list | tuple | deque):
            self._add_list(name, list(value))
        elif isinstance(value, partial):
            self.add(name, value.func)
            for key, given in functions.given(value).items():
                self.add(f"{name}.{key}", given)
        elif functions.is_function(value):
            self._add_function(name, value)
        elif isinstance(value, type):
            self._add_class(name, value)
        else:
            self._add_object(name, value)

    def _add_list(self, name: str, value: list) -> None:
        self.found[name] = f"{len(value)} entries"
        if len(value) > FEW:
            self.found[name] = digest(value)
            return
        for i, entry in enumerate(value):
            self.add(f"{name}[{i}]", entry)

    def _add_mapping(self, name: str, value: Mapping) -> None:
        self.found[name] = f"{len(value)} entries"
        if len(value) > FEW:
            self.found[name] = digest(sorted(map(digest, value.items())))
            return
        for key, entry in value.items():
            self.add(f"{name}[{key if isinstance(key, str) else digest(key)}]", entry)

    def _add_module(self, name: str, value: nn.Module) -> None:
        self.found[name] = functions.type_name(value)
        self.found[f"{name}'s weights"] = tensors_digest(_weights(value))
        is_own = functions.is_own(type(value))
        self.found[f"{name}'s layers"] = digest(repr(value))
        for key, entry in _attributes(value):
            plain = entry is None or isinstance(entry, bool | int | float | str | tuple)
            mine = is_own and not key.startswith("_")
            if (plain or mine) and key not in ("training", "name_or_path"):
                self.add(f"{name}.{key}", entry)
        if is_own:
            self._add_class(f"{name}'s code", type(value))

    def _add_function(self, name: str, value: Any) -> None:
        if isinstance(value, types.MethodType):
            self.add(name, value.__self__)
            value = value.__func__
            name = f"{name}.{value.__name__}"
        value = functions.unwrapped(value)
        self.found[name] = functions.function_name(value)
        for key, entry in functions.defaults(value).items():
            self.add(f"{name}.{key}", entry)
        if not isinstance(value, types.FunctionType):
            return
        for key, entry in functions.closure(value).items():
            self.add(f"{name}.{key}", entry)
        if functions.is_own(value):
            self.found[f"{name}'s code"] = DIGEST + _hash(functions.code(value))
            for key, entry in functions.used_globals(value).items():
                self.add(f"{name}.{key}", entry)

    def _add_class(self, name: str, value: type) -> None:
        self.found[name] = functions.class_name(value)
        for key, entry in functions.members(value).items():
            self.add(f"{name}.{key}", entry)

    def _add_object(self, name: str, value: Any) -> None:
        self.found[name] = functions.type_name(value)
        if functions.is_standard(type(value)):
            return  # locks, loggers, clocks, files, random states, bars
        if functions.is_own(type(value)):
            self._add_class(f"{name}'s code", type(value))
        for key, entry in _attributes(value):
            self.add(f"{name}.{key}", entry)


def _word(value: Any) -> Any:
    """What can be said in a word; `_ABSENT` if it takes more."""
    if isinstance(value, enum.Enum):
        meant = _word(value.value)
        return str(value) if meant is _ABSENT else f"{value} {meant}"
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value if value is None or isinstance(value, bool) else int(value)
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else repr(float(value))
    if isinstance(value, str):
        return str(value) if len(value) <= 80 else digest(value)
    if isinstance(value, bytes | bytearray | memoryview | array):
        return DIGEST + _hash(bytes(value))
    if isinstance(value, Tensor):
        return DIGEST + _tensor_digest(value)
    if hasattr(value, "with_format"):  # of datasets
        value = value.with_format("arrow")[:]
    if hasattr(value, "iloc") and not isinstance(value, type):
        return _pandas_digest(value)
    if hasattr(value, "__array__") and not isinstance(value, type):
        table = np.asarray(value)
        if table.dtype.kind in "biufc" and table.dtype.char not in "gG":  # they pad
            return DIGEST + _array_digest(table)
        return digest(table.tolist())
    if isinstance(value, re.Pattern):
        return f"{value.pattern!r} {int(value.flags)}"
    if isinstance(value, PurePath | torch.dtype | range | complex | slice):
        return str(value)
    if isinstance(value, types.ModuleType):
        return value.__name__
    if type(value).__module__ in _SHORT:
        return str(value)
    return _ABSENT


def _plain(value: Any) -> Any:
    """For `json`: what it does not know, in what it knows."""
    found = describe("", value)
    return found[""] if list(found) == [""] else found


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Attributes by name; of installed classes the public ones, for caches are not."""
    names = dict(getattr(value, "__dict__", {}))
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            with suppress(AttributeError):
                names.setdefault(slot, getattr(value, slot))
    every = functions.is_own(type(value)) or is_dataclass(value)
    for key in sorted(map(str, names)):
        if (every and not key.startswith("__")) or not key.startswith("_"):
            yield key, names[key]


def _weights(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    return {name: t for name, t in state.items() if isinstance(t, Tensor)}


def _is_tokenizer(value: Any) -> bool:
    return hasattr(value, "apply_chat_template") and hasattr(value, "get_vocab")


def _tokenizer_digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else {}
    rules.pop("padding", None)  # the last call's, not the tokenizer's
    rules.pop("truncation", None)
    vocabulary = {} if rules else tokenizer.get_vocab()
    special = {k: str(v) for k, v in tokenizer.special_tokens_map.items()}
    template = getattr(tokenizer, "chat_template", None)
    return digest([rules, vocabulary, special, template])


def _pandas_digest(value: Any) -> str:
    """Of a table or a column: its labels count, too."""
    is_table = value.ndim == 2
    columns = [value.iloc[:, i] for i in range(value.shape[1])] if is_table else [value]
    return digest([np.asarray(part) for part in (*value.axes, *columns)])


def _array_digest(table: np.ndarray) -> str:
    content = np.ascontiguousarray(table).reshape(-1).view(np.uint8)
    return _hash(f"{table.dtype.str} {table.shape}".encode(), content)


def _tensor_digest(tensor: Tensor) -> str:
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if tensor.is_meta:
        return f"{tensor.dtype} {tuple(tensor.shape)}"
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    content = tensor.cpu().contiguous().reshape(-1)
    content = content.view(torch.uint8).numpy() if content.numel() else b""
    return _hash(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), content)


def _hash(*parts: Any) -> str:
    code = hashlib.blake2b(digest_size=12)
    for part in parts:
        code.update(part)
    return code.hexdigest()
