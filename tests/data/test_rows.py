"""Rows: what may stand in them, and that every door takes and refuses the same."""

import json

import numpy as np
import pandas
import pytest
import torch

from labs_helpers.data import (
    Preference,
    Unpaired,
    check_preferences,
    load_preferences,
    save_preferences,
    split,
)
from labs_helpers.data.preferences import duplicates, from_trl, leaks, to_trl
from labs_helpers.fit import FitConfig, KTOObjective, PairObjective, fit
from labs_helpers.models import RewardModel

ROW = {"prompt": "Who?", "chosen": "Ada.", "rejected": "Bob."}
PAIR = Preference(**ROW)


class TestValues:
    @pytest.mark.parametrize("label", ["no", "yes", None, 2, float("nan")])
    def test_a_label_is_true_or_false(self, label):
        with pytest.raises(ValueError, match=r"label is .*, expected true"):
            Unpaired("Who?", "Ada.", label)

    @pytest.mark.parametrize("label", [0, False, np.False_, torch.tensor(False)])
    def test_a_label_from_a_table_is_read(self, label):
        assert Unpaired("Who?", "Ada.", label).label is False

    @pytest.mark.parametrize("margin", ["1", float("nan"), True, [1.0]])
    def test_a_margin_is_a_finite_number(self, margin):
        with pytest.raises(ValueError, match=r"margin is .*, expected a finite number"):
            Preference(**ROW, margin=margin)

    def test_a_margin_from_a_table_is_read_and_saved(self, tmp_path):
        rows = from_trl([{**ROW, "margin": np.float32(2)}])
        rows.append(Preference("Where?", "a", "b", margin=torch.tensor(0.5)))
        save_preferences(rows, tmp_path / "rows.jsonl")
        loaded = load_preferences(tmp_path / "rows.jsonl")
        assert loaded == rows
        assert [row.margin for row in loaded] == [2.0, 0.5]


class TestTables:
    def test_what_pandas_does_not_have_is_left_out(self):
        table = pandas.DataFrame([ROW, {**ROW, "prompt": "Where?", "margin": 1.0}])
        assert [row.margin for row in from_trl(table)] == [None, 1.0]

    @pytest.mark.parametrize("table", [ROW, {"train": [ROW]}])
    def test_a_table_that_is_no_set_of_rows_is_refused(self, table):
        for door in (from_trl, check_preferences, to_trl, duplicates):
            with pytest.raises(ValueError, match="a single row in a list"):
                door(table)

    def test_rows_may_be_dicts_and_generators_at_every_door(self, tmp_path):
        def given():
            return (dict(ROW) for _ in range(2))

        save_preferences(given(), tmp_path / "rows.jsonl")
        assert load_preferences(tmp_path / "rows.jsonl") == [PAIR, PAIR]
        assert len(to_trl(given())) == len(to_trl(PAIR for _ in range(2))) == 2
        assert split(given(), (1.0,), seed=0) == [[PAIR, PAIR]]
        assert leaks(given(), [PAIR]) == ["who?"]
        assert duplicates(given()) == [(0, 1)]

    @pytest.mark.parametrize("rows", ["rows.jsonl", ["Who?"]])
    def test_what_holds_no_rows_is_refused_at_every_door(self, rows, tmp_path):
        doors = [to_trl, duplicates, lambda x: leaks(x, x)]
        doors += [lambda x: split(x, (1.0,), 0)]
        doors += [lambda x: save_preferences(x, tmp_path / "rows.jsonl")]
        for door in doors:
            with pytest.raises(ValueError, match="expected"):
                door(rows)
        assert not list(tmp_path.iterdir())


class TestFiles:
    def test_a_packed_file_comes_back(self, tmp_path):
        save_preferences([PAIR], tmp_path / "rows.jsonl.gz")
        assert load_preferences(tmp_path / "rows.jsonl.gz") == [PAIR]

    def test_a_parquet_name_is_not_given_to_json(self, tmp_path):
        with pytest.raises(ValueError, match="to_parquet"):
            save_preferences([PAIR], tmp_path / "rows.parquet")

    @pytest.mark.parametrize("value", [{1, 2}, float("nan"), "\ud800"])
    def test_meta_that_json_cannot_hold_is_named(self, value, tmp_path):
        rows = [PAIR, Preference(**ROW, meta={"x": value})]
        with pytest.raises(ValueError, match=r"row 1 .*Write text"):
            save_preferences(rows, tmp_path / "rows.jsonl")
        with pytest.raises(ValueError, match=r"row 1 .*Write text"):
            to_trl(rows)

    @pytest.mark.parametrize("name", ["rows.csv", "rows.tsv"])
    def test_a_table_of_text_is_not_taken_for_json(self, name, tmp_path):
        (tmp_path / name).write_text("prompt,chosen,rejected\nWho?,a,b\n")
        with pytest.raises(ValueError, match=r"pandas\.read_csv"):
            load_preferences(tmp_path / name)

    def test_an_empty_name_is_not_this_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "rows.jsonl").write_text(json.dumps(ROW))
        with pytest.raises(OSError, match="No file ''"):
            load_preferences("")


class TestSplit:
    @pytest.mark.parametrize(
        "fractions", [(float("nan"), 0.1), (), (1.0, 0.0), (0.5, 0.6), (1.2, -0.2)]
    )
    def test_fractions_are_numbers_that_add_up(self, fractions):
        with pytest.raises(ValueError, match="fractions are positive numbers"):
            split([PAIR], fractions, seed=0)

    def test_rows_stay_together_by_a_list(self):
        rows = [Preference(f"Who {i}?", "a", "b", meta={"n": i % 2}) for i in range(8)]
        parts = split(rows, (0.5, 0.5), seed=0, by=lambda row: [row.meta["n"]])
        assert [len({row.meta["n"] for row in part}) for part in parts] == [1, 1]


class TestTraining:
    @pytest.mark.parametrize(
        ("row", "kind"),
        [(Unpaired("Who?", "Ada.", True), "Unpaired"), ("Who?", "string")],
    )
    def test_pairs_are_asked_for_by_name(self, row, kind, tiny_policy, tiny_tokenizer):
        objective = PairObjective(tiny_tokenizer, None)
        config = FitConfig(lr=1e-3, steps=1, progress=False)
        with pytest.raises(ValueError, match=rf"row 1: is an? {kind}.*Preference"):
            fit(tiny_policy(), [PAIR, row], objective, config)

    def test_kto_asks_for_single_answers(self, tiny_policy, tiny_tokenizer):
        config = FitConfig(lr=1e-3, steps=1, progress=False)
        with pytest.raises(ValueError, match=r"row 0: .*expected Unpaired: Unpaired\("):
            fit(tiny_policy(), [PAIR], KTOObjective(tiny_tokenizer, None), config)

    def test_a_path_is_no_set_of_rows(self, tiny_policy, tiny_tokenizer):
        objective = PairObjective(tiny_tokenizer, None)
        config = FitConfig(lr=1e-3, steps=1, progress=False)
        with pytest.raises(ValueError, match="load_preferences"):
            fit(tiny_policy(), "rows.jsonl", objective, config)

    def test_each_prompt_has_an_answer_to_score(self, tiny_policy, tiny_tokenizer):
        model = RewardModel.from_policy(tiny_policy(), tokenizer=tiny_tokenizer)
        with pytest.raises(ValueError, match="1 answers came to 2 prompts"):
            model.score(["Who?", "Where?"], ["Ada."])
