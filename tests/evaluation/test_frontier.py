"""KL of answers, the share of the way to the optimum, and the frontier itself."""

import math

import numpy as np
import pytest

from labs_helpers.evaluation import (
    distance_covered,
    kl_per_answer,
    optimal_frontier,
    optimal_policy,
    optimum_from_samples,
)
from labs_helpers.sampling import sample

REFERENCE = np.array([0.3, 0.3, 0.4])


@pytest.fixture
def random():
    return np.random.default_rng(0)


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
