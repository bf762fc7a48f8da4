"""What comparisons prove: power, win rates at equal length, ratings, agreement."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from labs_helpers.evaluation import (
    bradley_terry_ratings,
    cohen_kappa,
    comparisons_needed,
    krippendorff_alpha,
    length_controlled_win_rate,
    win_rate,
    win_rate_power,
)


class TestPower:
    @pytest.mark.parametrize(("rate", "ties"), [(0.65, 0.0), (0.55, 0.0), (0.6, 0.3)])
    def test_the_number_needed_has_the_power_asked_for(self, rate, ties):
        n = comparisons_needed(rate, 0.8, ties)
        assert win_rate_power(rate, n, ties) >= 0.8
        assert win_rate_power(rate, n - 1, ties) < 0.8

    def test_agrees_with_simulated_tests(self, random):
        wins = random.binomial(100, 0.62, size=20_000)
        proven = np.abs(wins / 100 - 0.5) / np.sqrt(0.25 / 100) > stats.norm.ppf(0.975)
        assert win_rate_power(0.62, 100) == pytest.approx(proven.mean(), abs=0.03)

    def test_is_symmetric(self):
        assert comparisons_needed(0.4) == comparisons_needed(0.6)
        assert win_rate_power(0.4, 50) == pytest.approx(win_rate_power(0.6, 50))

    def test_ties_leave_less_to_prove(self):
        assert comparisons_needed(0.6, ties=0.4) < comparisons_needed(0.6)

    def test_small_samples_prove_little(self):
        assert win_rate_power(0.55, 10) < 0.1

    def test_what_cannot_be_is_refused(self):
        with pytest.raises(ValueError, match=r"between 0\.3 and 0\.7; got 0\.8"):
            comparisons_needed(0.8, ties=0.6)
        with pytest.raises(ValueError, match="proves 1/2"):
            comparisons_needed(0.5)
        with pytest.raises(ValueError, match="between 0 and 1, got 1"):
            comparisons_needed(0.6, power=1)


class TestLengthControl:
    def outcomes(self, random, quality, liking, n=600, longer=20.0):
        ours, theirs = random.normal(50 + longer, 20, n), random.normal(50, 20, n)
        difference = ours - theirs
        x = np.tanh(difference / difference.std())
        wins = random.uniform(size=n) < expit(quality + liking * x)
        return wins.astype(float), ours, theirs

    def test_takes_away_what_length_won(self, random):
        outcomes, ours, theirs = self.outcomes(random, quality=0.0, liking=2.0)
        assert win_rate(outcomes).low > 0.55
        controlled = length_controlled_win_rate(outcomes, ours, theirs)
        assert controlled.low < 0.5 < controlled.high

    @pytest.mark.slow
    def test_covers_the_rate_at_equal_length(self, random):
        truth, covered = expit(0.7), []
        for _ in range(40):
            draw = self.outcomes(random, quality=0.7, liking=-1.0, n=150)
            estimate = length_controlled_win_rate(*draw)
            covered.append(estimate.low <= truth <= estimate.high)
        assert np.mean(covered) >= 0.87

    def test_without_a_liking_it_is_the_win_rate(self, random):
        draw = self.outcomes(random, quality=0.4, liking=0.0, n=4000)
        controlled = length_controlled_win_rate(*draw).value
        assert controlled == pytest.approx(draw[0].mean(), abs=0.03)

    def test_turning_the_sides_turns_it(self, random):
        outcomes, ours, theirs = self.outcomes(random, quality=0.5, liking=1.0)
        there = length_controlled_win_rate(outcomes, ours, theirs)
        back = length_controlled_win_rate(1 - outcomes, theirs, ours)
        assert back.value == pytest.approx(1 - there.value)

    def test_ties_count_half_and_equal_lengths_change_nothing(self):
        outcomes = np.array([1, 0.5, 0.5, 0, 1, 1])
        rate = length_controlled_win_rate(outcomes, np.ones(6), np.ones(6))
        assert rate.value == pytest.approx(outcomes.mean(), abs=0.01)

    def test_who_always_wins_has_a_finite_rate(self, random):
        rate = length_controlled_win_rate(
            np.ones(50), random.normal(size=50), np.zeros(50)
        )
        assert 0.98 < rate.value <= 1

    def test_length_alone_cannot_be_told_apart(self):
        with pytest.raises(ValueError, match="by the same amount"):
            length_controlled_win_rate([1, 0], [5, 6], [4, 5])
        with pytest.raises(ValueError, match="2 outcomes and 3 pairs"):
            length_controlled_win_rate([1, 0], [5, 6, 7], [4, 5, 7])


TRUE = {"sft": 0.0, "dpo": 1.0, "ipo": 0.7, "kto": 0.3}


class TestRatings:
    def outcomes(self, random, n=400):
        return {
            (a, b): (random.uniform(size=n) < expit(TRUE[a] - TRUE[b])) * 1.0
            for a, b in itertools.combinations(TRUE, 2)
        }

    def test_recovers_known_ratings(self, random):
        ratings = bradley_terry_ratings(self.outcomes(random), baseline="sft")
        for name, truth in TRUE.items():
            assert ratings[name].value == pytest.approx(truth, abs=0.25)
            assert ratings[name].low <= truth <= ratings[name].high
        assert ratings["sft"].ci == (0, 0)
        assert ratings["dpo"].n == 3 * 400

    def test_two_policies_are_rated_by_the_log_odds(self):
        outcomes = {("a", "b"): [1.0] * 75 + [0.0] * 25}
        ratings = bradley_terry_ratings(outcomes, baseline="b", samples=50)
        assert ratings["a"].value == pytest.approx(logit(75.5 / 101), abs=1e-6)

    def test_without_a_baseline_the_mean_is_zero(self, random):
        ratings = bradley_terry_ratings(self.outcomes(random, 50), samples=50)
        assert sum(r.value for r in ratings.values()) == pytest.approx(0)

    def test_order_of_sides_changes_nothing(self, random):
        outcomes = self.outcomes(random, 50)
        turned = {(b, a): 1 - wins for (a, b), wins in outcomes.items()}
        there, back = (
            bradley_terry_ratings(o, "sft", samples=20) for o in (outcomes, turned)
        )
        for name in TRUE:
            assert back[name].value == pytest.approx(there[name].value, abs=1e-6)

    def test_ties_leave_both_equal(self):
        ratings = bradley_terry_ratings({("a", "b"): [0.5] * 30}, samples=20)
        assert ratings["a"].value == pytest.approx(0, abs=1e-9)

    def test_who_never_lost_is_finitely_good(self):
        rating = bradley_terry_ratings({("a", "b"): [1.0] * 30}, "b", samples=20)["a"]
        assert 3 < rating.value < 6
        assert np.isfinite(rating.ci).all()

    def test_what_is_not_compared_cannot_be_rated(self):
        outcomes = {("a", "b"): [1.0, 0.0], ("c", "d"): [1.0, 0.0]}
        with pytest.raises(ValueError, match=r"none joins \(a, b\) with \(c, d\)"):
            bradley_terry_ratings(outcomes)
        with pytest.raises(ValueError, match="the baseline 'x'; there are a, b"):
            bradley_terry_ratings({("a", "b"): [1.0]}, baseline="x")
        with pytest.raises(ValueError, match="over the same prompts"):
            bradley_terry_ratings({("a", "b"): [1.0], ("b", "c"): [1.0, 0.0]})


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
