"""Studies are written row by row, say where they come from, and read back."""

import pytest

from labs_helpers.course import recorded
from labs_helpers.evaluation import Estimate
from labs_tools import studies
from labs_tools.cli import main


def test_a_study_is_written_and_read(monkeypatch, tmp_path, capsys):
    rows = [{"n": 1, "name": "a", **studies.columns("x", Estimate(0.5, 0.4, 0.6, 9))}]
    monkeypatch.setattr(studies, "studies", lambda: {"toy": lambda: iter(rows)})
    studies.run("toy", tmp_path)
    [found] = recorded.read("toy", tmp_path)
    assert found["n"] == 1
    assert (found["x"], found["x_low"], found["x_high"]) == (0.5, 0.4, 0.6)
    assert "measured 20" in recorded.origin([found])
    assert "'x': 0.5" in capsys.readouterr().out


def test_an_interrupted_study_leaves_the_old_file(monkeypatch, tmp_path):
    (tmp_path / "toy.csv").write_text("n\n7\n")

    def broken():
        yield {"n": 1}
        raise RuntimeError("power cut")

    monkeypatch.setattr(studies, "studies", lambda: {"toy": broken})
    with pytest.raises(RuntimeError, match="power cut"):
        studies.run("toy", tmp_path)
    assert recorded.read("toy", tmp_path) == [{"n": 7}]


def test_an_unknown_study_is_named_with_those_that_exist(capsys):
    assert main(["study", "nonsense"]) == 1
    message = capsys.readouterr().err
    assert "nonsense" in message
    assert "reward_data_size" in message


def test_a_missing_result_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="labs study reward_margins"):
        recorded.read("reward_margins", tmp_path)
