"""Estimates: how they read, what their intervals cover, and clusters."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.evaluation import (
    Estimate,
    across_seeds,
    bootstrap,
    difference,
    mean,
    paired_difference,
    proportion,
    rate,
    win_rate,
)


class TestEstimates:
    def test_reads_as_a_sentence(self):
        assert str(Estimate(0.812, 0.78, 0.84, 600)) == (
            "0.812 (95 % 0.78 to 0.84, n = 600)"
        )

    def test_small_numbers_keep_their_digits(self):
        assert str(Estimate(0.0042, 0.0039, 0.0045, 9)) == (
            "0.00420 (95 % 0.0039 to 0.0045, n = 9)"
        )

    def test_ci_is_the_pair(self):
        assert Estimate(0.5, 0.4, 0.6, 10).ci == (0.4, 0.6)

    def test_mean_covers(self, random, coverage):
        draws = random.exponential(size=(500, 40))
        assert 0.90 <= coverage([mean(row) for row in draws], 1.0) <= 0.98

    def test_mean_of_clusters_covers_and_a_plain_one_does_not(self, random, coverage):
        clusters = np.repeat(np.arange(40), 5)
        shared = random.normal(size=(300, 40)).repeat(5, axis=1)
        draws = shared + 0.3 * random.normal(size=shared.shape)
        assert coverage([mean(row, clusters) for row in draws], 0.0) >= 0.91
        assert coverage([mean(row) for row in draws], 0.0) <= 0.75

    def test_clusters_of_one_change_nothing(self, random):
        values = random.normal(size=30)
        clustered = mean(values, random.permutation(30))
        assert clustered.ci == pytest.approx(mean(values).ci)

    def test_cluster_names_may_be_text(self):
        assert mean([1.0, 2.0, 3.0], ["a", "a", "b"]).value == 2.0

    def test_one_value_has_no_interval(self):
        assert math.isnan(mean([0.5]).low)

    def test_proportion_is_wilsons(self):
        # Newcombe (1998), table I: 81 of 263 by the score method.
        assert proportion(81, 263).ci == pytest.approx((0.2553, 0.3662), abs=1e-4)

    def test_proportion_covers_near_the_edge(self, random, coverage):
        counts = random.binomial(120, 0.97, size=2000)
        assert coverage([proportion(k, 120) for k in counts.tolist()], 0.97) >= 0.92

    @pytest.mark.parametrize("values", [[1.0] * 4, [0.0] * 4, [0.5] * 4, [1, 1, 1, 0]])
    @pytest.mark.parametrize("clusters", [None, [0, 1, 2, 3], [0, 0, 1, 1], [0] * 4])
    def test_an_interval_of_a_rate_stays_between_0_and_1(self, values, clusters):
        found = rate(values, clusters)
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.high - found.low > 0.3

    @given(
        st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=30),
        st.integers(1, 10),
    )
    def test_whatever_won_its_interval_is_one(self, outcomes, groups):
        found = win_rate(outcomes, np.arange(len(outcomes)) % groups)
        for part in (found, found.without_ties):
            if part.n:
                assert 0 <= part.low <= part.value <= part.high <= 1

    def test_a_rate_without_clusters_is_wilsons(self):
        assert rate([1.0] * 81 + [0.0] * 182) == proportion(81, 263)

    def test_a_rate_of_clusters_covers(self, random, coverage):
        chances = random.beta(9, 1, size=(400, 40))
        drawn = random.random((400, 40, 3)) < chances[..., None]
        clusters = np.repeat(np.arange(40), 3)
        found = [rate(row.ravel(), clusters) for row in drawn.astype(float)]
        assert coverage(found, 0.9) >= 0.92

    def test_a_mean_of_chances_is_narrower_than_one_of_outcomes(self):
        assert rate([0.5] * 50 + [0.6] * 50).high < 0.57 < rate([0, 1] * 50).high

    def test_a_rounding_error_beyond_1_is_1(self):
        assert rate([1 + 1e-12, 1.0]).value == 1

    def test_a_rate_of_no_shares_is_refused(self):
        with pytest.raises(ValueError, match="between 0 and 1; these reach from -1"):
            rate([-1.0, 2.0])

    def test_proportion_of_nothing(self):
        assert math.isnan(proportion(0, 0).value)

    def test_pairing_removes_what_is_shared(self, random):
        prompt = 10 * random.normal(size=50)
        a = prompt + 0.5 + 0.1 * random.normal(size=50)
        assert paired_difference(a, prompt).low > 0.4

    def test_pairing_needs_the_same_items(self):
        with pytest.raises(ValueError, match="a has 2 values and b has 3"):
            paired_difference([1, 2], [1, 2, 3])

    def test_bootstrap_agrees_with_the_t_interval(self, random):
        values = random.normal(size=200)
        resampled = bootstrap(np.mean, values)
        assert resampled.ci == pytest.approx(mean(values).ci, abs=0.02)

    def test_bootstrap_of_clusters_is_as_wide_as_their_mean(self, random):
        clusters = np.repeat(np.arange(60), 4)
        values = random.normal(size=60).repeat(4)
        resampled = bootstrap(np.mean, values, clusters=clusters)
        assert resampled.ci == pytest.approx(mean(values, clusters).ci, abs=0.04)

    def test_what_has_no_values_is_named(self):
        with pytest.raises(ValueError, match="at least one value"):
            mean([])

    def test_wrong_clusters_are_named(self):
        with pytest.raises(ValueError, match="each of the 3 values"):
            mean([1.0, 2.0, 3.0], [0, 1])


def measured(items, runs, between, random, k, n=60):
    """Estimates of k runs on the same n items; the truth is 0."""
    shared = random.normal(scale=items, size=n)
    trained = random.normal(scale=between, size=(k, 1))
    return [
        mean(row) for row in shared + trained + random.normal(scale=runs, size=(k, n))
    ]


class TestAcrossSeeds:
    def test_known_answer(self):
        # t of 1 degree of freedom is 12.7062; the values' standard error is 0.01.
        runs = [Estimate(0.5, 0.4, 0.53, 9), Estimate(0.52, 0.42, 0.56, 9)]
        found = across_seeds(runs)
        assert found.low == pytest.approx(0.51 - math.hypot(0.127062, 0.1))
        high = math.hypot(0.127062, math.sqrt((0.03**2 + 0.04**2) / 2))
        assert found.high == pytest.approx(0.51 + high)
        assert (found.value, found.n) == (pytest.approx(0.51), 2)

    def test_one_run_keeps_its_interval(self):
        assert across_seeds([Estimate(0.1, 0.04, 0.2, 9)]).ci == pytest.approx(
            (0.04, 0.2)
        )

    def test_the_same_again_is_no_news_about_the_items(self):
        run = Estimate(0.1, 0.04, 0.2, 9)
        assert across_seeds([run] * 20).ci == pytest.approx(run.ci)

    def test_runs_without_intervals_give_the_t_interval(self):
        values = [0.5, 0.8, 0.6]
        found = across_seeds([Estimate(x, x, x, 1) for x in values])
        assert found.ci == pytest.approx(mean(values).ci)

    def test_it_holds_the_intervals_average(self, random):
        runs = measured(1.0, 0.5, 0.2, random, 5)
        low, high = (
            np.mean([getattr(x, end) for x in runs]) for end in ("low", "high")
        )
        found = across_seeds(runs)
        assert found.low < low < high < found.high

    @pytest.mark.parametrize("k", [2, 3, 10])
    @pytest.mark.parametrize("between", [0.0, 0.2, 1.0])
    def test_it_covers(self, random, coverage, k, between):
        found = [
            across_seeds(measured(1.0, 0.5, between, random, k)) for _ in range(300)
        ]
        assert coverage(found, 0.0) >= 0.92

    def test_an_average_of_intervals_does_not_cover(self, random, coverage):
        drawn = [measured(1.0, 0.5, 1.0, random, 3) for _ in range(300)]
        ends = ("value", "low", "high")
        averaged = [
            Estimate(*(np.mean([getattr(x, e) for x in runs]) for e in ends), n=3)
            for runs in drawn
        ]
        assert coverage(averaged, 0.0) <= 0.75
        assert coverage([across_seeds(runs) for runs in drawn], 0.0) >= 0.92

    def test_it_ends_where_nothing_can_be(self):
        runs = [Estimate(0.02, 0.01, 0.05, 9), Estimate(0.1, 0.05, 0.2, 9)]
        assert across_seeds(runs).low < 0
        found = across_seeds(runs, bounds=(0.0, 1.0))
        assert (found.low, found.high) == (0.0, across_seeds(runs).high)

    def test_no_runs_are_refused(self):
        with pytest.raises(ValueError, match="at least one"):
            across_seeds([])


class TestDifference:
    def test_known_answer(self):
        # Half-widths of 3 and 4 make 5; each end of b meets the other end of a.
        found = difference(Estimate(20, 17, 26, 9), Estimate(10, 2, 14, 5))
        assert (found.value, found.ci, found.n) == (10, (5, 20), 5)

    def test_of_independent_samples_it_is_welchs(self, random, coverage):
        a, b = random.normal(1.0, 1.0, (300, 30)), random.normal(0.0, 3.0, (300, 50))
        found = [difference(mean(x), mean(y)) for x, y in zip(a, b, strict=True)]
        assert 0.92 <= coverage(found, 1.0) <= 0.98
