"""TRPO's parts against a dense Fisher matrix, and its step against its bound."""

import copy

import pytest
import torch

from labs_helpers.models import PolicyWithValue
from labs_helpers.rl import RLConfig, collect, fisher_product, flat, probe_policy
from labs_helpers.rl.learner import Learner
from labs_helpers.rl.trust_region import DAMPING, conjugate_gradients, trpo


def categorical(seed=0):
    """A small network in float64, its weights, and its log-probs of three actions."""
    torch.manual_seed(seed)
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)
    ).double()
    states = torch.randn(40, 4, dtype=torch.float64)
    return net, list(net.parameters()), lambda: net(states).log_softmax(1)


def mean_kl(old, new):
    return (old.exp() * (old - new)).sum(1).mean()


def dense_fisher(parameters, scores):
    """Mean over states of J^T (diag(p) - p p^T) J, J that of the logits."""
    fisher = 0
    for row in scores:
        p = row.detach().exp()
        jacobian = torch.stack(
            [flat(torch.autograd.grad(x, parameters, retain_graph=True)) for x in row]
        )
        fisher = fisher + jacobian.T @ (p.diag() - p[:, None] * p) @ jacobian
    return fisher / len(scores)


class TestNaturalGradient:
    def test_products_are_those_of_the_dense_matrix(self):
        _, parameters, log_policy = categorical()
        scores = log_policy()
        fisher = dense_fisher(parameters, scores)
        product = fisher_product(mean_kl(scores.detach(), scores), parameters, 0.1)
        for _ in range(3):
            v = torch.randn(len(fisher), dtype=torch.float64)
            torch.testing.assert_close(
                product(v), fisher @ v + 0.1 * v, rtol=1e-8, atol=1e-10
            )

    def test_direction_is_that_of_the_dense_solve(self):
        _, parameters, log_policy = categorical()
        scores = log_policy()
        advantages = torch.randn(40, dtype=torch.float64)
        slope = flat(
            torch.autograd.grad(
                (scores[:, 0] * advantages).mean(), parameters, retain_graph=True
            )
        )
        fisher = dense_fisher(parameters, scores)
        product = fisher_product(mean_kl(scores.detach(), scores), parameters)
        solution = conjugate_gradients(product, slope, iterations=100)
        damped = fisher + DAMPING * torch.eye(len(fisher))
        expected = torch.linalg.solve(damped, slope)
        torch.testing.assert_close(solution.x, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(solution.product, slope, rtol=1e-5, atol=1e-5)
        assert solution.residual < 1e-5

    def test_half_the_quadratic_form_is_the_kl_of_a_small_step(self):
        net, parameters, log_policy = categorical()
        scores = log_policy()
        product = fisher_product(mean_kl(scores.detach(), scores), parameters, 0.0)
        step = 1e-3 * torch.randn(sum(p.numel() for p in parameters)).double()
        predicted = step @ product(step) / 2
        vector = torch.nn.utils.parameters_to_vector(net.parameters())
        torch.nn.utils.vector_to_parameters(vector + step, net.parameters())
        moved = mean_kl(scores.detach(), log_policy())
        torch.testing.assert_close(predicted, moved, rtol=1e-2, atol=0)


class TestConjugateGradients:
    def test_solve_in_as_many_iterations_as_unknowns(self):
        half = torch.randn(6, 6, dtype=torch.float64)
        matrix = half @ half.T + torch.eye(6)
        b = torch.randn(6, dtype=torch.float64)
        solution = conjugate_gradients(lambda v: matrix @ v, b, iterations=6)
        torch.testing.assert_close(solution.x, torch.linalg.solve(matrix, b))

    def test_fewer_iterations_leave_a_residual_that_is_told(self):
        matrix = torch.diag(torch.tensor([1.0, 10.0, 100.0]))
        b = torch.ones(3)
        solution = conjugate_gradients(lambda v: matrix @ v, b, iterations=1)
        expected = (b - matrix @ solution.x).norm() / b.norm()
        assert solution.residual == pytest.approx(expected.item(), rel=1e-5)
        assert solution.residual > 0.1

    def test_nothing_to_solve(self):
        solution = conjugate_gradients(lambda v: v, torch.zeros(3))
        assert (solution.x == 0).all()
        assert solution.residual == 0


class TestStep:
    @pytest.fixture
    def run(self):
        policy, tokenizer = probe_policy()
        model = PolicyWithValue.from_policy(policy)

        def build(bound=0.01, reward=None):
            config = RLConfig(algorithm="trpo", kl_bound=bound, samples=32)
            experience, _ = collect(
                model,
                copy.deepcopy(policy),
                tokenizer,
                ["a", "b"] * 16,
                reward or (lambda prompts, texts: [float("c" in t) for t in texts]),
                RLConfig(max_new_tokens=4, samples=32, kl_weight=0.0),
                seed=0,
            )
            return Learner(model, config), experience

        return build

    @pytest.mark.parametrize("bound", [1e-3, 0.01, 0.1])
    def test_gains_within_its_bound(self, run, bound):
        learner, experience = run(bound)
        measured = trpo(learner, experience)
        assert bound / 20 < measured["approx_kl"] <= bound
        assert measured["policy_loss"] < 0

    def test_without_advantages_nothing_moves(self, run):
        learner, experience = run()
        experience.advantages.zero_()
        before = flat([p.detach() for p in learner.model.policy_parameters()])
        measured = trpo(learner, experience)
        after = flat([p.detach() for p in learner.model.policy_parameters()])
        assert torch.equal(before, after)
        assert measured["approx_kl"] == 0

    def test_values_are_fitted_without_moving_the_policy(self, run):
        learner, experience = run()
        experience.advantages.zero_()
        trpo(learner, experience)
        assert (learner.model.value_head.weight != 0).any()
        with torch.no_grad():
            now = learner.read(experience)
        torch.testing.assert_close(now.logprobs, experience.logprobs)
