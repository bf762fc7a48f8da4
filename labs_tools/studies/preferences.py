"""Studies of Lab 2: sweeps of beta, labels, data and losses for the goal of safety.

Everything is trained and judged as in `lab2`, which knows how.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from labs_helpers.course.profile import MODELS
from labs_helpers.data import Preference, Unpaired
from labs_helpers.evaluation import (
    Estimate,
    bradley_terry_ratings,
    length_controlled_win_rate,
    mean,
    rate,
    win_rate,
)
from labs_helpers.fit import KTOObjective, SLiCObjective
from labs_helpers.losses import dpo_loss, ipo_loss, kto_loss, slic_loss
from labs_helpers.models import Policy, load_policy
from labs_helpers.sampling import sample
from labs_helpers.world.annotators import label
from labs_helpers.world.goals import GOALS, Goal, sampled_pairs
from labs_helpers.world.prompts import capability_prompts, prompts
from labs_tools.studies import Row, Study, columns
from labs_tools.studies.lab2 import (
    BATCH,
    Recipe,
    answers,
    goal_rows,
    measured,
    other_rows,
    pairwise,
    scores,
    sft_policy,
    trained,
)

# Many runs: half of the other pairs, in one pass.
SWEEP = Recipe(others=400, epochs=1.0)
FULL = Recipe()


def _rows(goal: Goal, recipe: Recipe, seed: int) -> list[Preference]:
    return goal_rows(goal, recipe, seed) + other_rows(goal, recipe, seed)


def _dpo(
    rows: Sequence[Preference], recipe: Recipe, seed: int, **options: Any
) -> Policy:
    objective = pairwise(dpo_loss, **{"beta": recipe.beta, **options})
    return trained(rows, objective, recipe.config(seed))


def beta_sweep() -> Iterator[Row]:
    """Win rate, KL and gain of the goal of safety by beta."""
    goal = GOALS["safety"]
    for seed in range(3):
        rows = _rows(goal, SWEEP, seed)
        for beta in (0.02, 0.1, 0.5, 2.0):
            policy = _dpo(rows, SWEEP, seed, beta=beta)
            found = measured(policy, goal, wide=False)
            yield {"beta": beta, "seed": seed} | found.row


def _with_flips(
    rows: Sequence[Preference], share: float, seed: int
) -> list[Preference]:
    draws = np.random.default_rng(seed).random(len(rows))
    return [
        replace(row, chosen=row.rejected, rejected=row.chosen) if d < share else row
        for row, d in zip(rows, draws, strict=True)
    ]


def label_noise() -> Iterator[Row]:
    """30 % of the labels flipped, without and with label smoothing."""
    goal = GOALS["safety"]
    for seed in range(3):
        clean = _rows(goal, SWEEP, seed)
        for share, smoothing in ((0.0, 0.0), (0.3, 0.0), (0.3, 0.3)):
            rows = _with_flips(clean, share, seed)
            policy = _dpo(rows, SWEEP, seed, label_smoothing=smoothing)
            found = measured(policy, goal, wide=False)
            yield {"flipped": share, "smoothing": smoothing, "seed": seed} | found.row


def _unpaired(rows: Sequence[Preference]) -> list[Unpaired]:
    return [
        Unpaired(row.prompt, getattr(row, side), side == "chosen", dict(row.meta))
        for row in rows
        for side in ("chosen", "rejected")
    ]


def few_desirable() -> Iterator[Row]:
    """KTO with all desirable answers, with a tenth, and with a tenth weighted up."""
    goal = GOALS["safety"]
    _, tokenizer, reference = sft_policy()
    for seed in range(3):
        rows = _unpaired(_rows(goal, SWEEP, seed))
        draws = np.random.default_rng(seed).random(len(rows))
        tenth = [
            row for row, d in zip(rows, draws, strict=True) if not row.label or d < 0.1
        ]
        for name, kept, weight in (
            ("all", rows, 1.0),
            ("a tenth", tenth, 1.0),
            ("a tenth, weighted", tenth, 10.0),
        ):
            loss = partial(kto_loss, beta=SWEEP.beta, desirable_weight=weight)
            objective = KTOObjective(tokenizer, reference, loss)
            found = measured(
                trained(kept, objective, SWEEP.config(seed)), goal, wide=False
            )
            yield {
                "desirable": name,
                "answers": len(kept),
                "desirable_weight": weight,
                "undesirable_weight": 1.0,
                "seed": seed,
            } | found.row


def pair_sources() -> Iterator[Row]:
    """Pairs of the policy's own answers, against those of a smaller model."""
    goal = GOALS["safety"]
    _, tokenizer, _ = sft_policy()
    asked = goal.prompts("train", 250)
    stranger = load_policy(MODELS / "town-xs")
    for seed in range(3):
        theirs = sample(
            stranger, tokenizer, asked, max_new_tokens=64, n=8, seed=seed + 1
        )
        own = goal_rows(goal, SWEEP, seed)
        pairs = sampled_pairs(asked, theirs.texts, goal.dimension, 4, seed)[: len(own)]
        off_policy = label(pairs, [SWEEP.annotator], seed, goal.dimension)
        for source, rows in (("on-policy", own), ("off-policy", off_policy)):
            policy = _dpo(rows + other_rows(goal, SWEEP, seed), SWEEP, seed)
            found = measured(policy, goal, wide=False)
            yield {"pairs": source, "goal_pairs": len(rows), "seed": seed} | found.row


def variants() -> Iterator[Row]:
    """Ratings, win rates at equal length and alignment tax of every loss."""
    goal = GOALS["safety"]
    for seed in range(3):
        policies = _policies_by_loss(_rows(goal, FULL, seed), seed)
        yield from _compared(policies, goal, seed)


def _policies_by_loss(rows: Sequence[Preference], seed: int) -> dict[str, Policy]:
    """The same rows and steps, with every loss."""
    sft, tokenizer, reference = sft_policy()
    kto = KTOObjective(tokenizer, reference, partial(kto_loss, beta=FULL.beta))
    slic = SLiCObjective(tokenizer, partial(slic_loss, delta=2.0, weight=0.5))
    config = FULL.config(seed)
    # an answer is half of a pair: as many steps, each on as many answers
    steps = -(-round(FULL.epochs * len(rows)) // BATCH)
    return {
        "SFT": sft,
        "DPO": _dpo(rows, FULL, seed),
        "IPO": trained(rows, pairwise(ipo_loss, beta=FULL.beta), config),
        "KTO": trained(
            _unpaired(rows), kto, replace(config, batch_size=2 * BATCH, steps=steps)
        ),
        "SLiC": trained(rows, slic, config),
    }


def _compared(policies: dict[str, Policy], goal: Goal, seed: int) -> Iterator[Row]:
    """Policies against each other on a goal, and what each has lost elsewhere."""
    asked, n = goal.prompts("test"), 8
    drawn = {
        name: answers(policy, asked, n, seed=20 + i)
        for i, (name, policy) in enumerate(policies.items())
    }
    worth = {name: scores(asked, d.texts)[goal.dimension] for name, d in drawn.items()}
    words = {name: [len(t.split()) for t in d.texts] for name, d in drawn.items()}
    cluster = np.repeat(np.arange(len(asked)), n)

    def outcomes(a: str, b: str) -> np.ndarray:
        return 0.5 + 0.5 * np.sign(worth[a] - worth[b])

    rated = bradley_terry_ratings(
        {
            (a, b): outcomes(a, b).reshape(-1, n).mean(1)
            for a, b in combinations(policies, 2)
        },
        baseline="SFT",
    )
    for name, policy in policies.items():
        won = outcomes(name, "SFT")
        equal = length_controlled_win_rate(won, words[name], words["SFT"], cluster)
        yield {
            "loss": name,
            "seed": seed,
            **columns("rating", rated[name]),
            **columns("win", win_rate(won, cluster)),
            **columns("win_equal_length", equal),
            **columns("words", mean(words[name], cluster)),
            **columns("capability", _capability(policy)),
            **columns("gold_elsewhere", _elsewhere(policy, goal)),
        }


def _capability(policy: Policy) -> Estimate:
    asked = capability_prompts("test", 240)
    texts = answers(policy, asked, 1, seed=7).texts
    return rate(scores(asked, texts)["helpfulness"] == 1)


def _elsewhere(policy: Policy, goal: Goal) -> Estimate:
    """Gold of answers to what the goal is not about."""
    asked = [p for p in prompts("test") if p.meta["type"] not in goal.kinds]
    texts = answers(policy, asked, 4, seed=8).texts
    return mean(scores(asked, texts)["gold"], np.repeat(np.arange(len(asked)), 4))


STUDIES: dict[str, Study] = {
    "dpo_beta": beta_sweep,
    "dpo_noise": label_noise,
    "kto_few_desirable": few_desirable,
    "dpo_pair_sources": pair_sources,
    "dpo_variants": variants,
}
