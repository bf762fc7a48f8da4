"""A model card: what was measured, how far to trust it, and how to measure it again.

Figures come in, Markdown and HTML go out. Every figure stands with its 95 % interval,
the number of measurements and the command that makes it.
"""

import html
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

from labs_helpers.common.files import write_atomically
from labs_helpers.common.html import page, render, table
from labs_helpers.common.printable import one_line
from labs_helpers.evaluation import Estimate

_clean = partial(one_line, longest=4000)
_BODY = """<h1>Model card: {{ clean(card.model) }}</h1>
<p>{{ clean(card.summary) }}</p>
{% for title, entries in lists %}
<h2>{{ title }}</h2><ul>{% for x in entries %}<li>{{ clean(x) }}</li>{% endfor %}</ul>
{% endfor %}
{% for group, table, commands in groups %}
<h2>{{ clean(group) }}</h2>{{ table }}
{% for x in commands %}<p><code>{{ clean(x) }}</code></p>{% endfor %}
{% endfor %}
<p><i>{{ origin }}</i></p>"""


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

    Groups of figures are formed in order of appearance. `training` and `limits` are one
    step and one limit a line; `compared_with` heads the column of comparison.
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
        for group, (head, *rows), commands in self._groups():
            lines += [f"## {_plain(group)}", "", _row(head), _row(["---"] * len(head))]
            lines += [*map(_row, rows), "", *map(_code, commands), ""]
        return "\n".join([*lines, f"_{self._origin()}_", ""])

    def to_html(self) -> str:
        """The card as a page of its own."""
        groups = [
            (group, table(rows[0], rows[1:]), commands)
            for group, rows, commands in self._groups()
        ]
        body = render(
            _BODY,
            card=self,
            clean=_clean,
            lists=self._lists(),
            groups=groups,
            origin=self._origin(),
        )
        return page(f"Model card: {_clean(self.model)}", body)

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
        paths = Path(folder) / f"{name}.md", Path(folder) / f"{name}.html"
        for path, text in zip(paths, (self.to_markdown(), self.to_html()), strict=True):
            write_atomically(path, text)
        return paths

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def __repr__(self) -> str:
        return f"ModelCard of {self.model} with {len(self.figures)} figures"

    def _lists(self) -> list[tuple[str, Sequence[str]]]:
        lists = [
            ("How it was made", self.training),
            ("What it is not for", self.limits),
            ("Suites", self.suites),
        ]
        return [(title, entries) for title, entries in lists if entries]

    def _groups(self) -> Iterator[tuple[str, list[list[str]], list[str]]]:
        """Each group's name, the rows of its table, its head first, and commands."""
        for group in dict.fromkeys(figure.group for figure in self.figures):
            figures = [figure for figure in self.figures if figure.group == group]
            head = ["measured", "value", "95 % interval", "n", "better"]
            compared = any(figure.compared for figure in figures)
            rows = [[*head, self.compared_with or "before"] if compared else head]
            for x in figures:
                number, ends = _number(x.estimate.value), _interval(x.estimate)
                row = [x.name, number, ends, f"{x.estimate.n:,}", x.better or ""]
                before = ""
                if old := x.compared:
                    before = f"{_number(old.value)} ({_interval(old)})"
                rows.append([*row, before] if compared else row)
            rows = [[*map(_clean, row)] for row in rows]
            yield group, rows, [*dict.fromkeys(x.command for x in figures if x.command)]

    def _origin(self) -> str:
        packages = ("alignment-labs", "torch", "transformers")
        versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
        return f"Measured {self.date}, {platform.machine()}, {versions}."


def _number(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _interval(estimate: Estimate) -> str:
    return f"{_number(estimate.low)} to {_number(estimate.high)}"


def _plain(text: str) -> str:
    """Text that models or people wrote, none of which Markdown takes for a sign."""
    marked = re.sub(r"([\\`\[\]$])", r"\\\1", _clean(text))
    return html.escape(marked, quote=False)


def _code(command: str) -> str:
    """A command between more backticks than it holds."""
    command = _clean(command)
    held = max(map(len, re.findall("`+", command)), default=0)
    if not held:
        return f"`{command}`"
    return f"{'`' * (held + 1)} {command} {'`' * (held + 1)}"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_plain(cell).replace('|', '/') for cell in cells)} |"
