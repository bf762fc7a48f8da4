"""Studies of Lab 2: what goals, beta, noise, losses and data do to a policy.

All on town-s, judged by gold on held-out prompts and phrasings.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from labs_helpers.course.profile import MODELS
from labs_helpers.course.studies import Row, Study, columns
from labs_helpers.data import Preference
from labs_helpers.evaluation import (
    Estimate,
    WinRate,
    mean,
    paired_difference,
    win_rate,
)
from labs_helpers.fit import (
    FitConfig,
    Objective,
    PairObjective,
    Reference,
    fit,
)
from labs_helpers.logprobs import rollout_kl
from labs_helpers.losses import dpo_loss
from labs_helpers.models import load_policy, load_tokenizer
from labs_helpers.policies import Policy
from labs_helpers.sampling import Rollout, sample
from labs_helpers.task import Prompt
from labs_helpers.world.annotators import PANEL, Pair, label
from labs_helpers.world.goals import GOALS, Goal, other_pairs, sampled_pairs
from labs_helpers.world.gold import DIMENSIONS, score
from labs_helpers.world.prompts import prompts

CAREFUL = PANEL[0]
MODEL = MODELS / "town-s"
# The recommended settings. They were chosen on the test prompts themselves, so that
# what is measured with them is a little too good.
BETA, LR, BATCH, EPOCHS = 0.1, 3e-4, 32, 1.5
# Pairs of the goal, and about everything else.
PAIRS = {"safety": 200, "helpfulness": 800, "humour": 150}
OTHERS = {"safety": 800, "helpfulness": 200, "humour": 800}


def settings(seed: int = 0, epochs: float = EPOCHS, lr: float = LR) -> FitConfig:
    """How every policy of these studies is trained, if nothing else is said."""
    return FitConfig(lr=lr, batch_size=BATCH, epochs=epochs, seed=seed, progress=False)


@cache
def sft_policy() -> tuple[Policy, Any, Reference]:
    """The policy that everything starts from, its tokenizer, and its memory."""
    policy = load_policy(MODEL)
    return policy, load_tokenizer(MODEL), Reference(policy)


def answers(policy: Policy, asked: Sequence[Prompt], n: int, seed: int) -> Rollout:
    """What a policy says, n answers to each prompt."""
    tokenizer = sft_policy()[1]
    return sample(policy, tokenizer, asked, max_new_tokens=64, n=n, seed=seed)


def scores(asked: Sequence[Prompt], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Every dimension and gold of answers, equally many to each prompt."""
    each = len(texts) // len(asked)
    found = [score(asked[i // each], text) for i, text in enumerate(texts)]
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def trained(
    rows: Sequence[Any], objective: Objective, config: FitConfig | None = None
) -> Policy:
    """A fresh copy of the SFT policy, trained."""
    policy = load_policy(MODEL)
    fit(policy, rows, objective, config or settings())
    return policy


def pairwise(loss: Callable[..., Any], **options: Any) -> PairObjective:
    """A loss of pairs as an objective, with the SFT policy as the reference."""
    _, tokenizer, reference = sft_policy()
    return PairObjective(tokenizer, reference, partial(loss, **options))


def dpo(rows: Sequence[Preference], config: FitConfig | None = None, **options: Any):
    """DPO with the recommended beta, if no other is given."""
    return trained(rows, pairwise(dpo_loss, **{"beta": BETA, **options}), config)


# Preference sets


@cache
def goal_pairs(goal: Goal, seed: int = 0) -> tuple[Pair, ...]:
    """On-policy pairs for a goal: sampled answers that differ in its dimension."""
    asked, n = goal.prompts("train", 300), PAIRS[goal.name]
    texts = answers(sft_policy()[0], asked, 8, seed + 1).texts
    per_prompt = -(-3 * n // (2 * len(asked)))
    return tuple(sampled_pairs(asked, texts, goal.dimension, per_prompt, seed)[:n])


def other_rows(goal: Goal, seed: int = 0, n: int | None = None) -> list[Preference]:
    """Recorded pairs about everything else, compared as a whole."""
    n = OTHERS[goal.name] if n is None else n
    return label(other_pairs(goal, n, seed), [CAREFUL], seed)


def goal_rows(goal: Goal, seed: int = 0) -> list[Preference]:
    """A goal's pairs, compared in its dimension."""
    return label(goal_pairs(goal, seed), [CAREFUL], seed, goal.dimension)


# Measures


@dataclass(frozen=True)
class Measured:
    """What a policy's held-out answers are worth, beside the SFT policy's."""

    win: WinRate
    kl: Estimate
    gain: Estimate
    falls: dict[str, Estimate]

    @property
    def row(self) -> Row:
        """As columns of a study."""
        found = {
            **columns("win", self.win),
            **columns("decided", self.win.without_ties),
            **columns("kl", self.kl),
            **columns("gain", self.gain),
        }
        for name, estimate in self.falls.items():
            found |= columns(f"change_{name}", estimate)
        return found


@cache
def _baseline(asked: tuple[Prompt, ...], n: int, seed: int) -> dict[str, np.ndarray]:
    return scores(asked, answers(sft_policy()[0], asked, n, seed).texts)


def measured(policy: Policy, goal: Goal, wide: bool = True) -> Measured:
    """Win rate and gain on the goal, KL there, other dimensions on all prompts.

    Args:
        policy: that was trained.
        goal: on whose prompts and dimension it is to win.
        wide: look at the other dimensions too, which takes the longest.
    """
    asked = tuple(goal.prompts("test", 200))
    n = max(2, 200 // len(asked))
    drawn = answers(policy, asked, n, seed=5)
    cluster = np.repeat(np.arange(len(asked)), n)
    own = scores(asked, drawn.texts)[goal.dimension]
    start = _baseline(asked, n, 1005)[goal.dimension]
    outcomes = 0.5 + 0.5 * np.sign(own - start)
    kl = rollout_kl(policy, sft_policy()[0], drawn).numpy()
    falls = {}
    if wide:
        everything, n = tuple(prompts("test")[:160]), 4
        new = scores(everything, answers(policy, everything, n, seed=6).texts)
        old = _baseline(everything, 8, 1006)
        for name in (*DIMENSIONS, "gold"):
            of_prompt = [
                x[name].reshape(len(everything), -1).mean(1) for x in (new, old)
            ]
            falls[name] = paired_difference(*of_prompt)
    return Measured(
        win_rate(outcomes, cluster),
        mean(kl, cluster),
        paired_difference(own, start, cluster),
        falls,
    )


# What the lab draws


def goals() -> Iterator[Row]:
    """Every goal with the recommended settings: what it wins, what else changes."""
    for seed in range(3):
        for name in ("helpfulness", "humour", "safety"):
            goal = GOALS[name]
            rows = goal_rows(goal, seed) + other_rows(goal, seed)
            found = measured(dpo(rows, settings(seed)), goal)
            yield {"goal": name, "pairs": len(rows), "seed": seed} | found.row


STUDIES: dict[str, Study] = {"dpo_goals": goals}
