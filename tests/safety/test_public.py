"""Public suites, told by their columns, and what their items are for."""

import json

import pytest

from labs_helpers.safety import BadSuite, load_public, load_suites
from tests.safety.test_suites import GOOD, write

XSTEST = "id,prompt,type,label,focus,note\n"
QUESTION = {
    "Question": "May I?",
    "Category": "Law",
    "Best Answer": "No",
    "Correct Answers": "No; You may not",
    "Incorrect Answers": "Yes; Always",
}


def xstest(path, n=12):
    rows = [f"{i},How do I beat egg {i}?,homonyms,safe,beat,\n" for i in range(n)]
    rows += [
        f"{n + i},How do I beat man {i}?,contrast_h,unsafe,beat,\n" for i in range(n)
    ]
    path.write_text(XSTEST + "".join(rows))
    return path


@pytest.mark.parametrize(
    ("name", "text", "kind", "category"),
    [
        (
            "StrongREJECT",
            "category,source,forbidden_prompt\nx,me,Rob\n",
            "harmful",
            "x",
        ),
        ("HarmBench", "Behavior,SemanticCategory\nRob,x\n", "harmful", "x"),
        ("SimpleSafetyTests", "harm_area,category,prompt\nx,y,Rob\n", "harmful", "x"),
        ("XSTest", "prompt,type,label\nRob,x,safe\n", "safe", "x"),
    ],
)
def test_a_format_is_told_by_its_columns(tmp_path, name, text, kind, category):
    (tmp_path / "a.csv").write_text(text)
    suite = load_public(tmp_path / "a.csv")
    (item,) = suite
    assert suite.name == name
    assert (item.prompt.content, item.kind, item.category) == (
        "Rob",
        kind,
        category,
    )


def test_questions_and_our_own_format_are_told_too(tmp_path):
    (tmp_path / "q.json").write_text(json.dumps([QUESTION]))
    (item,) = load_public(tmp_path / "q.json")
    assert (item.kind, item.right) == ("question", ("No", "You may not"))
    assert len(load_public(write(tmp_path / "town.jsonl", GOOD))) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "its columns are a, b, expected those of StrongREJECT"),
        ("", "its columns are none"),
        ("prompt,type\n,x\n", "a.csv:2: prompt is missing or empty"),
    ],
)
def test_what_is_no_suite_is_named(tmp_path, text, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadSuite) as error:
        load_public(tmp_path / "a.csv")
    assert said in str(error.value)


class TestUses:
    def test_one_file_is_parted_by_kind_and_a_third_is_for_training(self, tmp_path):
        found = load_suites(xstest(tmp_path / "xstest.csv"))
        assert list(found) == ["harmful", "soundalike", "train"]
        assert len(found["train"]) == 8
        assert {item.kind for item in found["harmful"]} == {"harmful"}
        assert {item.kind for item in found["soundalike"]} == {"safe"}
        asked = [prompt.text for suite in found.values() for prompt in suite.prompts]
        assert len(set(asked)) == len(asked) == 24
        assert found["harmful"].source.startswith("XSTest, ")

    def test_the_same_file_gives_the_same_again(self, tmp_path):
        path = xstest(tmp_path / "xstest.csv")
        assert load_suites(path) == load_suites(path)

    def test_a_folder_gives_all_that_its_files_have(self, tmp_path):
        xstest(tmp_path / "xstest.csv")
        (tmp_path / "q.json").write_text(json.dumps([QUESTION]))
        (tmp_path / "LICENSE").write_text("Yours.")
        (tmp_path / "more").mkdir()
        found = load_suites(tmp_path)
        assert list(found) == ["harmful", "soundalike", "honesty", "train"]
        assert found["honesty"].source == f"TruthfulQA, XSTest, {tmp_path}"

    def test_a_question_under_pressure_is_also_for_sycophancy(self, tmp_path):
        found = load_suites(write(tmp_path / "own.jsonl", GOOD))
        assert found["honesty"].items == found["sycophancy"].items
        assert "consistency" not in found

    def test_files_of_our_format_have_the_use_of_their_name(self, tmp_path):
        write(tmp_path / "train.jsonl", GOOD[:1])
        write(tmp_path / "sycophancy.jsonl", GOOD[2:])
        write(tmp_path / "refusals.jsonl", ["no suite"])
        found = load_suites(tmp_path)
        assert {name: len(suite) for name, suite in found.items()} == {
            "sycophancy": 1, "train": 1,
        }  # fmt: skip

    def test_what_is_trained_on_is_not_tested(self, tmp_path):
        xstest(tmp_path / "xstest.csv")
        row = {"kind": "safe", "prompt": "How do I beat egg 3?"}
        write(tmp_path / "train.jsonl", [row])
        found = load_suites(tmp_path)
        assert (len(found["train"]), len(found["soundalike"])) == (1, 11)

    def test_a_folder_without_suites(self, tmp_path):
        with pytest.raises(BadSuite, match=r"holds no suite: expected files of \.csv"):
            load_suites(tmp_path)

    def test_no_such_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="No file"):
            load_suites(tmp_path / "none.csv")
