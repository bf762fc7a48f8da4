"""Read the lines of a preference file, and report what is wrong with them.

Yields JSON values with file and line number. Knows encodings, JSON Lines and what a
report looks like, not what a preference is.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHOWN_OF_A_KIND = 10


class BadPreferences(ValueError):
    """A preference set with errors; the message is the report."""


@dataclass(frozen=True)
class Finding:
    """One problem: where it is, what it is, and what to do about it."""

    file: str
    line: int
    field: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" + (f", {self.field}" if self.field else "")
        return f"{where}: {self.problem}. {self.remedy}."


@dataclass
class PreferenceReport:
    """What `check_preferences` found.

    Attributes:
        rows: The number of usable rows: those without an error.
        total: The number of rows read.
        errors: What makes a row unusable.
        warnings: What is suspicious and usable.
    """

    rows: int = 0
    total: int = 0
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every row is usable."""
        return not self.errors

    def __str__(self) -> str:
        lines = [
            f"{self.rows} of {self.total} rows are usable: "
            f"{_count(self.errors, 'error')}, {_count(self.warnings, 'warning')}."
        ]
        for title, findings in (("Error", self.errors), ("Warning", self.warnings)):
            kinds: dict[tuple[str, str], list[Finding]] = {}
            for finding in findings:
                kinds.setdefault((finding.field, finding.remedy), []).append(finding)
            for kind in kinds.values():
                lines += [f"{title}: {finding}" for finding in kind[:SHOWN_OF_A_KIND]]
                if len(kind) > SHOWN_OF_A_KIND:
                    rest = kind[SHOWN_OF_A_KIND:]
                    where = f"{len(rest)} more like the last, to line {rest[-1].line}"
                    lines.append(f"{title}: {where}.")
        return "\n".join(lines)


def _count(findings: list[Finding], noun: str) -> str:
    return f"{len(findings)} {noun}" + ("" if len(findings) == 1 else "s")


def read_rows(
    path: Path, report: PreferenceReport
) -> Iterator[tuple[str, int, dict[str, Any] | None]]:
    """Yield file, line number and row; None for a row that cannot be read."""

    def unreadable(line: int, problem: str, remedy: str) -> tuple[str, int, None]:
        report.errors.append(Finding(str(path), line, "", problem, remedy))
        return str(path), line, None

    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as stream:
            content = stream.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        remedy = "Fetch it again, or take .gz off the name of a file that is not packed"
        yield unreadable(1, f"cannot be unpacked: {error}", remedy)
        return
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        yield unreadable(1, "is in UTF-16, expected UTF-8", _recode("UTF-16"))
        return
    if content.lstrip().startswith(b"["):
        yield unreadable(
            1,
            "holds one JSON list, expected JSON Lines: one object a line",
            "Write each object on a line of its own, without commas between",
        )
        return
    for line, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            row = json.loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            yield unreadable(
                line,
                f"is not UTF-8: byte 0x{byte:02x} at position {error.start + 1}",
                _recode("WINDOWS-1252"),
            )
        except json.JSONDecodeError as error:
            yield unreadable(
                line,
                f"is no JSON: {error.msg} at column {error.colno}",
                "Write one complete JSON object on the line, as json.dumps does",
            )
        else:
            if row is None:
                yield unreadable(line, "is null, expected an object", "Remove it")
            else:
                yield str(path), line, row


def _recode(encoding: str) -> str:
    return f"Save it as UTF-8: iconv -f {encoding} -t UTF-8 old > new"
