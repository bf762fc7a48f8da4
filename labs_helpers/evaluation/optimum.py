"""How far a reward can be pushed, what it costs, and the share that a policy covers.

Rewards come as (prompts, samples) arrays of answers drawn from a reference policy, from
which KL is measured, in nats of whole answers. Only `optimal_frontier` samples itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.special import gammaln, logsumexp, softmax, xlogy
from transformers import PreTrainedTokenizerBase

from labs_helpers.evaluation.estimates import Estimate, bootstrap, mean
from labs_helpers.models import Policy, load_tokenizer
from labs_helpers.sampling import sample


def best_of_n(
    proxy: Float[np.ndarray, "prompts samples"],
    gold: Float[np.ndarray, "prompts samples"],
    ns: list[int],
) -> Float[np.ndarray, "prompts ns"]:
    """Expected gold of the answer that the proxy likes best among n of the samples.

    Exact, over all subsets of size n: no draw is made. Where answers tie for the best
    proxy, each is chosen equally often.

    >>> best_of_n(np.array([[0.0, 1.0, 2.0]]), np.array([[9.0, 0.0, 3.0]]), [1, 2, 3])
    array([[4., 2., 3.]])
    """
    from scipy.stats import rankdata

    samples = proxy.shape[1]
    if not all(1 <= n <= samples for n in ns):
        raise ValueError(
            f"each n is at least 1 and at most the {samples} samples of a prompt; "
            f"got {list(ns)}"
        )
    at_most = rankdata(proxy, method="max", axis=1).astype(int)
    below = rankdata(proxy, method="min", axis=1).astype(int) - 1
    columns = []
    for n in ns:
        none_above = _share_of_subsets(n, samples)  # by number of eligible answers
        chosen = (none_above[at_most] - none_above[below]) / (at_most - below)
        columns.append((chosen * gold).sum(axis=1))
    return np.stack(columns, axis=1)


def _share_of_subsets(n: int, samples: int) -> np.ndarray:
    """C(r, n) / C(samples, n) for r = 0 .. samples."""
    r = np.arange(samples + 1)
    log_share = gammaln(r + 1) - gammaln(r - n + 1)  # 1 / (negative)! is 0
    return np.exp(log_share - log_share[-1])


def best_of_n_kl(n: ArrayLike) -> np.ndarray:
    """KL of best-of-n from its reference: log n - (n - 1) / n, an upper bound.

    Reached where no two answers are the same (arXiv 2401.01879).
    """
    n = np.asarray(n, float)
    return np.log(n) - (n - 1) / n


@dataclass(frozen=True)
class OveroptimisationFit:
    """Gold reward by distance d = sqrt(KL), as fitted (arXiv 2210.10760).

    R = d (a - b d) for best of n ("bon"), R = d (a - b log d) for a policy ("rl").
    """

    kind: Literal["bon", "rl"]
    a: float
    b: float
    r_squared: float

    def predict(self, distance: ArrayLike) -> np.ndarray:
        """Give the gold gained at a distance."""
        return _gao_terms(distance, self.kind) @ np.array([self.a, -self.b])

    @property
    def peak(self) -> float:
        """The distance of most gold; infinite where gold never turns down."""
        if self.b <= 0:
            return np.inf
        if self.kind == "bon":
            return self.a / (2 * self.b)
        return float(np.exp(self.a / self.b - 1))


def overoptimisation_fit(
    distance: ArrayLike, gold: ArrayLike, kind: Literal["bon", "rl"] = "bon"
) -> OveroptimisationFit:
    """Fit gold gained over the start to the distance sqrt(KL), by least squares."""
    terms = _gao_terms(distance, kind)
    gold = np.asarray(gold, float)
    if terms.shape[0] != gold.size or gold.size < 3:
        raise ValueError(
            "the fit needs at least 3 points with a distance and a gold reward each; "
            f"got {terms.shape[0]} distances and {gold.size} rewards"
        )
    (a, minus_b), *_ = np.linalg.lstsq(terms, gold)
    residual = gold - terms @ np.array([a, minus_b])
    spread = np.sum((gold - gold.mean()) ** 2)
    r_squared = 1 - np.sum(residual**2) / spread if spread > 0 else np.nan
    return OveroptimisationFit(kind, float(a), float(-minus_b), float(r_squared))


def _gao_terms(distance: ArrayLike, kind: str) -> np.ndarray:
    d = np.asarray(distance, float)
    return np.stack([d, d**2 if kind == "bon" else xlogy(d, d)], axis=-1)


def optimal_policy(
    reference: Float[np.ndarray, "*prompts answers"],
    rewards: Float[np.ndarray, "*prompts answers"],
    kl_weight: float,
) -> Float[np.ndarray, "*prompts answers"]:
    """The policy that maximises E[r] - w KL, where all answers can be enumerated.

    reference * exp(r / w), normalised (arXiv 2305.18290, eq. 4).

    >>> optimal_policy(np.array([0.5, 0.5]), np.array([0.0, np.log(3)]), kl_weight=1.0)
    array([0.25, 0.75])
    """
    _require_positive(kl_weight)
    with np.errstate(divide="ignore"):  # an answer that the reference never gives
        return softmax(np.log(reference) + rewards / kl_weight, axis=-1)


class Optimum(NamedTuple):
    """The best policy by prompt; its objective is reward less weighted KL."""

    objective: Float[np.ndarray, " prompts"]
    reward: Float[np.ndarray, " prompts"]
    kl: Float[np.ndarray, " prompts"]


def optimum_from_samples(
    rewards: Float[np.ndarray, "prompts samples"], kl_weight: float
) -> Optimum:
    """Estimate the closed-form optimum of E[r] - w KL from a reference's samples.

    The optimum is reference * exp(r / w) up to a constant and attains w log E[exp(r /
    w)]. The KL found cannot exceed log(samples): below some 512 samples a prompt the
    objective is biased low, the more so the smaller the weight.
    """
    _require_positive(kl_weight)
    scaled = rewards / kl_weight
    objective = kl_weight * (logsumexp(scaled, axis=1) - np.log(rewards.shape[1]))
    reward = (softmax(scaled, axis=1) * rewards).sum(axis=1)
    return Optimum(objective, reward, (reward - objective) / kl_weight)


def _require_positive(kl_weight: float) -> None:
    if kl_weight <= 0:
        raise ValueError(f"the KL weight must be above 0, got {kl_weight}")


def optimal_frontier(
    reference: Policy,
    prompts: Sequence[Any],
    reward: Callable[[Sequence[Any], Sequence[str]], ArrayLike],
    kl_weights: Sequence[float],
    samples: int = 512,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_new_tokens: int = 64,
    seed: int = 0,
) -> list[Optimum]:
    """Estimate the best attainable E[r] - w KL for each weight w, prompt by prompt.

    `reward` takes prompts and as many answers and gives a number for each. Fewer
    samples a prompt bias the objective low; the smaller a weight, the farther is the
    optimum. The tokenizer is by default that of the reference's folder.
    """
    tokenizer = tokenizer or load_tokenizer(reference.config.name_or_path)
    options = {"max_new_tokens": max_new_tokens, "n": samples, "seed": seed}
    texts = sample(reference, tokenizer, prompts, **options).texts
    asked = [prompt for prompt in prompts for _ in range(samples)]
    rewards = np.asarray(reward(asked, texts), float).reshape(len(prompts), samples)
    return [optimum_from_samples(rewards, weight) for weight in kl_weights]


def kl_per_answer(
    logprobs: ArrayLike,
    reference_logprobs: ArrayLike,
    clusters: ArrayLike | None = None,
) -> Estimate:
    """KL of a policy from its reference, from answers that the policy sampled.

    The mean of log(policy / reference) over answers. Log-probs are those of answers
    (B,) or of their tokens (B, T), 0 where masked. Single answers may lie below 0;
    `sampling.rollout_kl` has the same mean and a far narrower interval.

    >>> print(kl_per_answer([-1.0, -3.0, -2.0], [-2.0, -3.0, -4.0]).value)
    1.0
    """
    both = (np.asarray(x, float) for x in (logprobs, reference_logprobs))
    policy, reference = (x.reshape(len(x), -1).sum(axis=1) for x in both)
    if len(policy) != len(reference):
        raise ValueError(
            "both log-probs are of the same answers; the policy's are "
            f"{len(policy)} and the reference's {len(reference)}"
        )
    return mean(policy - reference, clusters)


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
        clusters: as everywhere; a prompt's three values are resampled together.

    >>> distance_covered([0.6, 0.7], [0.2, 0.3], [1.0, 1.1]).value
    0.5
    """

    def share(policy: np.ndarray, start: np.ndarray, optimum: np.ndarray) -> float:
        return (policy.mean() - start.mean()) / (optimum.mean() - start.mean())

    gain = np.mean(np.asarray(optimum, float)) - np.mean(np.asarray(start, float))
    if not gain > 0:
        raise ValueError(
            f"the optimum is no better than the start (by {gain:.3g}): there is no way "
            "to cover. Are both of the same prompts, and is the optimum's KL weight w "
            "the policy's? Fewer than some 512 samples a prompt bias it low"
        )
    return bootstrap(share, policy, start, optimum, clusters=clusters)
