"""The tasks that profiles name, and the judge of a preference set."""

import gzip
import json

import numpy as np
import pytest

from labs_helpers.course.profile import MODELS, load_profile
from labs_helpers.course.task import LabJudge, load_task
from labs_helpers.data import Judge, Preference
from labs_helpers.evaluation import BothOrders

XSTEST = "prompt,type,label\n" + "".join(
    f"How do I beat {what} {i}?,x,{label}\n"
    for i in range(6)
    for what, label in (("egg", "safe"), ("man", "unsafe"))
)
QUESTION = {"question": "2 + 3?", "answer": "#### 5"}


@pytest.fixture
def pairs(monkeypatch, tmp_path):
    """Set LABS_DATA to a file of so many pairs, to as many prompts."""

    def write(n):
        path = tmp_path / "pairs.jsonl"
        rows = [
            {"prompt": f"Question {i}", "chosen": f"stone {i}", "rejected": f"no {i}"}
            for i in range(n)
        ]
        path.write_text("\n".join(map(json.dumps, rows)))
        monkeypatch.setenv("LABS_DATA", str(path))
        monkeypatch.setenv("LABS_MODEL", str(MODELS / "town-xs"))
        monkeypatch.setenv("LABS_OUT", str(tmp_path / "out"))

    return write


def test_the_embedded_world_has_its_own_measures_and_says_so(monkeypatch, capsys):
    monkeypatch.setenv("LABS_JUDGE", "town-s")
    monkeypatch.setenv("LABS_SUITES", "none.csv")
    assert load_task(load_profile("tiny")).name == "the town"
    printed = capsys.readouterr().out
    assert printed.startswith("LABS_JUDGE and LABS_SUITES not used")
    assert printed.count("\n") == 1


def test_a_preference_set_alone_has_a_judge_or_says_how_to_get_one(pairs):
    pairs(500)
    task = load_task(load_profile("tiny"))
    assert isinstance(task.judge, Judge)
    assert len(task.judge.pairs) == 100
    assert task.missing("judge") == ""
    pairs(499)
    task = load_task(load_profile("tiny"))
    assert task.judge is None
    assert "LABS_JUDGE takes" in task.missing("judge")
    assert "500 or more" in task.missing("judge")


def test_measures_that_are_named_are_read_at_once(pairs, monkeypatch, tmp_path):
    pairs(40)
    (tmp_path / "xstest.csv").write_text(XSTEST)
    (tmp_path / "sums.jsonl").write_text(f"{json.dumps(QUESTION)}\n" * 8)
    monkeypatch.setenv("LABS_SUITES", str(tmp_path / "xstest.csv"))
    monkeypatch.setenv("LABS_CAPABILITY", str(tmp_path / "sums.jsonl"))
    task = load_task(load_profile("tiny"))
    assert task.missing("harmful", "soundalike", "train", "capability") == ""
    assert "TruthfulQA" in task.missing("honesty")
    assert len(task.capability("test").prompts) == 4
    monkeypatch.setenv("LABS_SUITES", str(tmp_path / "sums.jsonl"))
    with pytest.raises(ValueError, match="is no safety suite"):
        load_task(load_profile("tiny"))


class TestLabJudge:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setattr("labs_helpers.evaluation.fitted.STRENGTHS", [0.01])
        monkeypatch.setattr("labs_helpers.evaluation.fitted.FOLDS", 2)

    @pytest.fixture
    def judge(self, pairs):
        pairs(500)
        return load_task(load_profile("tiny")).judge

    @pytest.mark.slow
    def test_it_is_fitted_when_first_asked_and_says_how_good_it_is(self, judge, capsys):
        assert capsys.readouterr().out == ""
        asked, sides = ["Question 7"], (["stone 7"], ["no 7"])
        assert judge.compare(asked, *sides).tolist() == [1]
        assert judge.compare(asked, *sides[::-1]).tolist() == [0]
        printed = capsys.readouterr().out
        assert "a linear head on town-xs, fitted on 100 pairs" in printed
        assert "it ranks 1.000 (95 %" in printed
        assert printed.count("\n") == 1

    @pytest.mark.slow
    def test_the_next_lab_takes_what_was_fitted(self, judge, capsys):
        weights = judge.judge.reward_model.head.weight
        again = load_task(load_profile("tiny")).judge
        assert again.judge.reward_model.head.weight.equal(weights)
        assert "fitted before on 100 pairs" in capsys.readouterr().out

    @pytest.mark.slow
    def test_other_pairs_are_fitted_anew(self, judge, pairs, capsys):
        judge.judge  # noqa: B018 - fits it
        pairs(505)
        load_task(load_profile("tiny")).judge.judge  # noqa: B018
        assert "fitted before" not in capsys.readouterr().out

    @pytest.mark.slow
    def test_a_broken_memory_is_written_anew(self, judge, tmp_path, capsys):
        judge.judge  # noqa: B018
        (path,) = (tmp_path / "out" / "judges").iterdir()
        path.write_text('{"weights": [1, 2], "accuracy": {}}')
        load_task(load_profile("tiny")).judge.judge  # noqa: B018
        assert "fitted before" not in capsys.readouterr().out
        assert len(json.loads(path.read_text())["weights"]) > 2

    def test_a_coin_is_called_one(self, pairs, capsys, monkeypatch):
        pairs(500)
        profile = load_profile("tiny")
        rows = [
            Preference(f"Question {i}", *["good", "bad"][:: 1 if i % 4 < 2 else -1])
            for i in range(40)
        ]
        LabJudge(profile, rows).judge  # noqa: B018
        assert "right: no better than a coin" in capsys.readouterr().out

    def test_what_is_named_is_loaded_and_says_how_often_its_verdict_turns(
        self, pairs, monkeypatch, capsys
    ):
        class Undecided:
            def compare(self, prompts, a, b): ...

            def both_orders(self, prompts, a, b):
                return BothOrders(np.array([0.9, 0.9]), np.array([0.9, 0.1]))

        pairs(40)
        monkeypatch.setenv("LABS_JUDGE", "some/judge")
        monkeypatch.setattr(
            "labs_helpers.course.task.load_judge", lambda name: Undecided()
        )
        judge = load_task(load_profile("tiny")).judge
        outcomes = judge.compare(["x", "y"], ["a", "b"], ["c", "d"])
        assert outcomes.tolist() == [1, 0.5]
        printed = capsys.readouterr().out
        assert "Judge: some/judge." in printed
        assert "turns with the order, a tie, in 0.50" in printed


def test_task_of_a_preference_file(monkeypatch, tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"Question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"}
        for i in range(40)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setenv("LABS_DATA", str(path))
    task = load_task(load_profile("tiny"))
    assert task.truth is None
    splits = [task.preferences(split) for split in ("train", "validation", "test")]
    assert sum(map(len, splits)) == 40


def test_a_task_with_nothing_to_test_on_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"Question {i}", "chosen": "good", "rejected": "bad"}
        for i in range(2)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setenv("LABS_DATA", str(path))
    with pytest.raises(ValueError, match=r"pairs.jsonl has 2 rows.*none for .*test"):
        load_task(load_profile("tiny"))


def test_a_task_leaves_out_what_is_too_long(monkeypatch, tmp_path, capsys):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"Question {i}", "chosen": "good", "rejected": "bad " * i}
        for i in range(1, 41)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setenv("LABS_DATA", str(path))
    task = load_task(load_profile("tiny"), max_length=30)
    kept = [
        row
        for part in ("train", "validation", "test")
        for row in task.preferences(part)
    ]
    longest = max(len(row.rejected[-1]["content"]) for row in kept)
    assert longest == 4 * 23  # and 11 of the question
    assert "23 of 40 rows fit in 30 tokens" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*skipped")
def test_task_of_whole_dialogues(monkeypatch, tmp_path):
    path = tmp_path / "hh.jsonl.gz"
    start = "\n\nHuman: Question {}\n\nAssistant: "
    rows = [
        {"chosen": start.format(i) + "good", "rejected": start.format(i) + "bad"}
        for i in range(40)
    ]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    monkeypatch.setenv("LABS_DATA", str(path))
    task = load_task(load_profile("tiny"))
    assert task.preferences("train")[0].prompt[0]["role"] == "user"
