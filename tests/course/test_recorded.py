"""Committed studies, as notebooks read them."""

import pytest

from labs_helpers.course import recorded
from labs_helpers.evaluation import mean

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


def test_a_rate_over_seeds_ends_at_0_and_1():
    found = recorded.rate_over_seeds(rows(0.05, 0.95), "x")
    assert (found.value, found.ci) == (0.5, (0.0, 1.0))


def test_a_win_rate_over_seeds():
    found = recorded.win_rate(recorded.of(ROWS, way="a"))
    assert (found.value, found.without_ties.value) == (0.6, 0.8)


def rows(*values):
    """One row a seed, each measured to 0.1."""
    return [
        {"seed": seed, "x": x, "x_low": x - 0.1, "x_high": x + 0.1}
        for seed, x in enumerate(values)
    ]


def test_a_gap_is_taken_seed_by_seed():
    # What seeds share cancels; what is left are the items, on both sides.
    found = recorded.gap(rows(0.1, 0.5, 0.9), rows(0.0, 0.4, 0.8), "x")
    assert found.value == pytest.approx(0.1)
    assert found.high - found.value == pytest.approx(0.1 * 2**0.5)


def test_a_gap_of_other_seeds_has_the_spread_of_both():
    found = recorded.gap(rows(0.1, 0.5, 0.9), rows(0.4), "x")
    spread = recorded.over_seeds(rows(0.1, 0.5, 0.9), "x")
    assert found.high - found.value > spread.high - spread.value


@pytest.mark.parametrize(
    ("other", "said"), [(0.3, "more"), (0.5, "not told apart"), (0.8, "less")]
)
def test_a_difference_in_words(other, said):
    assert recorded.compared(rows(0.5), rows(other), "x").endswith(f": {said}")
