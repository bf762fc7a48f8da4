"""The state of a training run on disk: whole or not at all.

A state is a dict of tensors, numbers and containers of them. The file is replaced in
one move, so that whatever ends the program leaves the old or the new one; it holds a
checksum of its content, and the identity of its run (see `identity`).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from labs_helpers.common.files import replacing
from labs_helpers.fit.identity import Identity, differences, digest

_ELSE = "Delete it to start anew, or give this run a folder of its own"


class BadCheckpoint(ValueError):
    """A checkpoint that cannot be used; the message says why and what to do."""


@contextmanager
def folder_of_one_run(folder: str | Path | None) -> Iterator[None]:
    """Keep other trainings, of this program or another, out of the folder.

    The lock ends with the program, however it ends.

    Raises:
        ValueError: another training is in it.
        OSError: nothing can be written to it.
    """
    if folder is None:
        yield
        return
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another training is running in {folder}: two would overwrite each "
            "other's checkpoints. Wait for its end, or give this run a folder of its "
            "own"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise OSError(f"no checkpoint can be written to {folder}: {error}") from error
    try:
        yield
    finally:
        lock.release()


def save(path: Path, state: dict[str, Any], identity: Identity) -> None:
    """Write the state beside the file, then put it in the file's place.

    Args:
        path: the file; its folder is made.
        state: what `load` gives back. Its "moving", if it has that, are names of the
            identity that a run changes by itself, and need not share.
        identity: what a run must share to go on from here.

    Raises:
        OSError: it cannot be written; the file is what it was.
    """
    saved = {"identity": identity, "state": state}
    try:
        with replacing(path) as unfinished:
            torch.save({**saved, "checksum": digest(saved)}, unfinished)
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch's, where the disk is full
        raise OSError(f"{path} cannot be written: {_first_line(error)}") from error


def load(path: Path, identity: Identity, device: torch.device | str) -> dict[str, Any]:
    """Read a state back.

    Raises:
        BadCheckpoint: it is damaged, or that of another run; what differs is named.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise BadCheckpoint(f"{path} cannot be read: {error}") from error
    try:
        saved = torch.load(path, map_location=device, weights_only=True)
    except Exception:  # torch's words advise what is unsafe
        size = path.stat().st_size
        raise _damaged(
            path, f"its {size:,} bytes are no whole checkpoint: cut off or overwritten"
        ) from None
    names = {"identity", "state", "checksum"}
    if not isinstance(saved, dict) or set(saved) != names:
        raise _damaged(path, f"it does not hold {', '.join(sorted(names))} alone")
    if saved.pop("checksum") != digest(saved):
        raise _damaged(path, "its content does not match its checksum")
    moving = saved["state"].get("moving", ())
    found = differences(saved["identity"], identity, moving)
    if found:
        more = f" and {len(found) - 6} more" if len(found) > 6 else ""
        raise BadCheckpoint(
            f"{path} is the checkpoint of another run: {'; '.join(found[:6])}{more}. "
            f"{_ELSE}"
        )
    return saved["state"]


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Around what puts a state to use: one that does not fit is said to be damaged."""
    try:
        yield
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        said = f"its state does not fit this run ({_first_line(error)})"
        raise _damaged(path, said) from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]


def _damaged(path: Path, what: str) -> BadCheckpoint:
    return BadCheckpoint(f"{path} is damaged: {what}. {_ELSE}")
