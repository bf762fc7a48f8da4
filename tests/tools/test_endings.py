"""How `labs` ends: a line and an exit code for whatever goes wrong."""

import errno
import os
import subprocess
import sys

import pytest

from labs_tools import cli
from labs_tools.endings import Interrupted, ending, install

REFUSALS = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room",
    errno.EACCES: "that you may use",
    errno.EPERM: "that you may use",
    errno.EROFS: "can be written",
    errno.ENOTDIR: "choose another folder",
    errno.EEXIST: "choose another folder",
    errno.EISDIR: "choose another name",
    errno.ENAMETOOLONG: "shorter name",
    errno.EMFILE: "ulimit",
    errno.EIO: "out",
}


@pytest.mark.parametrize("number", REFUSALS)
def test_what_the_system_refuses_is_a_line_with_a_way_out(number):
    line, code = ending(OSError(number, os.strerror(number), "out"))
    assert code == 1
    assert line.startswith(f"out: {os.strerror(number)}")
    assert REFUSALS[number] in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (ValueError("row 3 of\nfile x"), "row 3 of file x"),
        (FileNotFoundError("there is no lab 9"), "there is no lab 9"),
        (MemoryError(), "out of memory"),
        (KeyError("claims"), "KeyError: 'claims'"),
        (ZeroDivisionError(), "not foreseen"),
        (RecursionError("too deep"), "RecursionError"),
        (ValueError(), "ValueError"),
        (ValueError("\x1b]0;owned\x07\x1b[31mred"), "red"),
    ],
)
def test_every_error_is_one_line_and_exit_code_1(error, part):
    line, code = ending(error)
    assert code == 1
    assert part in line
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) <= 400


def test_interruption_and_closed_pipes_have_their_codes():
    assert ending(KeyboardInterrupt()) == ("interrupted", 130)
    assert ending(Interrupted("interrupted in cell 2")) == (
        "interrupted in cell 2",
        130,
    )
    assert ending(BrokenPipeError(errno.EPIPE, "Broken pipe")) == ("", 141)


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("trl", "lab"),
        ("nbconvert", "lab"),
        ("ray.tune", "rl"),
        ("nbgrader", "grade"),
        ("playwright", "browser"),
    ],
)
def test_a_missing_package_names_the_extra_that_brings_it(module, extra):
    error = ModuleNotFoundError(f"No module named {module!r}", name=module)
    line, code = ending(error)
    assert code == 1
    assert line == f"{module} is missing. Install it: {install(extra)}"


def fail(monkeypatch, error):
    def action():
        raise error

    monkeypatch.setattr("labs_tools.doctor.diagnose", action)
    return cli.main(["doctor"])


def test_no_traceback_reaches_people(monkeypatch, capsys):
    assert fail(monkeypatch, RuntimeError("of its own")) == 1
    error = capsys.readouterr().err
    assert error.startswith("labs: RuntimeError: of its own (test_endings.py, line ")
    assert error.count("\n") == 1


def test_developers_get_the_traceback_when_they_ask(monkeypatch, capsys):
    monkeypatch.setenv("LABS_TRACEBACK", "1")
    assert fail(monkeypatch, RuntimeError("of its own")) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_closed_pipe_is_quiet(monkeypatch, capsys):
    assert fail(monkeypatch, BrokenPipeError(errno.EPIPE, "Broken pipe")) == 141
    assert capsys.readouterr().err == ""


def test_ctrl_c_says_what_was_kept(monkeypatch, capsys):
    assert fail(monkeypatch, Interrupted("interrupted in cell 2")) == 130
    assert capsys.readouterr().err == "labs: interrupted in cell 2\n"


COMMAND = "import sys; from labs_tools.cli import main; sys.exit(main())"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "codes", "lines"),
    [
        ("labs --help > /dev/full", (0,), 0),
        ("labs run 77 2> /dev/full", (1,), 0),
        ("labs study | head -n 1 > /dev/null; exit ${PIPESTATUS[0]}", (0, 141), 0),
        ("LC_ALL=C PYTHONUTF8=0 PYTHONIOENCODING=ascii labs run 77", (1,), 1),
    ],
)
def test_what_the_shell_does_with_our_output(tmp_path, command, codes, lines):
    labs = f"{sys.executable} -c '{COMMAND}' "
    done = subprocess.run(
        ["bash", "-c", command.replace("labs ", labs, 1)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=100,
    )
    assert done.returncode in codes, done.stderr
    assert done.stderr.count("\n") == lines, done.stderr
