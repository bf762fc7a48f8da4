"""Text that somebody else wrote, made safe to print.

Any text in, text out that no terminal obeys: escape sequences that colour, move the
cursor, set the window's title or the clipboard are gone, and so are other control
characters and those that turn the direction of writing. Knows nothing of HTML.
"""

import re
from collections.abc import Sequence

# ECMA-48: CSI ... final; OSC, DCS, SOS, PM, APC up to ST or BEL; two-byte escapes.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[]PX^_]|[\x90\x98\x9d-\x9f]).*?(?:\x1b\\|\x9c|\x07|\Z)"
    r"|\x1b[ -/]*[0-~]?",
    re.DOTALL,
)
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
_SURROGATES = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text without what a terminal obeys; line ends and tabs stay.

    >>> printable("\x1b[31mred\x1b[0m \x1b]0;title\x07bell\x07 a\r\nb")
    'red bell a\nb'
    """
    plain = _ESCAPES.sub("", text.replace("\r\n", "\n"))
    return _SURROGATES.sub("\ufffd", _CONTROLS.sub("", plain))


def one_line(text: str, longest: int = 400) -> str:
    """The same on one line, cut where it gets too long."""
    line = " ".join(printable(text).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def text_table(
    headings: Sequence[object], rows: Sequence[Sequence[object]], widest: int = 60
) -> str:
    """Align columns; what is wider than `widest` is cut.

    >>> print(text_table(("name", "shape"), [("values", "(2, 3)"), ("n", "()")]))
    name    shape
    values  (2, 3)
    n       ()
    """
    lines = [[one_line(str(cell), widest) for cell in row] for row in (headings, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)
