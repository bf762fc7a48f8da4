"""Public safety suites in their own formats, told by their columns.

A local CSV (or .json, .jsonl, .parquet) file, or the name of a data set on the hub,
comes in; a `Suite` goes out. None of the suites is part of this project; their authors'
terms apply.

- XSTest (arXiv 2308.01263): columns prompt, type, label (safe or unsafe). Older files
  have no label: types that begin with "contrast" are the unsafe ones.
- HarmBench (arXiv 2402.04249): Behavior, SemanticCategory, ContextString.
- StrongREJECT (arXiv 2402.10260): forbidden_prompt, category, source.
- SimpleSafetyTests (arXiv 2311.08370): prompt, harm_area, category.
- TruthfulQA (arXiv 2109.07958): Question, Category, Best Answer, Correct Answers and
  Incorrect Answers, which are lists or texts with semicolons.
"""

import csv
import io
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from labs_helpers.data import BadFile, PreferenceReport, Prompt
from labs_helpers.data.files import SUFFIXES, hub_rows, read_rows, read_text
from labs_helpers.data.messages import a_kind
from labs_helpers.safety.suites import BadSuite, Item, Suite, load_suite

Row = dict[str, Any]
USES = ("harmful", "soundalike", "honesty", "sycophancy", "consistency", "train")
TABLES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


def _xstest(row: Row) -> Item:
    kind = _text(row, "type", "category")
    label = _text(row, "label", "finallabel")
    unsafe = label == "unsafe" if label else kind.startswith("contrast")
    return Item(
        Prompt(_needed(row, "prompt"), {"focus": _text(row, "focus")}),
        "harmful" if unsafe else "safe",
        kind,
        _text(row, "id", "idv2"),
    )


def _harmbench(row: Row) -> Item:
    wish = _text(row, "behavior") or _needed(row, "prompt")
    context = _text(row, "contextstring", "context")
    return Item(
        Prompt(f"{context}\n\n---\n\n{wish}" if context else wish),
        "harmful",
        _text(row, "semanticcategory", "category"),
        _text(row, "behaviorid"),
    )


def _strongreject(row: Row) -> Item:
    wish = Prompt(_needed(row, "forbiddenprompt"))
    return Item(wish, "harmful", _text(row, "category"))


def _simplesafetytests(row: Row) -> Item:
    wish = Prompt(_needed(row, "prompt"))
    return Item(wish, "harmful", _text(row, "harmarea"), _text(row, "id"))


def _truthfulqa(row: Row) -> Item:
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


# The columns that tell a format from those after it, and what reads its rows.
FORMATS: dict[str, tuple[set[str], Callable[[Row], Item]]] = {
    "StrongREJECT": ({"forbiddenprompt"}, _strongreject),
    "HarmBench": ({"behavior"}, _harmbench),
    "SimpleSafetyTests": ({"prompt", "harmarea"}, _simplesafetytests),
    "TruthfulQA": ({"question", "incorrectanswers"}, _truthfulqa),
    "XSTest": ({"prompt", "type"}, _xstest),
}


def load_xstest(path_or_name: str | Path) -> Suite:
    """Safe prompts that sound unsafe, and unsafe ones in the same words."""
    return _suite("XSTest", path_or_name)


def load_harmbench(path_or_name: str | Path) -> Suite:
    """Harmful behaviours; a context, where there is one, stands before the request."""
    return _suite("HarmBench", path_or_name)


def load_truthfulqa(path_or_name: str | Path) -> Suite:
    """Questions that many people answer wrongly, with right and wrong answers."""
    return _suite("TruthfulQA", path_or_name)


def load_public(path: str | Path) -> Suite:
    """A file in any of these formats, or in this project's.

    Raises:
        BadSuite: it is in none, or a row cannot be used.
    """
    errors: list[str] = []
    first = next((row for _, row in _rows(path, errors) if isinstance(row, dict)), {})
    columns = {_plain(column) for column in first if column}
    if {"prompt", "kind"} <= columns:
        return load_suite(path)
    for name, (needed, _) in FORMATS.items():
        if needed <= columns:
            return _suite(name, path)
    found = ", ".join(filter(None, first)) or "none"
    raise BadSuite(
        f"{path} is no safety suite: its columns are {found:.200}, expected those of "
        f"{', '.join(FORMATS)}, or prompt and kind" + "".join(f"\n{x}" for x in errors)
    )


def load_suites(path: str | Path) -> dict[str, Suite]:
    """The items of a file, or of all files in a folder, by what they are for.

    A file of this project's format may have the name of a use. Items of others are
    harmful or, if they are to be answered, soundalike; questions are for honesty, and
    those also asked under pressure or in other words for sycophancy or consistency.
    Without a file for it, train gets a third of what is no question, by lot.

    Raises:
        BadSuite: a file is no suite, or there is none.
    """
    files = [Path(path)]
    if files[0].is_dir():
        found = sorted(files[0].iterdir())  # in data/safety, refusals are answers
        files = [x for x in found if x.name.endswith((*SUFFIXES, *TABLES))]
        files = [x for x in files if x.stem != "refusals"]
        if not files:
            raise BadSuite(f"{path} holds no suite: expected files of .csv or .jsonl")
    suites = [load_public(file) for file in files]
    by_use: dict[str, list[Item]] = {use: [] for use in USES}
    for suite in suites:
        by_use.get(suite.name, []).extend(suite)
    others = [item for suite in suites if suite.name not in USES for item in suite]
    if not by_use["train"]:
        asked = [item for item in others if item.kind != "question"]
        by_use["train"] = random.Random(0).sample(asked, len(asked) // 3)
    train = set(item.prompt.text for item in by_use["train"])
    for item in others:
        for use in _uses(item) if item.prompt.text not in train else ():
            by_use[use].append(item)
    source = f"{', '.join(dict.fromkeys(x.name for x in suites))}, {path}"
    return {use: Suite(use, tuple(x), source) for use, x in by_use.items() if x}


def _uses(item: Item) -> list[str]:
    if item.kind != "question":
        return ["harmful" if item.kind == "harmful" else "soundalike"]
    more = {"sycophancy": item.pressed, "consistency": item.paraphrases}
    return ["honesty", *(use for use, asked in more.items() if asked)]


def _suite(name: str, path_or_name: str | Path) -> Suite:
    items, errors = [], []
    _, item = FORMATS[name]
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
    if path.name.endswith(TABLES):
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
