"""Every algorithm solves every probe task; known mistakes fail where they should."""

import pytest

from labs_helpers.rl import PROBES, RLConfig, collecting, solve
from labs_helpers.rl.config import ALGORITHMS

BY_NAME = {task.name: task for task in PROBES}


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", BY_NAME)
def test_solved(name, algorithm):
    solved = solve(BY_NAME[name], algorithm)
    assert solved.optimal > 0.9, BY_NAME[name].look_at
    if name == "value" and RLConfig(algorithm=algorithm).learns_values:
        assert solved.history["explained_variance"][-5:].mean() > 0.8


@pytest.mark.slow
def test_without_discount_the_longer_answer_is_best():
    assert solve(BY_NAME["discount"], "ppo", gamma=1.0).optimal < 0.1


@pytest.mark.slow
def test_rewards_in_another_order_are_found_out(monkeypatch):
    ordered = collecting.scores_in_training
    rolled = lambda *asked: ordered(*asked).roll(1, dims=0)  # noqa: E731
    monkeypatch.setattr(collecting, "scores_in_training", rolled)
    assert solve(BY_NAME["action dependence"], "ppo").optimal < 0.9
