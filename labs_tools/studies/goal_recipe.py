"""Lab 2's recipe: preferences for a goal, DPO and its kin on them, and measures.

All on town-s, judged by gold on held-out prompts and phrasings. Holds no study.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from labs_helpers.course.profile import MODELS
from labs_helpers.data import Preference, Prompt, Unpaired
from labs_helpers.evaluation import mean, paired_difference, win_rate
from labs_helpers.evaluation.win_rates import outcomes_of
from labs_helpers.fit import FitConfig, Objective, PairObjective, fit
from labs_helpers.models import Policy, load_policy
from labs_helpers.sampling import Rollout, rollout_kl, sample
from labs_helpers.world import (
    DIMENSIONS,
    Annotator,
    Goal,
    other_pairs,
    sampled_pairs,
    score,
)
from labs_helpers.world.annotators import label
from labs_helpers.world.prompts import lot, practice_prompts, prompts
from labs_tools.studies.measures import LONGEST, by_prompt, loaded
from labs_tools.studies.study import Row

MODEL = "town-s"
BATCH = 32
# Held-out answers that are compared, at least two to each prompt of the goal.
COMPARISONS = 2048


@dataclass(frozen=True)
class Recipe:
    """How preferences for a goal are made, and how a policy is trained on them.

    Attributes:
        prompts: of the goal that are answered, or all if there are fewer.
        answers: that are sampled to each.
        pairs: of answers that differ in the goal's dimension.
        others: recorded pairs about everything else.
        fresh: prompts about everything else that the policy answers twice; answers
            that differ in gold are pairs too.
        temperature: of the simulated annotator; 0.25 is the careful one of the panel.
        beta: of the loss.
        lr: highest learning rate of the schedule; it falls from round to round.
        epochs: passes over the pairs, in each round.
        rounds: each samples from the policy that the one before has trained.
    """

    prompts: int = 300
    answers: int = 8
    pairs: int = 200
    others: int = 800
    fresh: int = 0
    temperature: float = 0.25
    beta: float = 0.1
    lr: float = 3e-4
    epochs: float = 1.5
    rounds: int = 1

    @property
    def annotator(self) -> Annotator:
        """Who compares."""
        return Annotator("annotator", self.temperature)

    def config(self, seed: int = 0) -> FitConfig:
        """How it is trained."""
        return FitConfig(self.lr, BATCH, self.epochs, seed=seed, progress=False)


def answers(policy: Policy, asked: Sequence[Prompt], n: int, seed: int) -> Rollout:
    """What a policy says, n answers to each prompt."""
    tokenizer = loaded(MODEL)[1]
    return sample(policy, tokenizer, asked, max_new_tokens=LONGEST, n=n, seed=seed)


def scores(asked: Sequence[Prompt], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Every dimension and gold of answers, equally many to each prompt."""
    each = len(texts) // len(asked)
    found = [score(asked[i // each], text) for i, text in enumerate(texts)]
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def trained(rows: Sequence[Any], objective: Objective, config: FitConfig) -> Policy:
    """A fresh copy of the SFT policy, trained."""
    policy = load_policy(MODELS / MODEL)
    fit(policy, rows, objective, config)
    return policy


def pairwise(loss: Callable[..., Any], **options: Any) -> PairObjective:
    """A loss of pairs as an objective, with the SFT policy as the reference."""
    _, tokenizer, reference = loaded(MODEL)
    return PairObjective(tokenizer, reference, partial(loss, **options))


def goal_rows(
    goal: Goal, recipe: Recipe, seed: int = 0, policy: Policy | None = None
) -> list[Preference]:
    """Answers of a policy (the SFT policy), compared in the goal's dimension."""
    asked = goal.prompts("train", recipe.prompts)
    texts = answers(policy or loaded(MODEL)[0], asked, recipe.answers, seed + 1).texts
    per_prompt = -(-3 * recipe.pairs // (2 * len(asked)))
    pairs = sampled_pairs(asked, texts, goal.dimension, per_prompt, seed)
    return label(pairs[: recipe.pairs], [recipe.annotator], seed, goal.dimension)


def other_rows(
    goal: Goal, recipe: Recipe, seed: int = 0, policy: Policy | None = None
) -> list[Preference]:
    """Pairs about everything else, recorded and fresh ones, compared as a whole."""
    pairs = other_pairs(goal, recipe.others, seed)
    if recipe.fresh:
        asked = [p for p in practice_prompts() if p.meta["type"] not in goal.kinds]
        asked = lot("fresh", seed).sample(asked, recipe.fresh)
        texts = answers(policy or loaded(MODEL)[0], asked, 2, seed + 2).texts
        pairs += sampled_pairs(asked, texts, per_prompt=1, seed=seed)
    return label(pairs, [recipe.annotator], seed)


def unpaired(rows: Sequence[Preference]) -> list[Unpaired]:
    """A good answer and a bad one of each pair."""
    return [
        Unpaired(row.prompt, getattr(row, side), side == "chosen", dict(row.meta))
        for row in rows
        for side in ("chosen", "rejected")
    ]


@cache
def _baseline(asked: tuple[Prompt, ...], n: int, seed: int) -> dict[str, np.ndarray]:
    return scores(asked, answers(loaded(MODEL)[0], asked, n, seed).texts)


def measured(policy: Policy, goal: Goal, wide: bool = True, split: str = "test") -> Row:
    """Win rate and gain on the goal, KL there, other dimensions on all prompts.

    The ceiling is the win rate of somebody who always answers perfectly: where the SFT
    policy is perfect, they can only tie.

    Args:
        policy: that was trained.
        goal: on whose prompts and dimension it is to win.
        wide: look at the other dimensions too, which takes the longest.
        split: of the prompts; settings are chosen on "validation".
    """
    asked = tuple(goal.prompts(split))
    n = max(2, COMPARISONS // len(asked))
    drawn = answers(policy, asked, n, seed=5)
    cluster = np.repeat(np.arange(len(asked)), n)
    own = scores(asked, drawn.texts)[goal.dimension]
    start = _baseline(asked, n, 1005)[goal.dimension]
    win = win_rate(outcomes_of(own - start), cluster)
    found = {
        "win": win,
        "decided": win.without_ties,
        "ceiling": win_rate(np.where(start < 1, 1.0, 0.5), cluster),
        "kl": mean(rollout_kl(policy, loaded(MODEL)[0], drawn).numpy(), cluster),
        "gain": paired_difference(own, start, cluster),
    }
    if wide:
        everything = tuple(prompts(split))
        new = scores(everything, answers(policy, everything, 4, seed=6).texts)
        old = _baseline(everything, 8, 1006)
        for name in (*DIMENSIONS, "gold"):
            means = (by_prompt(new[name], 4), by_prompt(old[name], 8))
            found[f"change_{name}"] = paired_difference(*means)
    return found
