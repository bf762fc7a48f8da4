"""Studies are written row by row, say where they come from, and read back."""

import dataclasses

import pytest

from labs_helpers.course import recorded
from labs_helpers.evaluation import Estimate
from labs_helpers.fit import FitConfig
from labs_tools import studies
from labs_tools.cli import main
from labs_tools.studies import running, stale, study


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A study with a model folder and a file of data of its own."""
    monkeypatch.setattr(study, "DATA", tmp_path / "data")
    for path in ("models/toy/model.safetensors", "models/toy/build.json", "toy.jsonl"):
        path = tmp_path / "data" / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("one\n")
    known = {}
    monkeypatch.setattr(study, "STUDIES", known)
    for room in (running, stale):
        monkeypatch.setattr(room, "studies", lambda: known)

    @study.study("toy", "toy", data=("toy.jsonl",), recipe={"fit": FitConfig(lr=1e-3)})
    def rows():
        """Nothing much."""
        yield {"n": 1, "name": "a", "x": Estimate(0.5, 0.4, 0.6, 9)}

    return known


def test_a_study_is_written_and_read(toy, tmp_path, capsys):
    studies.run("toy", tmp_path)
    [found] = recorded.read("toy", tmp_path)
    assert found["n"] == 1
    assert (found["x"], found["x_low"], found["x_high"]) == (0.5, 0.4, 0.6)
    assert found["made_with"] == toy["toy"].made_with
    assert "measured 20" in recorded.origin([found])
    assert "'x': 0.5" in capsys.readouterr().out
    assert stale.stale(tmp_path) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda data, study: (data / "models/toy/model.safetensors").write_text("two"),
        lambda data, study: (data / "models/toy/more.json").write_text("{}"),
        lambda data, study: (data / "toy.jsonl").write_text("two"),
        lambda data, study: study.recipe.update(fit=FitConfig(lr=2e-3)),
        lambda data, study: study.recipe.update(more=1),
    ],
)
def test_rows_are_stale_when_what_they_used_has_changed(toy, tmp_path, change):
    studies.run("toy", tmp_path)
    change(tmp_path / "data", toy["toy"])
    assert stale.stale(tmp_path) == ["toy"]
    stale.stamp("toy", toy["toy"].made_with, tmp_path)
    assert stale.stale(tmp_path) == []
    assert recorded.read("toy", tmp_path)[0]["x"] == 0.5


def test_rows_do_not_depend_on_the_machine(toy, monkeypatch, tmp_path):
    before = toy["toy"].made_with
    (tmp_path / "data/models/toy/build.json").write_text("other seconds")
    (tmp_path / "data/toy.jsonl").write_bytes(b"one\r\n")
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(study, "DATA", tmp_path / "elsewhere")
    assert toy["toy"].made_with == before
    assert dataclasses.replace(toy["toy"], recipe=0).made_with != before


def test_rows_of_no_known_making_are_stale(toy, tmp_path):
    (tmp_path / "toy.csv").write_text("n\n7\n")
    assert stale.stale(tmp_path) == ["toy"]


def test_committed_studies_are_fresh_or_known_to_be_stale():
    """A fresh one on the list fails too: take it off."""
    known = studies.studies()
    assert {path.stem for path in recorded.FOLDER.glob("*.csv")} == set(known)
    assert set(stale.stale()) == set(stale.KNOWN)
    assert len(list(stale.lines())) == len(stale.KNOWN)


def test_an_interrupted_study_leaves_the_old_file(toy, tmp_path):
    (tmp_path / "toy.csv").write_text("n\n7\n")

    def broken():
        yield {"n": 1}
        raise RuntimeError("power cut")

    toy["toy"] = dataclasses.replace(toy["toy"], rows=broken)
    with pytest.raises(RuntimeError, match="power cut"):
        studies.run("toy", tmp_path)
    assert recorded.read("toy", tmp_path) == [{"n": 7}]


def test_an_unknown_study_is_named_with_those_that_exist(capsys):
    assert main(["study", "nonsense"]) == 1
    message = capsys.readouterr().err
    assert "nonsense" in message
    assert "chain_of_thought" in message


@pytest.mark.parametrize(
    "name", ["memory", "real_reward", "real_speed", "real_verifiable"]
)
def test_a_study_of_a_real_model_says_what_it_needs(name, monkeypatch, tmp_path):
    monkeypatch.delenv("LABS_MODEL", raising=False)
    with pytest.raises(ValueError, match="LABS_MODEL names nothing"):
        studies.run(name, tmp_path)
    assert not (tmp_path / f"{name}.csv").exists()


def test_a_missing_result_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="labs study reward_margins"):
        recorded.read("reward_margins", tmp_path)
