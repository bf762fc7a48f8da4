"""Best of n, over-optimisation, the optimum, and the share of the way to it."""

import itertools
import math

import numpy as np
import pytest

from labs_helpers.evaluation import (
    best_of_n,
    best_of_n_kl,
    distance_covered,
    kl_per_answer,
    optimal_frontier,
    optimal_policy,
    optimum_from_samples,
    overoptimisation_fit,
)
from labs_helpers.sampling import sample

REFERENCE = np.array([0.3, 0.3, 0.4])


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


class TestOptimalPolicy:
    def test_maximises_the_objective(self, random):
        rewards, weight = np.array([0.2, 1.0, 0.5]), 0.3
        best = optimal_policy(REFERENCE, rewards, weight)
        others = random.dirichlet(np.ones(3), size=500)

        def objective(policy):
            kl = np.sum(policy * np.log(policy / REFERENCE), axis=-1)
            return policy @ rewards - weight * kl

        assert best.sum() == pytest.approx(1)
        assert (objective(others) <= objective(best) + 1e-12).all()

    def test_many_prompts_at_once_and_impossible_answers_stay_so(self):
        reference = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
        best = optimal_policy(reference, np.eye(3)[:2], 0.1)
        assert best[0, 2] == 0
        np.testing.assert_allclose(best.sum(axis=1), 1)

    def test_no_weight_is_refused(self):
        with pytest.raises(ValueError, match="above 0"):
            optimal_policy(REFERENCE, np.zeros(3), 0.0)


class TestKL:
    def test_is_that_of_the_distributions(self, random):
        policy = np.array([0.7, 0.2, 0.1])
        drawn = random.choice(3, p=policy, size=40_000)
        kl = kl_per_answer(np.log(policy)[drawn], np.log(REFERENCE)[drawn])
        assert kl.low <= 0.3734 <= kl.high
        assert kl.high - kl.low < 0.03

    def test_tokens_are_summed(self):
        tokens = np.array([[-1.0, -2.0, 0.0], [-1.0, 0.0, 0.0]])
        assert kl_per_answer(tokens, tokens - 1).value == 3
        assert kl_per_answer(tokens.sum(1), np.array([-4.0, -2.0])).value == 1

    def test_answers_to_one_prompt_widen_the_interval(self, random):
        shared = random.normal(size=30).repeat(5)
        clusters = np.arange(30).repeat(5)
        plain = kl_per_answer(shared, np.zeros(150))
        clustered = kl_per_answer(shared, np.zeros(150), clusters)
        assert clustered.high - clustered.low > 1.8 * (plain.high - plain.low)

    def test_other_answers_are_refused(self):
        with pytest.raises(ValueError, match="policy's are 2 and the reference's 3"):
            kl_per_answer([0.0, 1.0], [0.0, 1.0, 2.0])


class TestDistance:
    def test_start_covers_nothing_and_the_optimum_all(self, random):
        start = random.uniform(size=60)
        optimum = start + random.uniform(size=60)
        assert distance_covered(start, start, optimum).ci == (0, 0)
        assert distance_covered(optimum, start, optimum).ci == (1, 1)

    def test_what_prompts_share_cancels(self, random):
        prompt = 10 * random.normal(size=60)
        noise = 0.05 * random.normal(size=60)
        share = distance_covered(prompt + 0.6 + noise, prompt, prompt + 1)
        assert share.low == pytest.approx(0.6, abs=0.05)
        assert share.high == pytest.approx(0.6, abs=0.05)

    def test_worse_than_the_start_is_below_zero(self):
        assert distance_covered([0.0, 0.1], [0.5, 0.6], [1.0, 1.1]).value < 0

    def test_no_way_to_cover_is_said(self):
        with pytest.raises(ValueError, match="no better than the start"):
            distance_covered([0.5], [0.5], [0.5])


class TestFrontier:
    def test_is_the_optimum_of_the_samples(self, tiny_policy, tiny_tokenizer):
        prompts, policy = ["Who?", "Why?"], tiny_policy()
        seen = []

        def reward(prompts, texts):
            seen.extend(prompts)
            return [len(text) / 10 for text in texts]

        frontier = optimal_frontier(
            policy,
            prompts,
            reward,
            [0.1, 1.0],
            samples=16,
            tokenizer=tiny_tokenizer,
            max_new_tokens=6,
        )
        assert seen == ["Who?"] * 16 + ["Why?"] * 16
        texts = sample(
            policy, tiny_tokenizer, prompts, max_new_tokens=6, n=16, seed=0
        ).texts
        rewards = np.array([len(text) / 10 for text in texts]).reshape(2, 16)
        for found, weight in zip(frontier, (0.1, 1.0), strict=True):
            expected = optimum_from_samples(rewards, weight)
            np.testing.assert_allclose(found.objective, expected.objective)
        assert (frontier[0].kl >= frontier[1].kl).all()
        assert (frontier[0].kl <= math.log(16)).all()
