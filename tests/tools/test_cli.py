"""The command line: finding labs, doctor's findings, errors for people."""

import subprocess
import sys

import pytest

from labs_tools import cli
from labs_tools.endings import install
from labs_tools.finding import find_notebooks


@pytest.fixture
def project(tmp_path, monkeypatch):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("1_a.ipynb", "3_c.ipynb", "notes.ipynb"):
        (folder / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    return folder


def test_all_notebooks_by_default(project):
    names = {number: path.name for number, path in find_notebooks([]).items()}
    assert names == {"1": "1_a.ipynb", "3": "3_c.ipynb"}


def test_chosen_notebooks_in_order(project):
    assert list(find_notebooks(["3", "1", "3"])) == ["1", "3"]


def test_further_is_a_group_and_after_the_labs(project):
    (project / "further").mkdir()
    for name in ("3_c.ipynb", "1_a.ipynb", "notes.ipynb"):
        (project / "further" / name).write_text("{}")
    assert list(find_notebooks([])) == ["1", "3", "further/1", "further/3"]
    assert list(find_notebooks(["further"])) == ["further/1", "further/3"]
    assert list(find_notebooks(["further/3", "1"])) == ["1", "further/3"]
    with pytest.raises(FileNotFoundError, match="no lab further/2"):
        find_notebooks(["further/2"])


def test_what_only_reads_studies_needs_no_model_of_the_profile(project, monkeypatch):
    (project / "further").mkdir()
    (project / "further" / "1_a.ipynb").write_text("{}")
    monkeypatch.setenv("LABS_MODEL", "/nowhere/at/all")
    monkeypatch.setattr("labs_tools.notebooks.run", lambda *args: 0)
    assert cli.main(["run", "further"]) == 0
    assert cli.main(["run", "1"]) == 1


def test_lab_that_is_not_there(project, capsys):
    assert cli.main(["run", "2"]) == 1
    error = capsys.readouterr().err
    assert "no lab 2" in error
    assert "there is 1, 3" in error


def test_run_hands_over_its_options(project, tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "labs_tools.notebooks.run", lambda *args: calls.append(args) or 0
    )
    out = tmp_path / "elsewhere"
    code = cli.main(["run", "3", "--profile", "tiny", "--out", str(out), "--in-place"])
    assert code == 0
    paths, profile, folder, in_place = calls[0]
    assert {number: path.name for number, path in paths.items()} == {"3": "3_c.ipynb"}
    assert (profile.name, folder, in_place) == ("tiny", out, True)


def test_unknown_profile_is_one_line(project, capsys):
    assert cli.main(["run", "--profile", "big"]) == 1
    error = capsys.readouterr().err
    assert "'big'" in error
    assert error.count("\n") == 1


def test_missing_extra_says_what_to_install(project, monkeypatch, capsys):
    monkeypatch.delattr("labs_tools.notebooks", raising=False)
    monkeypatch.setitem(__import__("sys").modules, "labs_tools.notebooks", None)
    assert cli.main(["run"]) == 1
    assert install("lab") in capsys.readouterr().err


def works(monkeypatch, project):
    """A project with one notebook that could be executed."""
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    nbformat.write(new_notebook(cells=[new_code_cell("1")]), project / "1_a.ipynb")
    monkeypatch.setattr(
        "labs_tools.notebooks.execute", lambda *_: pytest.fail("was executed")
    )


def one_line_of(capsys) -> str:
    error = capsys.readouterr().err
    assert error.startswith("labs: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("out", "part"),
    [
        ("file", "choose another"),
        ("file/below", "choose another"),
        ("x" * 300, "shorter name"),
        ("loop", "choose another"),
        ("/proc/no", ""),
        ("/dev/null/no", "choose another"),
    ],
)
def test_a_folder_that_cannot_be_written_is_one_line(
    project, monkeypatch, tmp_path, capsys, out, part
):
    works(monkeypatch, project)
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    assert cli.main(["run", "1", "--profile", "smoke", "--out", out]) == 1
    assert part in one_line_of(capsys)


def test_a_bench_that_could_not_be_saved_is_not_begun(
    project, monkeypatch, tmp_path, capsys
):
    # An import of this ends in another line.
    monkeypatch.setitem(__import__("sys").modules, "labs_tools.bench", None)
    (tmp_path / "file").write_text("")
    assert cli.main(["bench", "--out", str(tmp_path / "file" / "bench.json")]) == 1
    assert "choose another" in one_line_of(capsys)


@pytest.mark.parametrize("content", ["", "{}", "[]", "{bad", '{"nbformat": 9}', "\xff"])
def test_a_broken_notebook_is_one_line_with_its_name(project, capsys, content):
    (project / "1_a.ipynb").write_bytes(content.encode("latin-1"))
    assert cli.main(["run", "1", "--profile", "smoke"]) == 1
    assert "1_a.ipynb is no notebook" in one_line_of(capsys)


def test_notebooks_of_other_names_are_left_alone(project):
    for name in ("2.5_x.ipynb", "4a_x.ipynb", "_5.ipynb"):
        (project / name).write_text("{}")
    assert list(find_notebooks([])) == ["1", "3"]


@pytest.mark.slow
def test_unknown_study_is_one_line(capsys):
    assert cli.main(["study", "nothing"]) == 1
    assert "no study 'nothing'" in one_line_of(capsys)


def test_unknown_settings_are_one_line(capsys, tmp_path):
    assert cli.main(["train", "ppo", "--config", str(tmp_path)]) == 1
    assert str(tmp_path) in one_line_of(capsys)


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("mistake", ["--profil", "--outt x", "--in-place=yes", "x"])
def test_what_cannot_be_meant_is_plain_text_without_boxes(mistake, capsys):
    assert cli.main(["run", *mistake.split()]) == 2
    error = capsys.readouterr().err
    assert "Error: " in error
    assert error.isascii()


def test_help_needs_no_library(monkeypatch):
    code = (
        "import sys\n"
        "from labs_tools.cli import main\n"
        "assert main(['--help']) == 0 and main(['run', '--help']) == 0\n"
        "heavy = {'torch', 'transformers', 'numpy', 'matplotlib', 'nbformat', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("count", ["0", "-2", "two", "1.5"])
@pytest.mark.parametrize(
    "command", [["bench", "--runs"], ["grade", "in", "--out", "x.csv", "--jobs"]]
)
def test_a_count_is_a_number_from_one_on(command, count, capsys):
    assert cli.main([*command[:-1], f"{command[-1]}={count}"]) == 2
    assert f"expected a number from 1 on, got '{count}'" in capsys.readouterr().err


def test_a_bench_that_cannot_be_written_is_refused_at_once(capsys):
    assert cli.main(["bench", "--out", "."]) == 1
    assert "is a folder" in capsys.readouterr().err
