"""What `labs train` learns from, held-out parts of it, and rewards."""

import json

import pytest

from labs_tools.training.data import reward_of, rows_of
from labs_tools.training.settings import BadSettings, read_settings

PAIRS = [
    {"prompt": f"Who is {i // 2}?", "chosen": f"{i}.", "rejected": "No."}
    for i in range(20)
]
ANSWERS = [
    {"prompt": f"{i}?", "completion": "Yes.", "label": i % 2 == 0} for i in range(4)
]
TALKS = [
    {"messages": [{"role": "user", "content": f"{i}?"}, said]}
    for i, said in enumerate([{"role": "assistant", "content": "Yes."}] * 5)
]


@pytest.fixture
def asking(tmp_path, monkeypatch):
    """Settings of a method with some keys, in a folder with files of rows."""
    monkeypatch.chdir(tmp_path)
    for name, rows in (("pairs", PAIRS), ("answers", ANSWERS), ("talks", TALKS)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    (tmp_path / "prompts.txt").write_text("a\nb\nc\nd\n")

    def asked(method, **keys):
        table = {"policy": "p", "settings": {"lr": 1e-4}, **keys}
        if method == "cai":
            del table["settings"]
        (tmp_path / "run.yaml").write_text(json.dumps(table))
        return read_settings(method, tmp_path / "run.yaml")

    return asked


@pytest.mark.parametrize("method", ["reward", "dpo", "ipo", "slic", "sft"])
def test_pairs_of_a_file(asking, method):
    rows, held_out = rows_of(asking(method, data="pairs.jsonl"))
    assert [row.chosen[0]["content"] for row in rows] == [f"{i}." for i in range(20)]
    assert held_out == []


def test_kto_takes_pairs_apart(asking):
    rows, _ = rows_of(asking("kto", data="pairs.jsonl"))
    assert [row.label for row in rows] == [True, False] * 20


def test_kto_takes_single_answers_and_sft_the_good_ones(asking):
    assert len(rows_of(asking("kto", data="answers.jsonl"))[0]) == 4
    rows, _ = rows_of(asking("sft", data="answers.jsonl"))
    assert [row.label for row in rows] == [True, True]


def test_dpo_says_what_pairs_are(asking):
    with pytest.raises(BadSettings, match="dpo learns from pairs"):
        rows_of(asking("dpo", data="answers.jsonl"))


def test_sft_takes_conversations(asking):
    rows, held_out = rows_of(asking("sft", data="talks.jsonl", validation=0.2))
    assert (len(rows), len(held_out)) == (4, 1)
    assert rows[0][1] == {"role": "assistant", "content": "Yes."}


@pytest.mark.parametrize("method", ["ppo", "cai"])
def test_prompts_of_a_file(asking, method):
    assert rows_of(asking(method, data="prompts.txt"))[0] == ["a", "b", "c", "d"]
    assert len(rows_of(asking(method, data="pairs.jsonl"))[0]) == 20


def test_no_prompt_is_on_both_sides(asking):
    rows, held_out = rows_of(asking("dpo", data="pairs.jsonl", validation=0.25))
    assert (len(rows), len(held_out)) == (14, 6)  # prompts have two rows each
    left, right = ({str(row.prompt) for row in part} for part in (rows, held_out))
    assert not left & right


def test_what_is_held_out_is_always_the_same(asking):
    asked = asking("ppo", data="prompts.txt", validation=0.5)
    assert rows_of(asked) == rows_of(asked)


def test_validation_may_be_a_file(asking):
    asked = asking("dpo", data="pairs.jsonl", validation="pairs.jsonl")
    assert rows_of(asked)[0] == rows_of(asked)[1]


def test_splits_of_the_embedded_world(asking):
    rows, held_out = rows_of(asking("ppo", data="train", validation="validation"))
    assert (len(rows), len(held_out)) == (1100, 118)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data": "gone.jsonl"}, "data 'gone.jsonl': .*No file"),
        ({"data": "pairs.jsonl", "validation": 0.99}, "leaves none to learn from"),
        ({"data": "pairs.jsonl", "validation": "gone.jsonl"}, "No file 'gone.jsonl'"),
        ({"data": "talks.jsonl"}, "0 of 5 rows are usable"),
    ],
)
def test_says_what_is_wrong_with_data(asking, keys, message):
    with pytest.raises(BadSettings, match=message):
        rows_of(asking("dpo", **keys))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"reward": "gold", "data": "prompts.txt"}, "embedded world's prompts alone"),
        ({"reward": "gold", "validation": "prompts.txt"}, "embedded world's prompts"),
        ({"reward": "mine.py"}, r"which function\? Write mine.py:function"),
        ({"reward": "mine.py:f"}, "there is no file mine.py"),
        ({"reward": "nowhere"}, "holds no reward model"),
    ],
)
def test_says_what_is_wrong_with_a_reward(asking, keys, message):
    with pytest.raises(BadSettings, match=message):
        reward_of(asking("ppo", **keys))


def test_a_reward_of_a_file(asking, tmp_path):
    (tmp_path / "mine.py").write_text("def f(p, a):\n    return [7.0] * len(a)\n")
    asked = asking("ppo", data="prompts.txt", reward="mine.py:f")
    assert reward_of(asked)(["a"], ["b"]) == [7.0]
