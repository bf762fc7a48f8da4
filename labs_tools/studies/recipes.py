"""Studies of Lab 2: settings for every goal, and how near DPO comes to the optimum.

Settings are chosen on validation prompts, by `labs study dpo_settings`; what the lab
claims of them is measured on test prompts, by `labs study dpo_goals`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from labs_helpers.course.recorded import attainable
from labs_helpers.evaluation import distance_covered, mean
from labs_helpers.fit import fit
from labs_helpers.losses import dpo_loss
from labs_helpers.models import Policy, load_policy
from labs_helpers.sampling import rollout_kl
from labs_helpers.world import DIMENSIONS, GOALS, Goal, recorded
from labs_helpers.world.annotators import differing, label
from labs_helpers.world.prompts import prompts
from labs_tools.studies import lab2
from labs_tools.studies.lab2 import COMPARISONS, MODEL, Recipe, measured, pairwise
from labs_tools.studies.study import RECORDED, Row, optima, practised, study

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


def aligned(goal: Goal, recipe: Recipe, seed: int) -> Policy:
    """The policy that a recipe makes, each round on answers of the one before."""
    policy, objective = load_policy(MODEL), pairwise(dpo_loss, beta=recipe.beta)
    for n in range(recipe.rounds):
        draw = seed + 100 * n
        rows = lab2.goal_rows(goal, recipe, draw, policy)
        rows += lab2.other_rows(goal, recipe, draw, policy)
        lr = recipe.lr * (1 - n / recipe.rounds)
        fit(policy, rows, objective, replace(recipe.config(draw), lr=lr))
    return policy


@study("dpo_settings", "town-s", data=ALL, recipe=(TRIED, CONFIG, COMPARISONS))
def choice() -> Iterator[Row]:
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
    for seed in range(3):
        for name, recipe in RECOMMENDED.items():
            found = measured(aligned(GOALS[name], recipe, seed), GOALS[name])
            yield {"goal": name, **asdict(recipe), "seed": seed} | found


@study("dpo_optimum", "town-s", data=(*RECORDED, optima), recipe=(SHARP, STOCK, CONFIG))
def toward_optimum() -> Iterator[Row]:
    """How far DPO goes toward the optimum at w = beta tau, by tau of the annotator."""
    asked, n, stock = prompts("test"), 8, recorded.pairs("train")
    for seed in range(2):
        for recipe in SHARP:
            weight = recipe.beta * recipe.temperature
            rows = label(differing(stock, n=STOCK), [recipe.annotator], seed)
            objective = pairwise(dpo_loss, beta=recipe.beta)
            policy = lab2.trained(rows, objective, recipe.config(seed))
            drawn = lab2.answers(policy, asked, n, seed=13)
            kl = rollout_kl(policy, lab2.sft_policy()[0], drawn).numpy().reshape(-1, n)
            gold = lab2.scores(asked, drawn.texts)["gold"].reshape(-1, n)
            start, top = attainable(MODEL.name, weight)
            worth = (gold - weight * kl).mean(axis=1)
            yield {
                "temperature": recipe.temperature,
                "beta": recipe.beta,
                "pairs": len(rows),
                "seed": seed,
                "gold": mean(gold.mean(axis=1)),
                "kl": mean(kl.mean(axis=1)),
                "covered": distance_covered(worth, start, top.objective),
            }
