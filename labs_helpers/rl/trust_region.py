"""TRPO's update: the largest natural step that a bound on the KL allows.

Schulman et al. (arXiv 1502.05477, appendix C). The pure parts, conjugate gradients and
products with the Fisher matrix, work on flat vectors and know no language model.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from labs_helpers.fit.run import added, from_main, share
from labs_helpers.losses import ppo_loss, value_loss
from labs_helpers.rl.experience import Experience, Outputs
from labs_helpers.rl.learner import Learner, Measured, mean_of_steps

ITERATIONS = 10  # of conjugate gradients
DAMPING = 0.1  # added to the Fisher matrix, which a batch leaves singular
FISHER_SHARE = 1 / 4  # of the answers: the curvature needs less data than the slope
BACKTRACKS = 10
SHRINK = 0.7  # of the step at each backtrack

Product = Callable[[Tensor], Tensor]


def flat(tensors: Sequence[Tensor]) -> Float[Tensor, " P"]:
    """All tensors in one vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def fisher_product(
    kl: Float[Tensor, ""], parameters: Sequence[nn.Parameter], damping: float = DAMPING
) -> Product:
    """Products with (F + damping) of a KL whose gradient is 0 here.

    F is the KL's Hessian, which at equal policies is the Fisher matrix; its product
    with v is the gradient of (gradient of the KL) . v, so that F is never built.

    Args:
        kl: mean KL(old || policy), the old one constant, with its graph.
        parameters: those of the policy.
    """
    # Some weights may have no say: those of a multimodal model's eyes, for text.
    slope = flat(
        torch.autograd.grad(kl, parameters, create_graph=True, materialize_grads=True)
    )

    def product(vector: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        curved = torch.autograd.grad(
            slope @ vector, parameters, retain_graph=True, materialize_grads=True
        )
        return flat(curved) + damping * vector

    return product


class Solution(NamedTuple):
    """x of F x = b, F x itself, and how far that is from b, relative to b."""

    x: Float[Tensor, " P"]
    product: Float[Tensor, " P"]
    residual: float


def conjugate_gradients(
    product: Product, b: Float[Tensor, " P"], iterations: int = ITERATIONS
) -> Solution:
    """Solve F x = b for a positive definite F known by its products alone.

    Hestenes and Stiefel (1952); ends early where the residual is 1e-10 of b.

    >>> F = torch.tensor([[4.0, 1.0], [1.0, 3.0]])
    >>> conjugate_gradients(lambda v: F @ v, torch.tensor([1.0, 2.0]), 2).x
    tensor([0.0909, 0.6364])
    """
    x, product_x = torch.zeros_like(b), torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    size = b @ b
    left = size
    for _ in range(iterations):
        if left <= 1e-20 * size:
            break
        curved = product(direction)
        step = left / (direction @ curved)
        x, product_x = x + step * direction, product_x + step * curved
        residual = residual - step * curved
        before, left = left, residual @ residual
        direction = residual + left / before * direction
    return Solution(x, product_x, (left / size).sqrt().item() if size else 0.0)


def trpo(learner: Learner, experience: Experience) -> Measured:
    """One natural step of the policy inside the KL bound, then several of the values.

    A trunk that policy and values share is moved by the policy alone: a value step on
    it would leave the trust region. The values then train their head.
    """
    measured = _policy_step(learner, experience)
    learner.center_values(experience)

    def loss_of(now: Outputs, part: Experience) -> tuple[Tensor, Measured]:
        error = value_loss(
            now.values, part.values, part.returns, part.mask, learner.config.clip
        )
        return error, {"value_loss": error.item()}

    values = mean_of_steps(
        learner.step(experience, rows, loss_of, learner.model.value_parameters())
        for _ in range(learner.config.passes)
        for rows in learner.minibatches(experience)
    )
    return {**values, **measured}


def _policy_step(learner: Learner, experience: Experience) -> Measured:
    """Natural gradient, scaled to the bound, shortened until bound and gain hold."""
    parameters = learner.model.policy_parameters()
    # KL grows with the square of a step's length, which is what the schedule shortens.
    bound = learner.config.kl_bound * learner.step_share**2
    mine = share(torch.arange(len(experience), device=learner.device))
    number = learner.config.minibatches * learner.config.accumulate
    parts = [
        experience.take(rows) for rows in learner.by_length(experience, mine, number)
    ]
    total = int(experience.mask.sum())
    slope, old_scores = _surrogate_gradient(learner, parts, total, parameters)
    learner.run.require_finite("gradient", slope.norm().item())
    # The fused attention kernels have no second derivative.
    with sdpa_kernel(SDPBackend.MATH):
        product = _fisher_product(learner, experience, parameters)
        solution = conjugate_gradients(product, slope)
    # x F x / 2 is the KL of the step x, to second order.
    length = (2 * bound / (solution.x @ solution.product).clamp(min=1e-20)).sqrt()
    full_step = length * solution.x
    start = flat([p.detach() for p in parameters])
    tried, gain, kl_moved = BACKTRACKS, 0.0, 0.0
    try:
        for shrunk in range(BACKTRACKS):
            _assign(parameters, start + SHRINK**shrunk * full_step)
            found = _gain_and_kl(learner, parts, total, old_scores)
            if found[1] <= bound and found[0] > 0:
                tried, (gain, kl_moved) = shrunk, found
                break
    finally:  # also where an interrupt comes between two trials
        if tried == BACKTRACKS:
            _assign(parameters, start)
    return {
        "grad_norm": slope.norm().item(),
        "policy_loss": -gain,
        "approx_kl": kl_moved,
        "expected_gain": (slope @ full_step).item(),
        "residual": solution.residual,
        "backtracks": float(tried),
    }


def _surrogate_gradient(
    learner: Learner,
    parts: list[Experience],
    total: int,
    parameters: list[nn.Parameter],
) -> tuple[Float[Tensor, " P"], list[Tensor]]:
    """Gradient of E[ratio * advantage], and the log-probs of all tokens before."""
    slope = torch.zeros_like(flat([p.detach() for p in parameters]))
    old_scores = []
    for part in parts:
        now = learner.read(part)
        loss = _surrogate(now, part) * (int(part.mask.sum()) / total)
        slope += flat(torch.autograd.grad(loss, parameters, materialize_grads=True))
        old_scores.append(now.logits.detach().log_softmax(dim=1))
    return added(slope), old_scores


def _surrogate(now: Outputs, part: Experience) -> Float[Tensor, ""]:
    """E[ratio * advantage], to maximise: PPO's without a clip."""
    unclipped = ppo_loss(
        now.logprobs, part.logprobs, part.advantages, part.mask, clip=float("inf")
    )
    return -unclipped.loss


def _fisher_product(
    learner: Learner, experience: Experience, parameters: list[nn.Parameter]
) -> Product:
    """Products with the damped Fisher matrix of some of the answers.

    It is the Hessian of the policy's KL from itself.
    """
    config = learner.config
    part = min(FISHER_SHARE, 1 / (config.minibatches * config.accumulate))
    number = max(1, round(part * len(experience)))
    rows = torch.randperm(len(experience))[:number].to(learner.device)
    rows = from_main(rows)
    total, mine = int(experience.mask[rows].sum()), share(rows)
    if not len(mine):
        return lambda vector: added(torch.zeros_like(vector)) + DAMPING * vector
    taken = experience.take(mine)
    scores = learner.read(taken).logits
    kl = _kl(scores.detach().log_softmax(dim=1), scores)
    if len(mine) < len(rows):
        kl = kl * (int(taken.mask.sum()) / total)
    product = fisher_product(kl, parameters, damping=0.0)
    return lambda vector: added(product(vector)) + DAMPING * vector


def _kl(
    old_scores: Float[Tensor, "N V"], scores: Float[Tensor, "N V"]
) -> Float[Tensor, ""]:
    """Mean KL(old || new) a token, over the whole vocabulary."""
    new_scores = scores.log_softmax(dim=1)
    return (old_scores.exp() * (old_scores - new_scores)).sum(dim=1).mean()


@torch.no_grad()
def _gain_and_kl(
    learner: Learner, parts: list[Experience], total: int, old_scores: list[Tensor]
) -> tuple[float, float]:
    """How much the surrogate has gained, and the KL, nats a token, of the way there."""
    moved = torch.zeros(2, device=learner.device)
    for part, old in zip(parts, old_scores, strict=True):
        now = learner.read(part)
        before = now._replace(logprobs=part.logprobs)
        gain = _surrogate(now, part) - _surrogate(before, part)
        weight = int(part.mask.sum()) / total
        moved += weight * torch.stack([gain, _kl(old, now.logits)])
    gain, kl = added(moved).tolist()
    return gain, kl


@torch.no_grad()
def _assign(parameters: list[nn.Parameter], vector: Float[Tensor, " P"]) -> None:
    sizes = [parameter.numel() for parameter in parameters]
    for parameter, values in zip(parameters, vector.split(sizes), strict=True):
        parameter.copy_(values.view_as(parameter))
