"""The model card holds every figure with its interval and its command."""

import pytest

from labs_helpers.evaluation import Estimate
from labs_helpers.safety import Figure, ModelCard

CARD = ModelCard(
    "town <s>",
    "An assistant of a made-up town.",
    [
        Figure(
            "attacks that succeed",
            Estimate(0.1, 0.05, 0.15, 272),
            "lower",
            "Harm",
            "labs run 4",
            Estimate(0.6, 0.5, 0.7, 272),
        ),
        Figure("a | b", Estimate(-0.5, -1.0, 0.0, 1200), None, "Use", "labs run 4"),
    ],
    training=("SFT",),
    limits=("Not for people.",),
    compared_with="before",
    suites=("harmful.jsonl",),
    date="2026-11-24",
)


def test_markdown():
    text = CARD.to_markdown()
    assert "# Model card: town &lt;s&gt;" in text
    assert (
        "| attacks that succeed | 0.100 | 0.050 to 0.150 | 272 | lower | "
        "0.600 (0.500 to 0.700) |" in text
    )
    assert "| a / b | −0.500 | −1.000 to 0.000 | 1,200 |  |" in text
    assert text.count("`labs run 4`") == 2
    assert "## How it was made" in text
    assert "Measured 2026-11-24" in text


def test_html_is_escaped_and_whole():
    page = CARD.to_html()
    assert "town &lt;s&gt;" in page
    assert "<s>" not in page
    assert page.count("<table>") == page.count("</table>") == 2
    assert "0.050 to 0.150" in page


def test_both_are_written(tmp_path):
    markdown, page = CARD.write(tmp_path / "cards")
    assert markdown.read_text() == CARD.to_markdown()
    assert page.read_text().startswith("<!DOCTYPE html>")


HOSTILE = [
    "<script>alert(1)</script>",
    "</table><img src=x onerror=alert(1)>",
    "a\n\n# A heading\n| b | c |",
    "[here](javascript:alert(1))",
    "![](http://tracker.example/x.png)",
    "`code` $x$",
    "\x1b]0;title\x07\x1b[31mred",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_models_is_text(text):
    card = ModelCard(
        text,
        text,
        [Figure(text, Estimate(0.1, 0.0, 0.2, 9), None, text, f"labs `{text}`")],
        training=(text,),
        limits=(text,),
        compared_with=text,
        suites=(text,),
    )
    markdown, page = card.to_markdown(), card.to_html()
    for written in (markdown, page):
        assert "\x1b" not in written
        assert "\x07" not in written
    assert page.count("<table>") == page.count("</table>") == 1
    outside = "\n".join(x for x in markdown.splitlines() if not x.startswith("`"))
    for sign in ("<script", "</table", "<img"):
        assert sign not in page.replace("</tr></tbody></table>", "")
        assert sign not in outside
    assert "](" not in outside.replace("\\](", "")
    headings = [line for line in markdown.splitlines() if line.startswith("#")]
    assert len(headings) == 5
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len({row.count(" | ") for row in rows}) == 1


def test_a_command_with_backticks_stays_one_piece_of_code():
    figure = Figure("x", Estimate(0.1, 0, 0.2, 9), command="labs `<script>`")
    lines = ModelCard("m", "s", [figure]).to_markdown().splitlines()
    assert "`` labs `<script>` ``" in lines


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", ".", "a\\b", "c:x", "a\nb"])
def test_a_card_stays_in_its_folder(tmp_path, name):
    with pytest.raises(ValueError, match="leads elsewhere"):
        CARD.write(tmp_path / "cards", name)
    assert list(tmp_path.iterdir()) == []
