"""Code of notebooks, read and never run: its statements, its names, what is odd in it.

Takes code of any kind, broken code and lines of IPython included.
"""

import ast
import textwrap
from collections.abc import Iterator

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def definitions(source: str) -> str:
    r"""Keep the imports, functions, classes and constants at the top of a cell.

    >>> print(definitions("import torch\nx = 3\ny = f(x)\nprint(x)"))
    import torch
    x = 3
    """
    source = without_magics(source)
    kept = [s for s in statements(source) if _is_definition(s)]
    return "\n".join(written(statement, source) for statement in kept)


def written(statement: ast.stmt, source: str) -> str:
    """Write a statement anew; one that is nested too deeply stays as it stands."""
    try:
        return ast.unparse(statement)
    except RecursionError:
        decorators = getattr(statement, "decorator_list", ())
        first = min(node.lineno for node in (statement, *decorators))
        return "\n".join(source.split("\n")[first - 1 : statement.end_lineno])


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
    return isinstance(statement, ast.Import | ast.ImportFrom | Definition)


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
    # An annotation may be a string.
    return {n.id for n in nodes if isinstance(n, ast.Name)} | {"annotations"}


def defines(source: str) -> set[str]:
    """Functions and classes at the top of a cell."""
    found = statements(without_magics(source))
    return {s.name for s in found if isinstance(s, ast.FunctionDef | ast.ClassDef)}


# What deserves a look. It changes no points: what a trick would need is out of reach,
# and an honest answer may look odd.

MODULE, ASSERT = "changes a module", "switches assert off"
SIGNS = {
    "looks at the stack": "import:inspect import:gc ._getframe .f_back .f_locals "
    ".f_globals .tb_frame .currentframe .getouterframes .get_objects .get_referrers "
    ".settrace",
    "ends its process": "._exit .abort exit() quit()",
    "starts processes": "import:subprocess import:multiprocessing import:pty .system "
    ".popen .fork",
    "uses the network": "import:socket import:urllib import:http import:requests "
    "import:httpx import:ftplib",
    "reads files": "import:sqlite3 import:pathlib import:glob import:shutil "
    "import:nbformat open() exists() listdir() read_text() scandir() .open() .exists() "
    ".listdir() .read_text() .scandir()",
    "runs text as code": "import:importlib exec() eval() compile() __import__()",
    "reaches into the interpreter": "import:ctypes",
    MODULE: "setattr()",
    ASSERT: "__debug__ .ast_transformers .input_transformers_cleanup "
    ".dont_write_bytecode AssertionError= .AssertionError=",
    "uses labs_helpers": "import:labs_helpers labs_helpers lab",
    "redefines operators": "def:__eq__ def:__ne__ def:__lt__ def:__le__ def:__gt__ "
    "def:__ge__ def:__bool__ def:__float__ def:__sub__ def:__array__ def:__del__ "
    "def:__torch_function__ def:__array_ufunc__ def:__array_function__ "
    "def:__instancecheck__ def:__getattribute__",
}
REASONS = {sign: why for why, signs in SIGNS.items() for sign in signs.split()}


def suspicions(source: str) -> list[str]:
    """Name what is odd in a piece of code, each once, in order."""
    tree = parsed(source)
    nodes = [] if tree is None else list(ast.walk(tree))
    modules = {"builtins"}
    for node in nodes:
        of_course = (getattr(node, "module", None) or "").startswith("labs_")
        if isinstance(node, ast.Import) or of_course:
            modules |= named(node)
    found = []
    for node in nodes:
        found += [REASONS[sign] for sign in _signs(node) if sign in REASONS]
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            while isinstance(node, ast.Attribute):
                node = node.value
            found += [MODULE] if getattr(node, "id", "") in modules else []
    return list(dict.fromkeys(found))


def _signs(node: ast.AST) -> Iterator[str]:
    """What may be in the table about a node."""
    match node:
        case ast.Import():
            yield from (f"import:{a.name.partition('.')[0]}" for a in node.names)
        case ast.ImportFrom():
            yield f"import:{(node.module or '').partition('.')[0]}"
        case ast.FunctionDef():
            yield f"def:{node.name}"
        case ast.Call(func=ast.Name(id=name)):
            yield f"{name}()"
        case ast.Call(func=ast.Attribute(attr=name)):
            yield f".{name}()"
        case ast.Name() | ast.Attribute():
            name = node.id if isinstance(node, ast.Name) else f".{node.attr}"
            yield name
            if isinstance(node.ctx, ast.Store):
                yield f"{name}="
