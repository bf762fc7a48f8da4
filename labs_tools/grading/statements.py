"""Pieces of Python from notebooks: their statements, and the names in them.

Reads code of any kind, broken code and lines of IPython included; runs none.
"""

import ast
import textwrap


def definitions(source: str) -> str:
    r"""Keep the imports, functions, classes and constants at the top of a cell.

    >>> print(definitions("import torch\nx = 3\ny = f(x)\nprint(x)"))
    import torch
    x = 3
    """
    kept = [s for s in statements(without_magics(source)) if _is_definition(s)]
    return "\n".join(map(ast.unparse, kept))


def without_magics(source: str) -> str:
    """Turn lines of IPython into comments where they keep a cell from being Python."""
    source = textwrap.dedent(source).replace("\r\n", "\n").replace("\0", "")
    if parsed(source) is not None:
        return source
    lines = source.split("\n")
    if lines[0].startswith("%%"):
        lines = lines[1:]
    kept = [
        f"{line[: len(line) - len(line.lstrip())]}pass  # {line.lstrip()}"
        if line.lstrip()[:1] in ("%", "!", "?")
        else line
        for line in lines
    ]
    return "\n".join(kept)


def parsed(source: str) -> ast.Module | None:
    """Parse a piece; None where it is no Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def statements(source: str) -> list[ast.stmt]:
    """Return the statements of a cell; none where it is no Python."""
    tree = parsed(source)
    return [] if tree is None else tree.body


def _is_definition(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        value = statement.value
        return value is not None and _is_plain(value)
    named = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return isinstance(statement, ast.Import | ast.ImportFrom | named)


def _is_plain(value: ast.expr) -> bool:
    """Whether an expression is a constant, a name, a lambda, or made of constants."""
    if isinstance(value, ast.Lambda | ast.Name):
        return True
    try:
        ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def named(statement: ast.stmt) -> set[str]:
    """Names that a definition gives."""
    if isinstance(statement, ast.Import):
        return {a.asname or a.name.partition(".")[0] for a in statement.names}
    if isinstance(statement, ast.ImportFrom):
        return {a.asname or a.name for a in statement.names}
    if hasattr(statement, "name"):
        return {statement.name}
    stored = (n for n in ast.walk(statement) if isinstance(n, ast.Name))
    return {n.id for n in stored if isinstance(n.ctx, ast.Store)}


def used(source: str) -> set[str]:
    """Return all names that a piece mentions."""
    tree = parsed(source)
    nodes = [] if tree is None else ast.walk(tree)
    names = {n.id for n in nodes if isinstance(n, ast.Name)}
    # An annotation may be a string.
    return names | {"annotations"}


def defines(source: str) -> set[str]:
    """Functions and classes at the top of a cell."""
    return {
        statement.name
        for statement in statements(without_magics(source))
        if isinstance(statement, ast.FunctionDef | ast.ClassDef)
    }
