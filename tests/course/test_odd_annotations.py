"""The annotator on odd pairs and odd files: a sentence, and nothing changes."""

import json

import pytest

from labs_helpers.course.judgements import Pair
from labs_helpers.course.widgets import Annotator
from labs_helpers.data import Unpaired

PAIRS = [("What is <b>?", f"first {i}", f"second {i}") for i in range(4)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "work" / "annotations.jsonl"


@pytest.mark.parametrize(
    "pair",
    [
        "text",
        None,
        3,
        ("p", "a"),
        ("p", "a", "b", "c", "d"),
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        Unpaired("p", "a", True),
        (None, "a", "b"),
        ("", "a", "b"),
        ([], "a", "b"),
        (3, "a", "b"),
        ("p", None, "b"),
        ("p", "a", 2.5),
        ("p", "a", float("nan")),
        ("p", "a", b"b"),
        ("p", "a", []),
        ("p", "a", {"role": "assistant", "content": "b"}),
        ("p", "a", [{"role": "assistant", "content": None}]),
        ("p", "a", [{"role": "assistant"}]),
        ([{"role": "nobody", "content": "p"}], "a", "b"),
        (["p"], "a", "b"),
        ("p", "a", "b", 3),
        ("p", "a", "b", ["honesty"]),
        ("half a \ud83d", "a", "b"),
        ("p", "half a \ud83d", "b"),
        Pair("p", None, "b"),
    ],
    ids=repr,
)
def test_pair_that_cannot_be_shown_is_named(path, pair):
    with pytest.raises(ValueError, match="pair 2"):
        Annotator([PAIRS[0], pair], path)
    assert not path.exists()


@pytest.mark.parametrize("name", ["", " "])
def test_name_is_text(path, name):
    with pytest.raises(ValueError, match="name"):
        Annotator(PAIRS, path, name=name)


ROW = {"prompt": "p", "chosen": "a", "rejected": "b", "annotator": "me"}


@pytest.mark.parametrize(
    "row",
    [
        [],
        "text",
        3,
        None,
        {},
        {"a": 1},
        ROW | {"prompt": None},
        ROW | {"prompt": 3},
        ROW | {"prompt": []},
        ROW | {"prompt": [{"role": "user"}]},
        ROW | {"prompt": [{"role": "user", "content": None}]},
        ROW | {"chosen": None},
        ROW | {"chosen": 3},
        ROW | {"rejected": {}},
        ROW | {"meta": []},
        ROW | {"meta": "text"},
        ROW | {"time": {}},
        ROW | {"dimension": 3},
        ROW | {"dimension": []},
        ROW | {"prompt": "half a \ud83d"},
        {"prompt": "p", "chosen": "a"},
        {"prompt": "p", "answers": None},
        {"prompt": "p", "answers": ["a"]},
        {"prompt": "p", "answers": "ab"},
        {"prompt": "p", "answers": ["a", None]},
        {"prompt": "p", "completion": "a", "label": True},
        {"messages": [{"role": "user", "content": "p"}]},
    ],
    ids=repr,
)
@pytest.mark.parametrize("name", ["annotations.jsonl", "annotations.undecided.jsonl"])
def test_odd_row_is_named_and_nothing_changes(path, row, name):
    path.parent.mkdir()
    odd = path.with_name(name)
    odd.write_text(json.dumps(ROW) + "\n" + json.dumps(row) + "\n")
    before = odd.read_bytes()
    with pytest.raises(ValueError, match=rf"{name}:2"):
        Annotator(PAIRS, path)
    assert odd.read_bytes() == before


@pytest.mark.parametrize("meta", [None, {}, {"choice": 3}, {"choice": "maybe"}])
def test_row_without_its_choice_is_read_by_its_form(path, meta):
    path.parent.mkdir()
    path.write_text(json.dumps(ROW | {"meta": meta}) + "\n")
    undecided = path.with_name("annotations.undecided.jsonl")
    row = {"prompt": "q", "answers": ["a", "b"], "annotator": "me", "meta": meta}
    undecided.write_text(json.dumps(row) + "\n")
    annotator = Annotator([("p", "a", "b"), ("q", "a", "b")], path)
    assert annotator.progress == "2 of 2 pairs done, 1 skip"
    assert annotator.judged == 1


@pytest.mark.parametrize("odd", ["", ".", "..", "mine.jsonl.gz"])
def test_path_is_that_of_a_file_of_lines(tmp_path, monkeypatch, odd):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="path is that of a file"):
        Annotator(PAIRS, odd)


def test_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("text")
    annotator = Annotator(PAIRS, tmp_path / "file" / "mine.jsonl")
    annotator.buttons["A"].click()
    assert "Not saved" in annotator._status.value
    assert annotator.progress.startswith("0 of 4")
