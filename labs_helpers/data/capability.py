"""Questions of a file as probes: final numbers as in GSM8K, a choice as in ARC or MMLU.

- GSM8K (arXiv 2110.14168): question, and an answer that ends in "#### 42".
- ARC (arXiv 1803.05457): question, choices with their labels, answerKey; of MMLU
  choices is a list, answer the place of the right one, from 0.

A JSON Lines file (JSON, Parquet, packed) comes in, a function of the split goes out.
"""

import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from labs_helpers.data.files import BadFile, read_rows
from labs_helpers.data.report import PreferenceReport
from labs_helpers.data.task import SPLITS, Probe, Prompt

NUMBER = re.compile(r"(?<!\d)-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
# A letter alone, or one that is called the answer; "A" may begin a sentence.
LETTER = re.compile(
    r"\banswer(?:\s+is)?\W{0,4}([A-Z])\b(?!')|^\W*([A-Z])(?=[).:,]|\W*$)",
    re.IGNORECASE | re.MULTILINE,
)
_EXPECTED = (
    'Expected {"question": ..., "answer": "... #### 42"}, or {"question": ..., '
    '"choices": {"text": [...], "label": [...]}, "answerKey": "B"}'
)


def load_capability(path: str | Path) -> Callable[[str], Probe]:
    """Read questions; each is in one split, half of them in the test split.

    Raises:
        BadFile: A row is no question with an answer; the message names it.
    """
    report, found = PreferenceReport(), []
    for file, line, row in read_rows(path, report):
        prompt = _question(row)
        if prompt is None:
            raise BadFile(file, line, "is no question with its answer", _EXPECTED)
        found.append(prompt)
    for broken in report.errors:
        raise BadFile(broken.file, broken.line, broken.problem, broken.remedy)
    if len(found) < 4:
        few = f"holds {len(found)} questions, too few for three splits"
        raise BadFile(path, None, few, _EXPECTED)
    random.Random(0).shuffle(found)
    quarter, half = len(found) // 4, len(found) // 2
    parts = found[:quarter], found[quarter:half], found[half:]

    def probe(split: str) -> Probe:
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        return Probe(parts[SPLITS.index(split)], is_right)

    return probe


def is_right(prompt: Prompt, response: str) -> bool:
    """Whether the last number, or the letter chosen, is the answer.

    >>> question = Prompt("2 + 3?", {"answer": "5", "choices": []})
    >>> is_right(question, "2 and 3 are 5.0"), is_right(question, "5 is 2 + 3")
    (True, False)
    """
    answer, choices = prompt.meta["answer"], prompt.meta["choices"]
    if choices:
        said = [a or b for a, b in LETTER.findall(response)]
        text = choices[ascii_uppercase.index(answer)].strip().casefold()
        letters = {letter.upper() for letter in said}
        return letters == {answer} or response.strip(" .\n").casefold() == text
    numbers = NUMBER.findall(response)
    return bool(numbers) and _value(numbers[-1]) == _value(answer)


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _question(row: Any) -> Prompt | None:
    """The question with what is to be answered; None if the row is none."""
    if not isinstance(row, Mapping):
        return None
    asked, choices = row.get("question"), row.get("choices")
    if isinstance(asked, Mapping):  # as ARC's own files have it
        asked, choices = asked.get("stem"), asked.get("choices")
    if not isinstance(asked, str) or not asked.strip():
        return None
    if choices is None:
        numbers = NUMBER.findall(str(row.get("answer", "")).rpartition("####")[2])
        wish = "Reason briefly, and end with the answer as a number."
        meta = {"answer": numbers[-1] if numbers else "", "choices": []}
        return Prompt(f"{asked.strip()}\n\n{wish}", meta) if numbers else None
    texts, labels = _choices(choices)
    key = row.get("answerKey", row.get("answer"))
    place = labels.index(str(key)) if str(key) in labels else key
    places = range(len(texts) if 1 < len(texts) <= len(ascii_uppercase) else 0)
    if type(place) is not int or place not in places:
        return None
    letters = ascii_uppercase[: len(texts)]
    listed = "\n".join(f"{x}) {text}" for x, text in zip(letters, texts, strict=True))
    wish = "Reply with the letter of the right answer only."
    meta = {"answer": letters[place], "choices": texts}
    return Prompt(f"{asked.strip()}\n\n{listed}\n\n{wish}", meta)


def _choices(choices: Any) -> tuple[list[str], list[str]]:
    """Texts and labels: of a table of two lists, a list of tables, or texts alone."""
    if isinstance(choices, Mapping):
        texts, labels = choices.get("text"), choices.get("label")
    elif isinstance(choices, list) and all(isinstance(x, Mapping) for x in choices):
        texts, labels = ([x.get(name) for x in choices] for name in ("text", "label"))
    else:
        texts, labels = choices, []
    if not isinstance(texts, list) or not all(isinstance(x, str) for x in texts):
        return [], []
    return texts, [str(x) for x in labels or []]
