"""A function from a file of the user's own, imported as Python imports it.

In go a path and a name; out comes the function. The file's folder is on the path, so
that it finds what lies beside it, by `import x` and by `from . import x`. Knows nothing
of training.
"""

import importlib.util
import inspect
import linecache
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from labs_helpers.common.settings import nearest

Function = Callable[[Any, Any], Any]


def load_function(file: str, name: str) -> Function:
    """Run a file and give the function of prompts and answers that it names.

    Raises:
        ValueError: there is no such file or function, or it cannot be run; the message
            says at which of its lines.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no file {file}")
    module = _run(path.resolve(), file)
    found = getattr(module, name, None)
    if not callable(found) or isinstance(found, type):
        own = [n for n, f in vars(module).items() if inspect.isfunction(f)]
        what = "is a class: name an object of it, or a function" if found else ""
        raise ValueError(
            f"{file} has no function {name}"
            + (f": that {what}" if isinstance(found, type) else nearest(name, own))
        )
    _require_two_arguments(found, f"{name} of {file}")
    return found


def _run(path: Path, file: str) -> types.ModuleType:
    module = types.ModuleType(_module_name(path))
    module.__file__, module.__package__ = str(path), _package(path.parent)
    sys.modules[module.__name__] = module  # before it runs, as an import does
    linecache.checkcache(str(path))
    sys.path.insert(0, str(path.parent))  # first while it is imported, as of a script
    try:
        # Not by a loader: its cache takes an edit within the same second for none.
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except SystemExit as error:
        raise ValueError(
            f"{file}{_line(error, path)} ends the program (SystemExit) while it is "
            "imported: put what only a script does under if __name__ == '__main__'"
        ) from error
    except Exception as error:  # whatever stands in the user's file
        raise ValueError(
            f"{file} cannot be run: {type(error).__name__}{_line(error, path)}: "
            f"{str(error)[:300]}"
        ) from error
    finally:
        sys.path.remove(str(path.parent))
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for imports inside its functions
    return module


def _module_name(path: Path) -> str:
    """The file's name, unless that is a module of Python's or an installed one."""
    known = sys.modules.get(path.stem)
    if known is not None:
        is_other = getattr(known, "__file__", None) != str(path)
    else:
        spec = importlib.util.find_spec(path.stem) if path.stem.isidentifier() else None
        is_other = spec is not None and spec.origin != str(path)
    return f"{path.stem}_of_the_user" if is_other else path.stem


def _package(folder: Path) -> str:
    """A package that is this folder, for `from . import x`."""
    name = f"folder_{''.join(c if c.isalnum() else '_' for c in str(folder))}"
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    return sys.modules.setdefault(name, package).__name__


def _line(error: BaseException, path: Path) -> str:
    if isinstance(error, SyntaxError) and error.filename:
        where = "" if error.filename == str(path) else f" of {error.filename}"
        return f" in line {error.lineno}{where}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    return f" in line {lines[-1]}" if lines else ""


def _require_two_arguments(function: Function, name: str) -> None:
    if inspect.iscoroutinefunction(function):
        raise ValueError(f"{name} is async: give a plain function")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of some builtins nothing is known
        return
    try:
        signature.bind([], [])
    except TypeError:
        raise ValueError(
            f"{name} takes {signature}: a reward is called with two lists, the prompts "
            "and the answers"
        ) from None
