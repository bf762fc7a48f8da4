"""Text of others on a terminal: nothing in it is obeyed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.common.printable import one_line, printable


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[Hclear", "clear"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x.y\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;aGk=\x07", ""),
        ("\x1bPqsixel\x1b\\end", "end"),
        ("\x9b31mred", "red"),
        ("\x9d0;title\x9ctext", "text"),
        ("\x1bcreset", "reset"),
        ("\x1b(0lines", "lines"),
        ("\x1b]0;without an end", ""),
        ("over\rwritten\x08\x07\x00", "overwritten"),
        ("a\u202eb\u2066c", "abc"),
        ("half \ud83d pair", "half \ufffd pair"),
        ("kept:\n\té 😊 שלום", "kept:\n\té 😊 שלום"),
        ("a\r\nb", "a\nb"),
    ],
)
def test_what_a_terminal_obeys_is_taken_out(text, plain):
    assert printable(text) == plain


@given(st.text())
def test_no_control_character_is_left(text):
    found = printable(text)
    assert not {"\x1b", "\x07", "\x9b", "\r", "\x00"} & set(found)
    assert printable(found) == found
    found.encode()


def test_one_line_is_cut():
    assert one_line("a\nb  c") == "a b c"
    assert one_line("x" * 500, 10) == "x" * 9 + "…"
