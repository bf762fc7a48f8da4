"""Submissions: whose they are, what they hold, what cannot be read."""

import json
import os

import pytest

from labs_helpers.course.lab import start
from labs_tools.grading import submissions

# Whose it is

NAMES = {
    "anna.ipynb": "anna",
    "1_reward_model_anna.ipynb": "anna",
    "anna/1_reward_model.ipynb": "anna",
    "Anna Berg - Lab 1 (2).ipynb": "Anna Berg",
    "Ada Lovelace_123456_assignsubmission_file_/1_reward_model.ipynb": "Ada Lovelace",
    "1_reward_model-Copy1.ipynb": "1_reward_model-Copy1",
    "lab1/lab_1_østergård.ipynb": "østergård",
    "zip/嘉/solved.ipynb": "嘉",
}


@pytest.fixture
def folder(tmp_path):
    def build(*names):
        for name in names:
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("x")
        return tmp_path / "in"

    return build


@pytest.mark.parametrize(("name", "student"), NAMES.items())
def test_student_comes_from_any_name(folder, name, student):
    [found] = submissions.collect(folder(name), lab_names=["1_reward_model"])
    assert found.student == student
    assert found.known


def test_roster_knows_aliases(folder, tmp_path):
    roster = tmp_path / "roster.csv"
    roster.write_text("id,name,mail\nab1,Anna Berg,a.berg@x.org\nab2,Anna Bergmann,\n")
    students = submissions.read_roster(roster)
    names = ["ANNA_BERG.ipynb", "annabergmann-7.ipynb", "a.berg@x.org.ipynb", "z.ipynb"]
    found = {s.name: s for s in submissions.collect(folder(*names), students)}
    assert found["ANNA_BERG.ipynb"].student == "ab1"
    assert found["annabergmann-7.ipynb"].student == "ab2"
    assert found["a.berg@x.org.ipynb"].student == "ab1"
    assert not found["z.ipynb"].known


def test_roster_without_students_is_an_error(tmp_path):
    roster = tmp_path / "roster.csv"
    roster.write_text("id,name\n")
    with pytest.raises(ValueError, match="names no students"):
        submissions.read_roster(roster)


def test_names_that_are_no_text_are_read(tmp_path):
    for name in (b"caf\xe9.ipynb", b"a\x1b[2J.ipynb", "zo\u00eb\n.ipynb".encode()):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb"):
            pass
    found = submissions.collect(tmp_path)
    assert sorted(s.student for s in found) == [
        "a\ufffd[2J",
        "caf\ufffd",
        "zo\u00eb\ufffd",
    ]
    assert all(s.path.exists() for s in found)


def test_only_what_was_handed_in_is_collected(folder, tmp_path):
    names = [
        "a/lab.ipynb",
        "a/figure.png",
        ".hidden",
        "b.pdf",
        "x/.ipynb_checkpoints/y",
    ]
    found = folder(*names, "grades.csv")
    (found / "link.ipynb").symlink_to(found / "a" / "lab.ipynb")
    collected = submissions.collect(found, ignored=[found / "grades.csv"])
    assert [s.name for s in collected] == ["a/lab.ipynb", "b.pdf"]


# What it holds


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"", "empty file"),
        (b"  \n", "empty file"),
        (b"\x89PNG", "not a notebook"),
        (b"[]", "not a notebook"),
        (b'{"cells": [', "bad JSON"),
        (b'{"cells": ' + b"[" * 100_000, "bad JSON"),
        (b'{"metadata": {}}', "not a notebook"),
    ],
)
def test_what_is_no_notebook_is_refused(tmp_path, content, name):
    path = tmp_path / "x.ipynb"
    path.write_bytes(content)
    with pytest.raises(submissions.Refused) as refused:
        submissions.read(path)
    assert refused.value.name == name


def test_notebook_of_odd_fields_is_read(tmp_path):
    path = tmp_path / "x.ipynb"
    cells = [
        {"cell_type": "code", "source": ["a\n", 3, "b"], "metadata": 7, "outputs": "x"},
        {"cell_type": "code", "metadata": {"id": "colab", "nbgrader": []}},
        {"source": "half of a pair: \ud800"},
        "no cell",
    ]
    path.write_text(json.dumps({"cells": cells, "metadata": {"kernelspec": 1}}))
    notebook = submissions.read(path)
    assert [cell.source[:4] for cell in notebook.cells] == ["a\nb", "", "half"]
    assert notebook.cells[1].id == "colab"
    assert notebook.flags == ("kernel missing", "not executed")


def test_own_run_is_read_from_the_outputs(monkeypatch, tmp_path):
    monkeypatch.setenv("LABS_OUT", str(tmp_path))
    monkeypatch.setenv("LABS_PROFILE", "tiny")
    lab = start(1)
    lab.claim("x", 0.5, at_least=0.25, ci=(0.3, 0.7), text="It works, mostly.")
    data = {"text/plain": repr(lab.report()), "text/html": "<b>"}
    own = submissions.own_run([{"output_type": "stream"}, 3, {"data": data}])
    assert own.profile == "tiny"
    assert own.points == "0 of 20 points"
    measured = "0.5 (95 % 0.3 to 0.7)"
    assert own.claims == (("It works, mostly.", measured, "at least 0.25", "holds"),)
    assert submissions.own_run([]) is None
