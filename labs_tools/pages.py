"""An executed notebook as one HTML page that needs nothing else.

A notebook comes in, the text of a page goes out: formulas as MathML, which browsers
draw by themselves, a table of contents, a description of every figure, code that
scrolls on a phone and wraps on paper. The page asks no network for anything.
"""

import html
import re
import unicodedata
from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import pass_context
from latex2mathml.converter import convert
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode

from labs_tools.progress import headings

TEMPLATE = Path(__file__).with_name("page.html.j2")
CONTENTS = "<!-- contents -->"
IMAGES = ("image/png", "image/jpeg", "image/svg+xml")


def to_html(notebook: NotebookNode, title: str) -> str:
    """Render a notebook in JupyterLab's style, as one file."""
    exporter = Page(raw_template=TEMPLATE.read_text(encoding="utf-8"))
    exporter.log.setLevel("ERROR")
    cells = notebook.cells
    places = {c.id: h for c, h in zip(cells, headings(cells), strict=True)}
    exporter.register_filter("with_alt", partial(_with_alt, places))
    page = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})[0]
    page = _ELSEWHERE.sub(_alt_of, page)
    return page.replace(CONTENTS, contents(page), 1)


class Page(HTMLExporter):
    """nbconvert's page, with formulas that no script has to draw."""

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """Markdown of a cell, or of an output, as HTML."""
        attachments = context.get("cell", {}).get("attachments", {})
        renderer = Renderer(escape=False, attachments=attachments)
        whole = _WRAPPED.sub(r"\1 ", source)
        return MarkdownWithMath(renderer=renderer).render(whole)


# A formula that goes on with a minus on the next line is no list.
_WRAPPED = re.compile(r"(\$[^$\n]+)\n\s*(?=[-+*] [^$\n]*\$)")


class Renderer(IPythonRenderer):
    """Markdown with formulas as MathML."""

    def block_math(self, body: str) -> str:
        """A formula on lines of its own."""
        return mathml(body, "block")

    def inline_math(self, body: str) -> str:
        """A formula within a line."""
        return mathml(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        """Such as align."""
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


@cache
def mathml(formula: str, display: str) -> str:
    """A formula in LaTeX as MathML; what cannot be converted stays as it is.

    Args:
        formula: without dollars.
        display: "block" or "inline".
    """
    try:
        drawn = convert(formula.strip(), display=display, xmlns="")
    except Exception:  # whatever a student's own formula runs into
        return f"<code>{html.escape(formula)}</code>"
    drawn = _LETTERS.sub(_letter, drawn)
    space = '<mspace width="0.17em" />'
    return _BEFORE.sub(space, _AFTER.sub(space, drawn))


# Browsers draw ℒ and 𝔼 only where they are written as such.
_LETTERS = re.compile(r'<mi mathvariant="(double-struck|script)">([A-Z])</mi>')
# Between a function's name and what stands beside it without brackets.
_NAMED = "<m[io]>(?:log|exp|max|min|sup|inf)</m[io]>"
_AFTER = re.compile("(?<=log</mi>|exp</mi>)(?=<m(?:i|frac|sub|sqrt))")
_BEFORE = re.compile(f"(?<=</mi>|</mn>)(?={_NAMED})")


def _letter(found: re.Match[str]) -> str:
    style, letter = found[1].upper(), found[2]
    for prefix in ("", "MATHEMATICAL "):
        try:
            name = f"{prefix}{style} CAPITAL {letter}"
            return f"<mi>{unicodedata.lookup(name)}</mi>"
        except KeyError:
            continue
    return found[0]


def _with_alt(
    headings: dict[str, str], drawn: str, output: NotebookNode, cell: NotebookNode
) -> str:
    """Put what a figure shows into its element: what the lab says, or the heading."""
    about = output.get("metadata", {})
    said = [about[kind]["alt"] for kind in IMAGES if "alt" in about.get(kind, {})]
    alt = said[0] if said else f"Figure: {headings.get(cell.id, '')}".rstrip(": ")
    return drawn.replace("<img ", f'<img alt="{html.escape(alt)}" ', 1)


# Images that are not in the page, such as Colab's badge: their text stands for them.
_ELSEWHERE = re.compile(r'<img\b(?=[^>]*\bsrc="(?!data:))[^>]*>')


def _alt_of(image: re.Match[str]) -> str:
    alt = re.search(r'\balt="([^"]*)"', image[0])
    return alt[1] if alt else ""


def contents(page: str) -> str:
    """The table of contents of a page: its headings of the second and third level."""
    lines = [
        f'<li class="h{level}"><a href="#{anchor}">{text.strip()}</a></li>'
        for level, anchor, text in _HEADING.findall(page)
    ]
    if not lines:
        return ""
    return (
        f'<nav class="contents" aria-label="Contents"><ol>{"".join(lines)}</ol></nav>'
    )


_HEADING = re.compile(
    r'<h([23]) id="([^"]+)">(.*?)<a class="anchor-link"[^>]*>.*?</a></h[23]>', re.DOTALL
)
