"""The HTML page of a notebook: whole by itself, readable on a phone and on paper."""

import re
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from labs_helpers.course.profile import ROOT
from labs_tools.pages import mathml, to_html

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)
LABS = sorted((ROOT / "notebooks").glob("[1-9]_*.ipynb"))


def figure(**metadata):
    return new_output("display_data", data={"image/png": PNG}, metadata=metadata)


def notebook():
    long = "value = " + " + ".join(f"number_{i}" for i in range(60))
    return new_notebook(
        cells=[
            new_markdown_cell(
                "# Lab\n\n[![Open in Colab](https://colab.example/b.svg)](https://x.y)"
            ),
            new_markdown_cell(
                "## 1 · Losses, $k_3$\n\n$$\\mathcal L = \\log \\sigma(x)$$"
            ),
            new_markdown_cell(
                "### A part\n\nWhere $h = a\n- b$ and $x_1 < y$.\n\n<details>"
                "<summary>Hint</summary>\n\nThe hidden hint.\n\n</details>"
            ),
            new_code_cell(
                long,
                outputs=[
                    figure(),
                    figure(**{"image/png": {"alt": "Losses fall & rise"}}),
                    new_output("stream", text="w " * 300),
                ],
            ),
            new_markdown_cell("## 2 · The end"),
        ]
    )


@pytest.fixture(scope="module")
def page():
    return to_html(notebook(), "1_lab")


def elsewhere(page: str) -> list[str]:
    """What a browser would fetch to show the page."""
    loaded = (
        r"<(?:img|script|link|iframe)\b[^>]*?(?:src|href)=[\"']?(?!data:)([^\"' >]+)"
    )
    return re.findall(loaded, page) + re.findall(
        r"url\((?!data:|[\"']data:)([^)]+)", page
    )


def test_a_page_needs_nothing_from_elsewhere(page):
    assert elsewhere(page) == []
    assert "import(" not in page
    assert "Open in Colab" in page


def test_formulas_are_drawn_without_a_script(page):
    assert (
        page.count("<math") == 5
    )  # the one of the heading stands in the contents, too
    assert "$" not in re.sub(r"<(style|script).*?</\1>", "", page, flags=re.DOTALL)
    assert "ℒ" in page


def test_contents_lead_to_every_heading(page):
    nav = re.search(r'<nav class="contents".*?</nav>', page, re.DOTALL)[0]
    anchors = re.findall(r'href="#([^"]+)"', nav)
    assert len(anchors) == 3
    for anchor in anchors:
        assert f'id="{anchor}"' in page
    assert nav.index("A part") > nav.index("Losses")


def test_every_figure_says_what_it_shows(page):
    alts = re.findall(r'<img[^>]*\balt="([^"]*)"', page)
    assert alts == ["Figure: A part", "Losses fall &amp; rise"]
    assert "No description" not in page


@pytest.mark.parametrize(
    "formula", [r"\frac{1}{2", r"\unknown{x}", "", r"\left( x", "a & b", "<script>"]
)
def test_odd_formulas_do_not_stop_a_page(formula):
    assert "<script>" not in mathml(formula, "inline")


def test_functions_keep_their_distance():
    assert "mspace" in mathml(r"\beta \log n", "inline")
    assert "mspace" not in mathml(r"\log(n)", "inline")


@pytest.mark.slow
@pytest.mark.parametrize("path", LABS, ids=lambda path: path.stem)
def test_the_labs_are_whole_pages(path):
    page = to_html(nbformat.read(path, as_version=4), path.stem)
    assert elsewhere(page) == []
    assert len(page) < 3e6
    assert page.count("<math") > 10
    cells = re.findall(
        r'jp-MarkdownOutput.*?(?=<div class="jp-Cell|$)', page, re.DOTALL
    )
    for cell in cells:
        bare = re.sub(r"<(code|pre|math|div class=.highlight.).*?</\1>", "", cell)
        assert "\\frac" not in bare
    for image in re.findall(r"<img[^>]{0,200}", page):
        assert 'alt="' in image


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_shows_it_without_network(page, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    path = tmp_path / "page.html"
    path.write_text(page, encoding="utf-8")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=flags
        )
        context = browser.new_context(
            viewport={"width": 390, "height": 844}, offline=True
        )
        tab = context.new_page()
        asked, said = [], []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto(path.as_uri())
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert said == []
        # On a phone the page stays as wide as the screen, and long code scrolls.
        assert tab.evaluate("document.documentElement.scrollWidth") == 390
        wide = "(x) => x.scrollWidth - x.clientWidth"
        assert tab.locator(".jp-InputArea-editor").evaluate(wide) > 100
        said_by_code = tab.locator(".jp-OutputArea-output pre").first
        breaks = "(x) => getComputedStyle(x).wordBreak"
        assert said_by_code.evaluate(breaks) == "normal"  # between words
        assert not tab.get_by_text("The hidden hint.").is_visible()
        # On paper it wraps, and hints are open.
        tab.emulate_media(media="print")
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert tab.get_by_text("The hidden hint.").is_visible()
        assert tab.locator(".jp-InputArea-editor").evaluate(wide) <= 1
        tab.evaluate("dispatchEvent(new Event('afterprint'))")
        tab.emulate_media(media="screen")
        assert not tab.get_by_text("The hidden hint.").is_visible()
        browser.close()
