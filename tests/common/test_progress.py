"""Bars: there for people who wait, silent for everything else."""

import io

import pytest

from labs_helpers.common import progress as waiting
from labs_helpers.sampling import sample


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that somebody looks at, and bars that do not wait."""
    monkeypatch.delenv("LABS_PROGRESS", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(waiting, "AFTER", 0.0)

    def look(screen=None):  # in the test itself: pytest sets its own before
        screen = screen or Terminal()
        monkeypatch.setattr("sys.stderr", screen)
        return screen

    return look


def work(**options):
    with waiting.bar(4, "work", **options) as bar:
        for _ in range(4):
            bar.update()


def test_a_terminal_shows_the_work_and_the_time_left(terminal):
    screen = terminal()
    work(keep=True)
    assert "work: 100%" in screen.getvalue()
    assert "4/4 [" in screen.getvalue()


def test_short_work_shows_no_bar(terminal, monkeypatch):
    screen = terminal()
    monkeypatch.setattr(waiting, "AFTER", 2.0)
    work(keep=True)
    assert screen.getvalue() == ""


@pytest.mark.parametrize(("name", "value"), [("LABS_PROGRESS", "0"), ("RANK", "1")])
def test_one_switch_and_other_processes_are_silent(terminal, monkeypatch, name, value):
    screen = terminal()
    monkeypatch.setenv(name, value)
    work()
    assert screen.getvalue() == ""


def test_a_log_file_gets_no_bars(terminal):
    log = terminal(io.StringIO())
    work()
    assert log.getvalue() == ""


def test_a_program_without_a_stderr_works(terminal, monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    work()


@pytest.mark.parametrize("wanted", [True, False])
def test_within_a_bar_others_are_silent(terminal, wanted):
    screen = terminal()
    with waiting.bar(1, "outer", wanted=wanted), waiting.bar(3, "inner") as inner:
        inner.update(3)
    assert "inner" not in screen.getvalue()
    assert ("outer" in screen.getvalue()) is wanted


def test_after_an_error_the_next_bar_shows(terminal):
    screen = terminal()
    with pytest.raises(KeyError), waiting.bar(2, "fails"):
        raise KeyError
    work(keep=True)
    assert "work" in screen.getvalue()


def test_sampling_shows_how_far_it_is(terminal, tiny_policy, tiny_tokenizer):
    screen = terminal()
    sample(tiny_policy(), tiny_tokenizer, ["Who?"] * 3, max_new_tokens=4, seed=0)
    assert "sampling:" in screen.getvalue()


def test_bars_change_no_answer(monkeypatch, terminal, tiny_policy, tiny_tokenizer):
    terminal()

    def texts():
        asked = ["Who?", "What?"]
        return sample(
            tiny_policy(), tiny_tokenizer, asked, max_new_tokens=6, seed=1
        ).texts

    shown = texts()
    monkeypatch.setenv("LABS_PROGRESS", "0")
    assert texts() == shown
