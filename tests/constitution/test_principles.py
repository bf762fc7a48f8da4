"""Constitutions: read, extended, and whatever is wrong named with its line."""

import re

import pytest

from labs_helpers.constitution import BadConstitution, load_constitution
from labs_helpers.course.profile import ROOT

TEXT = """\
defaults:
  critique: "Is it kept: {text}?"
  revision: "Mend it: {text}."
  comparison: "{prompt} A: {a} B: {b} Which keeps it: {text}?"
replies: {kept: "Yes", broken: "No", first: "A", second: "B"}
principles:
  - id: kind
    text: be kind
  - id: brief
    text: be brief
    critique: "Is it short?"
"""


def test_requests_come_from_the_principle_or_the_defaults():
    found = load_constitution(TEXT)
    assert found.ids == ["kind", "brief"]
    assert found["kind"].critique == "Is it kept: be kind?"
    assert found["brief"].critique == "Is it short?"
    assert found.only("brief").ids == ["brief"]
    with pytest.raises(KeyError, match="there are kind, brief"):
        found["calm"]


def test_what_is_put_in_is_not_searched_for_slots():
    asked = load_constitution(TEXT)["kind"].compare("Why {a}?", "{b}", "x")
    assert asked == "Why {a}? A: {b} B: x Which keeps it: be kind?"


def test_a_principle_is_added_in_the_default_wordings():
    found = load_constitution(TEXT).adding("calm", "stay calm")
    assert found["calm"].revision == "Mend it: stay calm."
    with pytest.raises(ValueError, match="already"):
        found.adding("calm", "again")


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("text: be kind", "txet: be kind", 8, "txet: is no field"),
        ("  - id: kind\n", "  - name: x\n", 7, "id: is missing"),
        ("id: brief", "id: kind", 9, "already"),
        ("id: brief", "id: Be Brief!", 9, "Write a short name"),
        ("text: be brief", "text: yes", 10, "in quotes"),
        ("text: be brief", 'text: ""', 10, "expected text"),
        ('{text}?"\n  revision', '{txt}?"\n  revision', 2, "{txt} is no slot"),
        ("B: {b} ", "B: b ", 4, "{b} is missing"),
        ('broken: "No"', 'broken: "Yes"', 5, "two of them are the same"),
        ("  - id: kind", "  - id: [kind", 8, "is no YAML"),
        ("text: be brief", "text: 1e-4", 10, "in quotes"),
        ("text: be brief", "text: be \x07", 10, "holds a control character"),
        ("text: be brief", 'text: "\\ud800"', 10, "half of a surrogate pair"),
        ("text: be brief", "? [a]: 1", 10, "is no YAML"),
    ],
)
def test_a_broken_line_is_named(tmp_path, old, new, line, said):
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(BadConstitution) as error:
        load_constitution(path)
    assert any(
        re.search(rf"mine\.yaml:{line}\b", row) and said in row
        for row in str(error.value).splitlines()
    ), error.value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("# Zoë\n".encode("latin-1"), ":1: is not UTF-8"),
        (TEXT.encode("utf-16"), "is in UTF-16"),
        (b"a: " + b"[" * 1000, "nested too deep"),
        (b"defaults: !!python/object/apply:os.system [ls]", ":1: is no YAML"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, content, said):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(BadConstitution, match=said):
        load_constitution(tmp_path / "mine.yaml")


def test_dates_are_text_and_a_mark_is_fine(tmp_path):
    path = tmp_path / "mine.yaml"
    text = TEXT.replace("text: be brief", "text: 2026-01-02").replace("\n", "\r\n")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert [p.text for p in load_constitution(path)][-1] == "2026-01-02"


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "\n", "principles: []\n"])
def test_what_is_no_constitution_says_so(text):
    with pytest.raises(BadConstitution, match="expected"):
        load_constitution(text)


def test_the_labs_constitution_is_well_formed():
    found = load_constitution(ROOT / "data" / "constitution.yaml")
    assert found.ids[:2] == ["harmless", "helpful"]
    with pytest.raises(FileNotFoundError, match="no constitution"):
        load_constitution("nowhere.yaml")
