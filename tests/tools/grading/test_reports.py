"""Tables, pages and the figure of mistakes."""

import csv
import re

from labs_tools.grading import reports
from labs_tools.grading.reports import Entry
from labs_tools.grading.scoring import Result, Score


def entry(student="=1+1", diagnosis="sum for mean", points=0.0, flags=()):
    scores = [Score("1.1", "check_f", "a title", points, 2.0, diagnosis, "<b>why</b>")]
    result = Result(1, flags=list(flags), scores=scores, answers={"f": "<script>"})
    scores[0].solution = "f"
    return Entry(student, "x.ipynb", result)


def test_grades_are_a_table(tmp_path):
    text = reports.grades_csv([entry(flags=["not executed"]), entry("b", points=None)])
    rows = list(csv.DictReader(text.splitlines()))
    assert list(rows[0]) == list(reports.COLUMNS)
    assert rows[0]["student"] == "'=1+1"  # no formula for a spreadsheet
    assert rows[0]["flags"] == "not executed"
    assert rows[1]["points"] == ""


def test_pages_escape_what_students_write():
    page = reports.feedback_html("<i>", [entry()])
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<b>why" not in page


def test_report_counts_mistakes():
    entries = [entry("a"), entry("b"), entry("c", "correct", 2.0)]
    page = reports.class_html(entries, b"", "no bubblewrap")
    text = re.sub(r"<[^>]+>", " ", page)
    assert re.search(r"sum for mean\s+2\s", text)
    assert "no bubblewrap" in page
    bars = reports.common_mistakes(entries).axes[0].patches
    assert [bar.get_width() for bar in bars] == [2]
    assert reports.common_mistakes([]).axes


def test_points_by_hand_replace_ours():
    graded = entry()
    graded.take({"check_f": 1.5})
    assert graded.result.scores[0].points == 1.5
    assert reports.CORRECTED in graded.result.scores[0].flags


def test_identifiers_differ_as_names_do():
    names = ["anna", "Anna", "Anna Ö", "Anna Ä", "../x", "a/b", "a-b"]
    names.append(reports.identifier("Müller"))  # a student may be called that
    names.append("Müller")
    found = [reports.identifier(name) for name in names]
    assert len({name.lower() for name in found}) == len(names)
    assert found[0] == "anna"
    assert all("/" not in name and not name.startswith(".") for name in found)
