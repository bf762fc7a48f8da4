"""Estimates, win rates, calibration, agreement, best of n and optima."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labs_helpers.evaluation import (
    Estimate,
    bayes_ceiling,
    best_of_n,
    best_of_n_kl,
    bootstrap,
    brier,
    brier_floor,
    cohen_kappa,
    expected_right,
    fit_temperature,
    krippendorff_alpha,
    mean,
    optimum_from_samples,
    overoptimisation_fit,
    pair_accuracy,
    paired_difference,
    pairs_right,
    probability_gap,
    proportion,
    rate,
    reliability,
    toward_ceiling,
    win_rate,
)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def coverage(intervals: list[Estimate], truth: float) -> float:
    return float(np.mean([e.low <= truth <= e.high for e in intervals]))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


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

    def test_mean_covers(self, random):
        draws = random.exponential(size=(500, 40))
        assert 0.90 <= coverage([mean(row) for row in draws], 1.0) <= 0.98

    def test_mean_of_clusters_covers_and_a_plain_one_does_not(self, random):
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

    def test_proportion_covers_near_the_edge(self, random):
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

    def test_a_rate_of_clusters_covers(self, random):
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
    def test_interval_covers(self, random, tie):
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


class TestCalibration:
    def test_temperature_is_recovered(self, random):
        logits = random.normal(size=50_000)
        labels = random.uniform(size=50_000) < sigmoid(logits)
        assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.03)

    def test_temperature_is_the_likelihoods_stationary_point(self, random):
        margins = random.normal(size=200)
        labels = random.uniform(size=200) < sigmoid(margins)
        scaled = margins / fit_temperature(margins, labels)
        assert np.mean(margins * (sigmoid(scaled) - labels)) == pytest.approx(
            0, abs=1e-5
        )

    def test_soft_labels_are_welcome(self, random):
        margins = random.normal(size=100)
        labels = sigmoid(margins / 2.5)
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


class TestAgreement:
    def test_krippendorffs_own_example(self):
        # Krippendorff (2011), "Computing Krippendorff's alpha-reliability", example C.
        missing = np.nan
        ratings = [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, missing, missing, missing],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, missing, 3],
            [missing, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, missing],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, missing],
        ]
        assert krippendorff_alpha(ratings) == pytest.approx(0.743, abs=5e-4)

    def test_alpha_of_one_value_is_unknown(self):
        assert math.isnan(krippendorff_alpha([[1, 1, 1], [1, 1, 1]]))

    def test_alpha_needs_a_table(self):
        with pytest.raises(ValueError, match="one row a rater"):
            krippendorff_alpha([1, 0, 1])

    def test_kappa_by_hand(self):
        # 4 of 5 agree; chance is 0.6 * 0.4 + 0.4 * 0.6.
        assert cohen_kappa([1, 1, 1, 0, 0], [1, 1, 0, 0, 0]) == pytest.approx(
            (0.8 - 0.48) / 0.52
        )

    def test_kappa_takes_halves_and_leaves_out_what_is_missing(self):
        a, b = [1, 0.5, 0, np.nan, 1], [1, 0.5, 0, 1, np.nan]
        assert cohen_kappa(a, b) == 1.0

    def test_kappa_of_one_value_is_unknown(self):
        assert math.isnan(cohen_kappa([1, 1], [1, 1]))


class TestBestOfN:
    @pytest.mark.parametrize("n", [1, 2, 3, 5])
    def test_equals_brute_force_with_ties(self, random, n):
        proxy = random.integers(0, 3, size=(4, 5)).astype(float)
        gold = random.normal(size=(4, 5))
        expected = []
        for scores, rewards in zip(proxy, gold, strict=True):
            picks = []
            for subset in itertools.combinations(range(5), n):
                subset = np.array(subset)
                best = subset[scores[subset] == scores[subset].max()]
                picks.append(rewards[best].mean())
            expected.append(np.mean(picks))
        np.testing.assert_allclose(best_of_n(proxy, gold, [n])[:, 0], expected)

    def test_ends_are_the_mean_and_the_best(self, random):
        proxy, gold = random.normal(size=(2, 3, 64))
        curve = best_of_n(proxy, gold, [1, 64])
        np.testing.assert_allclose(curve[:, 0], gold.mean(1))
        best = gold[np.arange(3), proxy.argmax(1)]
        np.testing.assert_allclose(curve[:, 1], best)

    def test_many_samples_stay_exact(self):
        proxy = np.arange(2048.0)[None]
        # The expected largest of n of 0 .. N - 1 is n (N + 1) / (n + 1) - 1.
        curve = best_of_n(proxy, proxy, [7, 1000])[0]
        expected = [7 * 2049 / 8 - 1, 1000 * 2049 / 1001 - 1]
        np.testing.assert_allclose(curve, expected, rtol=1e-9)

    def test_more_than_there_are_is_refused(self):
        with pytest.raises(ValueError, match="at most the 4 samples"):
            best_of_n(np.zeros((1, 4)), np.zeros((1, 4)), [8])

    def test_kl(self):
        np.testing.assert_allclose(
            best_of_n_kl([1, 2, 16]), [0, math.log(2) - 0.5, math.log(16) - 15 / 16]
        )


class TestOveroptimisation:
    @pytest.mark.parametrize("kind", ["bon", "rl"])
    def test_recovers_known_coefficients(self, kind):
        d = np.linspace(0, 5, 30)
        shape = d if kind == "bon" else np.log(np.maximum(d, 1e-300))
        fit = overoptimisation_fit(d, d * (1.2 - 0.3 * shape), kind)
        assert (fit.a, fit.b, fit.r_squared) == pytest.approx((1.2, 0.3, 1.0))

    @pytest.mark.parametrize("kind", ["bon", "rl"])
    def test_peak_is_where_gold_is_highest(self, random, kind):
        d = np.linspace(0.1, 8, 50)
        shape = d if kind == "bon" else np.log(d)
        gold = d * (1.0 - 0.6 * shape) + 0.01 * random.normal(size=50)
        fit = overoptimisation_fit(d, gold, kind)
        grid = np.linspace(0, 8, 100_001)
        assert grid[fit.predict(grid).argmax()] == pytest.approx(fit.peak, abs=1e-3)

    def test_gold_that_only_rises_has_no_peak(self):
        d = np.array([0.5, 1.0, 2.0])
        assert overoptimisation_fit(d, d * (1 + 0.1 * d)).peak == math.inf

    def test_too_few_points_are_refused(self):
        with pytest.raises(ValueError, match="at least 3 points"):
            overoptimisation_fit([0, 1], [0, 1])


class TestOptimum:
    def test_equals_the_closed_form_of_a_table(self):
        # Five answers, drawn exactly as often as the reference says.
        counts = np.array([4, 3, 2, 5, 2])
        rewards, weight = np.array([0.1, 0.9, 0.5, 0.0, 1.0]), 0.2
        reference = counts / counts.sum()
        best = reference * np.exp(rewards / weight)
        best /= best.sum()
        kl = np.sum(best * np.log(best / reference))
        optimum = optimum_from_samples(np.repeat(rewards, counts)[None], weight)
        assert optimum.reward[0] == pytest.approx(best @ rewards)
        assert optimum.kl[0] == pytest.approx(kl)
        assert optimum.objective[0] == pytest.approx(best @ rewards - weight * kl)

    def test_no_other_policy_does_better(self, random):
        rewards, weight = random.uniform(size=(1, 16)), 0.1
        policies = random.dirichlet(np.ones(16), size=500)
        kl = np.sum(policies * np.log(policies * 16), axis=1)
        objectives = policies @ rewards[0] - weight * kl
        assert objectives.max() < optimum_from_samples(rewards, weight).objective[0]

    def test_a_heavy_weight_keeps_the_reference(self, random):
        rewards = random.uniform(size=(3, 50))
        optimum = optimum_from_samples(rewards, 1e4)
        np.testing.assert_allclose(optimum.reward, rewards.mean(1), atol=1e-4)
        np.testing.assert_allclose(optimum.kl, 0, atol=1e-6)

    def test_a_light_weight_takes_the_best_sample(self, random):
        rewards = random.uniform(size=(3, 50))
        optimum = optimum_from_samples(rewards, 1e-5)
        np.testing.assert_allclose(optimum.reward, rewards.max(1))
        np.testing.assert_allclose(optimum.kl, np.log(50))

    def test_no_weight_is_refused(self):
        with pytest.raises(ValueError, match="above 0"):
            optimum_from_samples(np.zeros((1, 2)), 0.0)


def test_expected_right_is_the_mean_over_labels():
    rng = np.random.default_rng(0)
    p, margins = rng.random(50), rng.normal(size=50)
    labels = rng.random((4000, 50)) < p
    drawn = np.mean([pairs_right(margins, row) for row in labels.astype(float)], axis=0)
    np.testing.assert_allclose(expected_right(margins, p), drawn, atol=0.04)
    assert toward_ceiling(expected_right(p - 0.5, p), p).value == pytest.approx(1)
