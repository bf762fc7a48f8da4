"""Temperatures, gaps, Brier scores and reliability."""

import numpy as np
import pytest
from scipy.special import expit

from labs_helpers.evaluation import (
    brier,
    brier_floor,
    fit_temperature,
    probability_gap,
    reliability,
)


class TestCalibration:
    def test_temperature_is_recovered(self, random):
        logits = random.normal(size=50_000)
        labels = random.uniform(size=50_000) < expit(logits)
        assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.03)

    def test_temperature_is_the_likelihoods_stationary_point(self, random):
        margins = random.normal(size=200)
        labels = random.uniform(size=200) < expit(margins)
        scaled = margins / fit_temperature(margins, labels)
        assert np.mean(margins * (expit(scaled) - labels)) == pytest.approx(0, abs=1e-5)

    def test_soft_labels_are_welcome(self, random):
        margins = random.normal(size=100)
        labels = expit(margins / 2.5)
        assert fit_temperature(margins, labels) == pytest.approx(2.5, rel=1e-4)

    def test_all_right_gives_a_small_finite_temperature(self):
        assert 0 < fit_temperature([1.0, 2.0], [1, 1]) < 0.1

    def test_no_better_than_chance_gives_a_large_one(self):
        assert fit_temperature([1.0, 1.0], [0, 0]) > 1000

    def test_no_margins_is_an_error(self):
        with pytest.raises(ValueError, match="all margins are 0"):
            fit_temperature([0.0, 0.0], [0, 1])

    def test_gap_to_the_known_probability(self):
        assert probability_gap([0.5, 0.9], [0.7, 0.9]).value == pytest.approx(0.02)

    def test_brier_of_the_truth_is_the_floor(self, random):
        p = random.uniform(size=20_000)
        score = brier(p, random.uniform(size=20_000) < p)
        assert score.low <= brier_floor(p) <= score.high

    def test_brier_is_the_floor_plus_the_gap(self):
        p, p_hat = np.array([0.2, 0.6]), np.array([0.5, 0.5])
        expected = p * (p_hat - 1) ** 2 + (1 - p) * p_hat**2
        parts = brier_floor(p) + probability_gap(p_hat, p).value
        assert parts == pytest.approx(expected.mean())

    def test_reliability_of_the_truth_is_the_diagonal(self, random):
        p = random.uniform(size=5000)
        table = reliability(p, random.uniform(size=5000) < p, bins=5)
        assert [row.observed.n for row in table] == [1000] * 5
        for row in table:
            assert row.observed.value == pytest.approx(row.predicted, abs=0.05)
