"""The monitor: each instability by its name, and silence over healthy runs."""

import numpy as np
import pytest

from labs_helpers.fit import History
from labs_helpers.rl import alarms
from labs_helpers.rl.monitor import NAMES

UPDATES = 40


def ramp(start, end, since=0):
    """From start to end, in even steps after some updates."""
    steps = np.clip(np.arange(UPDATES) - since, 0, None) / (UPDATES - 1 - since)
    return start + (end - start) * steps


def run(**columns):
    """A healthy run of PPO, but for these columns."""
    noise = np.random.default_rng(0).normal(size=UPDATES)
    healthy = {
        "step": np.arange(1, UPDATES + 1),
        "reward": ramp(0.45, 0.85) + 0.03 * noise,
        "reward_spread": ramp(0.45, 0.3) + 0.02 * noise,
        "kl": ramp(0, 1.6) + 0.1 * noise,
        "entropy": ramp(0.34, 0.13) + 0.01 * noise,
        "length": 15 + 1.5 * noise,
        "finished": np.minimum(1, 0.99 + 0.01 * noise),
        "repetition": 0.003 + 0.002 * np.abs(noise),
        "distinct": 0.95 + 0.02 * noise,
        "explained_variance": -0.1 + 0.1 * noise,
        "clip_fraction": 0.01 + 0.005 * np.abs(noise),
        "approx_kl": 0.002 + 0.002 * np.abs(noise),
    }
    table = {**healthy, **columns}
    names = [name for name, values in table.items() if values is not None]
    return History(
        [{name: float(table[name][i]) for name in names} for i in range(UPDATES)]
    )


def asked_twice(**columns):
    """Two judges every fourth update, an error of 0.06 between them."""
    rare = np.arange(1, UPDATES + 1) % 4 == 0
    table = {"second_opinion_error": np.full(UPDATES, 0.06), **columns}
    return {name: np.where(rare, values, np.nan) for name, values in table.items()}


PARTED = asked_twice(held_out_reward=ramp(0, 0.8), second_opinion=ramp(0, -0.1))
PROVOKED = [
    ("learning rate too high", {"approx_kl": ramp(0.002, 0.5, 10)}),
    ("learning rate too high", {"clip_fraction": ramp(0.01, 0.8, 10)}),
    (
        "learning rate too high",
        {"kl": ramp(0, 900, 30), "approx_kl": None, "clip_fraction": None},
    ),
    ("entropy collapse", {"entropy": ramp(0.34, 0.001, 10)}),
    ("values do not fit", {"explained_variance": np.full(UPDATES, -0.9)}),
    ("dead reward", {"reward_spread": np.zeros(UPDATES)}),
    ("no end of sequence", {"finished": ramp(1, 0.2, 10)}),
    ("repetition", {"repetition": ramp(0.0, 0.9, 10)}),
    ("length drift", {"length": ramp(15, 40, 10)}),
    ("length drift", {"length": ramp(15, 3, 10)}),
    ("reward hacking", {"length": ramp(15, 24, 10)}),
    ("reward hacking", {"distinct": ramp(0.95, 0.3, 10)}),
    ("reward hacking", {"repetition": ramp(0.0, 0.15, 10)}),
    ("reward hacking", PARTED),
]


class TestAlarms:
    def test_a_healthy_run_raises_none(self):
        assert alarms(run()) == []

    @pytest.mark.parametrize(("name", "columns"), PROVOKED)
    def test_names_what_was_provoked(self, name, columns):
        raised = {alarm.name: alarm for alarm in alarms(run(**columns))}
        assert name in raised
        assert raised[name].step > 1

    def test_every_name_is_provoked(self):
        assert {name for name, _ in PROVOKED} == set(NAMES)

    @pytest.mark.parametrize(("name", "columns"), PROVOKED[:8])
    def test_and_nothing_else_but_what_follows_from_it(self, name, columns):
        others = {alarm.name for alarm in alarms(run(**columns))} - {name}
        assert others <= {"reward hacking"}

    def test_longer_answers_without_gain_are_no_hacking(self):
        raised = alarms(run(length=ramp(15, 24, 10), reward=np.full(UPDATES, 0.5)))
        assert raised == []

    def test_a_second_opinion_sees_it_first(self):
        [alarm] = alarms(run(**PARTED))
        assert alarm.step == 8
        assert "a second opinion by -0.02, with an error of 0.06" in alarm.seen

    @pytest.mark.parametrize(
        ("reward", "second"),
        [
            (ramp(0, 0.8), ramp(0, 0.7)),  # both rise
            (ramp(0, 1.6), ramp(0, 1.2)),  # three quarters of it are agreed on
            (ramp(0, 0.2), ramp(0, 0.8)),  # the judge likes it even more
            (ramp(0, -0.8), ramp(0, -0.9)),  # nothing was won
            (ramp(0, 0.8), ramp(0, 0.2)),  # it still rises
            (np.full(UPDATES, 0.8), np.full(UPDATES, 0.6)),  # both have stopped
        ],
    )
    def test_a_second_opinion_that_follows_is_no_alarm(self, reward, second):
        columns = asked_twice(held_out_reward=reward, second_opinion=second)
        assert alarms(run(**columns)) == []

    def test_come_in_order_with_cause_and_remedy(self):
        raised = alarms(run(entropy=ramp(0.34, 0, 15), finished=ramp(1, 0, 5)))
        assert [a.name for a in raised] == ["no end of sequence", "entropy collapse"]
        text = str(raised[0])
        assert text.startswith(f"update {raised[0].step}: no end of sequence. ")
        assert "missing_end_penalty" in text

    def test_a_prefix_raises_what_the_whole_raised_then(self):
        history = run(entropy=ramp(0.34, 0.0, 10))
        (alarm,) = alarms(history)
        assert alarms(History(history.rows[: alarm.step])) == [alarm]
        assert alarms(History(history.rows[: alarm.step - 1])) == []

    def test_missing_columns_raise_nothing(self):
        history = run(explained_variance=None, clip_fraction=None, approx_kl=None)
        assert alarms(history) == []

    @pytest.mark.parametrize("rows", [0, 1, 3])
    def test_short_histories(self, rows):
        assert alarms(History(run().rows[:rows])) == []
