"""Rated answers turned into pairs, the best with the worst: UltraFeedback, HelpSteer.

In go rows as they stand in a file, out come rows with prompt, chosen and rejected: a
pair for all in all and, where asked for, one for each aspect, its `dimension`. Rows of
any other layout pass unchanged.

- UltraFeedback: an instruction and its completions, with a score and four annotations.
- HelpSteer: a row an answer, with prompt, response and five attributes; the rows of one
  prompt belong together. Its helpfulness stands for all in all.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from labs_helpers.data.files import NumberedRow
from labs_helpers.data.report import Finding, PreferenceReport

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
NOT_TOLD_APART = "has no two answers that are rated differently"
SKIPPED = "The row is skipped"
Rated = tuple[str, dict[str | None, Any]]  # an answer, and its ratings by aspect


def best_and_worst(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """The pair of UltraFeedback's completions all in all, if there is one."""
    return next(_pairs(row.get("instruction"), _completions(row), [None]), None)


def as_pairs(
    rows: Iterable[NumberedRow], report: PreferenceReport, every_aspect: bool
) -> Iterator[NumberedRow]:
    """Turn rated answers into pairs; those of HelpSteer come last.

    `report.total` counts pairs then, and what gives none is a warning.
    """
    together: dict[str, tuple[str, int, list[Rated]]] = {}
    for file, line, row in rows:
        if _is_answer(row):
            _, _, rated = together.setdefault(row["prompt"], (file, line, []))
            ratings = {name: row.get(name) for name in ATTRIBUTES}
            rated.append((row["response"], {None: row["helpfulness"], **ratings}))
            report.total -= 1
        elif rated := _completions(row):
            report.total -= 1
            yield from _told(row, file, line, rated, report, every_aspect)
        else:
            yield file, line, row
    for prompt, (file, line, rated) in together.items():
        asked = {"instruction": prompt}
        yield from _told(asked, file, line, rated, report, every_aspect)


def _told(
    row: Mapping[str, Any],
    file: str,
    line: int,
    rated: Sequence[Rated],
    report: PreferenceReport,
    every_aspect: bool,
) -> Iterator[NumberedRow]:
    aspects: dict[str | None, None] = {None: None}  # in order
    if every_aspect:
        aspects |= dict.fromkeys(name for _, ratings in rated for name in ratings)
    found = [*_pairs(row.get("instruction"), rated, aspects)]
    report.total += max(1, len(found))
    if not found:
        report.warnings.append(Finding(file, line, "", NOT_TOLD_APART, SKIPPED))
    for pair in found:
        yield file, line, pair


def _pairs(
    prompt: Any, rated: Sequence[Rated], aspects: Iterable[str | None]
) -> Iterator[dict[str, Any]]:
    for aspect in aspects:
        numbers = [(_number(ratings.get(aspect)), text) for text, ratings in rated]
        known = sorted((x for x in numbers if x[0] is not None), key=lambda x: x[0])
        if known and known[0][0] < known[-1][0]:
            (worst, rejected), (best, chosen) = known[0], known[-1]
            pair = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
            pair["margin"] = best - worst
            yield pair if aspect is None else {**pair, "dimension": aspect}


def _completions(row: Any) -> list[Rated]:
    """UltraFeedback's answers with their ratings; none in any other row."""
    is_theirs = isinstance(row, Mapping) and isinstance(row.get("instruction"), str)
    found = row.get("completions") if is_theirs and "chosen" not in row else None
    rated: list[Rated] = []
    for x in found if isinstance(found, list) else []:
        if isinstance(x, Mapping) and isinstance(x.get("response"), str):
            said = x.get("annotations")
            ratings: dict[str | None, Any] = {
                name: note.get("Rating") if isinstance(note, Mapping) else note
                for name, note in (said if isinstance(said, Mapping) else {}).items()
            }
            ratings[None] = x.get("overall_score", x.get("score"))
            if any(_number(rating) is not None for rating in ratings.values()):
                rated.append((x["response"], ratings))
    return rated


def _is_answer(row: Any) -> bool:
    """Whether a row is one rated answer, as HelpSteer has them."""
    if not isinstance(row, Mapping) or {"chosen", "completion"} & row.keys():
        return False
    texts = (row.get("prompt"), row.get("response"))
    rated = _number(row.get("helpfulness")) is not None
    return rated and all(isinstance(text, str) for text in texts)


def _number(value: Any) -> float | None:
    """A rating: "4" is one, "N/A" is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
