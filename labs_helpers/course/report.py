"""The table at the end of a lab: claims, exercises, predictions.

In go plain rows, out come text for terminals and HTML for Jupyter. Computes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from labs_helpers.common.printable import one_line, printable
from labs_helpers.course.results import Claim

Table = tuple[Sequence[str], Sequence[Sequence[str]]]

COLOURS = {
    "holds": "#1b7837",
    "does not hold": "#b2182b",
    "goal not reached": "#b35806",
    "correct": "#1b7837",
}
CELL = "text-align:left;vertical-align:top;padding:0.25em 0.8em"


@dataclass(frozen=True)
class ExerciseResult:
    """What an exercise earned, and what its check said last."""

    id: str
    title: str
    points: float
    max_points: float
    diagnosis: str


@dataclass(frozen=True)
class Report:
    """What a lab showed and what the student did."""

    title: str
    claims: Sequence[Claim]
    exercises: Sequence[ExerciseResult]
    predictions: Sequence[tuple[str, str, str]]
    closing: str

    def tables(self) -> dict[str, Table]:
        """Headings and rows by caption, without the empty tables."""
        points = sum(row.points for row in self.exercises)
        max_points = sum(row.max_points for row in self.exercises)
        tables = {
            "Claims": claims_table(self.claims),
            f"Exercises: {points:g} of {max_points:g} points": (
                ("", "exercise", "points", "check"),
                [
                    (
                        row.id,
                        row.title,
                        f"{row.points:g} of {row.max_points:g}",
                        row.diagnosis,
                    )
                    for row in self.exercises
                ],
            ),
            "Predictions": (("", "you said", "it was"), self.predictions),
        }
        return {caption: table for caption, table in tables.items() if table[1]}

    def __repr__(self) -> str:
        parts = [self.title]
        parts += [
            f"{caption}\n{text_table(*table)}"
            for caption, table in self.tables().items()
        ]
        return printable("\n\n".join([*parts, self.closing]))

    def _repr_html_(self) -> str:
        tables = "".join(
            f"<h4>{escape(caption)}</h4>{_html_table(*table)}"
            for caption, table in self.tables().items()
        )
        return f"<h3>{escape(self.title)}</h3>{tables}<p>{escape(self.closing)}</p>"


def claims_table(claims: Sequence[Claim]) -> Table:
    """Return headings and one row for each claim."""
    return (
        ("claim", "measured", "bound", "verdict"),
        [(c.text, c.measured, c.bound, c.verdict) for c in claims],
    )


def text_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], widest: int = 60
) -> str:
    """Align columns; what is wider than `widest` is cut.

    >>> print(text_table(("name", "shape"), [("values", "(2, 3)"), ("n", "()")]))
    name    shape
    values  (2, 3)
    n       ()
    """
    lines = [[_cut(str(cell), widest) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def _cut(cell: str, widest: int) -> str:
    return one_line(cell, widest)


def _html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th style="{CELL}">{escape(text)}</th>' for text in headings)
    body = "".join(f"<tr>{''.join(map(_html_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_cell(text: str) -> str:
    colour = COLOURS.get(text)
    style = f"{CELL};color:{colour};font-weight:bold" if colour else CELL
    return f'<td style="{style}">{escape(str(text))}</td>'
