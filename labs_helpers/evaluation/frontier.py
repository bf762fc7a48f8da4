"""How far a policy went, how far it could have gone, and the share that it covered.

Distances are KL in nats of whole answers, from the reference. `optimal_frontier`
samples from a model; the rest are arrays of measurements in, estimates out.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from labs_helpers.evaluation.estimates import Estimate, bootstrap, mean
from labs_helpers.evaluation.optimum import Optimum, optimum_from_samples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from labs_helpers.models import Policy


def kl_per_answer(
    logprobs: ArrayLike,
    reference_logprobs: ArrayLike,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """KL of a policy from its reference, from answers that the policy sampled.

    The mean of log(policy / reference) over answers. Single answers may lie below 0;
    `logprobs.rollout_kl` has the same mean and a far narrower interval.

    Args:
        logprobs: under the policy, of answers (B,) or of their tokens (B, T), 0 where
            masked.
        reference_logprobs: of the same under the reference.
        clusters: the prompt's number, where there are several answers to a prompt.

    >>> print(kl_per_answer([-1.0, -3.0, -2.0], [-2.0, -3.0, -4.0]).value)
    1.0
    """
    sums = [
        values.reshape(len(values), -1).sum(axis=1)
        for values in (
            np.asarray(logprobs, float),
            np.asarray(reference_logprobs, float),
        )
    ]
    if len(sums[0]) != len(sums[1]):
        raise ValueError(
            "both log-probs are of the same answers; the policy's are "
            f"{len(sums[0])} and the reference's {len(sums[1])}"
        )
    return mean(sums[0] - sums[1], clusters)


def distance_covered(
    policy: ArrayLike,
    start: ArrayLike,
    optimum: ArrayLike,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """The share of the way from start to optimum: (J - J_start) / (J* - J_start).

    Args:
        policy: its objective E[r] - w KL, prompt by prompt (or answer by answer).
        start: that of the policy that training began with, whose KL is 0: its reward.
        optimum: the best attainable (`Optimum.objective`), for the same w.
        clusters: the prompt's number, where there are several answers to a prompt.

    The interval is by bootstrap over prompts, the three values of a prompt together.

    >>> distance_covered([0.6, 0.7], [0.2, 0.3], [1.0, 1.1]).value
    0.5
    """
    gain = np.mean(np.asarray(optimum, float)) - np.mean(np.asarray(start, float))
    if not gain > 0:
        raise ValueError(
            f"the optimum is no better than the start (by {gain:.3g}): there is no way "
            "to cover. Are both of the same prompts, and is the optimum's KL weight w "
            "the policy's? Fewer than some 512 samples a prompt bias it low"
        )

    def share(policy: np.ndarray, start: np.ndarray, optimum: np.ndarray) -> float:
        return (policy.mean() - start.mean()) / (optimum.mean() - start.mean())

    return bootstrap(share, policy, start, optimum, clusters=clusters)


def optimal_frontier(
    reference: "Policy",
    prompts: Sequence[Any],
    reward: Callable[[Sequence[Any], Sequence[str]], ArrayLike],
    kl_weights: Sequence[float],
    samples: int = 512,
    *,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    max_new_tokens: int = 64,
    seed: int = 0,
) -> list[Optimum]:
    """Estimate the best attainable E[r] - w KL for each weight w, prompt by prompt.

    Args:
        reference: the policy that KL is measured from.
        prompts: what it is asked.
        reward: takes prompts and as many answers, gives a number for each.
        kl_weights: each above 0; the smaller, the farther the optimum.
        samples: answers to a prompt; fewer bias the objective low.
        tokenizer: by default that of the folder that the reference came from.
        max_new_tokens: longest answer.
        seed: of the sampling.
    """
    # Here, for they take seconds that those who only evaluate arrays need not wait.
    from labs_helpers.models import load_tokenizer
    from labs_helpers.sampling import sample

    tokenizer = tokenizer or load_tokenizer(reference.config.name_or_path)
    rollout = sample(
        reference,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        n=samples,
        seed=seed,
    )
    asked = [prompt for prompt in prompts for _ in range(samples)]
    rewards = np.asarray(reward(asked, rollout.texts), float)
    rewards = rewards.reshape(len(prompts), samples)
    return [optimum_from_samples(rewards, weight) for weight in kl_weights]
