"""Every legal layout of preference data gives the same rows."""

import gzip
import json

import datasets
import pandas
import pyarrow.parquet  # noqa: F401 - takes a second, outside of the first test
import pytest

from labs_helpers.data import (
    BadPreferences,
    Preference,
    Unpaired,
    as_rows,
    check_preferences,
    load_preferences,
    read_prompts,
    save_preferences,
)
from labs_helpers.data.formats import explicit
from labs_helpers.data.preferences import from_trl, to_trl
from tests.notebooks.own_data import FORMATS, ROWS, build, triples

GUIDE = [{"role": "system", "content": "You are a guide."}]


@pytest.fixture(params=FORMATS)
def name(request):
    return request.param


@pytest.fixture
def path(name, tmp_path):
    return build(tmp_path, name)


class TestFiles:
    def test_all_are_read_without_a_finding(self, path):
        report = check_preferences(path)
        assert report.ok
        assert not report.warnings

    def test_prompts_and_answers_are_the_same(self, name, path):
        rows = load_preferences(path)
        asked = [row.prompt[-1]["content"] for row in rows]
        if name.startswith("kto"):
            half = ROWS // 2
            assert [row.label for row in rows] == [True] * half + [False] * half
            assert asked == [p for p, *_ in triples(ROWS // 2)] * 2
            return
        answers = [(r.chosen[-1]["content"], r.rejected[-1]["content"]) for r in rows]
        expected = list(triples(len(rows)))
        assert asked == [p for p, *_ in expected]
        assert answers == [(a, b) for _, a, b in expected]
        assert all(len(row.chosen) == len(row.rejected) == 1 for row in rows)

    def test_what_is_saved_comes_back(self, path, tmp_path):
        rows = load_preferences(path)
        save_preferences(rows, tmp_path / "again.jsonl")
        assert load_preferences(tmp_path / "again.jsonl") == rows
        assert from_trl(to_trl(rows)) == rows

    def test_text_is_written_as_text(self, tmp_path):
        save_preferences(
            load_preferences(build(tmp_path, "text")), tmp_path / "a.jsonl"
        )
        row = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
        assert row == dict(
            zip(("prompt", "chosen", "rejected"), next(triples()), strict=True)
        )

    def test_prompts_are_read_from_all(self, name, path):
        last = [
            p if isinstance(p, str) else p[-1]["content"] for p in read_prompts(path)
        ]
        assert set(last) <= {p for p, *_ in triples()}
        assert len(last) == (8 if name == "few" else ROWS)


class TestLayouts:
    def test_scores_of_ultrafeedback_are_the_margin(self, tmp_path):
        rows = load_preferences(build(tmp_path, "ultrafeedback"))
        assert {row.margin for row in rows} == {4.5}

    def test_the_original_ultrafeedback_pairs_best_and_worst(self):
        row = {
            "source": "x",
            "instruction": "Who?",
            "completions": [
                {"model": "m", "response": text, "overall_score": score}
                for text, score in (("b", 5), ("a", 8.5), ("c", 2))
            ],
        }
        assert from_trl([row]) == [Preference("Who?", "a", "c", margin=6.5)]

    def test_the_system_of_sharegpt_stands_in_the_prompt(self, tmp_path):
        row = load_preferences(build(tmp_path, "sharegpt"))[0]
        assert [m["role"] for m in row.prompt] == ["system", "user"]

    def test_an_open_dialogue_is_a_prompt(self):
        row = {
            "prompt": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Who?\n\nAssistant:",
            "chosen": " Ada.",
            "rejected": " Nobody.",
        }
        (found,) = from_trl([row])
        assert [m["content"] for m in found.prompt] == ["Hi", "Hello", "Who?"]
        assert found.chosen == [{"role": "assistant", "content": "Ada."}]

    def test_a_conversation_that_parts_early_keeps_all_later_turns(self):
        def talk(*texts):
            roles = ["user", "assistant"] * 2
            return [
                {"role": r, "content": t} for r, t in zip(roles, texts, strict=False)
            ]

        row = {"chosen": talk("Hi", "a", "Why?", "So."), "rejected": talk("Hi", "b")}
        (found,) = from_trl([row])
        assert (len(found.prompt), len(found.chosen), len(found.rejected)) == (1, 3, 1)

    def test_equal_dialogues_have_equal_answers(self):
        same = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "a"},
        ]
        with pytest.raises(BadPreferences, match="rejected: is identical to chosen"):
            from_trl([{"chosen": same, "rejected": same}])

    @pytest.mark.parametrize("meta", ["source: forum", "[1]", "3", ""])
    def test_meta_that_is_no_object_is_reported_with_its_row(self, meta):
        row = {"prompt": "Who?", "chosen": "a", "rejected": "b", "meta": meta}
        with pytest.raises(BadPreferences, match="rows:1, meta: is '"):
            from_trl([row])

    def test_columns_of_other_kinds_of_rows_are_null(self):
        row = dict.fromkeys(["chosen", "rejected", "margin"])
        row |= {"prompt": "Who?", "completion": "a", "label": False}
        assert from_trl([row]) == [Unpaired("Who?", "a", False)]

    @pytest.mark.parametrize(
        "row",
        [
            {},
            {"conversations": None, "chosen": {}, "rejected": {"from": "gpt"}},
            {"conversations": [{}], "chosen": {"from": "gpt"}, "rejected": 3},
            {"instruction": "Who?", "completions": [None, {"response": "a"}]},
            {"instruction": "Who?", "completions": 3},
            {"chosen": [{}], "rejected": []},
            {"chosen": [], "rejected": []},
            {"prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": 3, "rejected": None},
            {"score_chosen": True, "score_rejected": "x"},
            {"meta": "[" * 10**5},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_is_in_no_layout_is_reported(self, row):
        explicit(row)
        report = check_preferences([row])
        assert not report.ok
        assert str(report)


class TestFolders:
    def test_a_folder_of_json_lines(self, tmp_path, monkeypatch):
        for i in range(2):
            rows = [Preference(f"Who {i}{j}?", "a", "b") for j in range(3)]
            save_preferences(rows, tmp_path / "rows" / f"part-{i}.jsonl")
        (tmp_path / "rows" / "notes.txt").write_text("Not a row.")
        monkeypatch.chdir(tmp_path)
        rows = load_preferences("./rows")
        assert [r.prompt[0]["content"][4:6] for r in rows] == [
            "00", "01", "02", "10", "11", "12",
        ]  # fmt: skip

    def test_a_bad_row_has_its_file_and_number(self, tmp_path):
        save_preferences([Preference("Who?", "a", "b")], tmp_path / "a.jsonl")
        (tmp_path / "b.jsonl").write_text('\n{"prompt": "Who?"}\n')
        with pytest.raises(BadPreferences, match=r"b\.jsonl:2, chosen: is missing"):
            load_preferences(tmp_path)

    def test_a_folder_without_rows(self, tmp_path):
        with pytest.raises(BadPreferences, match="is a folder, expected a file"):
            load_preferences(tmp_path)

    def test_a_broken_table(self, tmp_path):
        (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(BadPreferences, match=r"a\.parquet:1: is no Parquet table"):
            load_preferences(tmp_path / "a.parquet")

    def test_a_packed_file_under_another_name(self, tmp_path):
        row = {"prompt": "Who?", "chosen": "a", "rejected": "b"}
        (tmp_path / "a.jsonl").write_bytes(gzip.compress(json.dumps(row).encode()))
        assert load_preferences(tmp_path / "a.jsonl") == [Preference(**row)]


class TestAsRows:
    def test_tables_become_rows(self):
        row = {"prompt": "Who?", "chosen": "a", "rejected": "b"}
        expected = [Preference(**row)]
        assert as_rows([row]) == expected
        assert as_rows(datasets.Dataset.from_list([row])) == expected
        assert as_rows(pandas.DataFrame([row])) == expected
        assert from_trl(pandas.DataFrame([row])) == expected

    def test_a_table_of_conversations(self):
        said = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "I."}]
        (row,) = as_rows([{"messages": said, "source": "x"}])
        assert [m["role"] for m in row] == ["user", "assistant"]

    def test_what_is_no_dict_stays(self):
        rows = [Preference("Who?", "a", "b"), GUIDE, ("tokens", 3)]
        assert as_rows(iter(rows)) == rows

    def test_a_set_of_splits_is_refused_with_the_remedy(self):
        rows = datasets.Dataset.from_list([{"prompt": "Who?", "chosen": "a"}])
        for read in (as_rows, from_trl):
            with pytest.raises(BadPreferences, match=r"take one split.*\['train'\]"):
                read(datasets.DatasetDict(train=rows, test=rows))

    def test_other_dicts_are_refused_with_the_remedy(self):
        with pytest.raises(BadPreferences, match="rows are Preferences: from_trl"):
            as_rows([{"question": "Who?"}])
