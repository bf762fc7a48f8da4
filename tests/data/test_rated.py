"""Rated answers become pairs: all in all, and of each aspect."""

import json
import logging

import pytest

from labs_helpers.data import (
    BadPreferences,
    Preference,
    check_preferences,
    load_preferences,
)
from labs_helpers.data.preferences import from_trl

ASPECTS = ("helpfulness", "honesty")


def completion(text, overall, *ratings):
    notes = {
        name: {"Rating": rating, "Rationale": "So."}
        for name, rating in zip(ASPECTS, ratings, strict=True)
    }
    return {"response": text, "overall_score": overall, "annotations": notes}


ULTRAFEEDBACK = {
    "source": "x",
    "instruction": "Who?",
    "completions": [
        completion("a", 8.5, "5", "2"),
        completion("b", 5, "3", "N/A"),
        completion("c", 2, "5", "4"),
    ],
}
HELPSTEER = [
    {"prompt": "Who?", "response": "a", "helpfulness": 4, "verbosity": 1},
    {"prompt": "Why?", "response": "x", "helpfulness": 2, "verbosity": 0},
    {"prompt": "Who?", "response": "b", "helpfulness": 1, "verbosity": 3},
    {"prompt": "Why?", "response": "y", "helpfulness": 2, "verbosity": 3},
]


def write(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pair(prompt, chosen, rejected, margin, dimension=None):
    return Preference(prompt, chosen, rejected, margin=margin, dimension=dimension)


class TestUltraFeedback:
    def test_one_pair_all_in_all(self, tmp_path):
        path = write(tmp_path / "uf.jsonl", [ULTRAFEEDBACK])
        assert load_preferences(path) == [pair("Who?", "a", "c", 6.5)]

    def test_and_one_of_each_aspect_without_what_nobody_rated(self, tmp_path):
        path = write(tmp_path / "uf.jsonl", [ULTRAFEEDBACK])
        assert load_preferences(path, every_aspect=True) == [
            pair("Who?", "a", "c", 6.5),
            pair("Who?", "c", "b", 2.0, "helpfulness"),
            pair("Who?", "c", "a", 2.0, "honesty"),
        ]

    def test_equal_scores_make_no_pair_and_are_counted(self, tmp_path, caplog):
        same = {
            "instruction": "Why?",
            "completions": [completion("a", 5, "3", "3")] * 2,
        }
        path = write(tmp_path / "uf.jsonl", [ULTRAFEEDBACK, same])
        with caplog.at_level(logging.WARNING):
            assert len(load_preferences(path)) == 1
        assert "skipped 1 of 2 rows, the first because it has no two" in caplog.text

    def test_the_report_has_the_line(self):
        same = {
            "instruction": "Why?",
            "completions": [completion("a", 5, "3", "3")] * 2,
        }
        report = check_preferences([ULTRAFEEDBACK, same])
        assert (report.ok, report.rows, report.total) == (True, 1, 2)
        assert str(report.warnings[0]).startswith("rows:2: has no two answers")


class TestHelpSteer:
    def test_rows_of_a_prompt_make_a_pair_by_their_helpfulness(self):
        assert from_trl(HELPSTEER) == [pair("Who?", "a", "b", 3.0)]

    def test_attributes_are_aspects(self, tmp_path):
        path = write(tmp_path / "hs.jsonl", HELPSTEER)
        assert load_preferences(path, every_aspect=True) == [
            pair("Who?", "a", "b", 3.0),
            pair("Who?", "a", "b", 3.0, "helpfulness"),
            pair("Who?", "b", "a", 2.0, "verbosity"),
            pair("Why?", "y", "x", 3.0, "verbosity"),
        ]

    def test_an_empty_answer_is_named_with_the_line_of_its_prompt(self, tmp_path):
        rows = [HELPSTEER[0], {**HELPSTEER[2], "response": " "}]
        with pytest.raises(BadPreferences, match=r"hs\.jsonl:1, rejected: is empty"):
            load_preferences(write(tmp_path / "hs.jsonl", rows))


@pytest.mark.parametrize(
    ("folder", "goal"),
    [
        ("harmless-base", "harmless"),
        ("helpful-online", "helpful"),
        ("helpful", "helpful"),
        ("red-team-attempts", None),
        ("unhelpful-base", None),
    ],
)
def test_a_folder_of_hh_says_what_people_were_asked(tmp_path, folder, goal):
    turns = "\n\nHuman: Who?\n\nAssistant: "
    row = {"chosen": turns + "Ada.", "rejected": turns + "Bob."}
    (found,) = load_preferences(write(tmp_path / folder / "test.jsonl", [row]))
    assert found.dimension == goal


def test_a_folders_name_says_nothing_of_other_formats(tmp_path):
    row = {"prompt": "Who?", "chosen": "a", "rejected": "b"}
    (found,) = load_preferences(write(tmp_path / "helpful" / "a.jsonl", [row]))
    assert found.dimension is None
