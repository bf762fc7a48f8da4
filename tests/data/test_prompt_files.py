"""Prompts are read from every kind of file, or the line that is none is named."""

import json

import pytest

from labs_helpers.data import BadFile, read_prompts
from labs_tools.training import BadSettings, _prompts

ASKED = [{"role": "user", "content": "Who?"}]


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
    tmp_path, name, content, prompts
):
    (tmp_path / name).write_bytes(content.encode())
    assert read_prompts(tmp_path / name) == prompts
    assert _prompts(str(tmp_path / name)) == prompts


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"prompt": [{"role": "user"}]}', r":2: prompt\[0\] is no message"),
        ("a.jsonl", '{"prompt": ""}', ":2: prompt is empty"),
        ("a.jsonl", '{"question": "Who?"}', ":2: prompt is missing"),
        ("a.jsonl", '"Who?"', ":2: is 'Who\\?', expected an object"),
        ("a.jsonl", '{"prompt": "\\ud800"}', ":2: holds half of a surrogate pair"),
        ("a.jsonl", '{"prompt": ' + "[" * 10**5, ":2: is nested more than 100 deep"),
        ("a.csv", "Who?", r"ends in \.csv, expected"),
        ("a.txt", "Zoë".encode("latin-1"), ":2: is not UTF-8"),
        ("a.txt", "Who?".encode("utf-16"), ":1: is in UTF-16"),
        ("a.txt", "", "holds no prompt"),
    ],
)
def test_what_is_no_prompt_is_named(tmp_path, name, content, said):
    first = b'{"prompt": "Why?"}\n'
    if not content or "UTF-16" in said:
        first = b""
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(first + content)
    with pytest.raises(BadFile, match=said):
        read_prompts(tmp_path / name)
    with pytest.raises(BadSettings, match=said):
        _prompts(str(tmp_path / name))
