"""Settings that are checked where they are made, and the words for what is wrong.

`@settings` makes a frozen dataclass whose values pydantic validates, from Python as
from a file: text that is a number becomes one, and what cannot be meant is a
ValueError of one sentence.
"""

import difflib
import reprlib
from collections.abc import Iterable
from dataclasses import fields
from functools import wraps
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import ErrorDetails, PydanticKnownError

MANY = 1_000_000  # of steps, samples, tokens: more is a slip of the finger
T = TypeVar("T")


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


Number = Annotated[float, BeforeValidator(_no_bool)]
Positive = Annotated[Number, Field(gt=0)]
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=1, le=MANY)]
CountOrZero = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=MANY)]
Rank = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, le=65_536)]
Text = Annotated[str, Field(min_length=1)]
Seed = Annotated[int, BeforeValidator(_no_bool), Field(ge=0, lt=2**63)]


@dataclass_transform(frozen_default=True)
def settings(cls: type[T]) -> type[T]:
    """Make a frozen dataclass that refuses what its annotations do not allow.

    Raises (when it is constructed):
        ValueError: one sentence for all values that are wrong, unknown or missing.
    """
    config = ConfigDict(extra="forbid", allow_inf_nan=False)
    made = dataclass(cls, frozen=True, config=config)
    construct = made.__init__

    @wraps(construct)
    def __init__(self, *args: Any, **named: Any) -> None:
        try:
            construct(self, *args, **named)
        except ValidationError as error:
            names = [field.name for field in fields(made)]
            raise ValueError(_sentence(error, names)) from None

    made.__init__ = __init__
    return made


def require_known(table: Iterable[Any], known: list[str]) -> None:
    """Refuse names that are no settings, with the nearest that is one.

    Raises:
        ValueError: with every such name.
    """
    unknown = [name for name in table if name not in known]
    if unknown:
        raise ValueError("; ".join(_unknown(name, known) for name in unknown[:5]))


def short(value: Any) -> str:
    """A value as a message shows it: its repr, cut.

    >>> short("x" * 100)
    "'xxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxxxx'"
    """
    try:
        return _SHORT.repr(value)
    except Exception:  # a number of 5,000 digits, an object without a repr
        return f"something ({type(value).__name__}) that cannot be shown"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 48


def nearest(name: Any, known: Iterable[str]) -> str:
    """Ask ": did you mean X?" where one of the names is near, else say nothing."""
    found = difflib.get_close_matches(str(name)[:100], list(known), n=1)
    return f": did you mean {found[0]}?" if found else ""


def expected(found: ErrorDetails) -> str:
    """What pydantic expected, as "at least 1", or what our own validator raised."""
    kind, context = found["type"], found.get("ctx", {})
    if kind in _BOUNDS:
        limit = next(iter(context.values()))
        return f"{_BOUNDS[kind]} {limit:{',' if isinstance(limit, int) else 'g'}}"
    if kind == "literal_error":
        return f"one of {', '.join(_choices(context))}"
    if kind == "too_short":
        return f"a list of at least {context['min_length']}"
    known = _EXPECTED.get(kind.split("_")[0])
    return known or str(context.get("error", found["msg"]))


_BOUNDS = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "bool": "true or false",
    "string": "text",
    "path": "text or a path",
    "dict": "a table",
    "list": "a list",
    "tuple": "a list",
    "model": "an object",
    "dataclass": "an object",
}


def _choices(context: dict[str, str]) -> list[str]:
    return context["expected"].replace(" or ", ", ").replace("'", "").split(", ")


def _unknown(name: Any, known: list[str]) -> str:
    shown = name if isinstance(name, str) and len(name) < 60 else short(name)
    near = nearest(name, known).removeprefix(": ")
    return f"{near} no setting {shown}; there are {', '.join(known)}".lstrip()


def _sentence(error: ValidationError, names: list[str]) -> str:
    said: dict[str, str] = {}  # a union complains once for each of its types
    for found in error.errors(include_url=False):
        name = found["loc"][0] if found["loc"] else ""
        if isinstance(name, int):  # given by position
            name = names[name] if name < len(names) else "positions"
        said.setdefault(name, _complaint(name, found, names))
    return "; ".join(list(said.values())[:5])


def _complaint(name: str, found: ErrorDetails, names: list[str]) -> str:
    kind, words, got = found["type"], expected(found), short(found["input"])
    if kind == "unexpected_keyword_argument":
        return _unknown(name, names)
    if kind == "unexpected_positional_argument":
        return f"more values than settings; these are {', '.join(names)}"
    if kind.startswith("missing"):
        return f"{name} is missing: it has no default"
    if kind == "value_error" and not name:  # of several settings together
        return words
    if kind == "literal_error":
        near = nearest(found["input"], _choices(found["ctx"]))
        return f"{name} is {words}; got {got}{near}"
    return f"{name} is {words}, got {got}"
