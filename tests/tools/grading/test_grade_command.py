"""The command says what it lacks."""

from labs_tools import cli


def test_grade_needs_submissions(tmp_path, capsys):
    out = str(tmp_path / "grades.csv")
    assert cli.main(["grade", str(tmp_path / "none"), "--out", out]) == 1
    assert "no folder of submissions" in capsys.readouterr().err
    (tmp_path / "in").mkdir()
    assert cli.main(["grade", str(tmp_path / "in"), "--out", out]) == 1
    assert "no submissions" in capsys.readouterr().err


def test_grade_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "nbgrader", None)
    assert cli.main(["grade", str(tmp_path), "--out", "grades.csv"]) == 1
    assert "pip install -e '.[grade]'" in capsys.readouterr().err
