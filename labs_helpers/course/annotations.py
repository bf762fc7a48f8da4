"""JSON Lines that people's work goes into: append, read, survive a power cut.

A line is on the disk when `append_line` returns. Nothing that stands in a file is ever
lost: reading changes none, and what was cut off is kept in a file beside it.
"""

import codecs
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

from labs_helpers.data import BadFile
from labs_helpers.data.files import scan_json_lines
from labs_helpers.data.messages import a_kind

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

BOM = b"\xef\xbb\xbf"
HALF_A_VALUE = re.compile(r"[-+.\deE]*|t(ru?)?|f(a(ls?)?)?|n(ul?)?|N(a)?")
REMEDY = (
    "Mend or remove the line, or give the path of another file: nothing is added to "
    "one that cannot be read"
)


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Add a row and wait until it is on the disk; a row that fails leaves no trace.

    Raises:
        ValueError: The row is not JSON, or the file is none of these.
        OSError: The disk is full, or does not let us write.
    """
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        line = (text + "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"This row cannot be written as JSON: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path) as file:
        end = _end_of_lines(path, file)
        try:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):  # a disk that is gone
                file.truncate(end)
            raise


def read_lines(
    path: Path, check: Callable[[dict[str, Any]], Any] | None = None
) -> list[dict[str, Any]]:
    """Read all rows. A last line that was cut off, as by a power cut, is not there.

    Args:
        path: of the file; one that is missing has no rows.
        check: raises ValueError where a row will not do.

    Raises:
        BadFile: A line is no JSON object, or will not do. The message names it.
        OSError: The file cannot be read.
    """
    if not path.exists():
        return []
    content = path.read_bytes()
    if content.removeprefix(BOM).lstrip()[:1] == b"[" or content[:2] == b"\x1f\x8b":
        raise BadFile(path, 1, "is no object", REMEDY)
    cut = content.count(b"\n") + 1 if _is_cut(_last(content)) else None
    rows = []
    for line, value in scan_json_lines(path):
        if isinstance(value, BadFile):
            if line == cut:
                continue
            raise BadFile(path, line, value.problem, REMEDY)
        try:
            if not isinstance(value, dict):
                raise ValueError(f"is {a_kind(value)}, expected an object")
            if check is not None:
                check(value)
        except ValueError as error:
            raise BadFile(path, line, str(error).rstrip("."), REMEDY) from error
        rows.append(value)
    return rows


def mend(path: Path) -> None:
    """Take away a last line that was cut off, for those who read the file as it is.

    It is kept in a file beside.
    """
    if path.exists() and _is_cut(_last(path.read_bytes())):
        with _opened(path) as file:
            _end_of_lines(path, file)


def _last(content: bytes) -> bytes:
    return content[content.rfind(b"\n") + 1 :]


def _is_cut(last: bytes) -> bool:
    """Whether a last line is the beginning of a row, and only that."""
    # A file system may fill what was never written with zeros.
    written = last.rstrip(b"\0")
    if not written.startswith(b"{"):
        return len(written) < len(last) and not written.strip()
    try:
        # A decoder of this kind passes over half of a character at the end.
        text = codecs.getincrementaldecoder("utf-8")().decode(written)
        json.loads(text)
    except json.JSONDecodeError as error:
        in_string = error.msg.startswith(("Unterminated string", "Invalid \\u"))
        return in_string or HALF_A_VALUE.fullmatch(text, error.pos) is not None
    except (ValueError, RecursionError):
        return False
    return len(written) < len(last)


def _end_of_lines(path: Path, file: FileIO) -> int:
    """Where the next row is to begin; a line that was cut off is moved away."""
    content = path.read_bytes()
    last = _last(content)
    if _is_cut(last):
        with path.with_name(path.name + ".cut").open("ab") as beside:
            beside.write(last + b"\n")
            beside.flush()
            os.fsync(beside.fileno())
        file.truncate(len(content) - len(last))
        return len(content) - len(last)
    if last:
        read_lines(path)  # or it is no file of ours
        file.write(b"\n")
    return len(content) + bool(last)


@contextmanager
def _opened(path: Path) -> Iterator[FileIO]:
    """Open a file to add to it, once nobody else is in the middle of adding a row."""
    # Without a buffer: one would write what is left of a row when it is closed.
    with path.open("a+b", buffering=0) as file:
        with suppress(OSError):  # file systems without locks
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
        yield file  # closing it unlocks it
