"""What in a submission's code deserves a look: names and calls that no exercise needs.

Reads code, runs none. A suspicion changes no points: what a trick would need is out of
its reach, and an honest answer may look odd.
"""

import ast
from collections.abc import Iterator

ATTRIBUTES = {
    "_getframe": "looks at the stack",
    "f_back": "looks at the stack",
    "f_locals": "looks at the stack",
    "f_globals": "looks at the stack",
    "tb_frame": "looks at the stack",
    "currentframe": "looks at the stack",
    "getouterframes": "looks at the stack",
    "get_objects": "looks at the stack",
    "get_referrers": "looks at the stack",
    "settrace": "looks at the stack",
    "_exit": "ends its process",
    "abort": "ends its process",
    "system": "starts processes",
    "popen": "starts processes",
    "fork": "starts processes",
    "ast_transformers": "switches assert off",
    "input_transformers_cleanup": "switches assert off",
    "dont_write_bytecode": "switches assert off",
}
MODULES = {
    "inspect": "looks at the stack",
    "gc": "looks at the stack",
    "subprocess": "starts processes",
    "multiprocessing": "starts processes",
    "pty": "starts processes",
    "socket": "uses the network",
    "urllib": "uses the network",
    "http": "uses the network",
    "requests": "uses the network",
    "httpx": "uses the network",
    "ftplib": "uses the network",
    "sqlite3": "reads files",
    "pathlib": "reads files",
    "glob": "reads files",
    "shutil": "reads files",
    "nbformat": "reads files",
    "importlib": "runs text as code",
    "ctypes": "reaches into the interpreter",
    "labs_helpers": "uses labs_helpers",
}
CALLS = {
    "open": "reads files",
    "exists": "reads files",
    "listdir": "reads files",
    "read_text": "reads files",
    "scandir": "reads files",
    "exec": "runs text as code",
    "eval": "runs text as code",
    "compile": "runs text as code",
    "__import__": "runs text as code",
    "setattr": "changes a module",
    "exit": "ends its process",
    "quit": "ends its process",
}
OPERATORS = frozenset(
    f"__{name}__"
    for name in (
        *("eq", "ne", "lt", "le", "gt", "ge", "bool", "float", "sub", "array"),
        *("torch_function", "array_ufunc", "array_function", "instancecheck"),
        *("del", "getattribute"),
    )
)


def suspicions(source: str) -> list[str]:
    """Name what is odd in a piece of code, each once, in order."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    modules = {alias for node in ast.walk(tree) for alias in _imported(node)}
    found = (name for node in ast.walk(tree) for name in _of(node, modules))
    return list(dict.fromkeys(found))


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (a.asname or a.name.partition(".")[0] for a in node.names)
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("labs_"):
        yield from (a.asname or a.name for a in node.names)


def _of(node: ast.AST, modules: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if reason := MODULES.get(name.partition(".")[0]):
                yield reason
    if isinstance(node, ast.Attribute):
        if reason := ATTRIBUTES.get(node.attr):
            yield reason
        if isinstance(node.ctx, ast.Store) and _root(node) in {*modules, "builtins"}:
            yield "changes a module"
    if isinstance(node, ast.Name) and node.id in ("labs_helpers", "lab"):
        yield "uses labs_helpers"
    if isinstance(node, ast.Name) and node.id == "__debug__":
        yield "switches assert off"
    stored = isinstance(getattr(node, "ctx", None), ast.Store)
    if stored and "AssertionError" in (
        getattr(node, "id", ""),
        getattr(node, "attr", ""),
    ):
        yield "switches assert off"
    if isinstance(node, ast.Call):
        called = node.func
        name = getattr(called, "id", getattr(called, "attr", ""))
        # torch's models have an eval(), tensors a compile(): only the builtins count.
        if name in CALLS and (
            isinstance(called, ast.Name) or CALLS[name] == "reads files"
        ):
            yield CALLS[name]
    if isinstance(node, ast.FunctionDef) and node.name in OPERATORS:
        yield "redefines operators"


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""
