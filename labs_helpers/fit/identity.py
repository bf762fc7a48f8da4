"""What a run is: all that its result depends on, so that two runs can be compared.

`describe` flattens a value into words: {"loss": "dpo_loss", "loss.beta": 0.1, ...}.
Tensors and long texts come as digests of their content, objects as their class and
attributes, functions as defaults, closure, bytecode and the globals that it uses; code
of a package as its name. No address and no order of a hash table enters: the same
program gives the same words in every process, wherever its files and remarks stand.
"""

import argparse
import enum
import hashlib
import inspect
import json
import re
import sys
import types
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

Word = str | int | float | bool | None
Identity = dict[str, Word]

DIGEST = "content "
FEW = 32  # entries of a container that are named one by one
DEEP, MANY = 16, 20_000  # where a walk through strange objects ends
# Told by what they print.
_PRINTED = (date, time, timedelta, Decimal, Fraction, UUID, PurePath, re.Pattern)
_PRINTED += (torch.dtype, range, complex, slice)
_ABSENT = object()
# Of an adapter's configuration: where it came from, and what only inference reads.
_ELSEWHERE = ("base_model_name_or_path", "inference_mode", "revision", "peft_version")


def describe(name: str, value: Any, known: Mapping[int, str] | None = None) -> Identity:
    """Say what a value is, under this name and names that begin with it.

    Args:
        known: of objects described elsewhere, by `id`: what to say of them instead.
    """
    found: Identity = {}
    within: set[int] = set()

    def add(name: str, value: Any) -> None:
        if known and id(value) in known:
            found[name] = known[id(value)]
            return
        try:
            found[name], parts = _look(value)
        except Exception:  # whatever a strange object raises when it is looked at
            found[name], parts = _name(type(value)), {}
        if id(value) in within or len(within) > DEEP or len(found) > MANY:
            return
        within.add(id(value))
        for key, part in parts.items():
            add(name + key, part)
        within.discard(id(value))

    add(name, value)
    return found


def describe_start(model: nn.Module) -> Identity:
    """What the result of a training depends on in the model that it is given."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    places = {p.data_ptr() for p in trained.values()}  # tied weights have two names
    state = {n: t for n, t in model.state_dict().items() if isinstance(t, Tensor)}
    new = _new_adapters(model)
    found: Identity = {
        "trained parameters": sum(p.numel() for p in trained.values()),
        "the model's weights at the start": digest(
            {n: p for n, p in trained.items() if id(p) not in new}
        ),
        "the model's frozen weights": digest(
            {n: t for n, t in state.items() if t.data_ptr() not in places}
        ),
    }
    adapted = [module for module in model.modules() if isinstance(module, PeftModel)]
    for name, config in (pair for a in adapted for pair in a.peft_config.items()):
        for key, value in config.to_dict().items():
            if value is not None and key not in _ELSEWHERE:
                found |= describe(f"the adapter {name}'s {key}", value)
    return found


def _new_adapters(model: nn.Module) -> set[int]:
    """Ids of weights drawn at random and multiplied by zeros: another draw is equal."""
    found: set[int] = set()
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            for adapter in layer.active_adapters:
                named = layer.named_parameters()
                group = [p for name, p in named if adapter in name.split(".")]
                if not all(p.any() for p in group):
                    found |= {id(p) for p in group}
    return found


def digest(value: Any) -> str:
    """Tell plain data, tensors and objects apart by content; the order counts."""
    try:
        text = json.dumps(value, sort_keys=True, default=_plain)
    except (TypeError, ValueError, RecursionError):  # keys of several types, cycles
        text = json.dumps(_plain(value), sort_keys=True)
    return _hashed(text.encode("utf-8", "surrogatepass"))


def differences(saved: Identity, now: Identity, moving: Sequence[str] = ()) -> list:
    """What differs between two identities, each in a few words.

    Args:
        moving: names whose values a run changes by itself: counters, what it has seen.
    """
    said: dict[str, str] = {}
    for name in moved(now, saved):
        above = [o for o in (*moving, *said) if name.startswith(o)]
        if not any(name[len(other) :][:1] in ("", ".", "[", "'") for other in above):
            said[name] = _difference(name, saved, now)
    return list(said.values())


def moved(before: Identity, after: Identity) -> list[str]:
    """Names whose value is another afterwards."""
    names = dict.fromkeys((*before, *after))
    return [n for n in names if before.get(n, _ABSENT) != after.get(n, _ABSENT)]


def _difference(name: str, saved: Identity, now: Identity) -> str:
    if name not in saved or name not in now:
        return f"{name} is {'new' if name in now else 'gone'}"
    was, is_ = str(saved[name]), str(now[name])
    if was.startswith(DIGEST) and is_.startswith(DIGEST):
        return f"{name}: not the same"
    return f"{name} was {was.removeprefix(DIGEST)}, is {is_.removeprefix(DIGEST)}"


def _plain(value: Any) -> Any:
    """For `json`: what it does not know, in what it knows."""
    found = describe("", value)
    return found[""] if list(found) == [""] else found


def _look(value: Any) -> tuple[Word, dict[str, Any]]:
    """What a value is in a word, and its parts, by what they add to its name."""
    word = _word(value)
    if word is not _ABSENT:
        return word, {}
    if isinstance(value, nn.Module):
        return _look_at_module(value)
    if hasattr(value, "apply_chat_template") and hasattr(value, "get_vocab"):
        return _tokenizer_digest(value), {}
    if isinstance(value, types.SimpleNamespace | argparse.Namespace):
        value = vars(value)
    if isinstance(value, set | frozenset):
        return digest(sorted(map(digest, value))), {}
    if isinstance(value, Mapping):
        if len(value) > FEW:
            return digest(sorted(map(digest, value.items()))), {}
        named = {k if isinstance(k, str) else digest(k): v for k, v in value.items()}
        return f"{len(value)} entries", {f"[{k}]": v for k, v in named.items()}
    if isinstance(value, list | tuple | deque):
        if len(value) > FEW:
            return digest(list(value)), {}
        return f"{len(value)} entries", {f"[{i}]": v for i, v in enumerate(value)}
    if isinstance(value, types.MethodType):
        word, parts = _look(value.__self__)
        return word, {**parts, f".{value.__name__}": value.__func__}
    if isinstance(value, partial):
        word, parts = _look(value.func)
        return word, {**parts, **{f".{k}": v for k, v in _given(value).items()}}
    if inspect.isroutine(value) or isinstance(value, type):
        return _look_at_code(value)
    if hasattr(value, "__wrapped__"):  # a cache around a function
        return _look_at_code(inspect.unwrap(value))
    return _look_at_object(value)


def _word(value: Any) -> Any:
    """What can be said in a word; `_ABSENT` if it takes more."""
    if isinstance(value, enum.Enum):
        return f"{value} {_look(value.value)[0]}"
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if np.isfinite(value) else repr(float(value))
    if isinstance(value, str):
        return str(value) if len(value) <= 80 else digest(str(value))
    if isinstance(value, bytes | bytearray | memoryview | array):
        return _hashed(bytes(value))
    if isinstance(value, _PRINTED):
        return repr(value) if isinstance(value, re.Pattern) else str(value)
    if isinstance(value, Tensor):
        plain = value.detach().cpu().to_dense().resolve_conj().resolve_neg()
        content = plain.contiguous().reshape(-1).view(torch.uint8).numpy()
        return _hashed(f"{value.dtype} {tuple(value.shape)}".encode(), content)
    return _ABSENT if isinstance(value, type) else _table_digest(value)


def _table_digest(value: Any) -> Any:
    """Of arrays, columns and tables of any library; `_ABSENT` if it is none."""
    for convert in ("to_pandas", "to_frame"):  # of datasets, of one column
        if hasattr(value, convert):
            value = getattr(value, convert)()
    if hasattr(value, "iloc"):
        columns = [value.iloc[:, i] for i in range(value.shape[1])]
        return digest([np.asarray(part) for part in (*value.axes, *columns)])
    if not hasattr(value, "__array__"):
        return _ABSENT
    table = np.asarray(value)
    if table.dtype.char in "gG":  # numbers with padding
        table = table.astype(complex)
    if table.dtype.kind not in "biufc":
        return digest(table.tolist())
    content = np.ascontiguousarray(table).reshape(-1).view(np.uint8)
    return _hashed(f"{table.dtype.str} {table.shape}".encode(), content)


def _look_at_module(value: nn.Module) -> tuple[Word, dict[str, Any]]:
    own = _is_own(type(value))
    parts = {"'s weights": digest(value.state_dict()), "'s layers": digest(repr(value))}
    for key, entry in _attributes(value):
        plain = entry is None or isinstance(entry, bool | int | float | str | tuple)
        mine = own and not key.startswith("_")
        if (plain or mine) and key not in ("training", "name_or_path"):
            parts[f".{key}"] = entry
    return _name(type(value)), parts | ({"'s code": type(value)} if own else {})


def _tokenizer_digest(tokenizer: Any) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else {}
    for of_the_last_call in ("padding", "truncation"):
        rules.pop(of_the_last_call, None)
    special = {k: str(v) for k, v in tokenizer.special_tokens_map.items()}
    template = getattr(tokenizer, "chat_template", None)
    return digest([rules, {} if rules else tokenizer.get_vocab(), special, template])


def _look_at_object(value: Any) -> tuple[Word, dict[str, Any]]:
    kind = type(value)
    if _package(kind) in (*sys.stdlib_module_names, "tqdm"):
        return _name(kind), {}  # locks, loggers, clocks, files, random states, bars
    parts = {"'s code": kind} if _is_own(kind) else {}
    return _name(kind), parts | {f".{k}": v for k, v in _attributes(value)}


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """Attributes by name; of installed classes the public ones, for caches are not."""
    names = dict(getattr(value, "__dict__", {}))
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            with suppress(AttributeError):
                names.setdefault(slot, getattr(value, slot))
    every = _is_own(type(value)) or is_dataclass(value)
    for key in sorted(map(str, names)):
        if (every and not key.startswith("__")) or not key.startswith("_"):
            yield key, names[key]


def _look_at_code(value: Any) -> tuple[Word, dict[str, Any]]:
    """A function by defaults, closure, bytecode and globals; a class by its members."""
    if isinstance(value, type):
        return _name(value), {f".{k}": v for k, v in _members(value).items()}
    if not (isinstance(value, types.FunctionType) and _is_own(value)):
        with suppress(ValueError):  # wrapped in itself
            value = inspect.unwrap(value)
    parts: dict[str, Any] = {}
    with suppress(TypeError, ValueError):  # of some builtins nothing is known
        for p in inspect.signature(value).parameters.values():
            if p.default is not p.empty:
                parts[f".{p.name}"] = p.default
    if isinstance(value, types.FunctionType):
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        for name, cell in cells:
            with suppress(ValueError):  # not set yet
                parts[f".{name}"] = cell.cell_contents
        if _is_own(value):
            code = _code(value.__code__, value.__doc__)
            parts["'s code"] = _hashed(code.encode("utf-8", "surrogatepass"))
            for name in dict.fromkeys(_names(value.__code__)):
                used = value.__globals__.get(name, _ABSENT)
                if used is not _ABSENT and not isinstance(used, types.ModuleType):
                    parts[f".{name}"] = used
    return _name(value), parts


def _given(value: partial) -> dict[str, Any]:
    """The arguments that a partial gives, by name."""
    names: list[str] = []
    with suppress(TypeError, ValueError):
        names = list(inspect.signature(value.func).parameters)
    names += [f"argument {i}" for i in range(len(names), len(value.args))]
    return {**dict(zip(names, value.args, strict=False)), **value.keywords}


def _members(value: type) -> dict[str, Any]:
    """Functions and values of a class that the user wrote, of its bases too."""
    found: dict[str, Any] = {}
    for cls in reversed(value.__mro__):
        for name, member in vars(cls).items() if _is_own(cls) else ():
            for inner in ("__func__", "fget", "func"):  # static, property, cached
                if not isinstance(member, types.FunctionType | partial):
                    member = getattr(member, inner, member)
            is_code = isinstance(member, types.FunctionType)
            shown = name in ("__repr__", "__str__")  # how a value looks
            if not shown and (is_code or not name.startswith("__")):
                found[name] = member
    return dict(sorted(found.items()))


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _code(found: types.CodeType, doc: str | None = None) -> str:
    """What a function does, without its docstring and where it stands."""
    constants = []
    for i, constant in enumerate(found.co_consts):
        if isinstance(constant, types.CodeType):
            constants.append(_code(constant))
        elif isinstance(constant, frozenset):
            constants.append(repr(sorted(map(repr, constant))))
        elif doc is None or (i, constant) != (0, doc):
            constants.append(repr(constant))
    names = (found.co_names, found.co_varnames, found.co_freevars)
    counts = (found.co_argcount, found.co_kwonlyargcount, found.co_flags)
    return repr([found.co_code.hex(), constants, names, counts])


def _package(value: Any) -> str:
    return str(getattr(value, "__module__", None) or "builtins").split(".")[0]


def _is_own(value: Any) -> bool:
    """Whether the user wrote it, so that it may change from one run to the next."""
    package = _package(value)
    if package in sys.stdlib_module_names or package == __name__.split(".")[0]:
        return package == "__main__"
    module = sys.modules.get(value.__module__)
    code = getattr(value, "__code__", None)
    file = getattr(module, "__file__", None) or getattr(code, "co_filename", "")
    return not {"site-packages", "dist-packages"} & set(PurePath(file).parts)


def _name(value: Any) -> str:
    """Of a class or function, with the module where that is installed."""
    name = getattr(value, "__qualname__", type(value).__qualname__)
    module = getattr(value, "__module__", None) or "builtins"
    plain = _is_own(value) or (isinstance(value, type) and module == "builtins")
    return name if plain else f"{module}.{name}"


def _hashed(*parts: Any) -> str:
    code = hashlib.blake2b(digest_size=12)
    for part in parts:
        code.update(part)
    return DIGEST + code.hexdigest()
