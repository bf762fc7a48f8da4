"""How the command `labs` ends when something is wrong: a line and an exit code.

An exception comes in, the sentence for people and the code for scripts go out. Knows
the operating system's refusals and missing extras; other sentences are those of
whoever raised.
"""

import contextlib
import errno
import os
import re
import sys
import traceback
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement

from labs_helpers.common.printable import one_line

DISTRIBUTION = "alignment-labs"
REMEDIES = {
    errno.ENOSPC: "make room there, or choose another folder",
    errno.EDQUOT: "make room there, or choose another folder",
    errno.EFBIG: "choose a folder where larger files are allowed",
    errno.EACCES: "choose a folder or a file that you may use",
    errno.EPERM: "choose a folder or a file that you may use",
    errno.EROFS: "choose a folder that can be written",
    errno.ENOTDIR: "a part of this path is a file: choose another folder",
    errno.EEXIST: "a file stands where a folder is wanted: choose another folder",
    errno.EISDIR: "a folder stands where a file is wanted: choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "its links lead in a circle: choose another path",
    errno.EMFILE: "raise the limit of open files: ulimit -n 4096",
    errno.ENOMEM: "close other programs, or choose a smaller profile",
}
INTERRUPTED = 130
BROKEN_PIPE = 141


class Interrupted(KeyboardInterrupt):
    """Somebody broke off; the message says where, and what was kept."""


def ending(error: BaseException, extra: str = "lab") -> tuple[str, int]:
    """What to tell people of an exception, on one line, and the exit code.

    Args:
        error: what was raised.
        extra: what the command needs, for imports that fail.

    >>> ending(KeyboardInterrupt())
    ('interrupted', 130)
    >>> ending(OSError(errno.ENOSPC, "No space left on device", "out/x"))[0]
    'out/x: No space left on device; make room there, or choose another folder'
    """
    if isinstance(error, KeyboardInterrupt):
        return one_line(str(error)) or "interrupted", INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return "", BROKEN_PIPE
    if isinstance(error, ImportError):
        return _missing(error, extra), 1
    if isinstance(error, OSError) and error.errno:
        return one_line(_refused(error)), 1
    if isinstance(error, MemoryError):
        return "out of memory: close other programs, or choose a smaller profile", 1
    if isinstance(error, ValueError | OSError) and str(error):
        return one_line(str(error)), 1
    return _unexpected(error), 1


def tell(error: BaseException, extra: str) -> int:
    """Print the ending of an exception; return the exit code."""
    if os.environ.get("LABS_TRACEBACK"):
        traceback.print_exception(error)
    line, code = ending(error, extra)
    silence(sys.stdout)
    with contextlib.suppress(OSError, ValueError):  # nobody may be left to tell
        if line:
            print(f"labs: {line}", file=sys.stderr, flush=True)
    return code


def silence(stream: Any) -> None:
    """Drop what a stream cannot write any more: Python would complain at its exit."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _refused(error: OSError) -> str:
    named = error.filename is not None
    where = f"{one_line(str(error.filename), 200)}: " if named else ""
    what = error.strerror or str(error)
    remedy = REMEDIES.get(error.errno or 0)
    return f"{where}{what}" + (f"; {remedy}" if remedy else "")


def _missing(error: ImportError, extra: str) -> str:
    name = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError):
        return one_line(f"{name or 'a package'} cannot be used: {error}")
    extra = _extra_that_brings(name) or extra
    return f"{error.name} is missing. Install it: {install(extra)}"


def install(extra: str) -> str:
    """What brings an extra, or what everyone needs: the project comes as a folder."""
    return f"pip install -e '.[{extra}]', in the project's folder"


def extra_of(requirement: Requirement) -> str:
    """The extra that a requirement belongs to; empty for the package itself."""
    found = re.search(r"extra == ['\"](.+?)['\"]", str(requirement.marker))
    return found[1] if found else ""


def _extra_that_brings(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        for requirement in map(Requirement, metadata.requires(DISTRIBUTION) or []):
            if requirement.name.replace("-", "_") == package:
                return extra_of(requirement)
    return None


def _unexpected(error: BaseException) -> str:
    where = ""
    for frame in traceback.extract_tb(error.__traceback__)[-1:]:
        where = f" ({os.path.basename(frame.filename)}, line {frame.lineno})"
    return one_line(
        f"{type(error).__name__}: {error}{where}. This is not foreseen: please report "
        "it with what LABS_TRACEBACK=1 shows"
    )
