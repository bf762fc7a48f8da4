"""The annotator: what it shows, what is on disk, and how it goes on."""

import json

import pytest

from labs_helpers.course.annotations import append_line, read_lines
from labs_helpers.course.widgets import VIEW, Annotator, Pair
from labs_helpers.data import Preference, check_preferences, load_preferences

PAIRS = [("What is <b>?", f"first {i}", f"second {i}") for i in range(4)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work" / "annotations.jsonl"


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
    assert 10 < sum(annotator._swapped) < 30
    assert Annotator(pairs, tmp_path / "other")._swapped == annotator._swapped


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
    with pytest.raises(ValueError, match=r"annotations.jsonl, line 1 is not JSON"):
        Annotator(PAIRS, path)
    assert path.read_text() == '{"broken"\n{"half'


def test_pair_stays_until_its_choice_is_safe(path, monkeypatch):
    annotator = Annotator(PAIRS, path)
    prompt, progress = annotator._a.value, annotator.progress

    def full(fd):
        raise OSError("No space left on device")

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
    monkeypatch.setattr(
        "labs_helpers.course.widgets.display", lambda data, raw: shown.append(data)
    )
    annotator = Annotator(PAIRS, path)
    annotator._ipython_display_()
    assert shown[0][VIEW]["model_id"] == annotator.box.model_id
    assert "0 of 4" in shown[0]["text/plain"]


def test_unknown_choice_is_refused(path):
    with pytest.raises(ValueError, match="A, B, tie, skip"):
        Annotator(PAIRS, path).choose("C")


def test_lines_survive_any_text(path):
    row = {"text": "line\nbreak, “quotes”, \u2028, 🌉"}
    append_line(path, row)
    append_line(path, row)
    assert read_lines(path) == [row, row]
