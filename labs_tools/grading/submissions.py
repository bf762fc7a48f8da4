"""Find submissions in a folder, say whose they are, and read them with care.

File names may be anything; the student comes from the name, the folder or a roster.
What cannot be read is refused with a reason, and takes no other along. What a student's
own run says (profile, claims, points) is read from its outputs, which anybody can edit:
nothing of it is run again, and nothing of it earns points.
"""

import csv
import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LARGEST = 100 << 20
MOST_CELLS = 5_000
NOTEBOOK = ".ipynb"
# What systems and people add to the name of a notebook.
ADDED = re.compile(
    r"_?\d+_assignsubmission_file_?|[-_ ]?copy\s?\d*|[-_ ]?kopie|\(\d+\)|"
    r"(?<![a-z])lab[-_ ]?\d(?!\d)|"
    r"(?<![a-z])(solved|final|submission|notebook)(?![a-z])",
    re.IGNORECASE,
)
TITLE = re.compile(r"^Lab (\d+) · .{1,80} · profile (\w{1,20})$", re.MULTILINE)
POINTS = re.compile(r"^Exercises: ([\d.]{1,8} of [\d.]{1,8} points)$", re.MULTILINE)
MOST_TEXT = 100_000
MOST_CLAIMS = 100
LONG_PROFILES = ("small", "gpu")


@dataclass(frozen=True)
class Submission:
    """A file that somebody handed in.

    Attributes:
        name: its path in the folder of submissions.
        student: whose it is, as far as the name says.
        known: whether a roster names the student; True where there is none.
    """

    path: Path
    name: str
    student: str
    known: bool = True


@dataclass(frozen=True)
class Submitted:
    """A cell of a submission, whatever was made of it."""

    code: bool
    source: str
    id: str = ""
    marks: dict[str, Any] = field(default_factory=dict)

    @property
    def grade_id(self) -> str:
        """By which nbgrader knows it."""
        return str(self.marks.get("grade_id", ""))


@dataclass(frozen=True)
class OwnRun:
    """What the last report of a notebook says."""

    profile: str
    points: str
    claims: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Notebook:
    """What a submission holds.

    Attributes:
        flags: what is odd about the notebook as a whole.
        own: what its outputs say of the run.
    """

    cells: tuple[Submitted, ...]
    flags: tuple[str, ...] = ()
    own: OwnRun | None = None


class Refused(Exception):
    """A submission that cannot be graded: why, in a few words, and for people."""

    def __init__(self, name: str, message: str):
        super().__init__(f"{name}: {message}")
        self.name, self.message = name, message


# Whose it is


def collect(
    folder: Path,
    roster: Mapping[str, Sequence[str]] | None = None,
    lab_names: Sequence[str] = (),
    ignored: Iterable[Path] = (),
) -> list[Submission]:
    """List the submissions in a folder, in order of their names.

    Args:
        folder: is searched with all folders in it; hidden files are left out.
        lab_names: names of the labs' notebooks, which say nothing of a student.
        ignored: files and folders that are no submissions.
    """
    left_out = {path.resolve() for path in ignored}
    found = []
    for path in sorted(_files(folder, left_out)):
        name = _readable(path.relative_to(folder).as_posix())
        student, known = _student(name, roster, lab_names)
        found.append(Submission(path, name, student, known))
    # What lies beside a notebook (figures, data) is no submission of its own.
    notebooks = [s for s in found if s.path.suffix.lower() == NOTEBOOK]
    with_notebook = {s.student for s in notebooks}
    with_notebook |= {s.path.parent for s in notebooks if s.path.parent != folder}
    return [
        s
        for s in found
        if s in notebooks or not {s.student, s.path.parent} & with_notebook
    ]


def read_roster(path: Path) -> dict[str, tuple[str, ...]]:
    """Read who may hand in: the first column names students, the others are aliases.

    Aliases (a full name, an e-mail address, a matriculation number) are looked for in
    the names of files and folders.

    Raises:
        ValueError: there are no students in it.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV in UTF-8: {error}") from None
    students = {
        row[0].strip(): tuple(x.strip() for x in row if len(_letters(x)) > 1)
        for row in rows[1:]
        if row[0].strip()
    }
    if not students:
        raise ValueError(f"{path} names no students; it needs a heading and their rows")
    return students


def _files(folder: Path, left_out: set[Path]) -> Iterator[Path]:
    for path in folder.iterdir():
        hidden = path.name.startswith((".", "__MACOSX"))
        if hidden or path.is_symlink() or path.resolve() in left_out:
            continue
        if path.is_dir():
            yield from _files(path, left_out)
        elif path.is_file():
            yield path


def _readable(name: str) -> str:
    """Replace what is no text, or would move a terminal's cursor."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _student(
    name: str,
    roster: Mapping[str, Sequence[str]] | None,
    lab_names: Sequence[str],
) -> tuple[str, bool]:
    if roster is not None:
        letters = _letters(name)
        matches = {
            student: max(len(_letters(alias)) for alias in own)
            for student, aliases in roster.items()
            if (own := [a for a in aliases if _letters(a) in letters])
        }
        longest = max(matches.values(), default=0)
        best = [s for s, length in matches.items() if length == longest]
        if len(best) == 1:
            return best[0], True
    return _from_name(name, lab_names), roster is None


def _from_name(name: str, lab_names: Sequence[str]) -> str:
    """Take from a path what is not the name of a lab; the file first, then folders."""
    for part in reversed(Path(name).parts):
        text = part.removesuffix(NOTEBOOK) if part == Path(name).name else part
        # Moodle's folders: "Ada Lovelace_123456_assignsubmission_file_".
        text = re.sub(r"_\d+_assignsubmission.*", "", text)
        for lab_name in lab_names:
            text = re.sub(re.escape(lab_name), " ", text, flags=re.IGNORECASE)
        text = ADDED.sub(" ", text)
        text = re.sub(r"\s+", " ", text).strip(" -_.()[]")
        if _letters(text):
            return text[:100]
    return Path(name).stem[:100]


def _letters(text: str) -> str:
    """Letters and digits alone, in lower case, without accents."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in plain if c.isalnum())


# What it holds


def digest(path: Path) -> str:
    """Return a hash of a file's content; what is too large is known by its size."""
    size = path.stat().st_size
    if size > LARGEST:
        return f"large{size}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read(path: Path) -> Notebook:
    """Read a notebook of any tool and version, as far as there is one."""
    size = path.stat().st_size >> 20
    if size > LARGEST >> 20:
        words = f"{size} MB, and {LARGEST >> 20} are taken. Clear the outputs and "
        raise Refused("too large", f"{words}hand in again.")
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf").strip()
    if not content:
        raise Refused("empty file", "there is nothing in it.")
    try:
        notebook = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        if not content.startswith(b"{"):
            raise Refused("not a notebook", "the file is something else.") from None
        words = f"the file is cut or damaged ({type(error).__name__}: {error})."
        raise Refused("bad JSON", words) from None
    found = _cells_of(notebook)
    if found is None:
        raise Refused("not a notebook", "the file is JSON without a list of cells.")
    if len(found) > MOST_CELLS:
        raise Refused("too large", f"it has {len(found)} cells.")
    cells = [cell for cell in found if isinstance(cell, dict)]
    own = own_run(x for cell in cells for x in _list(cell.get("outputs")))
    flags = [*_odd_kernel(_table(notebook.get("metadata")))]
    if not any(isinstance(cell.get("execution_count"), int) for cell in cells):
        flags.append("not executed")
    if own is not None and own.profile in LONG_PROFILES:
        flags.append(f"results of profile {own.profile} not re-executed")
    return Notebook(tuple(map(_submitted, cells)), tuple(flags), own)


def _cells_of(notebook: Any) -> list[Any] | None:
    cells = _table(notebook).get("cells")
    if cells is None and (sheets := _list(_table(notebook).get("worksheets"))):
        cells = [x for sheet in sheets for x in _list(_table(sheet).get("cells"))]
    return cells if isinstance(cells, list) else None


def _submitted(cell: dict[str, Any]) -> Submitted:
    metadata = _table(cell.get("metadata"))
    identifier = cell.get("id") or metadata.get("id")
    return Submitted(
        code=cell.get("cell_type") == "code",
        source=_joined(cell.get("source", cell.get("input"))),
        id=identifier if isinstance(identifier, str) else "",
        marks=_table(metadata.get("nbgrader")),
    )


def _odd_kernel(metadata: dict[str, Any]) -> Iterator[str]:
    kernel, info = (_table(metadata.get(k)) for k in ("kernelspec", "language_info"))
    language = str(kernel.get("language") or info.get("name") or "").lower()
    name = str(kernel.get("name", ""))[:40]
    if not name:
        yield "kernel missing"
    elif language != "python" and (language or "py" not in name.lower()):
        yield f"kernel unknown: {name}"


def own_run(outputs: Iterable[Any]) -> OwnRun | None:
    """Find the last report among the outputs of a notebook."""
    found = None
    for output in outputs:
        text = _joined(_table(_table(output).get("data")).get("text/plain"))[:MOST_TEXT]
        if title := TITLE.search(text):
            points = POINTS.search(text)
            found = OwnRun(title[2], points[1] if points else "", _claims(text))
    return found


def _claims(text: str) -> tuple[tuple[str, ...], ...]:
    """Read the table of claims: columns stand two blanks apart."""
    _, found, table = text.partition("\nClaims\n")
    rows = table.partition("\n\n")[0].splitlines()[1:] if found else []
    columns = [re.split(r"\s{2,}", row.strip()) for row in rows[:MOST_CLAIMS]]
    return tuple(tuple(row) for row in columns if len(row) == 4)


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _joined(text: Any) -> str:
    """Return the text of a notebook's field: a string or a list of lines."""
    if isinstance(text, list):
        text = "".join(line for line in text if isinstance(line, str))
    text = text if isinstance(text, str) else ""
    # Halves of a surrogate pair are JSON and no text.
    return text.encode("utf-8", "replace").decode("utf-8")
