"""Benchmarks: fair turns, the right ratio, and the file that they are written to."""

import json

import pytest

from labs_tools import bench
from labs_tools.cli import main


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when somebody works."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(bench.time, "perf_counter", lambda: Clock.now)
    return Clock


def way(clock, seconds, log=None, name=""):
    """Ten units of work; the time that each run takes."""
    left = iter(seconds)

    def build():
        clock.now += 100.0  # building is not timed

        def work():
            if log is not None:
                log.append(name)
            clock.now += next(left)
            return 10

        return work

    return build


def test_ratio_is_the_median_of_neighbours(clock):
    ours = way(clock, [50.0, 1.0, 2.0, 10.0])
    theirs = way(clock, [50.0, 2.0, 6.0, 20.0])
    row = bench.interleaved("a", ours, theirs, "units/s", 1.3, runs=3)
    assert row.ratio == 2.0  # of 2, 3 and 2; the first run of each is not counted
    assert row.ours == 5.0
    assert row.theirs == pytest.approx(10 / 6, abs=1e-3)


def test_who_begins_changes(clock):
    log = []
    ours, theirs = (way(clock, [1.0] * 9, log, name) for name in "ab")
    bench.interleaved("a", ours, theirs, "units/s", 1.0, runs=2)
    assert "".join(log[2:]) == "baab"


@pytest.mark.parametrize(("ratio", "code"), [(1.5, 0), (1.2, 1)])
def test_command_writes_the_rows_and_judges_them(tmp_path, monkeypatch, ratio, code):
    row = bench.Row("sampling", 3.0, 2.0, "tokens/s", ratio, 1.3, 2)
    monkeypatch.setattr(bench, "BENCHMARKS", {"one": lambda runs: iter([row])})
    out = tmp_path / "new" / "bench.json"
    assert main(["bench", "--out", str(out), "--runs", "2"]) == code
    found = json.loads(out.read_text())
    assert found["rows"] == [
        {
            "name": "sampling",
            "ours": 3.0,
            "theirs": 2.0,
            "unit": "tokens/s",
            "ratio": ratio,
            "bar": 1.3,
            "runs": 2,
        }
    ]
    assert {"device", "date", "versions"} < set(found)


def test_a_folder_without_the_old_trl_is_named(tmp_path, capsys):
    assert main(["bench", "--trl-ppo", str(tmp_path)]) == 1
    assert "trl==1.12.0" in capsys.readouterr().err


@pytest.mark.slow
def test_sampling_is_compared(monkeypatch):
    monkeypatch.setattr(bench, "MODEL", bench.MODELS / "town-xs")
    monkeypatch.setattr(bench, "ANSWERS", 4)
    monkeypatch.setattr(bench, "LONGEST", 4)
    (row,) = bench.sampling(1)
    assert row.ours > 0
    assert row.theirs > 0
