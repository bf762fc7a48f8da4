"""Public safety suites in their own formats: XSTest, HarmBench, TruthfulQA.

A local CSV (or .json, .jsonl, .parquet) file, or the name of a data set on the hub,
comes in; a `Suite` goes out. None of the suites is part of this project; their authors'
terms apply.

- XSTest (arXiv 2308.01263): columns prompt, type, label (safe or unsafe). Older files
  have no label: types that begin with "contrast" are the unsafe ones.
- HarmBench (arXiv 2402.04249): Behavior, SemanticCategory, ContextString.
- TruthfulQA (arXiv 2109.07958): Question, Category, Best Answer, Correct Answers and
  Incorrect Answers, which are lists or texts with semicolons.
"""

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from labs_helpers.data import BadFile, PreferenceReport, Prompt
from labs_helpers.data.files import hub_rows, read_rows, read_text
from labs_helpers.data.messages import a_kind
from labs_helpers.safety.suites import BadSuite, Item, Suite

Row = dict[str, Any]


def load_xstest(path_or_name: str | Path) -> Suite:
    """Safe prompts that sound unsafe, and unsafe ones in the same words."""

    def item(row: Row) -> Item:
        kind = _text(row, "type", "category")
        label = _text(row, "label", "finallabel")
        unsafe = label == "unsafe" if label else kind.startswith("contrast")
        return Item(
            Prompt(_needed(row, "prompt"), {"focus": _text(row, "focus")}),
            "harmful" if unsafe else "safe",
            kind,
            _text(row, "id", "idv2"),
        )

    return _suite("XSTest", path_or_name, item)


def load_harmbench(path_or_name: str | Path) -> Suite:
    """Harmful behaviours; a context, where there is one, stands before the request."""

    def item(row: Row) -> Item:
        wish = _text(row, "behavior") or _needed(row, "prompt")
        context = _text(row, "contextstring", "context")
        return Item(
            Prompt(f"{context}\n\n---\n\n{wish}" if context else wish),
            "harmful",
            _text(row, "semanticcategory", "category"),
            _text(row, "behaviorid"),
        )

    return _suite("HarmBench", path_or_name, item)


def load_truthfulqa(path_or_name: str | Path) -> Suite:
    """Questions that many people answer wrongly, with right and wrong answers."""

    def item(row: Row) -> Item:
        best = list(filter(None, [_text(row, "bestanswer")]))
        right = _list(row, "correctanswers") or best
        wrong = _list(row, "incorrectanswers")
        if not right or not wrong:
            raise KeyError("correct answers and incorrect answers")
        return Item(
            Prompt(_needed(row, "question")),
            "question",
            _text(row, "category"),
            right=tuple(dict.fromkeys([*best, *right])),
            wrong=tuple(wrong),
        )

    return _suite("TruthfulQA", path_or_name, item)


def _suite(name: str, path_or_name: str | Path, item: Callable[[Row], Item]) -> Suite:
    items, errors = [], []
    for line, row in _rows(path_or_name, errors):
        where = f"{path_or_name}:{line}"
        if not isinstance(row, dict):
            errors.append(f"{where}: is {a_kind(row)}, expected an object")
            continue
        try:
            items.append(item({_plain(k): v for k, v in row.items() if k}))
        except KeyError as error:
            found = f"{', '.join(filter(None, row)) or 'nothing':.200}"
            errors.append(
                f"{where}: {error.args[0]} is missing or empty; the columns are {found}"
            )
    if errors or not items:
        shown = errors[:10] + [f"{len(errors) - 10} more"] * (len(errors) > 10)
        raise BadSuite(
            f"{path_or_name} is no {name} suite that can be used:\n"
            + "\n".join(shown or ["it has no rows"])
        )
    return Suite(name, tuple(items), str(path_or_name))


def _rows(path_or_name: str | Path, errors: list[str]) -> Iterable[tuple[int, Any]]:
    """Rows with the line of the file (or the number of the row) that each stands on."""
    path = Path(path_or_name)
    if not path.exists():
        return enumerate(hub_rows(str(path_or_name)), 1)
    if path.name.endswith((".csv", ".tsv", ".csv.gz", ".tsv.gz")):
        return _table(path, errors)
    report = PreferenceReport()
    found = [(line, row) for _, line, row in read_rows(path, report)]
    errors += map(str, report.errors)
    return found


def _table(path: Path, errors: list[str]) -> list[tuple[int, Row]]:
    """The rows of a CSV file with commas, semicolons or tabs."""
    try:
        text = read_text(path)
        header = text.split("\n", 1)[0]
        separator = max(",;\t", key=header.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator)
        return [(reader.line_num, row) for row in reader]
    except BadFile as error:
        errors.append(str(error))
    except csv.Error as error:
        errors.append(f"{path}:{reader.line_num + 1}: is no CSV: {error}")
    return []


def _plain(column: str) -> str:
    """The columns "Best Answer", "best_answer" and "BestAnswer" are one."""
    return "".join(c for c in column.lower() if c.isalnum())


def _text(row: Row, *columns: str) -> str:
    """What stands in the first of the columns that holds anything."""
    found = (str(row[x]).strip() for x in columns if row.get(x) is not None)
    return next(filter(None, found), "")


def _needed(row: Row, column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise KeyError(column)
    return value.strip()


def _list(row: Row, column: str) -> list[str]:
    value = row.get(column) or []
    texts = value.split(";") if isinstance(value, str) else value
    if not isinstance(texts, list | tuple):
        return []
    return [text.strip() for text in texts if isinstance(text, str) and text.strip()]
