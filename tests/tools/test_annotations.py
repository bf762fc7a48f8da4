"""`labs annotations merge`: a class's comparisons in one file, and who agrees."""

import pytest

from labs_helpers.course import Annotator
from labs_helpers.data import load_preferences
from labs_tools import cli
from labs_tools.annotations import read_people, report

PAIRS = [(f"Question {i}?", f"first {i}", f"second {i}") for i in range(12)]
REPEATED = PAIRS + PAIRS[:3]


@pytest.fixture
def judged(tmp_path):
    """Let somebody choose by a rule from a pair's number; gives the file."""

    def judge(folder, name, rule, pairs=REPEATED):
        path = tmp_path / folder / "my_preferences.jsonl"
        annotator = Annotator(pairs, path, name=name)
        for i, pair in enumerate(annotator._pairs):
            wanted = rule(i)
            if wanted in ("tie", "skip"):
                annotator.choose(wanted)
            else:
                annotator.choose("A" if pair.first.startswith(wanted) else "B")
        return path

    return judge


def test_a_class_is_merged_under_the_names_of_its_folders(judged, tmp_path, capsys):
    files = [
        judged("ada", "me", lambda i: "first"),
        judged("bob", "me", lambda i: "first" if i % 4 else "second"),
        judged("cyd", "cyd", lambda i: "tie" if i == 1 else "second"),
    ]
    out = tmp_path / "class.jsonl"
    command = ["annotations", "merge", *map(str, files), "--out", str(out)]
    assert cli.main(command) == 0
    rows = load_preferences(out)
    assert {row.annotator for row in rows} == {"ada", "bob", "cyd"}
    assert len(rows) == 3 * len(REPEATED) - 1
    assert len((tmp_path / "class.undecided.jsonl").read_text().splitlines()) == 1
    said = capsys.readouterr().out
    assert "44 preferences of 3 people" in said
    assert "Krippendorff's alpha of all" in said
    assert "The pairs that divide people most" in said


def test_who_contradicts_themselves_and_who_differs_is_told(judged):
    files = [
        judged("ada", "ada", lambda i: "first" if i % 2 else "second"),
        judged("bob", "bob", lambda i: "first" if i % 2 else "second"),
        judged("cyd", "cyd", lambda i: "first" if i >= 12 or i % 2 == 0 else "second"),
    ]
    table = report(read_people(files))[1].splitlines()
    ada, bob, cyd = table[1:]
    # Of the pairs 0, 1 and 2, again as 12, 13 and 14.
    assert "0.667" in cyd
    assert cyd.split()[0] == "cyd"
    assert " 1.00" in cyd  # without cyd the other two agree perfectly
    assert "-1.00" not in ada + bob


def test_files_of_ties_and_files_twice_change_nothing(judged):
    file = judged("ada", "ada", lambda i: "tie" if i == 0 else "first", PAIRS)
    ties = file.with_suffix(".undecided.jsonl")
    assert ties.exists()
    assert read_people([file, ties, file]) == read_people([file])
    assert len(read_people([file])["ada"]) == len(PAIRS)


def test_nothing_to_merge_is_one_line(judged, tmp_path, capsys):
    assert cli.main(["annotations", "merge", str(tmp_path / "none.jsonl")]) == 1
    assert "none.jsonl is missing" in capsys.readouterr().err
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    out = str(tmp_path / "out.jsonl")
    assert cli.main(["annotations", "merge", str(empty), "--out", out]) == 1
    assert "no comparison" in capsys.readouterr().err


def test_one_person_alone_has_a_report(judged):
    said = report(read_people([judged("ada", "ada", lambda i: "first")]))
    assert "alone" in said[1]
