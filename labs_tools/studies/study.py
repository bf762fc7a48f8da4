"""What a study is: an experiment, and what its rows depend on.

Every room of studies writes its experiments as functions that yield rows and marks them
with `study`. A row may hold an `Estimate`; it becomes three columns.
"""

import base64
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, wraps
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import torch

from labs_helpers.common.files import ROOT
from labs_helpers.course import recorded
from labs_helpers.course.recorded import Row
from labs_helpers.data import SPLITS, Prompt
from labs_helpers.evaluation import Estimate
from labs_helpers.models import default_device_and_dtype
from labs_helpers.world.prompts import practice_prompts, prompts

DATA = ROOT / "data"
BUILT = "build.json"  # says how long a model took to build: nothing depends on it
Measure = Callable[[], Iterator[Row]]
Data = tuple[str | Callable[[], Any], ...]
STUDIES: dict[str, "Study"] = {}
COUNTING = -1  # the part of a study in which it only says how many seeds it has
T = TypeVar("T")
_part: int | None = None


@dataclass(frozen=True)
class Study:
    """An experiment, and all that its rows depend on but the code.

    Attributes:
        name: of its file in data/studies.
        rows: measures them, one after another.
        models: folders of data/models that it reads.
        data: files and folders of data that it reads, and functions that make data.
        recipe: settings: plain values, objects of settings, or collections of them.
    """

    name: str
    rows: Measure
    models: tuple[str, ...]
    data: Data
    recipe: Any

    @property
    def made_with(self) -> str:
        """A short hash of models, data and recipe, the same on every machine."""
        paths = [f"models/{name}" for name in self.models]
        digest = hashlib.sha256()
        for used in (*paths, *self.data, lambda: self.recipe):
            if isinstance(used, str):
                digest.update(contents(DATA / used))
            else:
                made = json.dumps(used(), default=vars, sort_keys=True)
                digest.update(made.encode())
        return base64.b32encode(digest.digest())[:8].decode().lower()


def contents(path: Path) -> bytes:
    """Digest of a file, or of a folder's files and their names.

    Raises:
        FileNotFoundError: there is none.
    """
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_dir() and file.name != BUILT:
            digest.update(file.relative_to(path).as_posix().encode())
            # as git may write the ends of lines
            digest.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return digest.digest()


@cache
def asked() -> list[Any]:
    """What the town asks in every split."""
    return [_plain(prompts(split)) for split in SPLITS]


@cache
def practised() -> list[Any]:
    """What on-policy training asks."""
    return _plain(practice_prompts())


def optima() -> list[Any]:
    """What is attainable, whatever it was made with."""
    rows = recorded.read("optimum")
    return [[v for k, v in row.items() if k != "made_with"] for row in rows]


def _plain(found: list[Prompt]) -> list[Any]:
    return [[prompt.messages, dict(prompt.meta)] for prompt in found]


TOWN = ("world", asked)
RECORDED = (*TOWN, "preferences/answers.jsonl")


def study(
    name: str, *models: str, recipe: Any, data: Data = TOWN
) -> Callable[[Measure], Measure]:
    """Make a study of a function; what it takes stands at `Study`."""

    def register(measure: Measure) -> Measure:
        @wraps(measure)
        def rows() -> Iterator[Row]:
            return map(_columns, measure())

        STUDIES[name] = Study(name, rows, models, data, recipe)
        return rows

    return register


class Counted(Exception):
    """How many seeds a study goes through, from within it."""

    def __init__(self, number: int):
        self.number = number


@contextmanager
def part(number: int | None) -> Iterator[None]:
    """Meanwhile studies go through the seed of this place alone; None is all."""
    global _part
    before, _part = _part, number
    try:
        yield
    finally:
        _part = before


def each(seeds: Iterable[T]) -> Iterator[T]:
    """The seeds that a study's outermost loop goes through: all, or those of a part."""
    seeds = list(seeds)
    if _part == COUNTING:
        raise Counted(len(seeds))
    yield from seeds if _part is None else seeds[_part : _part + 1]


def _columns(row: Row) -> Row:
    """Every estimate as three columns: value, low and high."""
    found = {}
    for name, value in row.items():
        if isinstance(value, Estimate):
            ends = {"": value.value, "_low": value.low, "_high": value.high}
            found |= {f"{name}{end}": round(float(x), 5) for end, x in ends.items()}
        else:
            found[name] = value
    return found


def named(variable: str) -> str:
    """What LABS_MODEL or LABS_DATA names, for studies on a real model.

    Raises:
        ValueError: it names nothing.
    """
    if not os.environ.get(variable):
        raise ValueError(
            f"{variable} names nothing: this study runs on a real model and real "
            "preferences. Set LABS_MODEL to a model (`labs fetch smollm2` brings one) "
            "and LABS_DATA to a file or folder of preference pairs."
        )
    return os.environ[variable]


def here() -> Row:
    """With which versions, on what device and when something is measured."""
    device = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    if default_device_and_dtype().device.type == "cuda":
        device = torch.cuda.get_device_name()
    return {
        "torch": torch.__version__.split("+")[0],
        "transformers": metadata.version("transformers"),
        "device": device,
        "date": datetime.now(UTC).date().isoformat(),
    }
