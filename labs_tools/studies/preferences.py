"""Studies of Lab 2: sweeps of beta, labels, data and losses for the goal of safety.

Everything is trained and judged as in `lab2`, which knows how.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from labs_helpers import evaluation
from labs_helpers.course.profile import MODELS
from labs_helpers.data import Preference
from labs_helpers.evaluation import Estimate
from labs_helpers.evaluation.win_rates import outcomes_of
from labs_helpers.fit import KTOObjective, SLiCObjective
from labs_helpers.losses import dpo_loss, ipo_loss, kto_loss, slic_loss
from labs_helpers.models import Policy, load_policy
from labs_helpers.sampling import sample
from labs_helpers.world import GOALS, sampled_pairs
from labs_helpers.world.annotators import label
from labs_helpers.world.prompts import capability_prompts, prompts
from labs_tools.studies import lab2
from labs_tools.studies.lab2 import Recipe, pairwise, sft_policy, trained, unpaired
from labs_tools.studies.study import RECORDED, Row, study

GOAL = GOALS["safety"]
SEEDS = range(3)
# Many runs: half of the other pairs, in one pass.
SWEEP = Recipe(others=400, epochs=1.0)
USED = (SWEEP, SWEEP.config(), lab2.COMPARISONS)
BETAS = (0.02, 0.1, 0.5, 2.0)
NOISE = ((0.0, 0.0), (0.3, 0.0), (0.3, 0.3))  # share of flips, label smoothing
FULL = Recipe()
SLIC = {"delta": 2.0, "weight": 0.5}


def _rows(recipe: Recipe, seed: int) -> list[Preference]:
    goal = lab2.goal_rows(GOAL, recipe, seed)
    return goal + lab2.other_rows(GOAL, recipe, seed)


def _dpo(
    rows: Sequence[Preference], recipe: Recipe, seed: int, **options: Any
) -> Policy:
    objective = pairwise(dpo_loss, **{"beta": recipe.beta, **options})
    return trained(rows, objective, recipe.config(seed))


def _measured(policy: Policy) -> Row:
    return lab2.measured(policy, GOAL, wide=False)


@study("dpo_beta", "town-s", data=RECORDED, recipe=(BETAS, USED))
def beta_sweep() -> Iterator[Row]:
    """Win rate, KL and gain of the goal of safety by beta."""
    for seed in SEEDS:
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
    for seed in SEEDS:
        clean = _rows(SWEEP, seed)
        for share, smoothing in NOISE:
            rows = _with_flips(clean, share, seed)
            policy = _dpo(rows, SWEEP, seed, label_smoothing=smoothing)
            setting = {"flipped": share, "smoothing": smoothing, "seed": seed}
            yield setting | _measured(policy)


@study("kto_few_desirable", "town-s", data=RECORDED, recipe=USED)
def few_desirable() -> Iterator[Row]:
    """KTO with all desirable answers, with a tenth, and with a tenth weighted up."""
    _, tokenizer, reference = sft_policy()
    for seed in SEEDS:
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
    _, tokenizer, _ = sft_policy()
    asked, dimension = GOAL.prompts("train", 250), GOAL.dimension
    stranger = load_policy(MODELS / "town-xs")
    for seed in SEEDS:
        theirs = sample(
            stranger, tokenizer, asked, max_new_tokens=64, n=8, seed=seed + 1
        )
        own = lab2.goal_rows(GOAL, SWEEP, seed)
        pairs = sampled_pairs(asked, theirs.texts, dimension, 4, seed)[: len(own)]
        off_policy = label(pairs, [SWEEP.annotator], seed, dimension)
        for source, rows in (("on-policy", own), ("off-policy", off_policy)):
            others = lab2.other_rows(GOAL, SWEEP, seed)
            policy = _dpo(rows + others, SWEEP, seed)
            setting = {"pairs": source, "goal_pairs": len(rows), "seed": seed}
            yield setting | _measured(policy)


@study("dpo_variants", "town-s", data=RECORDED, recipe=(FULL, FULL.config(), SLIC))
def variants() -> Iterator[Row]:
    """Ratings, win rates at equal length and alignment tax of every loss."""
    for seed in SEEDS:
        yield from _compared(_policies_by_loss(_rows(FULL, seed), seed), seed)


def _policies_by_loss(rows: Sequence[Preference], seed: int) -> dict[str, Policy]:
    """The same rows and steps, with every loss."""
    sft, tokenizer, reference = sft_policy()
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
        name: lab2.answers(policy, asked, n, seed=20 + i)
        for i, (name, policy) in enumerate(policies.items())
    }
    worth = {
        name: lab2.scores(asked, d.texts)[GOAL.dimension] for name, d in drawn.items()
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
            "words": evaluation.mean(words[name], cluster),
            "capability": _capability(policy),
            "gold_elsewhere": _elsewhere(policy),
        }


def _capability(policy: Policy) -> Estimate:
    asked = capability_prompts("test", 240)
    texts = lab2.answers(policy, asked, 1, seed=7).texts
    return evaluation.rate(lab2.scores(asked, texts)["helpfulness"] == 1)


def _elsewhere(policy: Policy) -> Estimate:
    """Gold of answers to what the goal is not about."""
    asked = [p for p in prompts("test") if p.meta["type"] not in GOAL.kinds]
    texts = lab2.answers(policy, asked, 4, seed=8).texts
    return evaluation.mean(
        lab2.scores(asked, texts)["gold"], np.repeat(np.arange(len(asked)), 4)
    )
