"""What a report on a set of rows looks like: its findings, with place and remedy.

Knows neither files nor rows.
"""

from dataclasses import dataclass, field

from labs_helpers.common.printable import printable

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
        return printable("\n".join(lines))


def _count(findings: list[Finding], noun: str) -> str:
    return f"{len(findings)} {noun}" + ("" if len(findings) == 1 else "s")
