"""Data: what is wrong is reported with its line and remedy, what is right survives."""

import gzip
import json
import logging
import math
import re
from dataclasses import replace

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labs_helpers.data import (
    BadFile,
    BadPreferences,
    Preference,
    Unpaired,
    check_preferences,
    load_preferences,
    read_prompts,
    save_preferences,
    split,
)
from labs_helpers.data.preferences import duplicates, from_trl, leaks, to_trl

GOOD = {"prompt": "Who cleans?", "chosen": "Ada.", "rejected": "Nobody."}
UNPAIRED = {"prompt": "Who cleans?", "completion": "Ada.", "label": True}
CHAT = {
    "prompt": [{"role": "user", "content": "Who cleans?"}],
    "chosen": [{"role": "assistant", "content": "Ada."}],
    "rejected": [{"role": "assistant", "content": "Nobody."}],
}


def write(path, *lines):
    """Write lines: bytes as they are, anything else as JSON."""
    raw = [x if isinstance(x, bytes) else json.dumps(x).encode() for x in lines]
    path.write_bytes(b"\n".join(raw) + b"\n")
    return path


def without(row, name):
    return {key: value for key, value in row.items() if key != name}


BAD_ROWS = [
    # row, field, problem, remedy
    (without(GOOD, "rejected"), "rejected", "is missing", "Add it"),
    (without(UNPAIRED, "label"), "label", "is missing", "Write true for a"),
    (
        {**without(GOOD, "chosen"), "choosen": "Ada."},
        "chosen",
        "is missing",
        "Rename 'choosen' to 'chosen'",
    ),
    (
        {"chosen": "\n\nHuman: Hi\n\nAssistant: A", "rejected": "B"},
        "prompt",
        "is missing",
        "Write whole dialogues",
    ),
    ({**GOOD, "chosen": " \n"}, "chosen", "is empty", "Write a text"),
    (
        {**GOOD, "rejected": "Ada. "},
        "rejected",
        "identical to chosen",
        "remove the row",
    ),
    ({**GOOD, "chosen": 3}, "chosen", "is a number", "Expected a string or a list"),
    ({**GOOD, "chosen": None}, "chosen", "is a null", "Expected a string or a list"),
    ({**GOOD, "chosen": []}, "chosen", "is an empty list", "Expected a string"),
    ({**GOOD, "prompt": CHAT["prompt"]}, "", "mixes formats", "Use one format"),
    ({**CHAT, "chosen": ["Ada."]}, "chosen[0]", "is no message", '{"role": "user"'),
    (
        {**CHAT, "chosen": [{"role": "bot", "content": "Ada."}]},
        "chosen[0].role",
        "'bot', an unknown role",
        "Use one of system, user, assistant",
    ),
    (
        {**CHAT, "chosen": [{"role": "assistant", "content": None}]},
        "chosen[0].content",
        "is a null, expected a string",
        "Write the message's text",
    ),
    (
        {**CHAT, "chosen": [{"role": "assistant", "content": ""}]},
        "chosen[0].content",
        "is empty",
        "Write a text",
    ),
    (
        {**CHAT, "chosen": [{"role": "user", "content": "Ada."}]},
        "chosen",
        "ends with a message of the user",
        "the assistant's",
    ),
    ({**GOOD, "margin": math.nan}, "margin", "is nan", "Write a finite number"),
    ({**GOOD, "margin": math.inf}, "margin", "is inf", "Write a finite number"),
    ({**GOOD, "margin": 10**400}, "margin", "is 1000000000", "Write a finite number"),
    ({**GOOD, "meta": {"a": math.nan}}, "meta", "cannot be written", "Correct it"),
    ({**GOOD, "time": []}, "time", "is [], expected text", "text or seconds"),
    ({**GOOD, "prompt": "Who \ud800?"}, "", "half of a surrogate", "one complete"),
    (b'{"prompt": ' + b"[" * 10**5, "", "nested too deep", "one complete JSON"),
    (b'{"n": ' + b"9" * 5000 + b"}", "", "thousands of digits", "one complete JSON"),
    (
        {**without(GOOD, "prompt"), "question": "Who cleans?"},
        "prompt",
        "is missing",
        "Rename 'question' to 'prompt'",
    ),
    ({**GOOD, "margin": "big"}, "margin", "is 'big'", "Write a finite number"),
    ({**GOOD, "margin": True}, "margin", "is True", "Write a finite number"),
    ({**GOOD, "annotator": 7}, "annotator", "is 7, expected text", "Correct it"),
    ({**GOOD, "meta": "x"}, "meta", "is 'x', expected a table", "Correct it"),
    ({**UNPAIRED, "label": "yes"}, "label", "is 'yes'", "Write true"),
    (["Ada."], "", "is ['Ada.'], expected an object", "prompt, chosen, rejected"),
    (b'{"prompt": "Who', "", "is no JSON: Unterminated string", "one complete JSON"),
    (b'{"prompt": "caf\xe9"}', "", "is not UTF-8: byte 0xe9 at position 16", "iconv"),
]


class TestCheck:
    @pytest.mark.parametrize(("row", "field", "problem", "remedy"), BAD_ROWS)
    def test_an_error_has_place_problem_and_remedy(
        self, tmp_path, row, field, problem, remedy
    ):
        in_messages = isinstance(row, dict) and row.get("prompt") == CHAT["prompt"]
        good = CHAT if in_messages and field else GOOD
        path = write(tmp_path / "set.jsonl", good, row)
        report = check_preferences(path)
        assert not report.ok
        (error,) = report.errors
        assert (error.file, error.line, error.field) == (str(path), 2, field)
        assert problem in error.problem
        assert remedy in error.remedy
        assert (report.rows, report.total) == (1, 2)

    def test_one_report_has_all_errors(self, tmp_path):
        path = write(tmp_path / "set.jsonl", GOOD, *(row for row, *_ in BAD_ROWS))
        report = check_preferences(path)
        assert report.rows == 1
        assert {error.line for error in report.errors} >= set(
            range(2, 2 + len(BAD_ROWS))
        )
        for error in report.errors:
            assert f"set.jsonl:{error.line}" in str(report)

    def test_several_errors_of_a_row(self, tmp_path):
        row = {**GOOD, "chosen": "", "rejected": " ", "margin": math.inf}
        report = check_preferences(write(tmp_path / "set.jsonl", row))
        assert [e.field for e in report.errors] == ["margin", "chosen", "rejected"]

    def test_mixed_formats_between_rows(self, tmp_path):
        report = check_preferences(write(tmp_path / "set.jsonl", GOOD, CHAT))
        (error,) = report.errors
        assert error.line == 2
        assert "line 1 is string" in error.problem

    def test_a_json_list_is_read_and_its_lines_are_named(self, tmp_path):
        path = tmp_path / "set.json"
        rows = [GOOD, {**GOOD, "prompt": "Why?"}, {**GOOD, "chosen": ""}]
        path.write_text(json.dumps(rows, indent=2))
        (error,) = check_preferences(path).errors
        assert (error.line, error.field) == (12, "chosen")

    def test_an_empty_file(self, tmp_path):
        (error,) = check_preferences(write(tmp_path / "set.jsonl")).errors
        assert "no rows" in error.problem

    def test_checking_changes_nothing(self, tmp_path):
        path = write(tmp_path / "set.jsonl", *(row for row, *_ in BAD_ROWS))
        before = path.read_bytes()
        check_preferences(path)
        assert path.read_bytes() == before

    def test_long_reports_are_cut_and_say_so(self):
        report = check_preferences([{**GOOD, "chosen": ""}] * 500)
        assert len(report.errors) == 500
        assert len(str(report).splitlines()) == 12
        assert "490 more like the last, to line 500" in str(report)

    @pytest.mark.parametrize(
        ("rows", "problem"),
        [
            ([GOOD, {**GOOD, "prompt": "who  CLEANS?"}], "repeats line 1"),
            (
                [GOOD, {**GOOD, "chosen": "Nobody.", "rejected": "Ada."}],
                "contradicts line 1",
            ),
            ([{**GOOD, "prompt": "\n\nHuman: Hi"}], "'Human:' or 'Assistant:' turns"),
            ([{**GOOD, "prompt": "caf\ufffd"}], "wrongly decoded"),
            ([{**GOOD, "source": "web"}], "unknown field"),
        ],
    )
    def test_warnings_keep_the_row(self, rows, problem):
        report = check_preferences(rows)
        assert report.ok
        assert report.rows == len(rows)
        (warning,) = report.warnings
        assert problem in warning.problem
        assert warning.line == len(rows)

    def test_rows_in_memory(self):
        rows = [Preference(**GOOD), Preference(**{**GOOD, "chosen": ""})]
        (error,) = check_preferences(rows).errors
        assert (error.file, error.line) == ("rows", 2)

    @settings(max_examples=20)
    @given(
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["prompt", "chosen", "rejected", "role", "content"])
                    | st.text(),
                    inner,
                    max_size=4,
                )
            ),
        )
    )
    def test_no_row_breaks_the_check(self, row):
        assert str(check_preferences([GOOD, row]))


class TestLoadAndSave:
    @pytest.mark.parametrize(
        "row",
        [
            Preference(**GOOD),
            Preference(**CHAT),
            Preference(
                **GOOD,
                margin=0.5,
                dimension="honesty",
                annotator="ann-1",
                time=12.5,
                meta={"entity": "town hall", "n": 3},
            ),
            Unpaired(**UNPAIRED, meta={"entity": "ähnlich\u2028"}),
        ],
    )
    def test_what_is_saved_comes_back(self, tmp_path, row):
        path = tmp_path / "new" / "set.jsonl"
        save_preferences([row], path)
        assert load_preferences(path) == [row]

    def test_rows_hold_messages_whatever_they_were_given_as(self):
        assert Preference(**GOOD).prompt[-1]["content"] == "Who cleans?"
        assert Preference(**GOOD) == Preference(**CHAT)
        assert Unpaired(**UNPAIRED).completion == CHAT["chosen"]

    @pytest.mark.parametrize(
        ("rows", "as_text"),
        [
            ([Preference(**GOOD)], True),
            ([replace(Preference(**GOOD), margin=1.0)], True),
            ([replace(Preference(**GOOD), prompt=CHAT["prompt"] * 2)], False),
            ([Preference(**CHAT)], False),
            ([Preference(**GOOD), Preference(**{**CHAT, "meta": {"a": 1}})], False),
        ],
    )
    def test_a_file_holds_text_where_all_rows_were_text(self, tmp_path, rows, as_text):
        path = tmp_path / "set.jsonl"
        save_preferences(rows, path)
        kinds = {type(json.loads(x)["prompt"]) for x in path.read_text().splitlines()}
        assert kinds == {str if as_text else list}
        assert load_preferences(path) == rows

    def test_rows_of_both_kinds_in_memory_are_checked_in_one_format(self):
        rows = [Preference(**GOOD), Preference(**{**CHAT, "margin": 1.0})]
        assert check_preferences(rows).ok

    def test_unset_fields_are_not_written(self, tmp_path):
        save_preferences([Preference(**GOOD)], tmp_path / "set.jsonl")
        assert json.loads((tmp_path / "set.jsonl").read_text()) == GOOD

    def test_saving_leaves_no_other_file(self, tmp_path):
        save_preferences([Preference(**GOOD)], tmp_path / "set.jsonl")
        assert [path.name for path in tmp_path.iterdir()] == ["set.jsonl"]

    @pytest.mark.parametrize(
        "content",
        [b"{}", gzip.compress(b"{}" * 99, mtime=0)[:20]],
        ids=["not compressed", "cut off"],
    )
    def test_what_cannot_be_unpacked_is_reported(self, tmp_path, content):
        path = tmp_path / "set.jsonl.gz"
        path.write_bytes(content)
        with pytest.raises(
            BadPreferences, match=r"set\.jsonl\.gz:1: cannot be unpacked"
        ):
            load_preferences(path)

    def test_a_null_is_no_row(self, tmp_path):
        path = tmp_path / "set.jsonl"
        path.write_text(json.dumps(GOOD) + "\nnull\n")
        with pytest.raises(BadPreferences, match=r"set\.jsonl:2: is null"):
            load_preferences(path)

    def test_loading_a_bad_file_raises_its_report(self, tmp_path):
        path = write(tmp_path / "set.jsonl", GOOD, {**GOOD, "chosen": ""}, b"{")
        with pytest.raises(BadPreferences) as error:
            load_preferences(path)
        assert str(error.value) == str(check_preferences(path))

    def test_warnings_do_not_stop_loading(self, tmp_path):
        assert len(load_preferences(write(tmp_path / "set.jsonl", GOOD, GOOD))) == 2

    def test_a_missing_file_is_named(self):
        with pytest.raises(FileNotFoundError, match=r"No file 'no\.jsonl'"):
            load_preferences("no.jsonl")

    def test_a_hub_name_takes_split_and_slice(self, monkeypatch):
        asked = []

        def load_dataset(name, split):
            asked.append((name, split))
            return datasets.Dataset.from_list([GOOD])

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        assert load_preferences("some/set:test[:10]") == [Preference(**GOOD)]
        load_preferences("some/set")
        assert asked == [("some/set", "test[:10]"), ("some/set", "train")]

    def test_unusable_rows_of_the_hub_are_skipped_and_counted(
        self, monkeypatch, caplog
    ):
        rows = [GOOD, {**GOOD, "chosen": ""}]
        monkeypatch.setattr(datasets, "load_dataset", lambda name, split: rows)
        with caplog.at_level(logging.WARNING):
            assert load_preferences("some/set") == [Preference(**GOOD)]
        assert "skipped 1 of 2 rows, the first because some/set:2," in caplog.text

    def test_a_folder_of_the_hub_says_what_hh_was_asked(self, monkeypatch):
        turns = "\n\nHuman: Who?\n\nAssistant: "
        row = {"chosen": turns + "Ada.", "rejected": turns + "Bob."}

        def load_dataset(name, *configuration, split, data_dir=None):
            if configuration:
                raise ValueError("BuilderConfig 'helpful-base' not found")
            assert (name, data_dir, split) == ("Anthropic/hh", "helpful-base", "test")
            return [row]

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        (found,) = load_preferences("Anthropic/hh:helpful-base:test")
        assert found.dimension == "helpful"

    def test_a_set_of_the_hub_without_a_usable_row(self, monkeypatch):
        rows = [{"question": "Why?", "answer": "So."}]
        monkeypatch.setattr(datasets, "load_dataset", lambda name, split: rows)
        with pytest.raises(BadPreferences, match="prompt: is missing"):
            load_preferences("some/set")

    def test_an_unreachable_hub_name_is_named(self, monkeypatch):
        def load_dataset(name, split):
            raise ConnectionError("no network")

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        with pytest.raises(OSError, match=r"Cannot load 'some/set'[\s\S]*no network"):
            load_preferences("some/set")


class TestTrl:
    @pytest.mark.parametrize(
        "rows",
        [
            [Preference(**GOOD), Preference(**{**GOOD, "prompt": "Why?"}, margin=1.0)],
            [Preference(**CHAT, meta={"a": 1}), Preference(**CHAT, meta={"b": [2]})],
            [Unpaired(**UNPAIRED), Unpaired(**{**UNPAIRED, "label": False})],
        ],
    )
    def test_there_and_back(self, rows):
        assert from_trl(to_trl(rows)) == rows

    def test_columns_are_trls(self):
        assert to_trl([Preference(**CHAT)])[0] == CHAT

    def test_both_kinds_at_once_are_refused(self):
        with pytest.raises(TypeError, match="paired or unpaired rows, not both"):
            to_trl([Preference(**GOOD), Unpaired(**UNPAIRED)])

    @pytest.mark.parametrize("prompt", [{}, {"prompt": "Who cleans?"}])
    def test_an_implicit_prompt_is_what_both_begin_with(self, prompt):
        rows = [
            {
                **prompt,
                "chosen": CHAT["prompt"] + CHAT["chosen"],
                "rejected": CHAT["prompt"] + CHAT["rejected"],
                "score": 3.0,
            }
        ]
        assert from_trl(rows) == [Preference(**CHAT)]

    def test_bad_rows_are_reported(self):
        with pytest.raises(BadPreferences, match="rows:1, chosen: is empty"):
            from_trl([{**GOOD, "chosen": ""}])


def hh(*turns):
    speakers = ["Human", "Assistant"] * len(turns)
    return "".join(
        f"\n\n{who}: {what}" for who, what in zip(speakers, turns, strict=False)
    )


class TestHH:
    def load(self, tmp_path, *pairs):
        path = tmp_path / "hh.jsonl.gz"
        lines = [json.dumps({"chosen": c, "rejected": r}) for c, r in pairs]
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
        return load_preferences(path)

    def test_the_common_beginning_is_the_prompt(self, tmp_path):
        pair = (hh("Hi", "Hello.", "Why?", "So."), hh("Hi", "Hello.", "Why?", "No."))
        assert self.load(tmp_path, pair) == [
            Preference(
                prompt=[
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": "Hello."},
                    {"role": "user", "content": "Why?"},
                ],
                chosen=[{"role": "assistant", "content": "So."}],
                rejected=[{"role": "assistant", "content": "No."}],
            )
        ]

    @pytest.mark.parametrize(
        "pair",
        [
            (hh("Hi", "Hello."), hh("Hi", "Hello. ")),
            (hh("Hi", "Hello."), hh("Ho", "Hello.")),
            (hh("Hi", "A", "Why?", "So."), hh("Hi", "B", "Why?", "No.")),
            (hh("Hi", "Hello.", "Why?"), hh("Hi", "Hello.", "Who?")),
            (hh("Hi", ""), hh("Hi", "Hello.")),
        ],
    )
    def test_other_rows_are_skipped_and_counted(self, tmp_path, caplog, pair):
        good = (hh("Hi", "So."), hh("Hi", "No."))
        with caplog.at_level(logging.WARNING):
            assert len(self.load(tmp_path, pair, good)) == 1
        assert "skipped 1 of 2 rows" in caplog.text

    @pytest.mark.parametrize(
        ("line", "finding"),
        [
            ('{"chosen": "Hi", "rejec', ":2: is no JSON"),
            ('"Hi"', ":2: is 'Hi', expected an object"),
            ('{"chosen": "Hi"}', ":2, rejected: is missing"),
            ('{"chosen": "Hi", "rejected": "Ho"}', ":2, prompt: is missing"),
            ("null", ":2: is null"),
        ],
    )
    def test_lines_without_dialogues_are_reported(self, tmp_path, line, finding):
        path = tmp_path / "hh.jsonl"
        good = {"chosen": hh("Hi", "So."), "rejected": hh("Hi", "No.")}
        path.write_text(f"{json.dumps(good)}\n{line}\n")
        with pytest.raises(BadPreferences, match=re.escape(f"hh.jsonl{finding}")):
            load_preferences(path)

    def test_an_empty_file_is_reported(self, tmp_path):
        path = tmp_path / "hh.jsonl"
        path.write_text("")
        with pytest.raises(BadPreferences, match="has no rows"):
            load_preferences(path)


def numbered(n, prompts):
    return [
        Preference(f"p{i % prompts}", f"yes {i}", "no", meta={"group": i % 3})
        for i in range(n)
    ]


def said(row):
    return row.chosen[-1]["content"]


class TestSplit:
    @settings(max_examples=30)
    @given(
        st.integers(0, 60),
        st.integers(1, 20),
        st.integers(0, 99),
        st.floats(0.05, 0.95),
    )
    def test_no_prompt_is_in_two_parts_and_no_row_is_lost(
        self, n, prompts, seed, fraction
    ):
        rows = numbered(n, prompts)
        a, b = split(rows, (fraction, 1 - fraction), seed)
        assert leaks(a, b) == []
        assert sorted(map(said, a + b)) == sorted(map(said, rows))

    def test_sizes(self):
        parts = split(numbered(1000, 500), (0.8, 0.1, 0.1), seed=0)
        assert [len(part) for part in parts] == [800, 100, 100]

    def test_seed(self):
        rows = numbered(100, 100)
        a, b, c = (split(rows, (0.5, 0.5), seed) for seed in (1, 1, 2))
        assert a == b != c

    def test_prompts_that_differ_in_case_stay_together(self):
        rows = [Preference(p, "a", "b") for p in ("Why?", "why? ", "Who?", "WHO?")]
        a, b = split(rows, (0.5, 0.5), seed=0)
        assert len(a) == len(b) == 2
        assert leaks(a, b) == []

    def test_by_keeps_groups_and_still_prompts_together(self):
        rows = [
            Preference("p", "1", "0", meta={"entity": "hall"}),
            Preference("p", "2", "0", meta={"entity": "mill"}),
            Preference("q", "3", "0", meta={"entity": "mill"}),
            Preference("r", "4", "0", meta={"entity": "pier"}),
        ]
        parts = split(rows, (0.5, 0.5), seed=0, by=lambda row: row.meta["entity"])
        assert sorted(map(len, parts)) == [1, 3]


def test_leaks_name_the_prompts():
    a = [Preference("Why?", "a", "b"), Preference("Who?", "a", "b")]
    b = [Preference([{"role": "user", "content": " why?"}], "c", "d")]
    assert leaks(a, b) == ["why?"]


def test_duplicates_are_grouped():
    rows = [*numbered(2, 2), *numbered(3, 3)]
    assert duplicates(rows) == [(0, 2), (1, 3)]


ASKED = [{"role": "user", "content": "Who?"}]


class TestPrompts:
    @pytest.mark.parametrize(
        ("name", "content", "prompts"),
        [
            ("a.txt", "\ufeffWho?\r\n\r\nW\x85h\u2028o?\n", ["Who?", "W\x85h\u2028o?"]),
            ("a.jsonl", '{"prompt": "Who\u2028?"}\n', ["Who\u2028?"]),
            ("a.jsonl", json.dumps({"prompt": ASKED}), [ASKED]),
            ("a.jsonl", '{"prompt": [{"from": "human", "value": "Who?"}]}', [ASKED]),
            (
                "a.json",
                json.dumps([{"prompt": "Who?", "chosen": "a", "rejected": "b"}]),
                ["Who?"],
            ),
            (
                "a.jsonl",
                json.dumps(
                    {
                        "chosen": "\n\nHuman: Who?\n\nAssistant: a",
                        "rejected": "\n\nHuman: Who?\n\nAssistant: b",
                    }
                ),
                [ASKED],
            ),
        ],
    )
    def test_text_stays_text_and_the_rest_becomes_messages(
        self, tmp_path, name, content, prompts
    ):
        (tmp_path / name).write_bytes(content.encode())
        assert read_prompts(tmp_path / name) == prompts

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            (
                "a.jsonl",
                '{"prompt": [{"role": "user"}]}',
                r":2: prompt\[0\] is no message",
            ),
            ("a.jsonl", '{"prompt": ""}', ":2: prompt is empty"),
            ("a.jsonl", '{"question": "Who?"}', ":2: prompt is missing"),
            ("a.jsonl", '"Who?"', ":2: is 'Who\\?', expected an object"),
            ("a.jsonl", '{"prompt": "\\ud800"}', ":2: holds half of a surrogate pair"),
            ("a.jsonl", '{"prompt": ' + "[" * 10**5, ":2: is nested too deep"),
            ("a.csv", "Who?", r"ends in \.csv, expected"),
            ("a.txt", "Zoë".encode("latin-1"), ":2: is not UTF-8"),
            ("a.txt", "Who?".encode("utf-16"), ":1: is in UTF-16"),
            ("a.txt", "", "holds no prompt"),
        ],
    )
    def test_what_is_no_prompt_is_named(self, tmp_path, name, content, said):
        first = b'{"prompt": "Why?"}\n'
        if not content or "UTF-16" in said:
            first = b""
        content = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(first + content)
        with pytest.raises(BadFile, match=said):
            read_prompts(tmp_path / name)
