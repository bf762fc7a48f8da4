"""Preference sets: load, check, split, compare, convert to and from TRL's formats.

A row is a `Preference` (two answers, one chosen) or an `Unpaired` (one answer, good or
not); their fields are those of a file's JSON lines, which are TRL's. Inside, prompts
and answers are messages always.
"""

import gzip
import json
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from labs_helpers.common.files import write_atomically
from labs_helpers.data.checks import Content, as_json, check_rows
from labs_helpers.data.files import SUFFIXES, BadFile, hub_rows, read_rows, read_text
from labs_helpers.data.formats import explicit
from labs_helpers.data.messages import Message, as_conversations
from labs_helpers.data.rated import SKIPPED
from labs_helpers.data.report import BadPreferences, PreferenceReport, validated
from labs_helpers.data.rows import (
    Preference,
    Row,
    comparable,
    contents,
    in_file,
    require_kind,
    said,
)

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)


def check_preferences(rows: str | Path | Iterable[Any]) -> PreferenceReport:
    """Report all that is wrong with a file or a folder, or with rows in memory.

    Rows in memory, dicts or `Preference`s and `Unpaired`s, are numbered from 1.
    """
    return check_rows(rows)[1]


def load_preferences(path_or_name: str | Path, every_aspect: bool = False) -> list[Row]:
    """Load a file or a folder of preferences, or a preference set of the hub.

    Rows may be in any layout that `formats` and `rated` know: TRL's, HH-RLHF's,
    UltraFeedback's, HelpSteer's, ShareGPT's, KTO's. HH's dimension, helpful or
    harmless, is its folder's. Skipped are, and the log says how many: of HH, dialogues
    that differ before the last answer, or nowhere; answers that are rated alike.

    Args:
        path_or_name: Of JSON Lines, a JSON list, Parquet, packed with gzip or not, or a
            folder of these, of which the training split is taken. Or a hub name, for
            its "train" split, or "name:split", also with a slice, "name:test[:1000]".
            What you cannot correct, unusable rows of the hub, is skipped and logged.
        every_aspect: Of rated answers (UltraFeedback, HelpSteer) also give a pair for
            each aspect, which is its dimension.

    Raises:
        BadPreferences: A file has an unusable row, or a set of the hub no usable one.
            The message reports all of them.
    """
    path, name = Path(path_or_name).expanduser(), str(path_or_name)
    if name and path.exists():
        return _usable(path, name, every_aspect)
    return _usable(hub_rows(name), name, every_aspect, needs_all=False)


def _usable(
    source: Any, name: str, every_aspect: bool = False, needs_all: bool = True
) -> list[Row]:
    rows, report = check_rows(source, name, every_aspect)
    if report.errors and (needs_all or not rows):
        raise BadPreferences(str(report))
    if skipped := report.total - report.rows:
        skips = (x for x in report.warnings if x.remedy.startswith(SKIPPED))
        reason = report.errors[0] if report.errors else f"it {next(skips).problem}"
        counts = f"skipped {skipped} of {report.total} rows"
        logger.warning("%s: %s, the first because %s", name, counts, reason)
    return rows


class _Asked(BaseModel):
    prompt: Content


def read_prompts(path: str | Path) -> list[str | list[Message]]:
    """Read prompts: text stays text, anything else becomes messages.

    Args:
        path: A .txt file with a prompt a line; or JSON Lines, a Parquet table or a
            folder of these, with rows that have a "prompt", preference rows too.

    Raises:
        BadFile: The first line without a prompt; the message says what is wrong.
    """
    path, report = Path(path), PreferenceReport()
    if path.is_dir() or path.name.endswith(SUFFIXES):
        prompts = []
        for file, line, row in read_rows(path, report):
            asked, found = validated(_Asked, explicit(row), file, line)
            prompts += [asked.prompt] if asked else []
            report.errors += found
        for error in report.errors:
            problem = f"{error.field} {error.problem}".lstrip()
            raise BadFile(error.file, error.line, problem, error.remedy)
    elif path.suffix in ("", ".txt", ".gz"):
        lines = read_text(path).split("\n")
        prompts = [line.removesuffix("\r") for line in lines if line.strip()]
    else:
        problem = f"ends in {path.suffix}, expected a prompt a line or rows of JSON"
        raise BadFile(path, None, problem, f"Write a .txt or a {SUFFIXES[0]} file")
    if not prompts:
        raise BadFile(path, None, "holds no prompt", "Write one a line")
    return prompts


def save_preferences(rows: Iterable[Any], path: str | Path) -> None:
    """Write JSON Lines that `load_preferences` and TRL read.

    A file holds text where all rows were given as text, else messages. A name that
    ends in .gz packs it. A ValueError names a row whose meta, say, is no JSON.
    """
    path, rows = Path(path), _held(rows)
    if path.suffix == ".parquet":
        raise ValueError(
            f"{path.name} names a Parquet table, expected JSON Lines: end it in "
            ".jsonl, or write to_trl(rows).to_parquet(path)"
        )
    as_text = all(row.as_text for row in rows)
    lines = [_json(i, in_file(row, as_text)) + "\n" for i, row in enumerate(rows)]
    content = "".join(lines).encode("utf-8")
    is_packed = path.suffix == ".gz"
    write_atomically(path, gzip.compress(content, mtime=0) if is_packed else content)


def _json(i: int, value: Any) -> str:
    try:
        return as_json(value)
    except ValueError as error:
        problem = f"row {i} {error}. Write text and plain numbers"
        raise ValueError(problem) from None


def to_trl(rows: Iterable[Any]) -> "Dataset":
    """Turn rows into the data set that TRL's trainers take, as messages.

    `meta` becomes a JSON string: its keys differ from row to row, a table's do not.
    """
    import datasets

    rows = _held(rows)
    if len({type(row) for row in rows}) > 1:
        raise TypeError(
            "TRL takes paired or unpaired rows, not both at once: keep only "
            "Preference or only Unpaired rows"
        )
    table = [in_file(row, as_text=False) for row in rows]
    for i, row in enumerate(table):
        if "meta" in row:
            row["meta"] = _json(i, row["meta"])
    names = dict.fromkeys(name for row in table for name in row)
    return datasets.Dataset.from_dict(
        {name: [row.get(name) for row in table] for name in names}
    )


def from_trl(dataset: Any) -> list[Row]:
    """Turn a data set in TRL's formats, or any that `formats` knows, into rows.

    Raises:
        BadPreferences: Any row is unusable. The message reports all of them.
    """
    return _usable(_records(dataset), "rows")


def as_rows(rows: Iterable[Any]) -> list[Any]:
    """Rows for training: tables and dicts become rows (`from_trl`), others stay.

    A table with "messages" and no answers apart holds conversations to learn.
    """
    if isinstance(rows, str | bytes | Path):
        raise BadPreferences(
            f"rows are {rows!r:.60}, expected a list of them: load_preferences(path) "
            "reads those of a file"
        )
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        return from_trl(rows)  # which says what to do
    given = list(_records(rows))
    if not any(isinstance(row, Mapping) for row in given):
        return given
    if all(_is_conversation(row) for row in given):
        return as_conversations([row["messages"] for row in given])
    try:
        return from_trl(given)
    except BadPreferences as error:
        remedy = "rows are Preferences: from_trl(dataset) makes them"
        raise BadPreferences(f"{remedy}. {error}") from None


def _is_conversation(row: Any) -> bool:
    answers = {"chosen", "rejected", "completion"}
    return isinstance(row, Mapping) and "messages" in row and not answers & row.keys()


def _records(table: Any) -> Iterable[Any]:
    """The rows of a table: pandas' is iterated by its columns, its NaN is null."""
    if not hasattr(table, "iloc"):
        return table
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _held(rows: Iterable[Any]) -> list[Row]:
    """The rows, those of tables and dicts made `Preference` and `Unpaired`."""
    given = as_rows(rows)
    for i, row in enumerate(given):
        require_kind(row, Row, f"row {i} ")
    return given


def split(
    rows: Iterable[Any],
    fractions: Sequence[float],
    seed: int,
    by: Callable[[Row], Any] | None = None,
) -> list[list[Row]]:
    """Split rows at random, no prompt in two parts.

    Args:
        rows: Are kept in their order inside each part.
        fractions: One for each part, adding up to 1, or it is a ValueError:
            `train, test = split(rows, (0.9, 0.1), seed=0)`.
        seed: The same seed gives the same parts.
        by: Rows for which it returns the same stay together too (an entity, say).
    """
    if not all(f > 0 for f in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            "fractions are positive numbers that add up to 1, one for each part, got "
            f"{fractions!r:.80}"
        )
    rows = _held(rows)
    groups = _groups(rows, by)
    random.Random(seed).shuffle(groups)
    parts: list[list[int]] = [[] for _ in fractions]
    for group in groups:
        missing = [
            fraction * len(rows) - len(part)
            for fraction, part in zip(fractions, parts, strict=True)
        ]
        parts[missing.index(max(missing))] += group
    return [[rows[i] for i in sorted(part)] for part in parts]


def _groups(rows: Sequence[Row], by: Callable[[Row], Any] | None) -> list[list[int]]:
    """Indices of rows that must stay together, directly or through others."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    nodes: dict[Any, int] = {}  # the rows, and what they have in common
    ends = []
    for i, row in enumerate(rows):
        value = by(row) if by else i
        value = value if isinstance(value, Hashable) else repr(value)
        for key in (("prompt", comparable(said(row.prompt))), ("by", value)):
            ends.append((i, len(rows) + nodes.setdefault(key, len(nodes))))
    both = np.array(ends, dtype=np.int32).reshape(-1, 2).T
    size = len(rows) + len(nodes)
    graph = coo_array((np.ones(len(ends)), both), shape=(size, size))
    groups = defaultdict(list)
    for i, group in enumerate(connected_components(graph)[1][: len(rows)].tolist()):
        groups[group].append(i)
    return list(groups.values())


def by_prompt(rows: Iterable[Preference]) -> list[list[Preference]]:
    """Rows with the same prompt together, in the order in which prompts first come.

    >>> who, why = Preference("Who?", "I.", "You."), Preference("Why?", "So.", "No.")
    >>> [len(group) for group in by_prompt([who, why, who])]
    [2, 1]
    """
    groups: dict[str, list[Preference]] = {}
    for row in rows:
        require_kind(row, Preference)
        groups.setdefault(json.dumps(row.prompt), []).append(row)
    return list(groups.values())


def leaks(a: Iterable[Any], b: Iterable[Any]) -> list[str]:
    """Texts of the prompts in both; case and spacing do not make a difference."""
    first, second = (
        {comparable(said(row.prompt)) for row in _held(rows)} for rows in (a, b)
    )
    return sorted(first & second)


def duplicates(rows: Iterable[Any]) -> list[tuple[int, ...]]:
    """Indices of the rows that say the same: one tuple for each set of them."""
    found: dict[str, list[int]] = {}
    for i, row in enumerate(_held(rows)):
        others = [getattr(row, name, None) for name in ("label", "dimension")]
        key = json.dumps([contents(row), *others], sort_keys=True)
        found.setdefault(key, []).append(i)
    return [tuple(same) for same in found.values() if len(same) > 1]
