"""Committed studies, as the labs read them: rows of data/studies, and laws in them.

`labs study NAME` measures one and writes its file; nothing is measured here.
"""

import csv
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from labs_helpers.course.profile import ROOT
from labs_helpers.evaluation import (
    Estimate,
    Optimum,
    OveroptimisationFit,
    WinRate,
    across_seeds,
    difference,
    overoptimisation_fit,
)

FOLDER = ROOT / "data" / "studies"
# Of the study `optimum`: models, and prices of a nat of KL.
SIZES = ("town-xs", "town-s")
WEIGHTS = (0.01, 0.03, 0.1, 0.3, 1.0)

Row = dict[str, Any]


def read(name: str, folder: Path = FOLDER) -> list[Row]:
    """The rows of a committed study, numbers as numbers.

    Raises:
        FileNotFoundError: it has not been run; the message says how to.
    """
    path = folder / f"{name}.csv"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `labs study {name}` first")
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: _number(v) for k, v in row.items()} for row in csv.DictReader(file)]


def of(rows: list[Row], **wanted: Any) -> list[Row]:
    """The rows with these values."""
    return [row for row in rows if wanted.items() <= row.items()]


def over_seeds(rows: list[Row], column: str) -> Estimate:
    """A column of the rows of several seeds, with the spread of the seeds."""
    return across_seeds([_measured(row, column) for row in rows])


def rate_over_seeds(rows: list[Row], column: str) -> Estimate:
    """The same of a column of rates, whose interval ends at 0 and 1."""
    return across_seeds([_measured(row, column) for row in rows], bounds=(0.0, 1.0))


def win_rate(rows: list[Row]) -> WinRate:
    """The columns win and decided, of several seeds: ties as halves, and without."""
    overall, decided = (rate_over_seeds(rows, x) for x in ("win", "decided"))
    return WinRate(**vars(overall), without_ties=decided)


def gap(a: list[Row], b: list[Row], column: str) -> Estimate:
    """A column of a less that of b: seed by seed, where both have the same seeds."""
    one, other = ({row["seed"]: _measured(row, column) for row in x} for x in (a, b))
    if one.keys() != other.keys():
        return difference(over_seeds(a, column), over_seeds(b, column))
    return across_seeds([difference(one[seed], other[seed]) for seed in one])


def compared(a: list[Row], b: list[Row], column: str) -> str:
    """What a has more of than b, in words: more, less, or not told apart from 0."""
    found = gap(a, b, column)
    verdict = (
        "more" if found.low > 0 else "less" if found.high < 0 else "not told apart"
    )
    return f"{found.value:+.3f} (95 % {found.low:+.3f} to {found.high:+.3f}): {verdict}"


def origin(rows: list[Row]) -> str:
    """Where a study's figures come from, in one line."""
    first = rows[0]
    return f"measured {first['date']} on {first['device']} with torch {first['torch']}"


class Attainable(NamedTuple):
    """By held-out prompt: gold of the SFT policy, and the optimum for a weight."""

    start: Float[np.ndarray, " prompts"]
    optimum: Optimum


def attainable(model: str, kl_weight: float = 0.03) -> Attainable:
    """What the study `optimum` found for a model ("town-s") and one of its weights.

    Raises:
        FileNotFoundError: the study has not been run.
        KeyError: it has not this model or weight; the message says which it has.
    """
    rows = [row for row in _optima() if row["model"] == model]
    if not rows or f"objective_{kl_weight:g}" not in rows[0]:
        raise KeyError(
            f"the study `optimum` has the models {', '.join(SIZES)} and the KL weights "
            f"{', '.join(map(str, WEIGHTS))}; asked for {model} and {kl_weight}"
        )
    start, objective, gold = (
        np.array([row[column] for row in rows], dtype=float)
        for column in ("start", f"objective_{kl_weight:g}", f"gold_{kl_weight:g}")
    )
    return Attainable(start, Optimum(objective, gold, (gold - objective) / kl_weight))


@cache
def _optima() -> list[Row]:
    return read("optimum")


def gao_fit(rows: list[Row], proxy: str) -> OveroptimisationFit:
    """Gao et al.'s law (arXiv 2210.10760) in a proxy's gain in gold, all seeds."""
    own = [row for row in rows if row["proxy"] == proxy]
    ns, gold = (np.array([row[name] for row in own], float) for name in ("n", "gold"))
    distance = np.sqrt(np.log(ns) - (ns - 1) / ns)
    return overoptimisation_fit(distance, gold - gold[ns == 1].mean(), "bon")


def _measured(row: Row, column: str) -> Estimate:
    """A column with its interval, of no width if there is none."""
    ends = ("", "_low", "_high")
    return Estimate(*(row.get(column + end, row[column]) for end in ends), n=1)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
