"""Questions with an answer: read in each format, and what counts as right."""

import json

import pytest

from labs_helpers.data import BadFile, Prompt, load_capability
from labs_helpers.data.capability import is_right

GSM8K = {"question": "2 boxes of 600 eggs?", "answer": "2 * 600 = 1200\n#### 1,200"}
ARC = {
    "id": "x",
    "question": "What is warm?",
    "choices": {"text": ["ice", "the sun", "snow"], "label": ["1", "2", "3"]},
    "answerKey": "2",
}
ARC_OWN = {
    "question": {
        "stem": "What is warm?",
        "choices": [{"text": "ice", "label": "A"}, {"text": "the sun", "label": "B"}],
    },
    "answerKey": "B",
}
MMLU = {"question": "What is warm?", "choices": ["ice", "the sun"], "answer": 1}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def numbered(row, n):
    return [{**row, "question": f"{i}: {row['question']}"} for i in range(n)]


def test_each_question_is_in_one_split(tmp_path):
    probe = load_capability(write(tmp_path / "a.jsonl", numbered(GSM8K, 20)))
    parts = [
        {p.text for p in probe(s).prompts} for s in ("train", "validation", "test")
    ]
    assert [len(part) for part in parts] == [5, 5, 10]
    assert len(set.union(*parts)) == 20
    with pytest.raises(ValueError, match="no split 'dev'"):
        probe("dev")


@pytest.mark.parametrize("row", [ARC, ARC_OWN, MMLU])
def test_choices_are_listed_and_the_letter_is_right(tmp_path, row):
    prompt = load_capability(write(tmp_path / "a.jsonl", [row] * 4))("test").prompts[0]
    assert "A) ice\nB) the sun" in prompt.text
    assert is_right(prompt, "B")
    assert not is_right(prompt, "A")


def test_the_number_behind_the_marks_is_right(tmp_path):
    probe = load_capability(write(tmp_path / "a.jsonl", [GSM8K] * 4))("test")
    assert probe.score(["2 times 600 is 1200.", "I take 1,200 and 2"]).tolist() == [
        1,
        0,
    ]


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("B", True),
        (" b) the sun", True),
        ("(B)", True),
        ("The answer is B.", True),
        ("Answer: B", True),
        ("The sun", True),
        ("the sun.", True),
        ("Ice is cold.\n\nB", True),
        ("A", False),
        ("A star is warm: the answer is B", True),
        ("Both A and B", False),
        ("A) ice\nB) the sun", False),
        ("Because.", False),
        ("", False),
    ],
)
def test_which_letter_is_meant(said, right):
    meta = {"answer": "B", "choices": ["ice", "the sun"]}
    assert is_right(Prompt("What is warm?", meta), said) is right


@pytest.mark.parametrize(
    ("said", "right"),
    [("-3.50", True), ("10-3.5 = -3.5", True), ("3.5", False), ("none", False)],
)
def test_which_number_is_meant(said, right):
    assert is_right(Prompt("?", {"answer": "-3.5", "choices": []}), said) is right


@pytest.mark.parametrize(
    "row",
    [
        3,
        {},
        {"question": "Who?"},
        {"question": "Who?", "answer": "Ada."},
        {"question": " ", "answer": "#### 3"},
        {**ARC, "answerKey": "4"},
        {**ARC, "choices": {"text": ["ice"], "label": ["1"]}},
        {**ARC, "choices": 3},
        {**MMLU, "answer": 2},
        {**MMLU, "answer": True},
        {**MMLU, "choices": [1, 2]},
    ],
    ids=str,
)
def test_what_is_no_question_is_named(tmp_path, row):
    path = write(tmp_path / "a.jsonl", [GSM8K, row])
    with pytest.raises(BadFile, match=r"a\.jsonl:2: is no question with its answer"):
        load_capability(path)


def test_broken_and_short_files_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text("{")
    with pytest.raises(BadFile, match=r"a\.jsonl:1: is no JSON"):
        load_capability(tmp_path / "a.jsonl")
    with pytest.raises(BadFile, match="holds 3 questions, too few"):
        load_capability(write(tmp_path / "a.jsonl", [GSM8K] * 3))
