"""The walls around a submission: what its process sees, and the command that starts it.

With bubblewrap it sees the system's libraries and Python's, read-only, an empty folder
of its own, no network, no other process. Without, `wall` says so, and only the limits
that `worker` sets on itself remain.
"""

import functools
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from labs_helpers.common.files import ROOT
from labs_helpers.course.exercises import observe

HERE = Path(__file__).parent
INSIDE = "/grader"
FILES = (HERE / "worker.py", HERE / "protocol.py", Path(observe.__file__))
FOLDER_SIZE = 64 << 20


@dataclass(frozen=True)
class Wall:
    """How submissions are kept apart: bubblewrap's command, or the reason for none."""

    command: str | None
    reason: str = ""


@functools.cache
def wall() -> Wall:
    """Find out whether bubblewrap works here."""
    command = shutil.which("bwrap")
    if command is None:
        if platform.system() != "Linux":
            return Wall(None, f"bubblewrap does not exist for {platform.system()}")
        return Wall(None, "bubblewrap is not installed (apt install bubblewrap)")
    try:
        tried = subprocess.run(
            [command, *_namespaces(), "--ro-bind", "/", "/", "true"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Wall(None, f"bubblewrap does not start: {error}")
    if tried.returncode != 0:
        why = " ".join(tried.stderr.split())[:200]
        return Wall(None, f"bubblewrap is not permitted here: {why}")
    return Wall(command)


def start_command(arguments: Sequence[str], hidden: Sequence[Path]) -> list[str]:
    """Return the command that starts a worker, inside of walls where there are any.

    Args:
        arguments: of the worker.
        hidden: folders that it must not see, wherever they lie.
    """
    command = wall().command
    if command is None:
        launcher = _launcher({path.parent for path in FILES})
        return [sys.executable, "-I", "-c", launcher, *arguments]
    binds, links = _system()
    given = [command, *_namespaces(), "--clearenv", *links]
    for folder in binds:
        given += ["--ro-bind", folder, folder]
    given += ["--size", str(FOLDER_SIZE), "--tmpfs", "/tmp"]
    for folder in _covered(hidden, binds):
        given += ["--tmpfs", folder]
    for folder in dict.fromkeys((sys.base_prefix, sys.prefix)):
        given += ["--ro-bind", folder, folder]
    for package in (str(HERE.parent), str(HERE.parents[1] / "labs_helpers")):
        if any(_inside(package, folder) for folder in (sys.base_prefix, sys.prefix)):
            given += ["--tmpfs", package, "--remount-ro", package]
    for path in FILES:
        given += ["--ro-bind", str(path), f"{INSIDE}/{path.name}"]
    given += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]
    given += ["--remount-ro", "/", "--chdir", "/tmp"]
    for name, value in environment().items():
        given += ["--setenv", name, value]
    return [*given, sys.executable, "-I", "-c", _launcher([INSIDE]), *arguments]


def environment() -> dict[str, str]:
    """What the worker's environment holds: nothing of this one's."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _launcher(folders: Iterable[str | Path]) -> str:
    # Started by its path, a file would hide the standard library behind its folder.
    places = [str(folder) for folder in folders]
    return f"import sys; sys.path += {places!r}; import worker; worker.main()"


def _namespaces() -> list[str]:
    user = ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    alone = ["--unshare-all", "--die-with-parent", "--new-session"]
    return [*alone, *user, "--cap-drop", "ALL"]


def _system() -> tuple[list[str], list[str]]:
    """Folders of the system to show, and links to make."""
    binds, links = ["/usr"], []
    for name in ("/bin", "/lib", "/lib32", "/lib64", "/sbin"):
        path = Path(name)
        if path.is_symlink():
            links += ["--symlink", os.readlink(path), name]
        elif path.is_dir():
            binds.append(name)
    for name in ("/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives"):
        if Path(name).exists():
            binds.append(name)
    return binds, links


def _covered(hidden: Sequence[Path], shown: Sequence[str]) -> list[str]:
    """Of what is to be hidden, the folders that lie in something that is shown."""
    folders = dict.fromkeys(str(path.resolve()) for path in (*hidden, ROOT))
    return [
        folder
        for folder in folders
        if Path(folder).is_dir()
        and folder not in (*shown, "/tmp")
        and any(_inside(folder, place) for place in shown)
    ]


def _inside(path: str, folder: str) -> bool:
    return Path(path).resolve().is_relative_to(Path(folder).resolve())
