"""What the studies of several labs measure of a policy of the town, held out.

A policy is compared with the embedded model that it was trained from.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import nn

from labs_helpers.course.profile import MODELS
from labs_helpers.data import Prompt
from labs_helpers.evaluation import Estimate, rate
from labs_helpers.fit import Reference
from labs_helpers.models import Policy, load_policy, load_tokenizer
from labs_helpers.sampling import rollout_kl, sample
from labs_helpers.world import Gold, Pair
from labs_helpers.world.prompts import capability_prompts, prompts

LONGEST = 64  # tokens of an answer


@cache
def loaded(model: str) -> tuple[Policy, Any, Reference]:
    """An embedded model, its tokenizer, and the model as a reference with a memory.

    Not to be trained.
    """
    policy = load_policy(MODELS / model)
    return policy, load_tokenizer(MODELS / model), Reference(policy)


class HeldOut(NamedTuple):
    """Answers to held-out prompts, n to each, with gold and KL of every answer."""

    asked: Sequence[Prompt]
    texts: list[str]
    gold: Float[np.ndarray, "prompts n"]
    kl: Float[np.ndarray, "prompts n"]

    @property
    def clusters(self) -> np.ndarray:
        """The prompt of every answer."""
        return np.repeat(np.arange(len(self.asked)), self.gold.shape[1])


def held_out(
    policy: nn.Module, model: str, n: int, seed: int, split: str = "test"
) -> HeldOut:
    """Ask a policy all prompts of a split, n times each."""
    start, tokenizer, _ = loaded(model)
    asked = prompts(split)
    drawn = sample(policy, tokenizer, asked, max_new_tokens=LONGEST, n=n, seed=seed)
    gold = Gold().scores(repeated(asked, n), drawn.texts)
    kl = rollout_kl(policy, start, drawn).double().numpy()
    return HeldOut(asked, drawn.texts, gold.reshape(-1, n), kl.reshape(-1, n))


def repeated(asked: Sequence[Prompt], n: int) -> list[Prompt]:
    """Every prompt n times, as answers to them stand."""
    return [prompt for prompt in asked for _ in range(n)]


def paired(asked: Sequence[Prompt], texts: Sequence[str]) -> list[Pair]:
    """Two answers to every prompt as pairs to compare."""
    return [Pair(p, *texts[2 * i : 2 * i + 2]) for i, p in enumerate(asked)]


def by_prompt(values: ArrayLike, n: int) -> Float[np.ndarray, " prompts"]:
    """Means over the n answers to each prompt."""
    return np.asarray(values, float).reshape(-1, n).mean(axis=1)


def capability(policy: nn.Module, model: str) -> Estimate:
    """Share of held-out capability tasks that a policy gets right, greedily."""
    asked, tokenizer = capability_prompts("test", 240), loaded(model)[1]
    texts = sample(policy, tokenizer, asked, max_new_tokens=12, temperature=0).texts
    return rate(Gold().scores(asked, texts, "helpfulness") == 1)
