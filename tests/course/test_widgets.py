"""The annotator: what it shows, what is on disk, and how it goes on."""

import json

import numpy as np
import pytest

from labs_helpers.course.judgements import Pair
from labs_helpers.course.widgets import DOUBLE_CLICK, VIEW, Annotator
from labs_helpers.data import (
    Preference,
    check_preferences,
    load_preferences,
    save_preferences,
)
from labs_helpers.evaluation import RecordedJudge

PAIRS = [("What is <b>?", f"first {i}", f"second {i}") for i in range(4)]


USER, ASSISTANT, SYSTEM = (
    lambda text, role=role: {"role": role, "content": text}
    for role in ("user", "assistant", "system")
)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    now = [1000.0]
    monkeypatch.setattr("labs_helpers.course.widgets.time.monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work" / "annotations.jsonl"


def full(fd):
    raise OSError("No space left on device")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_clicks_are_written_as_preferences(path):
    annotator = Annotator(PAIRS, path, name="ada")
    annotator.buttons["A"].click()
    annotator.buttons["B"].click()
    rows = lines(path)
    assert [row["meta"]["choice"] for row in rows] == ["A", "B"]
    assert {row["annotator"] for row in rows} == {"ada"}
    assert all(row["time"].endswith("Z") for row in rows)
    assert check_preferences(path).ok
    assert [row.chosen for row in load_preferences(path)] == [
        row.chosen for row in annotator.preferences
    ]


def test_choice_refers_to_what_was_on_the_left(path):
    annotator = Annotator(PAIRS, path)
    for _ in PAIRS:
        left = annotator._a.value
        annotator.choose("A")
        assert annotator.preferences[-1].chosen[-1]["content"] in left


def test_order_is_mixed_and_the_same_again(path, tmp_path):
    pairs = [("prompt", f"first {i}", f"second {i}") for i in range(40)]
    annotator = Annotator(pairs, path)
    assert 10 < sum("second" in pair.first for pair in annotator._pairs) < 30
    assert Annotator(pairs, tmp_path / "other")._pairs == annotator._pairs


def test_ties_and_skipped_pairs_are_no_preferences(path):
    annotator = Annotator(PAIRS, path)
    for choice in ("tie", "A", "skip"):
        annotator.buttons[choice].click()
    assert len(lines(path)) == 1
    undecided = lines(path.with_name("annotations.undecided.jsonl"))
    assert [row["meta"]["choice"] for row in undecided] == ["tie", "skip"]
    assert len(annotator.preferences) == 1
    assert annotator.progress == "3 of 4 pairs done, 1 tie, 1 skip"


def test_resumes_where_the_files_end(path):
    first = Annotator(PAIRS, path)
    first.choose("A")
    first.choose("tie")
    second = Annotator(PAIRS, path)
    assert second.progress == "2 of 4 pairs done, 1 tie"
    assert second.preferences == first.preferences
    second.choose("B")
    second.choose("B")
    assert len(lines(path)) == 3
    assert all(button.disabled for button in second.buttons.values())
    second.choose("A")
    assert len(lines(path)) == 3


def test_everybody_has_their_own_progress(path):
    Annotator(PAIRS, path, name="ada").choose("A")
    assert Annotator(PAIRS, path, name="bob").progress.startswith("0 of 4")


def test_same_pair_twice_is_asked_twice(path):
    annotator = Annotator([PAIRS[0], PAIRS[0]], path)
    annotator.choose("A")
    assert Annotator([PAIRS[0], PAIRS[0]], path).progress.startswith("1 of 2")


def test_verdicts_are_about_the_pairs_as_they_were_given(path):
    pairs = [*PAIRS, ("What is <b>?", "the same", "the same"), PAIRS[0]]
    annotator = Annotator(pairs, path)
    for choice in ("A", "B", "tie", "skip"):
        annotator.choose(choice)
    first, second, tie, skipped, same, again = annotator.verdicts
    said = [row.chosen[-1]["content"] for row in annotator.preferences]
    assert [first, second] == [text.startswith("first") for text in said]
    assert tie == 0.5
    assert np.isnan([skipped, same, again]).all()
    annotator.choose("A")
    shown = annotator._pairs[-1].first.startswith("first")
    assert annotator.verdicts[-1] == shown


@pytest.mark.parametrize("cut", [1, 2, 20, -2])
def test_line_cut_off_in_the_middle_is_asked_again(path, cut):
    annotator = Annotator(PAIRS, path)
    annotator.choose("A")
    whole = path.read_bytes()
    annotator.choose("A")
    second = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + second[:cut])
    again = Annotator(PAIRS, path)
    assert again.progress.startswith("1 of 4")
    assert RecordedJudge.read(path).knows(["What is <b>?"], ["first 0"], ["second 0"])
    again.choose("B")
    assert len(lines(path)) == 2


def test_last_line_without_its_end_is_kept(path):
    annotator = Annotator(PAIRS, path)
    annotator.choose("A")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    again = Annotator(PAIRS, path)
    assert again.progress.startswith("1 of 4")
    again.choose("A")
    assert len(lines(path)) == 2


def test_broken_line_in_the_middle_is_named_and_nothing_changes(path):
    path.parent.mkdir()
    path.write_text('{"broken"\n{"half')
    with pytest.raises(ValueError, match=r"annotations.jsonl:1: is no JSON"):
        Annotator(PAIRS, path)
    assert path.read_text() == '{"broken"\n{"half'


def test_pair_stays_until_its_choice_is_safe(path, monkeypatch):
    annotator = Annotator(PAIRS, path)
    prompt, progress = annotator._a.value, annotator.progress

    monkeypatch.setattr("os.fsync", full)
    annotator.buttons["A"].click()
    assert annotator._a.value == prompt
    assert annotator.progress == progress
    assert "No space left" in annotator._status.value
    assert path.read_bytes() == b""
    monkeypatch.undo()
    annotator.buttons["A"].click()
    assert len(lines(path)) == 1


def test_line_is_on_disk_before_the_next_pair_is_shown(path, monkeypatch):
    events = []
    monkeypatch.setattr("os.fsync", lambda fd: events.append("disk"))
    annotator = Annotator(PAIRS, path)
    annotator._a.observe(lambda change: events.append("shown"), "value")
    annotator.choose("A")
    assert events == ["disk", "shown"]


def test_text_is_escaped(path):
    annotator = Annotator([("<script>", "<img src=x>", "a & b")], path)
    shown = annotator._prompt.value + annotator._a.value + annotator._b.value
    assert "<script>" not in shown
    assert "<img" not in shown
    assert "a &amp; b" in shown


def test_preferences_hide_their_labels_and_keep_their_dimension(path):
    rows = [Preference("p", f"good {i}", "bad", dimension="humour") for i in range(20)]
    annotator = Annotator(rows, path)
    assert "humour" in annotator._prompt.value
    for _ in rows:
        annotator.choose("A")
    chosen = [row.chosen[-1]["content"] for row in annotator.preferences]
    assert "bad" in chosen
    assert any(text.startswith("good") for text in chosen)
    assert {row.dimension for row in annotator.preferences} == {"humour"}


def test_conversations_are_written_as_messages(path):
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "And now?"},
    ]
    annotator = Annotator([Pair(messages, "a", "b"), ("text", "c", "d")], path)
    assert "assistant: Hello." in annotator._prompt.value
    annotator.choose("A")
    annotator.choose("A")
    assert check_preferences(path).ok
    assert Annotator([Pair(messages, "a", "b")], path).progress.startswith("1 of 1")


def test_widgets_have_classes(path):
    annotator = Annotator(PAIRS, path)
    widgets = [annotator.box, annotator._prompt, *annotator.buttons.values()]
    classes = {name for widget in widgets for name in widget._dom_classes}
    assert {"labs-annotator", "labs-prompt", "labs-choose-a", "labs-choose-tie"} <= (
        classes
    )


def test_display_has_text_for_viewers_without_widgets(path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    annotator = Annotator(PAIRS, path)
    annotator._ipython_display_()
    assert shown[0][VIEW]["model_id"] == annotator.box.model_id
    assert "0 of 4" in shown[0]["text/plain"]


def test_unknown_choice_is_refused(path):
    with pytest.raises(ValueError, match="A, B, tie, skip"):
        Annotator(PAIRS, path).choose("C")


# One click is one choice


@pytest.mark.parametrize("choice", ["A", "B", "tie", "skip"])
def test_double_click_is_one_choice(path, clock, choice):
    annotator = Annotator(PAIRS, path)
    for _ in range(2):
        annotator.buttons[choice].click()
        clock(DOUBLE_CLICK / 2)
    assert annotator.progress.startswith("1 of 4")
    clock(DOUBLE_CLICK)
    annotator.buttons[choice].click()
    assert annotator.progress.startswith("2 of 4")


def test_next_click_on_another_button_counts_at_once(path, clock):
    annotator = Annotator(PAIRS, path)
    annotator.buttons["A"].click()
    annotator.buttons["B"].click()
    assert annotator.progress.startswith("2 of 4")


def test_click_that_was_not_saved_can_be_repeated_at_once(path, clock, monkeypatch):
    annotator = Annotator(PAIRS, path)
    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", full)
        annotator.buttons["A"].click()
    assert "Not saved" in annotator._status.value
    annotator.buttons["A"].click()
    assert annotator.progress.startswith("1 of 4")


def test_clock_set_back_takes_no_time(path, monkeypatch):
    annotator = Annotator(PAIRS, path)
    monkeypatch.setattr("labs_helpers.course.widgets.time.time", lambda: 0.0)
    annotator.choose("A")
    assert lines(path)[0]["meta"]["seconds"] >= 0


def test_seconds_are_those_that_the_pair_was_shown(path, clock):
    annotator = Annotator(PAIRS, path)
    for seconds in (3, 5):
        clock(seconds)
        annotator.choose("A")
    assert [row["meta"]["seconds"] for row in lines(path)] == [3.0, 5.0]


# Two windows on one file


def test_second_window_does_not_ask_again(path):
    first, second = Annotator(PAIRS, path), Annotator(PAIRS, path)
    left = first._a.value
    first.choose("A")
    assert second._a.value == left
    second.choose("B")
    assert len(lines(path)) == 1
    assert "another window" in second._status.value
    assert second.preferences == first.preferences
    second.choose("B")
    assert len(lines(path)) == 2
    assert first.progress.startswith("2 of 4")
    assert first.judged == 2


def test_two_people_judge_the_same_pair(path):
    ada, bob = Annotator(PAIRS, path, name="ada"), Annotator(PAIRS, path, name="bob")
    ada.choose("A")
    bob.choose("B")
    assert len(lines(path)) == 2
    assert ada.preferences[0].chosen == bob.preferences[0].rejected


def test_of_contradictions_in_a_file_the_first_holds(path):
    Annotator(PAIRS, path).choose("A")
    row = lines(path)[0]
    other = row | {"chosen": row["rejected"], "rejected": row["chosen"]}
    path.write_text(json.dumps(row) + "\n" + json.dumps(other) + "\n")
    annotator = Annotator(PAIRS, path)
    assert annotator.progress.startswith("1 of 4")
    assert [r.chosen[0]["content"] for r in annotator.preferences] == [row["chosen"]]


def test_file_taken_away_begins_again(path):
    annotator = Annotator(PAIRS, path)
    annotator.choose("A")
    path.unlink()
    assert annotator.progress.startswith("0 of 4")
    assert annotator.preferences == []


def test_file_that_breaks_meanwhile_is_said_and_stays(path):
    annotator = Annotator(PAIRS, path)
    path.parent.mkdir()
    path.write_text("Dear diary")
    annotator.buttons["A"].click()
    assert "Not saved" in annotator._status.value
    assert path.read_text() == "Dear diary"


# What comes back can stand beside what was given


GIVEN = {
    "text": [("Who?", "Me.", "You."), ("Where?", "Here.", "There.")],
    "rows of text": [Preference("Who?", "Me.", "You.")],
    "rows of messages": [
        Preference([USER("Who?")], [ASSISTANT("Me.")], [ASSISTANT("You.")])
    ],
    "several turns": [
        Preference(
            [USER("Hello"), ASSISTANT("Hello."), USER("Who?")],
            [ASSISTANT("Me.")],
            [ASSISTANT("You.")],
        ),
        Preference([USER("Who?")], [ASSISTANT("Me.")], [ASSISTANT("You.")]),
    ],
    "a system prompt": [
        Preference(
            [SYSTEM("Be short."), USER("Who?")], [ASSISTANT("Me.")], [ASSISTANT("You.")]
        )
    ],
    "answers of several turns": [
        Preference(
            [USER("Who?")],
            [ASSISTANT("Me."), USER("Sure?"), ASSISTANT("Yes.")],
            [ASSISTANT("You.")],
        )
    ],
    "messages and text": [([USER("Who?")], "Me.", "You."), ("Who?", "He.", "You.")],
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("choice", ["A", "B"])
def test_rows_come_back_as_they_were_given(path, given, choice):
    annotator = Annotator(given, path)
    for _ in given:
        annotator.choose(choice)
    rows = [row if isinstance(row, Preference) else Preference(*row) for row in given]
    for row, mine in zip(rows, annotator.preferences, strict=True):
        assert mine.prompt == row.prompt
        assert (mine.chosen, mine.rejected) in (
            (row.chosen, row.rejected),
            (row.rejected, row.chosen),
        )
        assert mine.as_text == row.as_text
        assert mine.annotator == "me"
    assert Annotator(given, path).preferences == annotator.preferences
    assert check_preferences(path).ok
    mixed, copy = rows + annotator.preferences, path.with_name("mixed.jsonl")
    save_preferences(mixed, copy)
    assert load_preferences(copy) == mixed


def test_labels_of_another_format_are_still_there(path):
    Annotator([("Who?", "Me.", "You."), ("Where?", "Here.", "There.")], path).choose(
        "A"
    )
    rows = [
        Preference([USER(prompt)], [ASSISTANT(a)], [ASSISTANT(b)])
        for prompt, a, b in [("Who?", "Me.", "You."), ("Where?", "Here.", "There.")]
    ]
    annotator = Annotator(rows, path)
    assert annotator.progress.startswith("1 of 2")
    assert annotator.preferences[0].prompt == rows[0].prompt
    annotator.choose("A")
    assert check_preferences(path).ok
    assert len(load_preferences(path)) == 2


def test_cell_that_runs_twice_goes_on(path):
    rows = [Preference(f"{i}?", "Me.", "You.") for i in range(3)]
    Annotator(rows, path).choose("A")
    again = Annotator(rows, path)
    again.choose("A")
    assert len(again.preferences) == len(lines(path)) == 2


def test_a_tie_is_a_judgement_and_a_skipped_pair_is_none(path):
    annotator = Annotator(PAIRS, path)
    assert annotator.judged == 0
    for choice in ("tie", "skip", "A"):
        annotator.choose(choice)
    assert annotator.judged == Annotator(PAIRS, path).judged == 2


# What it says


def test_dimension_is_said_in_words(path):
    said = {
        dimension: Annotator([("p", "a", "b", dimension)], path)._prompt.value
        for dimension in (None, "overall", "honesty", "<b>")
    }
    assert "Which answer is better?" in said[None]
    assert "Which answer is better overall?" in said["overall"]
    assert "Which answer is better in honesty?" in said["honesty"]
    assert "Which answer is better in &lt;b&gt;?" in said["<b>"]


def test_control_characters_are_shown_not_obeyed(path):
    texts = "\x1b[31mred\x1b[0m", "a\x00b\x07\x9b\x7f", "line\r\nbreak\ttab"
    annotator = Annotator([texts], path)
    shown = annotator._prompt.value + annotator._a.value + annotator._b.value
    assert not {c for c in shown if ord(c) < 32 or 127 <= ord(c) < 160} - {"\n", "\t"}
    assert r"\x1b[31mred" in shown
    assert "line\nbreak\ttab" in shown
    annotator.choose("A")
    assert annotator.preferences[0].prompt[0]["content"] == texts[0]
    assert Annotator([texts], path).progress.startswith("1 of 1")


def test_saved_output_says_that_the_cell_is_to_run_again(path, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    Annotator(PAIRS, path, name="a\x1b[31m")._ipython_display_()
    assert "run this cell again" in shown[0]["text/plain"]
    assert "\x1b" not in shown[0]["text/plain"]


def test_nothing_to_compare_is_said(path):
    same = [("p", "same", " same\n"), ("p", "", "text"), ("p", " ", "text")]
    annotator = Annotator(same, path)
    assert (
        annotator.progress == "0 of 0 pairs done, 3 left out, with nothing to compare"
    )
    assert "no pairs to compare" in annotator._prompt.value
    annotator.choose("A")
    assert annotator.preferences == []
    assert Annotator([*same, *PAIRS], path).progress.startswith("0 of 4")
