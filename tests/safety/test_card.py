"""The model card holds every figure with its interval and its command."""

from labs_helpers.estimates import Estimate
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
    assert "# Model card: town <s>" in text
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
    assert page.read_text().startswith("<!doctype html>")
