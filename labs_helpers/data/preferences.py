"""Preference sets: load, check, split, compare, convert to and from TRL's formats.

A row is a `Preference` (two answers, one chosen) or an `Unpaired` (one answer, good or
not); their fields are those of a file's JSON lines, which are TRL's. Inside, prompts
and answers are messages always. Knows nothing of models, and of the world as little.
"""

import gzip
import json
import logging
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labs_helpers.common.files import write_atomically
from labs_helpers.data.checks import check_rows, unwritable
from labs_helpers.data.files import SUFFIXES, read_rows
from labs_helpers.data.messages import (
    BadMessages,
    Message,
    a_kind,
    answer_text,
    as_conversations,
    as_messages,
)
from labs_helpers.data.report import BadPreferences, Finding, PreferenceReport
from labs_helpers.data.row_formats import dialogue, explicit
from labs_helpers.data.rows import (
    Preference,
    Row,
    Unpaired,
    from_fields,
    in_one_format,
    require_kind,
)

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = [
    "BadMessages",
    "BadPreferences",
    "Finding",
    "Message",
    "Preference",
    "PreferenceReport",
    "Unpaired",
    "answer_text",
    "as_conversations",
    "as_messages",
    "as_rows",
    "check_preferences",
    "duplicates",
    "from_trl",
    "leaks",
    "load_hh",
    "load_preferences",
    "save_preferences",
    "split",
    "to_trl",
]

logger = logging.getLogger(__name__)


def check_preferences(rows: str | Path | Iterable[Any]) -> PreferenceReport:
    """Report everything that is wrong with a file, or with rows in memory.

    Args:
        rows: The path of a JSON Lines file, or dicts, or `Preference`s and `Unpaired`s
            (then "line" is the row's number, from 1). Nothing is changed.
    """
    return check_rows(rows)[1]


def load_preferences(path_or_name: str | Path) -> list[Row]:
    """Load a file or a folder of preferences, or a preference set of the hub.

    Rows may be in any layout that `row_formats` knows: TRL's, HH-RLHF's (read as by
    `load_hh`), UltraFeedback's, ShareGPT's, KTO's.

    Args:
        path_or_name: A path: JSON Lines, a JSON list, Parquet, packed with gzip or not,
            or a folder of these, of which the training split is taken. Or a hub name,
            by itself for its "train" split or as "name:split", in which a slice is
            welcome: "name:test[:1000]". You cannot correct what is on the hub, so
            unusable rows there are skipped, and the log says how many.

    Raises:
        BadPreferences: A file has an unusable row, or a set of the hub no usable one.
            The message reports all of them.
    """
    path = Path(path_or_name).expanduser()
    if str(path_or_name) and path.exists():
        if _holds_dialogues(path):
            return load_hh(path)
        rows, report = check_rows(path)
        if not report.ok:
            raise BadPreferences(str(report))
        return [from_fields(row) for row in rows]
    name = str(path_or_name)
    if not name or name.endswith(SUFFIXES) or name.startswith((".", "/", "~")):
        raise FileNotFoundError(
            f"No preference file {name!r} in {Path.cwd()}. Give the path of a JSON "
            "Lines file, or the name of a data set on the hub."
        )
    import datasets

    name, _, part = name.partition(":")
    try:
        dataset = datasets.load_dataset(name, split=part or "train")
    except (OSError, ValueError) as error:
        raise OSError(
            f"Cannot load {name!r}: no file of that name, and no data set with split "
            f"{part or 'train'!r} came from the hub.\n{error}"
        ) from error
    usable, report = check_rows(dataset)
    if not usable:
        raise BadPreferences(str(report))
    if skipped := report.total - report.rows:
        first = report.errors[0]
        logger.warning(
            "%s: skipped %d of %d rows, the first because %s",
            name,
            skipped,
            report.total,
            first,
        )
    return [from_fields(row) for row in usable]


def save_preferences(rows: Iterable[Any], path: str | Path) -> None:
    """Write JSON Lines that `load_preferences` and TRL read.

    One file holds one format: text where all rows were given as text, else messages.

    A name that ends in .gz packs it.

    Raises:
        ValueError: A row's meta, say, is nothing that JSON can hold.
    """
    path = Path(path)
    if path.suffix == ".parquet":
        raise ValueError(
            f"{path.name} names a Parquet table, expected JSON Lines: end it in "
            ".jsonl, or write to_trl(rows).to_parquet(path)"
        )
    lines = [_line(i, row) for i, row in enumerate(in_one_format(_held(rows)))]
    content = "".join(lines).encode("utf-8")
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    write_atomically(path, content)


def _line(i: int, row: dict[str, Any]) -> str:
    if problem := unwritable(row):
        raise ValueError(f"row {i} {problem}. Write text and plain numbers")
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


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
    table = [row.in_file(as_text=False) for row in rows]
    names = list(dict.fromkeys(name for row in table for name in row))
    for i, row in enumerate(table):
        if "meta" in row:
            _line(i, {"meta": row["meta"]})
            row["meta"] = json.dumps(row["meta"], ensure_ascii=False)
    return datasets.Dataset.from_dict(
        {name: [row.get(name) for row in table] for name in names}
    )


def from_trl(dataset: Any) -> list[Row]:
    """Turn a data set in TRL's formats into rows.

    A prompt may be implicit, the beginning that chosen and rejected have in common, in
    lists of messages and in HH dialogues; messages beside a prompt in plain text are
    taken to begin with it. Other columns are left out.

    Raises:
        BadPreferences: Any row is unusable. The message reports all of them.
    """
    usable, report = check_rows(_records(dataset))
    if not report.ok:
        raise BadPreferences(str(report))
    return [from_fields(row) for row in usable]


def as_rows(rows: Iterable[Any]) -> list[Any]:
    """Rows for training: those of tables and dicts become rows, others stay.

    A table with "messages" and no answers apart holds conversations to learn.

    Raises:
        BadPreferences: Some of the dicts is no preference row. The message reports all.
    """
    if isinstance(rows, str | bytes | Path):
        raise BadPreferences(
            f"rows are {a_kind(rows)}, expected a list of them: load_preferences(path) "
            "reads those of a file"
        )
    if isinstance(rows, Mapping) or not isinstance(rows, Iterable):
        return from_trl(rows)
    given = list(_records(rows))
    if not any(isinstance(row, Mapping) for row in given):
        return given
    if all(_is_conversation(row) for row in given):
        return as_conversations([row["messages"] for row in given])
    try:
        return from_trl(given)
    except BadPreferences as error:
        raise BadPreferences(
            f"rows are Preferences: from_trl(dataset) makes them. {error}"
        ) from None


def _is_conversation(row: Any) -> bool:
    others = {"chosen", "rejected", "completion"}
    return isinstance(row, Mapping) and "messages" in row and not others & row.keys()


def _records(table: Any) -> Iterable[Any]:
    """The rows of a table: pandas' is iterated by its columns, its NaN is null."""
    if not hasattr(table, "columns") or not hasattr(table, "iloc"):
        return table
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _held(rows: Iterable[Any]) -> list[Row]:
    """The rows, those of tables and dicts made `Preference` and `Unpaired`."""
    given = as_rows(rows)
    for i, row in enumerate(given):
        require_kind(row, Preference | Unpaired, f"row {i} ")
    return given


def load_hh(path: str | Path) -> list[Preference]:
    """Load Anthropic's HH dialogues, .jsonl or .jsonl.gz, as messages.

    Rows whose dialogues differ before the last answer, or not even there, are skipped;
    the log says how many.

    Raises:
        BadPreferences: Some line holds no pair of dialogues, or none does. The message
            reports all of them.
    """
    path = Path(path)
    pairs = _dialogues(path)
    rows = [explicit(pair) for pair in pairs]
    usable = [
        row
        for row in check_rows(row for row in rows if "prompt" in row)[0]
        if len(row["chosen"]) == len(row["rejected"]) == 1
    ]
    if skipped := len(pairs) - len(usable):
        logger.warning(
            "%s: skipped %d of %d rows: not the same dialogue up to its last answer, "
            "or no two different answers",
            path.name,
            skipped,
            len(pairs),
        )
    return [from_fields(row) for row in usable]


def _dialogues(path: Path) -> list[dict[str, str]]:
    """Chosen and rejected of every line, or a report on the lines without them."""
    report, pairs = PreferenceReport(), []
    for file, line, row in read_rows(path, report):
        report.total += 1
        sides = ("chosen", "rejected")
        given = row if isinstance(row, dict) else {}
        bad = next((s for s in sides if not isinstance(given.get(s), str)), None)
        if bad is None:
            pairs.append({side: row[side] for side in sides})
            continue
        remedy = (
            "Write a whole dialogue, which begins with Human: and ends with Assistant:"
        )
        report.errors.append(Finding(file, line, bad, "is no dialogue", remedy))
    report.rows = len(pairs)
    if not report.total:
        report.errors.append(
            Finding(str(path), 1, "", "has no rows", "Expected one JSON object a line")
        )
    if not report.ok:
        raise BadPreferences(str(report))
    return pairs


def _holds_dialogues(path: Path) -> bool:
    """Whether the first row has whole dialogues for answers, as Anthropic's HH does."""
    first = next((row for *_, row in read_rows(path, PreferenceReport())), None)
    return (
        isinstance(first, dict)
        and "prompt" not in first
        and dialogue(first.get("chosen")) is not None
    )


def split(
    rows: Iterable[Any],
    fractions: Sequence[float],
    seed: int,
    by: Callable[[Row], Any] | None = None,
) -> list[list[Row]]:
    """Split rows at random, no prompt in two parts.

    Args:
        rows: Are kept in their order inside each part.
        fractions: One for each part, adding up to 1: `train, test = split(rows,
            (0.9, 0.1), seed=0)`.
        seed: The same seed gives the same parts.
        by: Rows for which it returns the same stay together too (an entity, say).

    Raises:
        ValueError: The fractions are no positive numbers that add up to 1.
    """
    try:
        fits = all(f > 0 for f in fractions) and abs(sum(fractions) - 1) <= 1e-6
    except TypeError:
        fits = False
    if not fits:
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


def leaks(a: Iterable[Any], b: Iterable[Any]) -> list[str]:
    """Texts of the prompts in both; case and spacing do not make a difference."""
    known = {_prompt_text(row) for row in _held(a)}
    return sorted(known & {_prompt_text(row) for row in _held(b)})


def duplicates(rows: Iterable[Any]) -> list[tuple[int, ...]]:
    """Indices of the rows that say the same: one tuple for each set of them."""
    found: dict[str, list[int]] = {}
    for i, row in enumerate(_held(rows)):
        content = {k: v for k, v in vars(row).items() if k in _CONTENT}
        found.setdefault(json.dumps(content, sort_keys=True), []).append(i)
    return [tuple(same) for same in found.values() if len(same) > 1]


_CONTENT = ("prompt", "chosen", "rejected", "completion", "label", "dimension")


def _prompt_text(row: Row) -> str:
    text = "\n".join(message["content"] for message in row.prompt)
    return " ".join(text.split()).casefold()


def _groups(rows: Sequence[Row], by: Callable[[Row], Any] | None) -> list[list[int]]:
    """Indices of rows that must stay together, directly or through others."""
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    first_with: dict[Any, int] = {}
    for i, row in enumerate(rows):
        keys = [("prompt", _prompt_text(row))]
        if by is not None:
            value = by(row)
            keys.append(("by", value if isinstance(value, Hashable) else repr(value)))
        for key in keys:
            parent[root(i)] = root(first_with.setdefault(key, i))
    groups: dict[int, list[int]] = {}
    for i in range(len(rows)):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())
