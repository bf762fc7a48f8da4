"""Size and shape of the packages, against the bounds: `make house`.

Layers and circles of imports are held by import-linter; its contracts stand in
pyproject.toml.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINES = {"labs_helpers": 16_000, "the library in it": 9_500, "labs_tools": 9_000}
FILE, FUNCTION, FACE = 400, 60, 30
ABOVE_THE_LIBRARY = ("world", "course")


def files(package: str) -> dict[str, str]:
    """The text of each Python file of a package by its path below the root."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return {str(p.relative_to(ROOT)): p.read_text(encoding="utf-8") for p in paths}


def rooms(package: str) -> dict[str, int]:
    """Lines of each folder, and of each file beside the folders."""
    found: dict[str, int] = {}
    for path, text in files(package).items():
        room = Path(path).parts[1]
        found[room] = found.get(room, 0) + text.count("\n")
    return found


def lines() -> dict[str, int]:
    """Lines of Python, under the names that have a bound."""
    helpers = rooms("labs_helpers")
    library = sum(n for room, n in helpers.items() if room not in ABOVE_THE_LIBRARY)
    sums = (sum(helpers.values()), library, sum(rooms("labs_tools").values()))
    return dict(zip(LINES, sums, strict=True))


def too_long() -> Iterator[str]:
    """Files, functions and faces above their bound, and faces that define something."""
    for path, text in {**files("labs_helpers"), **files("labs_tools")}.items():
        if text.count("\n") > FILE:
            yield f"{path} has {text.count(chr(10))} lines, at most {FILE}"
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = node.end_lineno - node.lineno + 1
                if length > FUNCTION:
                    yield (
                        f"{path}: {node.name} has {length} lines, at most {FUNCTION}"
                    )
        if path.endswith("__init__.py") and path.count("/") == 2:
            yield from _as_face(path, text, tree)


def _as_face(path: str, text: str, tree: ast.Module) -> Iterator[str]:
    if text.count("\n") > FACE:
        yield f"{path} has {text.count(chr(10))} lines, a face at most {FACE}"
    if not all(isinstance(node, ast.Expr | ast.ImportFrom) for node in tree.body):
        yield f"{path} is a face: it hands names on and defines nothing"


def main() -> int:
    """Print the sizes; 1 if a bound is broken."""
    for package in ("labs_helpers", "labs_tools"):
        print(package)
        for room, size in rooms(package).items():
            print(f"  {room:20} {size:7,}")
    broken = list(too_long())
    for name, size in lines().items():
        print(f"{name:22} {size:7,} of {LINES[name]:,}")
        if size > LINES[name]:
            broken.append(f"{name}: {size:,} lines, at most {LINES[name]:,}")
    print("\n".join(broken) or "Every bound holds.")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
