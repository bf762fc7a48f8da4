"""Committed studies, as notebooks read them."""

import pytest

from labs_helpers.course import recorded
from labs_helpers.evaluation import Estimate, mean

ROWS = [
    {"way": "a", "seed": 0, "win": 0.6, "win_low": 0.5, "win_high": 0.7, "kl": 1.0}
    | {"decided": 0.8, "decided_low": 0.7, "decided_high": 0.9},
    {"way": "a", "seed": 1, "win": 0.6, "win_low": 0.5, "win_high": 0.7, "kl": 2.0}
    | {"decided": 0.8, "decided_low": 0.7, "decided_high": 0.9},
    {"way": "b", "seed": 0, "win": 0.5, "win_low": 0.4, "win_high": 0.6, "kl": 3.0},
]


def test_rows_by_their_values():
    assert recorded.of(ROWS, way="a", seed=1) == [ROWS[1]]
    assert recorded.of(ROWS, way="c") == []


def test_a_column_over_seeds():
    found = recorded.over_seeds(recorded.of(ROWS, way="a"), "win")
    assert (found.value, found.ci) == (0.6, pytest.approx((0.5, 0.7)))


def test_a_column_without_intervals_has_the_spread_of_its_seeds():
    found = recorded.over_seeds(recorded.of(ROWS, way="a"), "kl")
    assert found.ci == pytest.approx(mean([1.0, 2.0]).ci)
    alone = recorded.over_seeds(recorded.of(ROWS, way="b"), "kl")
    assert alone.ci == (3.0, 3.0)


def test_a_win_rate_over_seeds():
    found = recorded.win_rate(recorded.of(ROWS, way="a"))
    assert (found.value, found.without_ties.value) == (0.6, 0.8)


@pytest.mark.parametrize(
    ("b", "said"), [(0.3, "more"), (0.5, "not told apart"), (0.8, "less")]
)
def test_a_difference_in_words(b, said):
    a, b = (Estimate(x, x - 0.1, x + 0.1, 9) for x in (0.5, b))
    assert recorded.compared(a, b).endswith(f": {said}")
