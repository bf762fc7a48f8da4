"""Win rates with ties, accuracies of pairs, and the ceiling."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.evaluation import (
    bayes_ceiling,
    expected_right,
    pair_accuracy,
    pairs_right,
    proportion,
    toward_ceiling,
    win_rate,
)


class TestWinRate:
    def test_ties_count_half_and_are_left_out_beside_it(self):
        rate = win_rate([1, 1, 0.5, 0.5, 0])
        assert rate.value == pytest.approx(0.6)
        assert rate.without_ties.value == pytest.approx(2 / 3)
        assert (rate.n, rate.without_ties.n) == (5, 3)

    def test_without_any_tie_it_is_wilsons(self):
        assert win_rate([1] * 81 + [0] * 182).ci == pytest.approx(
            proportion(81, 263).ci
        )

    @pytest.mark.parametrize("tie", [0.0, 0.3, 0.8])
    def test_interval_covers(self, random, coverage, tie):
        win = 0.6 * (1 - tie)
        odds = [win, tie, 1 - tie - win]
        draws = random.choice([1, 0.5, 0], p=odds, size=(1000, 80))
        rates = [win_rate(row) for row in draws]
        assert 0.93 <= coverage(rates, win + tie / 2) <= 0.985

    def test_nothing_but_ties_is_not_certain(self):
        rate = win_rate([0.5] * 20)
        assert rate.low < 0.47
        assert rate.high > 0.53
        assert math.isnan(rate.without_ties.value)

    @given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=30))
    def test_interval_holds_the_rate_and_turns_with_the_sides(self, outcomes):
        rate, turned = win_rate(outcomes), win_rate(1 - np.array(outcomes))
        assert 0 <= rate.low <= rate.value <= rate.high <= 1
        assert turned.low == pytest.approx(1 - rate.high, abs=1e-9)

    def test_repeated_answers_do_not_narrow_it(self, random):
        outcomes = random.choice([1.0, 0.0], size=30)
        plain = win_rate(outcomes)
        repeated = win_rate(outcomes.repeat(10), clusters=np.arange(30).repeat(10))
        width = repeated.high - repeated.low
        assert width == pytest.approx(plain.high - plain.low, rel=0.15)

    def test_other_outcomes_are_refused(self):
        with pytest.raises(ValueError, match=r"got also \[0.7\]"):
            win_rate([1, 0.7])


class TestAccuracy:
    def test_equal_rewards_count_half(self):
        assert pair_accuracy([2.0, 0.0, -1.0, 3.0]).value == 0.625

    def test_outcomes_turn_pairs_round(self):
        right = pairs_right([2.0, -1.0, 0.0], [0, 0, 1])
        np.testing.assert_array_equal(right, [0, 1, 0.5])

    def test_ties_in_truth_are_refused(self):
        with pytest.raises(ValueError, match="Leave ties out"):
            pairs_right([1.0], [0.5])

    def test_ceiling(self):
        assert bayes_ceiling([1.0, 0.0, 0.5, 0.2]) == pytest.approx(0.825)

    def test_the_best_predictor_is_at_the_ceiling(self, random):
        p = random.uniform(size=4000)
        labels = random.uniform(size=4000) < p
        share = toward_ceiling(pairs_right(p - 0.5, labels), p)
        assert share.low <= 1 <= share.high

    def test_chance_is_zero(self, random):
        p = random.uniform(size=4000)
        share = toward_ceiling(pairs_right(random.normal(size=4000)), p)
        assert share.low <= 0 <= share.high

    def test_nothing_to_predict_is_said(self):
        with pytest.raises(ValueError, match="nothing to predict"):
            toward_ceiling([1.0, 0.0], [0.5, 0.5])


def test_expected_right_is_the_mean_over_labels():
    rng = np.random.default_rng(0)
    p, margins = rng.random(50), rng.normal(size=50)
    labels = rng.random((4000, 50)) < p
    drawn = np.mean([pairs_right(margins, row) for row in labels.astype(float)], axis=0)
    np.testing.assert_allclose(expected_right(margins, p), drawn, atol=0.04)
    assert toward_ceiling(expected_right(p - 0.5, p), p).value == pytest.approx(1)
