"""A model card: what was measured, how far to trust it, and how to measure it again.

Figures come in, Markdown and HTML go out. Every figure stands with its 95 % interval,
the number of measurements and the command that makes it. Measures nothing itself.
"""

import html
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from labs_helpers.common.printable import one_line
from labs_helpers.evaluation import Estimate


@dataclass(frozen=True)
class Figure:
    """One line of a card.

    Attributes:
        name: what was measured, in words.
        estimate: its value and interval.
        better: which way is good; None where neither is.
        group: the section that it stands in.
        command: makes this figure again.
        compared: the same of the model that this one was made from.
    """

    name: str
    estimate: Estimate
    better: Literal["lower", "higher"] | None = None
    group: str = "Safety"
    command: str = ""
    compared: Estimate | None = None


@dataclass(frozen=True, repr=False)
class ModelCard:
    """What a reader needs to know of a model before they use it.

    Attributes:
        model: its name.
        summary: what it is, a few sentences.
        figures: in order; groups are formed in order of appearance.
        training: how it was made, one step a line.
        limits: what it is not good for, one a line.
        compared_with: the name of the model in the column of comparison.
        suites: which suites were used, with their sources.
    """

    model: str
    summary: str
    figures: Sequence[Figure]
    training: Sequence[str] = ()
    limits: Sequence[str] = ()
    compared_with: str = ""
    suites: Sequence[str] = ()
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    def to_markdown(self) -> str:
        """The card as Markdown."""
        lines = [f"# Model card: {_plain(self.model)}", "", _plain(self.summary), ""]
        for title, entries in self._lists():
            lines += [f"## {title}", "", *(f"- {_plain(x)}" for x in entries), ""]
        for group, figures in self._groups():
            header = self._header(figures)
            rows = [header, *(self._cells(f, len(header)) for f in figures)]
            table = [_row(map(_plain, row)) for row in rows]
            lines += [f"## {_plain(group)}", "", table[0], _row(["---"] * len(header))]
            lines += [*table[1:], "", *map(_code, self._commands(figures)), ""]
        return "\n".join([*lines, f"_{self._origin()}_", ""])

    def to_html(self) -> str:
        """The card as a page of its own."""
        parts = [f"<h1>Model card: {_escaped(self.model)}</h1>"]
        parts.append(f"<p>{_escaped(self.summary)}</p>")
        for title, entries in self._lists():
            points = "".join(f"<li>{_escaped(x)}</li>" for x in entries)
            parts.append(f"<h2>{title}</h2><ul>{points}</ul>")
        for group, figures in self._groups():
            header = self._header(figures)
            rows = [_html_row(header, "th")]
            rows += [_html_row(self._cells(f, len(header)), "td") for f in figures]
            parts.append(f"<h2>{_escaped(group)}</h2><table>{''.join(rows)}</table>")
            commands = self._commands(figures)
            parts += [f"<p><code>{_escaped(x)}</code></p>" for x in commands]
        parts.append(f"<p><i>{_escaped(self._origin())}</i></p>")
        body = "\n".join(parts)
        title = _escaped(self.model)
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8">'
            f"<title>Model card: {title}</title><style>{STYLE}</style>"
            f"<body>\n{body}\n</body></html>\n"
        )

    def write(self, folder: str | Path, name: str = "model_card") -> tuple[Path, Path]:
        """Write both forms; return the paths of the Markdown and the HTML file.

        Raises:
            ValueError: `name` would lead out of the folder.
        """
        if not re.fullmatch(r"[^/\\:\x00-\x1f]+", name) or set(name) <= {"."}:
            raise ValueError(
                f"a card's name is that of a file in the folder, got {name!r}: leave "
                "out what leads elsewhere"
            )
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        paths = folder / f"{name}.md", folder / f"{name}.html"
        for path, text in zip(paths, (self.to_markdown(), self.to_html()), strict=True):
            path.write_text(text, encoding="utf-8")
        return paths

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def __repr__(self) -> str:
        return f"ModelCard of {self.model} with {len(self.figures)} figures"

    def _lists(self) -> list[tuple[str, Sequence[str]]]:
        titles = {
            "How it was made": self.training,
            "What it is not for": self.limits,
            "Suites": self.suites,
        }
        return [(title, entries) for title, entries in titles.items() if entries]

    def _groups(self) -> list[tuple[str, list[Figure]]]:
        groups: dict[str, list[Figure]] = {}
        for figure in self.figures:
            groups.setdefault(figure.group, []).append(figure)
        return list(groups.items())

    def _header(self, figures: Sequence[Figure]) -> list[str]:
        header = ["measured", "value", "95 % interval", "n", "better"]
        if any(figure.compared for figure in figures):
            header.append(self.compared_with or "before")
        return header

    def _cells(self, figure: Figure, width: int) -> list[str]:
        value = figure.estimate
        cells = [figure.name, _number(value.value), _interval(value), f"{value.n:,}"]
        cells.append(figure.better or "")
        if width > len(cells):
            old = figure.compared
            cells.append(
                "" if old is None else f"{_number(old.value)} ({_interval(old)})"
            )
        return cells

    def _commands(self, figures: Sequence[Figure]) -> list[str]:
        return list(dict.fromkeys(f.command for f in figures if f.command))

    def _origin(self) -> str:
        packages = ("alignment-labs", "torch", "transformers")
        versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
        return f"Measured {self.date}, {platform.machine()}, {versions}."


LONGEST = 4000  # characters of a text in a card
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;"
    "padding:0 1rem;color:#222}table{border-collapse:collapse;width:100%}"
    "th,td{border-bottom:1px solid #ddd;padding:.3rem .6rem;text-align:left}"
    "th{background:#f4f4f4}code{background:#f4f4f4;padding:.1rem .3rem}"
)


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _interval(estimate: Estimate) -> str:
    return f"{_number(estimate.low)} to {_number(estimate.high)}"


def _plain(text: str) -> str:
    """Text that models or people wrote, none of which Markdown takes for a sign."""
    marked = re.sub(r"([\\`\[\]$])", r"\\\1", one_line(text, LONGEST))
    return html.escape(marked, quote=False)


def _code(command: str) -> str:
    """A command between more backticks than it holds."""
    command = one_line(command, LONGEST)
    held = max(map(len, re.findall("`+", command)), default=0)
    if not held:
        return f"`{command}`"
    return f"{'`' * (held + 1)} {command} {'`' * (held + 1)}"


def _escaped(text: str) -> str:
    return html.escape(one_line(text, LONGEST))


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _html_row(cells: Sequence[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{_escaped(c)}</{tag}>' for c in cells)}</tr>"
