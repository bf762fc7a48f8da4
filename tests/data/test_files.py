"""Files that people write are read, or refused with file, line and remedy."""

import gzip
import json

import pytest

from labs_helpers.data import BadFile, read_prompts
from labs_helpers.data.files import read_json_lines, read_table, read_text, read_yaml


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


class TestText:
    @pytest.mark.parametrize(
        ("content", "lines"),
        [
            ("\ufeffWho?\r\nWhere?\r\n", ["Who?", "Where?"]),
            ("Who\x85are\u2028you?\n\n \nAda\n", ["Who\x85are\u2028you?", "Ada"]),
            (gzip.compress(b"Who?", mtime=0), ["Who?"]),
        ],
    )
    def test_lines_end_at_line_feeds_alone(self, tmp_path, content, lines):
        assert read_prompts(written(tmp_path / "a.txt", content)) == lines

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("Who?".encode("utf-16"), r"a\.txt:1: is in UTF-16, expected UTF-8.*iconv"),
            ("Who?".encode("utf-16-le"), "is in UTF-16"),
            ("Who?".encode("utf-16-be"), "is in UTF-16"),
            ("Who?".encode("utf-32"), "is in UTF-32"),
            (
                "Ada\nZoë".encode("latin-1"),
                r"a\.txt:2: is not UTF-8: byte 0xeb at pos.* 3",
            ),
            (b"PK\x03\x04...", "is a zip archive, expected text"),
            (b"PAR1...", "is a Parquet table"),
            (b"\x1f\x8b\x08", "cannot be unpacked"),
        ],
    )
    def test_what_is_no_utf_8_is_named(self, tmp_path, content, said):
        with pytest.raises(BadFile, match=said):
            read_text(written(tmp_path / "a.txt", content))

    def test_a_folder_is_no_file(self, tmp_path):
        with pytest.raises(BadFile, match="is a folder, expected a file"):
            read_text(tmp_path)


class TestJsonLines:
    @pytest.mark.parametrize(
        ("content", "rows"),
        [
            ('\ufeff{"a": 1}\r\n\r\n{"a": 2}', [(1, {"a": 1}), (3, {"a": 2})]),
            ('{"a": "x\u2028y\x85"}\n', [(1, {"a": "x\u2028y\x85"})]),
            ('[\n{"a": 1},\n\n[2],\n"]"]', [(2, {"a": 1}), (4, [2]), (5, "]")]),
            ("[1]\n[2]\n", [(1, [1]), (2, [2])]),
            ("[]", []),
            ('{"a": "\\ud83d\\ude00"}', [(1, {"a": "\U0001f600"})]),
        ],
    )
    def test_values_have_their_lines(self, tmp_path, content, rows):
        assert read_json_lines(written(tmp_path / "a.jsonl", content)) == rows

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ('{"a": "x', r"a\.jsonl:2: is no JSON: Unterminated string.*column 7"),
            ('{"a": ' + "9" * 5000 + "}", "holds a number of thousands of digits"),
            ("[" * 10**5, "is nested too deep"),
            ('{"a": "\\ud800"}', "holds half of a surrogate pair, which is no text"),
            ('{"a": "\x00"}', "is no JSON: Invalid control character"),
            (b'{"a": "caf\xe9"}', "is not UTF-8: byte 0xe9 at position 11.*iconv"),
        ],
    )
    def test_a_broken_line_is_named(self, tmp_path, line, said):
        line = line if isinstance(line, bytes) else line.encode()
        path = written(tmp_path / "a.jsonl", b'{"a": 1}\n' + line + b"\n")
        with pytest.raises(BadFile, match=said) as error:
            read_json_lines(path)
        assert (error.value.file, error.value.line) == (str(path), 2)
        assert len(str(error.value)) < 500

    def test_many_brackets_that_are_not_deep_are_fine(self, tmp_path):
        rows = [[i] for i in range(300)]
        path = written(tmp_path / "a.jsonl", json.dumps({"rows": rows}))
        assert read_json_lines(path) == [(1, {"rows": rows})]

    def test_a_broken_list(self, tmp_path):
        with pytest.raises(BadFile, match=":2: is no JSON"):
            read_json_lines(written(tmp_path / "a.json", "[1,\n2"))


class TestTable:
    @pytest.mark.parametrize("number", ["1e-4", "1E-4", "1.e-4", ".1e-3", "+1e-4"])
    def test_numbers_of_yaml_are_numbers(self, tmp_path, number):
        path = written(tmp_path / "a.yaml", f"lr: {number}\nmore: [{number}]")
        table = read_table(path)
        assert table == {"lr": pytest.approx(1e-4), "more": [pytest.approx(1e-4)]}

    def test_words_and_dates_of_yaml_are_text(self, tmp_path):
        path = written(tmp_path / "a.yml", "a: 2026-01-02\nb: e5\nc: town-xs\nd: 1e")
        assert read_table(path) == {
            "a": "2026-01-02",
            "b": "e5",
            "c": "town-xs",
            "d": "1e",
        }

    def test_toml_with_a_mark(self, tmp_path):
        path = written(
            tmp_path / "a.toml", "\ufeffpolicy = 'x'\r\n[settings]\r\nn = 1\r\n"
        )
        assert read_table(path) == {"policy": "x", "settings": {"n": 1}}

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("a.toml", "a = 1\nb = ", r"a\.toml:2: cannot be read as TOML: Inv"),
            ("a.toml", "a = " + "[" * 1000, "nested too deep"),
            ("a.yaml", "a: 1\nb: [", r"a\.yaml:2: is no YAML"),
            ("a.yaml", "a: 1\na: 2", r"a\.yaml:2: is no YAML: 'a' stands there twice"),
            ("a.yaml", "a: 1\nb: x\x07", r":2: is no YAML: it holds a con.* U\+0007"),
            ("a.yaml", "a: " + "[" * 1000, "nested too deep"),
            ("a.yaml", "a: !!python/object/apply:os.system [ls]", ":1: is no YAML"),
            ("a.yaml", "a: !!timestamp x", "is no YAML"),
            ("a.yaml", "a: !!int x", "is no YAML"),
            ("a.yaml", "a: !!map x", "is no YAML"),
            ("a.yaml", "? [a]\n: b", "is no YAML"),
            ("a.yaml", 'a: 1\nb: "\\ud800"', r"a\.yaml:2: .*half of a surrogate pair"),
            ("a.yaml", "- a", "holds no table"),
            ("a.yaml", "", "holds no table"),
            ("a.yaml", "a: é".encode("latin-1"), r"a\.yaml:1: is not UTF-8"),
            ("a.toml", "a = 'é'".encode("utf-16"), "is in UTF-16"),
        ],
    )  # fmt: skip
    def test_what_is_no_table_is_named(self, tmp_path, name, content, said):
        with pytest.raises(BadFile, match=said) as error:
            read_table(written(tmp_path / name, content))
        assert len(str(error.value)) < 500

    def test_an_alias_of_itself_ends(self):
        node, value = read_yaml("&a [*a]", "text")
        assert value[0] is value
        assert node is not None
