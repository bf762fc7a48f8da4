"""Wrong answers as text: a bank is read, and its patches are applied to right answers.

    === 1.2 bradley_terry_loss

    == margin added
    - difference - margin
    + difference + margin
    your margin makes the loss smaller. It is a demand: ...

A wrong answer is a patch of the right one, and what is said to the student. A piece of
the right answer's code, after `-`, gives way to what stands after `+`; several lines of
either are lines of code, and `+` alone is nothing. White space in a piece may be any in
the code. A piece stands in one place; with `-*` it changes wherever it stands. Lines
after `=` are a whole body instead. What is headed by `&&` is a wrong answer on top of
each that stands above it, as when padding gets in besides. What stands below
`=== 3.1 reinforce_loss 3.4 ppo_loss` belongs to both exercises.
"""

import ast
import inspect
import itertools
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

Function = Callable[..., Any]


class BankError(ValueError):
    """A bank that cannot be read, or a patch that does not fit its reference."""


class Patch(NamedTuple):
    """A wrong answer as its bank has it.

    Attributes:
        name: a few words.
        message: what the symptom means and where to look; never the solution.
        changes: old code, new code, and whether everywhere; made one after another.
        body: of the whole function, in place of changes.
        leak: whether it goes on top of those above it.
        place: file and line.
    """

    name: str
    message: str
    changes: tuple[tuple[str, str, bool], ...]
    body: str
    leak: bool
    place: str


class Mistake(NamedTuple):
    """A wrong answer that people give: its name, what computes it, what is said."""

    name: str
    function: Function
    message: str


def read_bank(text: str, file: str = "bank") -> dict[str, tuple[Patch, ...]]:
    """Patches of a bank by exercise."""
    banks: dict[str, list[Patch]] = {}
    ids: list[str] = []
    before, *parts = re.split(r"^(===|==|&&) (.+)$", text, flags=re.MULTILINE)
    line = 1 + before.count("\n")
    for kind, title, block in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if kind == "===":
            ids = [word for word in title.split() if word[0].isdigit()]
        elif not ids:
            raise BankError(f"{file}, line {line}: first `=== 1.2` or the like")
        for id in ids:
            bank = banks.setdefault(id, [])
            if kind != "===":
                place = f"{file}, line {line}: {title!r}"
                bank.append(_read_patch(title, block, kind == "&&", place))
        line += block.count("\n")
    return {id: tuple(bank) for id, bank in banks.items()}


def mistakes_of(reference: Function, patches: Sequence[Patch]) -> tuple[Mistake, ...]:
    """Make the wrong answers of a bank, then every leak on top of those above it.

    Raises:
        BankError: a patch does not fit the reference, or two have one name.
    """
    right = _Source(reference)
    found = [
        Mistake(p.name, right.patched(p), p.message) for p in patches if not p.leak
    ]
    for at, leak in enumerate(patches):
        for patch in patches[:at] if leak.leak else ():
            function = None if patch.leak else right.together(patch, leak)
            if function is not None:
                message = f"{patch.message} {leak.message}"
                found.append(Mistake(f"{patch.name}; {leak.name}", function, message))
    first = {patch.name: patch for patch in reversed(patches)}
    for patch in patches:
        if first[patch.name] is not patch:
            raise BankError(f"{patch.place}: another one has this name")
    return tuple(found)


def pairs_of(reference: Function, patches: Sequence[Patch]) -> Iterator[Mistake]:
    """Make what two mistakes at once compute, where their patches fit together."""
    right = _Source(reference)
    single = [patch for patch in patches if not patch.leak]
    for pair in itertools.combinations(single, 2):
        function = right.together(*pair)
        if function is not None:
            told = (f"{p.name[:1].upper()}{p.name[1:]}: {p.message}" for p in pair)
            message = " ".join(["two mistakes, each told as if it were alone.", *told])
            yield Mistake(" and ".join(p.name for p in pair), function, message)


class _Source:
    """The code of a right answer, without annotations and docstring."""

    def __init__(self, reference: Function):
        function = inspect.unwrap(reference)
        code = textwrap.dedent(inspect.getsource(function))
        (tree,) = ast.parse(code).body
        first = tree.body[ast.get_docstring(tree) is not None]
        lines = code.splitlines()[first.lineno - 1 :]
        signature = inspect.signature(function)
        bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
        self._head = f"def answer{inspect.Signature(bare)}:\n"
        self._body = "\n".join(lines)
        self._globals = function.__globals__

    def patched(self, patch: Patch) -> Function:
        """Make the function of one patch."""
        return self._compiled(_applied(patch, self._body), patch)

    def together(self, one: Patch, other: Patch) -> Function | None:
        """Make the function of two patches, if one fits after the other."""
        for first, second in ((one, other), (other, one)):
            if second.body:  # it would undo the first
                continue
            try:
                body = _applied(second, _applied(first, self._body))
                return self._compiled(body, second)
            except BankError:
                continue
        return None

    def _compiled(self, body: str, patch: Patch) -> Function:
        made: dict[str, Function] = {}
        try:
            code = compile(self._head + body, f"<{patch.name}>", "exec")
        except SyntaxError as error:
            raise BankError(f"{patch.place}: {error} in\n{body}") from error
        exec(code, self._globals, made)
        return made["answer"]


def _applied(patch: Patch, body: str) -> str:
    """Change a body as a patch says."""
    if patch.body:
        return textwrap.indent(patch.body, "    ")
    for old, new, everywhere in patch.changes:
        pattern = r"\s+".join(map(re.escape, old.split()))
        # Names are whole names.
        pattern = r"(?<!\w)" * old[0].isidentifier() + pattern
        pattern += r"(?!\w)" * (old[-1].isalnum() or old[-1] == "_")
        places = list(re.finditer(pattern, body))
        if not places or (len(places) > 1 and not everywhere):
            many = f"in {len(places)} places of" if places else "nowhere in"
            raise BankError(f"{patch.place}: `{old}` stands {many}\n{body}")
        for place in reversed(places):
            before, after = body[: place.start()], body[place.end() :]
            indent = re.match(" *", body[before.rfind("\n") + 1 :])[0]
            body = before + new.replace("\n", f"\n{indent}") + after
    return body


def _read_patch(name: str, block: str, leak: bool, place: str) -> Patch:
    lines = block.strip("\n").split("\n")
    code = list(itertools.takewhile(lambda x: x.split(" ")[0] in _MARKS, lines))
    message = " ".join(line.strip() for line in lines[len(code) :] if line.strip())
    groups = [
        (mark, "\n".join(line[len(mark) + 1 :] for line in run))
        for mark, run in itertools.groupby(code, lambda line: line.split(" ")[0])
    ]
    marks = "".join(mark for mark, _ in groups).replace("*", "")
    if not message or not re.fullmatch(r"=|(-\+)+", marks):
        raise BankError(
            f"{place}: after a name come `-` and `+` lines in turns, or `=` lines, and "
            f"then a message; got {' '.join(marks) or 'no code'}, then: {message!r}"
        )
    if marks == "=":
        return Patch(name, message, (), groups[0][1], leak, place)
    changes = tuple(
        (old, new, mark == "-*")
        for (mark, old), (_, new) in zip(groups[::2], groups[1::2], strict=True)
    )
    for old, new, _ in changes:
        if not old.strip() or old == new:
            raise BankError(f"{place}: `{old}` becomes `{new}`, which changes nothing")
    return Patch(name, message, changes, "", leak, place)


_MARKS = ("-", "-*", "+", "=")
