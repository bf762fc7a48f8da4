"""Prompts from a file: a prompt a line, or rows that have one.

Text or messages come out, each one checked. Knows nothing of what is done with them.
"""

from pathlib import Path
from typing import Any

from labs_helpers.data.files import SUFFIXES, BadFile, read_rows, read_text_lines
from labs_helpers.data.messages import BadMessages, Message, as_messages
from labs_helpers.data.report import PreferenceReport
from labs_helpers.data.row_formats import explicit


def read_prompts(path: str | Path) -> list[str | list[Message]]:
    """Read prompts: text stays text, anything else becomes messages.

    Args:
        path: A .txt file with a prompt a line; or JSON Lines, a Parquet table or a
            folder of these, with rows that have a "prompt", preference rows too.

    Raises:
        BadFile: The first line without a prompt; the message says what is wrong.
    """
    path = Path(path)
    if path.is_dir() or path.name.endswith(SUFFIXES):
        report = PreferenceReport()
        prompts = [_asked(*numbered) for numbered in read_rows(path, report)]
        if report.errors:
            error = report.errors[0]
            raise BadFile(error.file, error.line, error.problem, error.remedy)
    elif path.suffix in ("", ".txt", ".gz"):
        prompts = [line for _, line in read_text_lines(path)]
    else:
        problem = f"ends in {path.suffix}, expected a prompt a line or rows of JSON"
        raise BadFile(path, None, problem, f"Write a .txt or a {SUFFIXES[0]} file")
    if not prompts:
        raise BadFile(path, None, "holds no prompt", "Write one a line")
    return prompts


def _asked(file: str, line: int, row: Any) -> str | list[Message]:
    row = explicit(row)
    if not isinstance(row, dict) or row.get("prompt") is None:
        problem = "is no row with a prompt"
        raise BadFile(file, line, problem, 'Write {"prompt": ...} in every line')
    prompt = row["prompt"]
    try:
        messages = as_messages(prompt)
    except BadMessages as error:
        problem = f"prompt{error.place} {error.problem}"
        raise BadFile(file, line, problem, error.remedy) from None
    return prompt if isinstance(prompt, str) else messages
