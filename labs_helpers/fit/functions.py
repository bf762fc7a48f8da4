"""What a function or a class is, by its code and by what the code uses.

For `identity`: names, defaults, closures, used globals and bytecode, which is the same
in every process and does not change with comments, line numbers or a file's place.
Code that a package manager installed is told by its name alone.
"""

import dis
import inspect
import sys
import types
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

JOINTS = ".['"  # between a name and those under it


def is_function(value: Any) -> bool:
    """Functions, methods, builtins, and what wraps one (a cache)."""
    return inspect.isroutine(value) or (
        callable(value)
        and not isinstance(value, type)
        and hasattr(value, "__wrapped__")
    )


def is_standard(value: Any) -> bool:
    """Whether a class or function is Python's own, or a progress bar's."""
    return _package(value) in (*sys.stdlib_module_names, "tqdm")


def is_own(value: Any) -> bool:
    """Whether the user wrote it: neither Python's, nor installed, nor of this package.

    Its code may change from one run to the next, and is part of what a run is.
    """
    package = _package(value)
    if package in sys.stdlib_module_names or package == __name__.split(".")[0]:
        return package == "__main__"
    file = getattr(sys.modules.get(value.__module__), "__file__", None)
    if file is None:
        code = getattr(value, "__code__", None)
        file = getattr(code, "co_filename", "")
    parts = Path(file or "").parts
    return "site-packages" not in parts and "dist-packages" not in parts


def _package(value: Any) -> str:
    return str(getattr(value, "__module__", None) or "builtins").split(".")[0]


def class_name(value: type) -> str:
    """With the module where that says which; a script's own is named by itself."""
    if is_own(value) or value.__module__ == "builtins":
        return value.__qualname__
    return f"{value.__module__}.{value.__qualname__}"


def type_name(value: Any) -> str:
    """The name of a value's class."""
    return class_name(type(value))


def function_name(value: Any) -> str:
    """The name, with the module where the function is installed."""
    name = getattr(value, "__qualname__", type_name(value))
    return name if is_own(value) else f"{_module(value)}.{name}"


def _module(value: Any) -> str:
    return getattr(value, "__module__", None) or "builtins"


def unwrapped(value: Any) -> Any:
    """The function in a cache, or in what checks this package's types in tests."""
    if not isinstance(value, types.FunctionType) or not is_own(value):
        with suppress(ValueError):  # wrapped in itself
            return inspect.unwrap(value)
    return value


def defaults(value: Any) -> dict[str, Any]:
    """Values of arguments that a caller may leave out."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):  # of some builtins nothing is known
        return {}
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def given(value: partial) -> dict[str, Any]:
    """The arguments that a partial gives, by name."""
    try:
        names = list(inspect.signature(value.func).parameters)
    except (TypeError, ValueError):
        names = []
    names += [f"argument {i}" for i in range(len(names), len(value.args))]
    return {**dict(zip(names, value.args, strict=False)), **value.keywords}


def closure(value: types.FunctionType) -> dict[str, Any]:
    """Variables of the functions around it that it uses."""
    found = {}
    cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    for name, cell in cells:
        with suppress(ValueError):  # not set yet
            found[name] = cell.cell_contents
    return found


def used_globals(value: types.FunctionType) -> dict[str, Any]:
    """Variables of its module that it uses, other modules left out."""
    names = dict.fromkeys(_global_names(value.__code__))
    found = {n: value.__globals__[n] for n in names if n in value.__globals__}
    return {n: v for n, v in found.items() if not isinstance(v, types.ModuleType)}


def _global_names(code: types.CodeType) -> list[str]:
    names = [
        step.argval
        for step in dis.get_instructions(code)
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
    ]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names += _global_names(constant)
    return names


def members(value: type) -> dict[str, Any]:
    """Functions and values of a class that the user wrote, of its bases too."""
    found: dict[str, Any] = {}
    for cls in reversed(value.__mro__):
        if is_own(cls):
            found |= {k: _function_of(v) for k, v in vars(cls).items() if _counts(k, v)}
    return dict(sorted(found.items()))


_SHOWN = ("__repr__", "__str__")  # how a value looks


def _counts(name: str, value: Any) -> bool:
    is_code = isinstance(_function_of(value), types.FunctionType)
    return name not in _SHOWN and (is_code or not name.startswith("__"))


def _function_of(value: Any) -> Any:
    if isinstance(value, staticmethod | classmethod):
        return value.__func__
    if isinstance(value, cached_property):
        return value.func
    return value.fget if isinstance(value, property) else value


def code(value: types.FunctionType) -> bytes:
    """What a function does, without its docstring and where it stands."""
    return _code(value.__code__, value.__doc__).encode("utf-8", "surrogatepass")


def _code(found: types.CodeType, doc: str | None = None) -> str:
    constants = list(found.co_consts)
    if doc is not None and constants and constants[0] == doc:
        constants = constants[1:]
    parts = [
        found.co_code.hex(),
        [_constant(constant) for constant in constants],
        found.co_names,
        found.co_varnames,
        found.co_freevars,
        found.co_argcount,
        found.co_kwonlyargcount,
        found.co_flags,
    ]
    return repr(parts)


def _constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, frozenset):
        return repr(sorted(map(repr, value)))
    return repr(value)
