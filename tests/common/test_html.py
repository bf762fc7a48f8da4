"""HTML in which nobody's text becomes markup."""

from markupsafe import Markup

from labs_helpers.common.html import page, render, table


def test_text_is_escaped_and_markup_is_not():
    drawn = table(("<a>", "b"), [("1 < 2", Markup("<b>2</b>"))])
    assert "&lt;a&gt;" in drawn
    assert "1 &lt; 2" in drawn
    assert "<b>2</b>" in drawn
    assert drawn.count("<tr>") == 2


def test_a_page_is_whole():
    text = page("<script>", render("<p>{{ said }}</p>", said="</p>"))
    assert text.startswith("<!DOCTYPE html>")
    assert "<title>&lt;script&gt;</title>" in text
    assert "<p>&lt;/p&gt;</p>" in text
