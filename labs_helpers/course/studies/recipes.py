"""Studies of Lab 2: settings for every goal, and how near DPO comes to the optimum.

Settings are chosen on validation prompts, by `labs study dpo_settings`; what the lab
claims of them is measured on test prompts, by `labs study dpo_goals`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from labs_helpers.course.studies import Row, Study, columns
from labs_helpers.course.studies.lab2 import (
    MODEL,
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
from labs_helpers.course.studies.optimum import attainable
from labs_helpers.estimates import mean
from labs_helpers.evaluation import distance_covered
from labs_helpers.fit import fit
from labs_helpers.logprobs import rollout_kl
from labs_helpers.losses import dpo_loss
from labs_helpers.models import load_policy
from labs_helpers.policies import Policy
from labs_helpers.world import recorded
from labs_helpers.world.annotators import differing, label
from labs_helpers.world.goals import GOALS, Goal
from labs_helpers.world.gold import DIMENSIONS
from labs_helpers.world.prompts import prompts

MANY = {"prompts": 800, "answers": 6, "pairs": 2800, "others": 300}
JOKES = {"answers": 16, "pairs": 800, "others": 500}
MORE = {"answers": 16, "others": 2500, "epochs": 1.0}
CLEAR = {"temperature": 0.1, "beta": 1.0}
# What was tried for each goal; one with two rounds is measured after each of them.
TRIED = {
    "humour": (
        Recipe(pairs=150),
        Recipe(**JOKES, **CLEAR, lr=2e-4, rounds=2),
        Recipe(**JOKES, temperature=0.1, beta=0.3, lr=1e-4, epochs=2.0),
        Recipe(**MORE, **CLEAR, pairs=300, rounds=3),
        Recipe(**MORE, **CLEAR, pairs=150, lr=2e-4, rounds=2),
        Recipe(answers=16, pairs=400, rounds=3),
    ),
    "helpfulness": (
        Recipe(pairs=800, others=200),
        Recipe(**MANY, **CLEAR, epochs=1.0, rounds=2),
        Recipe(**MANY, temperature=0.1, beta=0.3, lr=2e-4),
    ),
    "safety": (Recipe(), Recipe(beta=0.3), Recipe(**CLEAR)),
}
# The best of those on validation prompts.
RECOMMENDED = {
    "humour": TRIED["humour"][0],
    "helpfulness": TRIED["helpfulness"][1],
    "safety": TRIED["safety"][1],
}


def rounds(goal: Goal, recipe: Recipe, seed: int) -> Iterator[Policy]:
    """The policy after each round, which the next one trains further."""
    policy, others = load_policy(MODEL), other_rows(goal, recipe, seed)
    objective = pairwise(dpo_loss, beta=recipe.beta)
    for n in range(recipe.rounds):
        rows = goal_rows(goal, recipe, seed + 100 * n, policy) + others
        config = replace(recipe.config(seed + 100 * n), lr=recipe.lr / 2**n)
        fit(policy, rows, objective, config)
        yield policy


def choice() -> Iterator[Row]:
    """Every goal with every setting tried, on validation prompts."""
    for name, tried in TRIED.items():
        goal = GOALS[name]
        for recipe in tried:
            for n, policy in enumerate(rounds(goal, recipe, seed=0), 1):
                found = measured(policy, goal, split="validation")
                yield {"goal": name, **asdict(replace(recipe, rounds=n))} | found.row


def best(rows: Sequence[Row], goal: str) -> Row:
    """The setting to recommend: the surest win of those that cost nothing elsewhere."""
    lows = [f"change_{d}_low" for d in DIMENSIONS if d != GOALS[goal].dimension]
    kept = [r for r in rows if r["goal"] == goal and min(r[x] for x in lows) >= -0.05]
    return max(kept, key=lambda row: row["win_low"])


def goals() -> Iterator[Row]:
    """Every goal with its recommended settings: what it wins, what else changes."""
    for seed in range(3):
        for name, recipe in RECOMMENDED.items():
            *_, policy = rounds(GOALS[name], recipe, seed)
            found = measured(policy, GOALS[name])
            yield {"goal": name, **asdict(recipe), "seed": seed} | found.row


def toward_optimum() -> Iterator[Row]:
    """How far DPO goes toward the optimum at w = beta tau, by tau of the annotator."""
    asked, n, stock = prompts("test"), 8, recorded.pairs("train")
    for seed in range(2):
        for temperature in (0.1, 0.03):
            recipe = Recipe(temperature=temperature, beta=1.0, epochs=1.0)
            rows = label(differing(stock, n=4500), [recipe.annotator], seed)
            objective = pairwise(dpo_loss, beta=recipe.beta)
            policy = trained(rows, objective, recipe.config(seed))
            drawn = answers(policy, asked, n, seed=13)
            kl = rollout_kl(policy, sft_policy()[0], drawn).numpy().reshape(-1, n)
            gold = scores(asked, drawn.texts)["gold"].reshape(-1, n)
            start, top = attainable(MODEL.name, recipe.beta * temperature)
            worth = (gold - recipe.beta * temperature * kl).mean(axis=1)
            yield {
                "temperature": temperature,
                "beta": recipe.beta,
                "pairs": len(rows),
                "seed": seed,
                **columns("gold", mean(gold.mean(axis=1))),
                **columns("kl", mean(kl.mean(axis=1))),
                **columns("covered", distance_covered(worth, start, top.objective)),
            }


STUDIES: dict[str, Study] = {
    "dpo_settings": choice,
    "dpo_goals": goals,
    "dpo_optimum": toward_optimum,
}
