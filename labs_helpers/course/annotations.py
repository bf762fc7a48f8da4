"""JSON Lines that people's work goes into: append, read, survive a power cut.

A line is on the disk when `append_line` returns. Knows nothing of what the lines say.
"""

import json
import os
from pathlib import Path
from typing import Any


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Add a row and wait until it is on the disk; a row that fails leaves no trace."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(row, ensure_ascii=False) + "\n"
    with path.open("ab") as file:
        end = file.seek(0, os.SEEK_END)
        try:
            file.write(line.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, end)
            raise


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read all rows; a last line that was cut off is taken away."""
    if not path.exists():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    rows = [_row(path, i, line) for i, line in enumerate(lines, 1) if line.strip()]
    if last.strip():
        try:
            rows.append(json.loads(last))
        except ValueError:
            # The power went in the middle of it: its pair counts as not done.
            os.truncate(path, path.stat().st_size - len(last))
        else:
            with path.open("ab") as file:
                file.write(b"\n")
    return rows


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:
        raise ValueError(
            f"{path}, line {number} is not JSON. Mend or remove that line; nothing is "
            "added to a file that cannot be read."
        ) from None
