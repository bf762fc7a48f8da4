"""Values from files against what they should be: findings with file, line and remedy.

What should stand there is a pydantic model (or any type); the description of a field
is the remedy where its value does not fit.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any, get_args

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from labs_helpers.common.printable import printable
from labs_helpers.common.settings import expected, short

SHOWN_OF_A_KIND = 10


class BadPreferences(ValueError):
    """A preference set with errors; the message is the report."""


@dataclass(frozen=True)
class Finding:
    """One problem: where it is, what it is, and what to do about it."""

    file: str
    line: int
    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" + (f", {self.field}" if self.field else "")
        return f"{where}: {self.problem}. {self.remedy}."


@dataclass
class PreferenceReport:
    """What `check_preferences` found.

    Attributes:
        rows: The number of usable rows: those without an error.
        total: The number of rows read.
        errors: What makes a row unusable.
        warnings: What is suspicious and usable.
    """

    rows: int = 0
    total: int = 0
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every row is usable."""
        return not self.errors

    def __str__(self) -> str:
        counts, lines = [], []
        for title, findings in (("Error", self.errors), ("Warning", self.warnings)):
            plural = "s" * (len(findings) != 1)
            counts.append(f"{len(findings)} {title.lower()}{plural}")
            kinds = defaultdict(list)
            for finding in findings:
                kinds[finding.field, finding.remedy].append(finding)
            for kind in kinds.values():
                lines += [f"{title}: {finding}" for finding in kind[:SHOWN_OF_A_KIND]]
                if rest := kind[SHOWN_OF_A_KIND:]:
                    more = f"{len(rest)} more like the last, to line {rest[-1].line}"
                    lines.append(f"{title}: {more}.")
        usable = f"{self.rows} of {self.total} rows are usable: {', '.join(counts)}."
        return printable("\n".join([usable, *lines]))


def validated(
    model: Any, value: Any, file: str, line: int | yaml.Node
) -> tuple[Any, list[Finding]]:
    """What a model makes of a value from a file, or None and all that does not fit.

    Args:
        model: a pydantic model or dataclass, or a type that pydantic knows. A validator
            may raise a ValueError; its `place`, `problem` and `remedy`, if it has them
            as `BadMessages` has, go into the finding.
        value: as JSON, YAML or TOML gave it.
        file: that it stands in.
        line: on which it stands, or the YAML node that it was read from.
    """
    try:
        return _adapter(model).validate_python(value), []
    except ValidationError as error:
        found: dict[str, Finding] = {}  # a union complains once for each of its types
        for details in error.errors(include_url=False):
            finding = _finding(model, value, details, file, line)
            found.setdefault(finding.field, finding)
        return None, list(found.values())


@cache
def _adapter(model: Any) -> TypeAdapter:
    return TypeAdapter(model)


def _finding(
    model: Any, value: Any, details: ErrorDetails, file: str, line: int | yaml.Node
) -> Finding:
    """Follow the error's path through value, model and nodes, as far as they go."""
    kind, name, fields, rule = details["type"], "", _fields(model), None
    for step in details["loc"]:
        if isinstance(step, str) and isinstance(value, Mapping):
            if step not in value and kind != "missing":
                break  # of a union's branch
            name += f".{step:.40}"
            given, value = value, value.get(step)
            known, rule = fields, fields.get(step)
            fields = _fields(rule.annotation if rule else None)
        elif isinstance(step, int) and isinstance(value, list | tuple):
            name, value = f"{name}[{step}]", value[step]
        else:
            break
        line = node_at(line, step)
    if kind == "missing":
        close = get_close_matches(step, [x for x in given if x not in known], n=1)
        problem = "is missing"
        remedy = (rule and rule.description) or f"Add it; {_needed(known)}"
        if close:
            remedy = f"Rename {close[0]!r} to {step!r}"
    elif kind in ("extra_forbidden", "unexpected_keyword_argument"):
        problem, remedy = "is no field", f"Fields are {', '.join(known)}"
    else:
        cause = details.get("ctx", {}).get("error")
        name += getattr(cause, "place", "")
        shown = "null" if value is None else short(value)
        problem = str(cause) if cause else f"is {shown}, expected {expected(details)}"
        problem = getattr(cause, "problem", problem).rstrip(".")
        remedy = getattr(cause, "remedy", None) or (rule and rule.description)
        optional = ", or leave it out" if rule and not rule.is_required() else ""
        if kind in ("model_type", "dataclass_type"):
            remedy = remedy or f"Write one; {_needed(fields)}"
        remedy = remedy or f"Correct it{optional}"
    line = line if isinstance(line, int) else line.start_mark.line + 1
    return Finding(file, line, name.removeprefix("."), problem, remedy)


def _fields(model: Any) -> Mapping[str, Any]:
    """The fields of a model, of the items of a list of it, or of what may be None."""
    found = getattr(model, "model_fields", None)  # a dataclass has the other
    found = found or getattr(model, "__pydantic_fields__", None)
    return found or next(filter(None, map(_fields, get_args(model))), {})


def _needed(known: Mapping[str, Any]) -> str:
    return f"needed are {', '.join(k for k, x in known.items() if x.is_required())}"


def node_at(node: int | yaml.Node, *path: str | int) -> int | yaml.Node:
    """The YAML node of a value in a value, as far as the path goes."""
    for step in path:
        if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
        elif isinstance(node, yaml.MappingNode):
            node = next((v for k, v in node.value if k.value == step), node)
    return node
