"""Exercise 3.5: three estimates of a KL divergence from samples."""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of, normal
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake
from labs_helpers.losses import kl_estimate

Three = tuple[Float[Tensor, " N"], Float[Tensor, " N"], Float[Tensor, " N"]]


def kl_estimates(
    logprobs: Float[Tensor, " N"], reference_logprobs: Float[Tensor, " N"]
) -> Three:
    """k1, k2 and k3 of each of N tokens that the policy sampled."""
    return tuple(
        kl_estimate(logprobs, reference_logprobs, kind) for kind in ("k1", "k2", "k3")
    )


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs of sampled tokens under the policy and its reference."""
    dtype = dtype_of(flavour)
    scale = 4.0 if flavour == "far apart" else 0.7
    logprobs = -normal(rng, size, dtype=dtype).abs() - 0.05
    reference_logprobs = logprobs + normal(rng, size, scale=scale, dtype=dtype)
    if flavour == "policy is the reference":
        reference_logprobs = logprobs.clone()
    return {"logprobs": logprobs, "reference_logprobs": reference_logprobs}


def k1(d: Tensor) -> Tensor:
    """The log-ratio itself."""
    return d


def k2(d: Tensor) -> Tensor:
    """Half its square."""
    return d.square() / 2


def k3(d: Tensor) -> Tensor:
    """The ratio upside down, less 1, plus the log-ratio."""
    return (-d).exp() - 1 + d


def _on_difference(first=k1, second=k2, third=k3) -> Function:
    """Answer with three functions of d = log policy - log reference."""

    def answer(logprobs, reference_logprobs):
        d = logprobs - reference_logprobs
        return first(d), second(d), third(d)

    return answer


def _upside_down(logprobs, reference_logprobs):
    d = reference_logprobs - logprobs
    return k1(d), k2(d), k3(d)


def _weighted(logprobs, reference_logprobs):
    d, p = logprobs - reference_logprobs, logprobs.exp()
    return p * k1(d), p * k2(d), p * k3(d)


def _k1_weighted(logprobs, reference_logprobs):
    d = logprobs - reference_logprobs
    return logprobs.exp() * d, k2(d), k3(d)


def _averaged(logprobs, reference_logprobs):
    d = logprobs - reference_logprobs
    return k1(d).mean(), k2(d).mean(), k3(d).mean()


def _of_probabilities(logprobs, reference_logprobs):
    d = logprobs.exp() - reference_logprobs.exp()
    return k1(d), k2(d), k3(d)


def _of_quotients(logprobs, reference_logprobs):
    d = logprobs / reference_logprobs
    return k1(d), k2(d), k3(d)


MISTAKES = (
    Mistake(
        "ratio upside down",
        _upside_down,
        "log-ratio and ratio are those of reference over policy throughout. The "
        "answers were sampled from the policy: KL(policy || reference) averages log "
        "policy less log reference. As a penalty, yours pays for drifting away.",
    ),
    Mistake(
        "k1 upside down",
        _on_difference(first=lambda d: -d),
        "k1 has the wrong sign: its mean over the policy's samples is minus the KL. As "
        "a penalty it pays for drifting away.",
    ),
    Mistake(
        "k3 upside down",
        _on_difference(third=lambda d: d.exp() - 1 - d),
        "k3 has the ratio the wrong way up: its mean over the policy's samples is no "
        "KL. The mean of reference / policy over samples of the policy is 1; that of "
        "policy / reference is not, and that is why one of them costs no bias.",
    ),
    Mistake(
        "k3 with the wrong sign of the log-ratio",
        _on_difference(third=lambda d: (-d).exp() - 1 - d),
        "k3 = ratio - 1 - log ratio, and the ratio is reference over policy: what is "
        "the logarithm of that one in terms of d? Yours goes below 0.",
    ),
    Mistake(
        "k3 without its -1",
        _on_difference(third=lambda d: (-d).exp() + d),
        "k3 is too large by 1: at equal policies it must be 0. The mean of the ratio "
        "is 1, and that is taken off.",
    ),
    Mistake(
        "k3 is the ratio less 1",
        _on_difference(third=lambda d: (-d).exp() - 1),
        "this is the ratio less 1, whose mean is 0 whatever the KL. It is there to "
        "lower the variance of the log-ratio, which is missing.",
    ),
    Mistake(
        "k3 with its sign turned",
        _on_difference(third=lambda d: 1 - d - (-d).exp()),
        "k3 is never below 0, and yours never above.",
    ),
    Mistake(
        "k2 without its half",
        _on_difference(second=lambda d: d.square()),
        "k2 is twice what it should be: near equal policies the KL is half the mean "
        "square of the log-ratio.",
    ),
    Mistake(
        "k2 of the ratio",
        _on_difference(second=lambda d: ((-d).exp() - 1).square() / 2),
        "k2 squares the ratio less 1, which is another divergence (chi-squared). k2 "
        "squares the log-ratio.",
    ),
    Mistake(
        "k2 not squared",
        _on_difference(second=lambda d: d / 2),
        "k2 is half the log-ratio. Something with a square is asked for.",
    ),
    Mistake(
        "k2 is the size of the log-ratio",
        _on_difference(second=lambda d: d.abs() / 2),
        "k2 has the size of the log-ratio where its square belongs.",
    ),
    Mistake(
        "k1 without its sign",
        _on_difference(first=lambda d: d.abs()),
        "a KL is never below 0, but its estimate from one token may be: only the mean "
        "is unbiased, and taking sizes spoils it.",
    ),
    Mistake(
        "k1 is the ratio",
        _on_difference(first=lambda d: d.exp()),
        "k1 is the ratio of the probabilities. At equal policies a KL is 0, and yours "
        "is 1.",
    ),
    Mistake(
        "weighted by the probability",
        _weighted,
        "every token is multiplied by its probability. The tokens were sampled, so "
        "likely ones come more often already: the plain mean is the expectation.",
    ),
    Mistake(
        "k1 weighted by the probability",
        _k1_weighted,
        "k1 is multiplied by the token's probability. The tokens were sampled, so "
        "likely ones come more often already.",
    ),
    Mistake(
        "averaged",
        _averaged,
        "each result is one number. A value for every token is asked for: the penalty "
        "is paid token by token.",
    ),
    Mistake(
        "probabilities, not log-probs",
        _of_probabilities,
        "you subtract probabilities. KL is made of logarithms, and the inputs are "
        "logarithms already.",
    ),
    Mistake(
        "log-probs divided",
        _of_quotients,
        "you divide log-probs by log-probs. What is the logarithm of a quotient?",
    ),
    Mistake(
        "only one estimate",
        lambda logprobs, reference_logprobs: k3(logprobs - reference_logprobs),
        "there is one result, k3. All three are asked for: k1, k2, k3.",
    ),
)

EXERCISE = Exercise(
    id="3.5",
    title="Three estimates of the KL",
    reference=kl_estimates,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=("plain", "float64", "policy is the reference", "far apart"),
    difficulty=2,
    minutes=10,
    points=2,
)
