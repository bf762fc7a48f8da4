"""Exercise 3.3: conjugate gradients, which solve F x = b by products with F alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of, normal
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake
from labs_helpers.rl import trust_region


class Product:
    """Products with a matrix that nobody gets to see."""

    def __init__(self, matrix: Tensor):
        self._matrix = matrix

    def __call__(self, vector: Tensor) -> Tensor:
        """Give the matrix times the vector."""
        return self._matrix @ vector

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Product) and torch.equal(self._matrix, other._matrix)

    __hash__ = None

    def __str__(self) -> str:
        rows = np.array2string(self._matrix.numpy(), precision=3, separator=", ")
        return f"products with {' '.join(rows.split())}"


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Float[Tensor, " P"], iterations: int
) -> Float[Tensor, " P"]:
    """Solve F x = b for a positive definite F, given as v -> F v; start at x = 0."""
    return trust_region.conjugate_gradients(product, b, iterations).x


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """A well-conditioned system with as many unknowns as the size says."""
    dtype = dtype_of(flavour)
    directions, _ = np.linalg.qr(rng.normal(size=(size, size)))
    curvatures = rng.uniform(0.5, 3.0, size=size)
    matrix = (directions * curvatures) @ directions.T
    b = normal(rng, size, dtype=dtype)
    if flavour.startswith("right side is 0"):
        b = torch.zeros_like(b)
    more = {"a few more than needed": size + 3, "as many as unknowns": size}
    return {
        "product": Product(torch.tensor((matrix + matrix.T) / 2, dtype=dtype)),
        "b": b,
        "iterations": more.get(flavour.split(",")[0], max(1, size - 2)),
    }


def _otherwise(
    *,
    step: Function = lambda rr, p, fp: rr / (p @ fp),
    moved: Function = lambda x, step, p: x + step * p,
    left: Function = lambda r, step, p, fp: r - step * fp,
    beta: Function = lambda new, old: new / old,
    turned: Function = lambda r, beta, p: r + beta * p,
    more: int = 0,
    guarded: bool = True,
    result: Function = lambda x, r, p: x,
) -> Function:
    """Answer with conjugate gradients in which something is done otherwise."""

    def answer(product, b, iterations):
        x, r, p = torch.zeros_like(b), b.clone(), b.clone()
        rr = r @ r
        size = rr
        for _ in range(iterations + more):
            if guarded and rr <= 1e-20 * size:
                break
            fp = product(p)
            alpha = step(rr, p, fp)
            x, r = moved(x, alpha, p), left(r, alpha, p, fp)
            new = r @ r
            p = turned(r, beta(new, rr), p)
            rr = new
        return result(x, r, p)

    return answer


MISTAKES = (
    Mistake(
        "steepest descent",
        _otherwise(turned=lambda r, beta, p: r),
        "every step goes along the residual: this is steepest descent, which comes "
        "near the solution and does not reach it in P steps. What keeps a new "
        "direction from undoing the old ones?",
    ),
    Mistake(
        "direction never turned",
        _otherwise(turned=lambda r, beta, p: p),
        "all steps go along the first direction. Each needs one of its own, made of "
        "the new residual and the direction before.",
    ),
    Mistake(
        "beta is 1",
        _otherwise(beta=lambda new, old: 1.0),
        "beta is 1 in every iteration. Is the old r.r overwritten before you divide by "
        "it?",
    ),
    Mistake(
        "beta upside down",
        _otherwise(beta=lambda new, old: old / new),
        "beta is the old r.r over the new one, which grows as the residual shrinks. It "
        "is the other way round.",
    ),
    Mistake(
        "direction turned backwards",
        _otherwise(turned=lambda r, beta, p: r - beta * p),
        "the direction before is taken off the residual. With beta as it is defined, "
        "it is added.",
    ),
    Mistake(
        "step without curvature",
        _otherwise(step=lambda rr, p, fp: rr / (p @ p)),
        "the length of the step does not know the matrix: p.p stands where the "
        "curvature along p belongs.",
    ),
    Mistake(
        "step is 1",
        _otherwise(step=lambda rr, p, fp: 1.0),
        "every step has length 1. How far along p is the minimum?",
    ),
    Mistake(
        "step upside down",
        _otherwise(step=lambda rr, p, fp: (p @ fp) / rr),
        "the step is longer the more the function is curved. It is the other way "
        "round.",
    ),
    Mistake(
        "residual never updated",
        _otherwise(left=lambda r, step, p, fp: r),
        "the residual stays as it was at the start. After a step along p, F x has "
        "changed by step times F p.",
    ),
    Mistake(
        "residual grows",
        _otherwise(left=lambda r, step, p, fp: r + step * fp),
        "the residual is b - F x: when x gains, it loses. Its sign is wrong.",
    ),
    Mistake(
        "residual less the direction",
        _otherwise(left=lambda r, step, p, fp: r - step * p),
        "the residual loses the step itself. It is b - F x: when x moves by step "
        "times p, F x moves by step times F p.",
    ),
    Mistake(
        "away from the solution",
        _otherwise(moved=lambda x, step, p: x - step * p),
        "x is moved against the direction. It solves F x = -b.",
    ),
    Mistake(
        "x is not added up",
        _otherwise(moved=lambda x, step, p: step * p),
        "x is the last step alone. It is the sum of all of them.",
    ),
    Mistake(
        "one iteration too few",
        _otherwise(more=-1),
        "it stops one iteration early. Count how often the product is asked for.",
    ),
    Mistake(
        "one iteration too many",
        _otherwise(more=1),
        "it makes one iteration more than it was asked to. TRPO stops early on "
        "purpose: every product is a backward pass.",
    ),
    Mistake(
        "returns the residual",
        _otherwise(result=lambda x, r, p: r),
        "this is what is left of b, which becomes 0. The solution is asked for.",
    ),
    Mistake(
        "returns the direction",
        _otherwise(result=lambda x, r, p: p),
        "this is the last direction, which becomes 0. The solution is asked for.",
    ),
    Mistake(
        "product, not solution",
        lambda product, b, iterations: product(b),
        "this is F b. Looked for is the x of which F x is b.",
    ),
    Mistake(
        "gradient, not natural gradient",
        lambda product, b, iterations: b.clone(),
        "this is b itself, the plain gradient. The product is never used.",
    ),
    Mistake(
        "0 divided by 0",
        _otherwise(guarded=False),
        "it is right until the residual is exactly 0; the next iteration divides 0 by "
        "0. Stop where nothing is left to solve.",
    ),
)

EXERCISE = Exercise(
    id="3.3",
    title="Conjugate gradients",
    reference=conjugate_gradients,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "fewer iterations than unknowns",
        "fewer iterations than unknowns, float64",
        "as many as unknowns, float64",
        "a few more than needed",
        "a few more than needed, float64",
        "right side is 0",
    ),
    difficulty=4,
    minutes=20,
    points=3,
)
