"""The project's folder, and files that are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of the project


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a new file beside `path` to write; it takes that place when all is well.

    Raises:
        OSError: it cannot be written; `path` is what it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".labs.")
    os.close(handle)
    unfinished = Path(name)
    try:
        yield unfinished
        unfinished.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader sees it before or after, never in between."""
    if isinstance(content, str):
        # Half a surrogate pair, which models come up with, is no text.
        content = content.encode("utf-8", errors="replace")
    with replacing(path) as unfinished:
        unfinished.write_bytes(content)
