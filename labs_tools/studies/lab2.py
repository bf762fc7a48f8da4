"""Studies of Lab 2: settings for every goal, and what beta, labels and losses do.

Settings are chosen on validation prompts, by `labs study dpo_settings`; what the lab
claims of them is measured on test prompts, by `labs study dpo_goals`. Everything is
trained and judged as in `goal_recipe`, which knows how.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from labs_helpers import evaluation
from labs_helpers.course.profile import MODELS
from labs_helpers.course.recorded import attainable
from labs_helpers.data import Preference
from labs_helpers.evaluation import Estimate, mean
from labs_helpers.evaluation.win_rates import outcomes_of
from labs_helpers.fit import KTOObjective, SLiCObjective, fit
from labs_helpers.losses import dpo_loss, ipo_loss, kto_loss, slic_loss
from labs_helpers.models import Policy, load_policy
from labs_helpers.world import DIMENSIONS, GOALS, Goal, recorded, sampled_pairs
from labs_helpers.world.annotators import differing, label
from labs_helpers.world.prompts import capability_prompts, prompts
from labs_tools.studies.goal_recipe import (
    COMPARISONS,
    Recipe,
    answers,
    goal_rows,
    measured,
    other_rows,
    pairwise,
    scores,
    trained,
    unpaired,
)
from labs_tools.studies.measures import held_out, loaded
from labs_tools.studies.study import RECORDED, Row, each, optima, practised, study

MANY = {"prompts": 800, "answers": 6, "pairs": 2800, "others": 300}
JOKES = {"answers": 16, "pairs": 800, "others": 500}
FEW = {"pairs": 100, "lr": 2e-4, "epochs": 1.0}
CLEAR = {"temperature": 0.1, "beta": 1.0}
# What was tried for each goal.
TRIED = {
    "humour": (
        Recipe(pairs=150),
        Recipe(**JOKES, temperature=0.1, beta=0.3, lr=1e-4, epochs=2.0),
        Recipe(**FEW, rounds=5),
        Recipe(**FEW, rounds=5, others=0, fresh=1100),
        Recipe(**FEW, rounds=20, others=0, fresh=1100),
    ),
    "helpfulness": (
        Recipe(pairs=800, others=200),
        Recipe(**MANY, **CLEAR, epochs=1.0),
        Recipe(**MANY, **CLEAR, epochs=1.0, rounds=2),
    ),
    "safety": (Recipe(), Recipe(beta=0.3), Recipe(**CLEAR)),
}
# The best of those on validation prompts.
RECOMMENDED = {
    "humour": TRIED["humour"][4],
    "helpfulness": TRIED["helpfulness"][2],
    "safety": TRIED["safety"][0],
}
# Annotators whose labels say more of the gold: DPO's optimum is at w = beta tau.
SHARP = [Recipe(temperature=t, beta=1.0, epochs=1.0) for t in (0.1, 0.03)]
STOCK = 4500  # pairs that they label
CONFIG = Recipe().config()
ALL = (*RECORDED, practised)  # which fresh answers are given to

GOAL = GOALS["safety"]
SEEDS = range(3)
# Many runs: half of the other pairs, in one pass.
SWEEP = Recipe(others=400, epochs=1.0)
USED = (SWEEP, SWEEP.config(), COMPARISONS)
BETAS = (0.02, 0.1, 0.5, 2.0)
NOISE = ((0.0, 0.0), (0.3, 0.0), (0.3, 0.3))  # share of flips, label smoothing
FULL = Recipe()
SLIC = {"delta": 2.0, "weight": 0.5}


def aligned(goal: Goal, recipe: Recipe, seed: int) -> Policy:
    """The policy that a recipe makes, each round on answers of the one before."""
    policy = load_policy(MODELS / "town-s")
    objective = pairwise(dpo_loss, beta=recipe.beta)
    for n in range(recipe.rounds):
        draw = seed + 100 * n
        rows = goal_rows(goal, recipe, draw, policy)
        rows += other_rows(goal, recipe, draw, policy)
        lr = recipe.lr * (1 - n / recipe.rounds)
        fit(policy, rows, objective, replace(recipe.config(draw), lr=lr))
    return policy


@study("dpo_settings", "town-s", data=ALL, recipe=(TRIED, CONFIG, COMPARISONS))
def settings() -> Iterator[Row]:
    """Every goal with every setting tried, on validation prompts."""
    for name, tried in TRIED.items():
        for recipe in tried:
            policy = aligned(GOALS[name], recipe, seed=0)
            found = measured(policy, GOALS[name], split="validation")
            yield {"goal": name, **asdict(recipe)} | found


def best(rows: Sequence[Row], goal: str) -> Row:
    """The setting to recommend: the surest win of those that cost nothing elsewhere."""
    lows = [f"change_{d}_low" for d in DIMENSIONS if d != GOALS[goal].dimension]
    kept = [r for r in rows if r["goal"] == goal and min(r[x] for x in lows) >= -0.05]
    return max(kept, key=lambda row: row["win_low"])


@study("dpo_goals", "town-s", data=ALL, recipe=(RECOMMENDED, CONFIG, COMPARISONS))
def goals() -> Iterator[Row]:
    """Every goal with its recommended settings: what it wins, what else changes."""
    for seed in each(range(3)):
        for name, recipe in RECOMMENDED.items():
            found = measured(aligned(GOALS[name], recipe, seed), GOALS[name])
            yield {"goal": name, **asdict(recipe), "seed": seed} | found


@study("dpo_optimum", "town-s", data=(*RECORDED, optima), recipe=(SHARP, STOCK, CONFIG))
def toward_optimum() -> Iterator[Row]:
    """How far DPO goes toward the optimum at w = beta tau, by tau of the annotator."""
    stock = recorded.pairs("train")
    for seed in each(range(2)):
        for recipe in SHARP:
            weight = recipe.beta * recipe.temperature
            rows = label(differing(stock, n=STOCK), [recipe.annotator], seed)
            objective = pairwise(dpo_loss, beta=recipe.beta)
            policy = trained(rows, objective, recipe.config(seed))
            found = held_out(policy, "town-s", n=8, seed=13)
            start, top = attainable("town-s", weight)
            worth = (found.gold - weight * found.kl).mean(axis=1)
            yield {
                "temperature": recipe.temperature,
                "beta": recipe.beta,
                "pairs": len(rows),
                "seed": seed,
                "gold": mean(found.gold.mean(axis=1)),
                "kl": mean(found.kl.mean(axis=1)),
                "covered": evaluation.distance_covered(worth, start, top.objective),
            }


def _rows(recipe: Recipe, seed: int) -> list[Preference]:
    return goal_rows(GOAL, recipe, seed) + other_rows(GOAL, recipe, seed)


def _dpo(
    rows: Sequence[Preference], recipe: Recipe, seed: int, **options: Any
) -> Policy:
    objective = pairwise(dpo_loss, **{"beta": recipe.beta, **options})
    return trained(rows, objective, recipe.config(seed))


def _measured(policy: Policy) -> Row:
    return measured(policy, GOAL, wide=False)


@study("dpo_beta", "town-s", data=RECORDED, recipe=(BETAS, USED))
def beta_sweep() -> Iterator[Row]:
    """Win rate, KL and gain of the goal of safety by beta."""
    for seed in each(SEEDS):
        rows = _rows(SWEEP, seed)
        for beta in BETAS:
            policy = _dpo(rows, SWEEP, seed, beta=beta)
            yield {"beta": beta, "seed": seed} | _measured(policy)


def _with_flips(
    rows: Sequence[Preference], share: float, seed: int
) -> list[Preference]:
    draws = np.random.default_rng(seed).random(len(rows))
    return [
        replace(row, chosen=row.rejected, rejected=row.chosen) if d < share else row
        for row, d in zip(rows, draws, strict=True)
    ]


@study("dpo_noise", "town-s", data=RECORDED, recipe=(NOISE, USED))
def label_noise() -> Iterator[Row]:
    """30 % of the labels flipped, without and with label smoothing."""
    for seed in each(SEEDS):
        clean = _rows(SWEEP, seed)
        for share, smoothing in NOISE:
            rows = _with_flips(clean, share, seed)
            policy = _dpo(rows, SWEEP, seed, label_smoothing=smoothing)
            setting = {"flipped": share, "smoothing": smoothing, "seed": seed}
            yield setting | _measured(policy)


@study("kto_few_desirable", "town-s", data=RECORDED, recipe=USED)
def few_desirable() -> Iterator[Row]:
    """KTO with all desirable answers, with a tenth, and with a tenth weighted up."""
    _, tokenizer, reference = loaded("town-s")
    for seed in each(SEEDS):
        rows = unpaired(_rows(SWEEP, seed))
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
            yield {
                "desirable": name,
                "answers": len(kept),
                "desirable_weight": weight,
                "undesirable_weight": 1.0,
                "seed": seed,
            } | _measured(trained(kept, objective, SWEEP.config(seed)))


@study("dpo_pair_sources", "town-s", "town-xs", data=RECORDED, recipe=USED)
def pair_sources() -> Iterator[Row]:
    """Pairs of the policy's own answers, against those of a smaller model."""
    asked, dimension = GOAL.prompts("train", 250), GOAL.dimension
    stranger = load_policy(MODELS / "town-xs")
    for seed in each(SEEDS):
        theirs = answers(stranger, asked, 8, seed + 1)
        own = goal_rows(GOAL, SWEEP, seed)
        pairs = sampled_pairs(asked, theirs.texts, dimension, 4, seed)[: len(own)]
        off_policy = label(pairs, [SWEEP.annotator], seed, dimension)
        for source, rows in (("on-policy", own), ("off-policy", off_policy)):
            policy = _dpo(rows + other_rows(GOAL, SWEEP, seed), SWEEP, seed)
            setting = {"pairs": source, "goal_pairs": len(rows), "seed": seed}
            yield setting | _measured(policy)


@study("dpo_variants", "town-s", data=RECORDED, recipe=(FULL, FULL.config(), SLIC))
def variants() -> Iterator[Row]:
    """Ratings, win rates at equal length and alignment tax of every loss."""
    for seed in each(SEEDS):
        yield from _compared(_policies_by_loss(_rows(FULL, seed), seed), seed)


def _policies_by_loss(rows: Sequence[Preference], seed: int) -> dict[str, Policy]:
    """The same rows and steps, with every loss."""
    sft, tokenizer, reference = loaded("town-s")
    kto = KTOObjective(tokenizer, reference, partial(kto_loss, beta=FULL.beta))
    slic = SLiCObjective(tokenizer, partial(slic_loss, **SLIC))
    config = FULL.config(seed)
    # an answer is half of a pair: as many steps, each on as many answers
    steps = -(-round(FULL.epochs * len(rows)) // config.batch_size)
    doubled = replace(config, batch_size=2 * config.batch_size, steps=steps)
    return {
        "SFT": sft,
        "DPO": _dpo(rows, FULL, seed),
        "IPO": trained(rows, pairwise(ipo_loss, beta=FULL.beta), config),
        "KTO": trained(unpaired(rows), kto, doubled),
        "SLiC": trained(rows, slic, config),
    }


def _compared(policies: dict[str, Policy], seed: int) -> Iterator[Row]:
    """Policies against each other on the goal, and what each has lost elsewhere."""
    asked, n = GOAL.prompts("test"), 8
    drawn = {
        name: answers(policy, asked, n, seed=20 + i)
        for i, (name, policy) in enumerate(policies.items())
    }
    worth = {
        name: scores(asked, found.texts)[GOAL.dimension]
        for name, found in drawn.items()
    }
    words = {name: [len(t.split()) for t in d.texts] for name, d in drawn.items()}
    cluster = np.repeat(np.arange(len(asked)), n)

    def outcomes(a: str, b: str) -> np.ndarray:
        return outcomes_of(worth[a] - worth[b])

    rated = evaluation.bradley_terry_ratings(
        {
            (a, b): outcomes(a, b).reshape(-1, n).mean(1)
            for a, b in combinations(policies, 2)
        },
        baseline="SFT",
    )
    for name, policy in policies.items():
        won = outcomes(name, "SFT")
        equal = evaluation.length_controlled_win_rate(
            won, words[name], words["SFT"], cluster
        )
        yield {
            "loss": name,
            "seed": seed,
            "rating": rated[name],
            "win": evaluation.win_rate(won, cluster),
            "win_equal_length": equal,
            "words": mean(words[name], cluster),
            "capability": _capability(policy),
            "gold_elsewhere": _elsewhere(policy),
        }


def _capability(policy: Policy) -> Estimate:
    asked = capability_prompts("test", 240)
    texts = answers(policy, asked, 1, seed=7).texts
    return evaluation.rate(scores(asked, texts)["helpfulness"] == 1)


def _elsewhere(policy: Policy) -> Estimate:
    """Gold of answers to what the goal is not about."""
    asked = [p for p in prompts("test") if p.meta["type"] not in GOAL.kinds]
    texts = answers(policy, asked, 4, seed=8).texts
    return mean(scores(asked, texts)["gold"], np.repeat(np.arange(len(asked)), 4))
