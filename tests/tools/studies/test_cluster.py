"""A study measured seed by seed on a cluster has the rows of one measured here."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from labs_helpers.course import recorded
from labs_tools import studies
from labs_tools.cli import main
from labs_tools.studies import cluster, running, study


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """Studies that go through seeds, and that do not."""
    monkeypatch.setattr(study, "DATA", tmp_path)
    known = {}
    monkeypatch.setattr(study, "STUDIES", known)
    monkeypatch.setattr(running, "studies", lambda: known)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    @study.study("seeds", data=(), recipe=None)
    def seeds():
        """Two rows a seed."""
        for seed in study.each(range(3)):
            yield {"seed": seed, "row": 0}
            yield {"seed": seed, "row": 1}

    @study.study("none", data=(), recipe=None)
    def none():
        """No seed."""
        yield {"row": 0}
        yield {"row": 1}

    return known


@pytest.fixture
def tasks(monkeypatch):
    """A cluster that is this process; gives the tasks that it had."""
    had = []
    monkeypatch.setenv("RAY_ADDRESS", "local")

    @contextmanager
    def here(**options):
        def remote(function):
            def task(*arguments):
                had.append(arguments)
                return function(*arguments)

            return SimpleNamespace(remote=task)

        yield SimpleNamespace(remote=remote, get=lambda found: found)

    monkeypatch.setattr(cluster, "cluster", here)
    return had


def test_a_task_for_each_seed(toy, tasks, tmp_path, monkeypatch):
    path = studies.run("seeds", tmp_path / "there")
    monkeypatch.delenv("RAY_ADDRESS")
    here = studies.run("seeds", tmp_path / "here")
    assert [number for _, number in tasks] == [0, 1, 2]
    assert path.read_text() == here.read_text()
    found = recorded.read("seeds", tmp_path / "there")
    assert [(row["seed"], row["row"]) for row in found] == [
        (seed, row) for seed in range(3) for row in range(2)
    ]


def test_a_study_without_seeds_is_measured_here(toy, tasks, tmp_path):
    studies.run("none", tmp_path)
    assert tasks == []
    assert [row["row"] for row in recorded.read("none", tmp_path)] == [0, 1]


def test_without_an_address_no_cluster_is_asked(toy, tasks, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS")
    studies.run("seeds", tmp_path)
    assert tasks == []


def test_a_machine_with_other_data_is_refused(toy, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_measured", lambda study, number: ("other", []))
    with pytest.raises(ValueError, match="has other models or data for seeds"):
        studies.run("seeds", tmp_path)


def test_a_part_ends_where_it_began():
    with study.part(1):
        assert list(study.each("abc")) == ["b"]
    assert list(study.each("abc")) == ["a", "b", "c"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Ray
def test_on_a_cluster_of_this_machine(toy, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    studies.run("seeds", tmp_path)
    assert [row["seed"] for row in recorded.read("seeds", tmp_path)] == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "x", "a:b"])
def test_no_cluster_is_a_sentence(toy, capsys, monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", "")  # what the command sets is undone
    assert main(["study", "seeds", "--address", address]) == 1
    assert f"no Ray cluster answers at {address}" in capsys.readouterr().err
