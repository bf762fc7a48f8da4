"""HTML by jinja2: whatever is put in is escaped, unless it is Markup."""

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, Template
from markupsafe import Markup

_TABLE = """<table><thead><tr>
{%- for text in headings %}<th style="{{ cell }}">{{ text }}</th>{% endfor -%}
</tr></thead><tbody>
{%- for row in rows %}<tr>
{%- for text in row %}<td style="{{ cell }}">{{ text }}</td>{% endfor -%}
</tr>{% endfor -%}
</tbody></table>"""
_CELL = "text-align:left;vertical-align:top;padding:0.25em 0.8em"
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 56em; margin: 2em auto;
  padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
th, td { border-bottom: 1px solid #ddd }
pre { background: #f6f6f6; padding: 0.8em; overflow-x: auto; white-space: pre-wrap }
.right { color: #1b7837 } .wrong { color: #b2182b } .quiet { color: #666 }
img { max-width: 100% }
</style></head><body>
{{ body }}
</body></html>
"""


def render(template: str, **values: Any) -> Markup:
    """Fill a template of jinja2; values are escaped unless they are Markup.

    >>> render("<p>{{ text }}</p>", text="a < b")
    Markup('<p>a &lt; b</p>')
    """
    return Markup(_compiled(template).render(values))


def table(headings: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Markup:
    """A table that looks the same in a notebook and on a page."""
    return render(_TABLE, headings=headings, rows=rows, cell=_CELL)


def page(title: str, body: Markup) -> str:
    """A whole page in the project's plain style: classes right, wrong and quiet."""
    return str(render(_PAGE, title=title, body=body))


@cache
def _compiled(template: str) -> Template:
    environment = Environment(
        autoescape=True,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
    )
    return environment.from_string(template)
