"""DPO against RLHF, like for like: equal labels, equal KL, several seeds.

All on town-xs. Each way to learn is given the same number of comparisons by the same
simulated annotator; settings are chosen on validation prompts with seeds of their own.
A trained policy is averaged with its start (weights) until its KL on validation prompts
is the same for all; gold and KL are then measured on test prompts.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch
from scipy.optimize import brentq

from labs_helpers.course.profile import MODELS
from labs_helpers.data import Preference
from labs_helpers.evaluation import mean, paired_difference
from labs_helpers.fit import FitConfig, PairObjective, RewardObjective, fit
from labs_helpers.losses import dpo_loss
from labs_helpers.models import Policy, RewardModel, averaged, load_policy
from labs_helpers.rl import RLConfig, train
from labs_helpers.sampling import sample
from labs_helpers.world import sampled_pairs, town_task
from labs_helpers.world.annotators import PANEL, label
from labs_helpers.world.prompts import lot, practice_prompts
from labs_tools.studies.measures import LONGEST, HeldOut, held_out, loaded
from labs_tools.studies.study import TOWN, Row, each, practised, study

MODEL = "town-xs"
CAREFUL = PANEL[0]
LABELS = 800
NATS = 0.4  # from the start, on validation prompts
ROUNDS = 2  # of online DPO, which share the labels
REWARD = FitConfig(lr=1e-3, batch_size=32, epochs=2, progress=False)
PAIRS = FitConfig(lr=5e-4, batch_size=32, progress=False)
ANSWERS = RLConfig(max_new_tokens=LONGEST, kl_weight=0.03, progress=False)
# What was tried for each: DPO's beta and training, PPO's training.
OFFLINE = {
    "beta 0.1": (0.1, replace(PAIRS, epochs=1)),
    "beta 0.1, three passes": (0.1, replace(PAIRS, epochs=3)),
    "beta 0.3, three passes": (0.3, replace(PAIRS, epochs=3)),
}
TRIED = {
    "RLHF": {
        "20 updates": replace(ANSWERS, updates=20, lr=5e-4),
        "40 updates": replace(ANSWERS, updates=40, lr=3e-4),
        "40 updates, higher price of KL": replace(
            ANSWERS, updates=40, lr=3e-4, kl_weight=0.1
        ),
    },
    "DPO": OFFLINE,
    "online DPO": OFFLINE,
}
# The best of those on validation prompts.
RECOMMENDED = {
    "RLHF": "40 updates, higher price of KL",
    "DPO": "beta 0.3, three passes",
    "online DPO": "beta 0.1",
}
CHOOSING, SEEDS = (100,), range(5)
EQUAL = (LABELS, NATS, ROUNDS)


@cache
def first_labels(seed: int) -> tuple[Preference, ...]:
    """Answers of the start, compared."""
    return tuple(compared(loaded(MODEL)[0], LABELS, seed))


def compared(policy: Policy, n: int, seed: int) -> list[Preference]:
    """Two answers of a policy to each of some prompts; n that differ, compared."""
    asked = lot("compared", seed).sample(practice_prompts(), 3 * n)
    drawn = sample(
        policy, loaded(MODEL)[1], asked, max_new_tokens=LONGEST, n=2, seed=seed
    )
    pairs = sampled_pairs(asked, drawn.texts, per_prompt=1, seed=seed)
    return label(pairs[:n], [CAREFUL], seed)


def by_rlhf(labels: Sequence[Preference], setting: RLConfig, seed: int) -> Policy:
    """A reward model from the labels, and PPO with it."""
    start, tokenizer, _ = loaded(MODEL)
    torch.manual_seed(seed)
    model = RewardModel.from_policy(start, request=town_task().self_check)
    fit(model, labels, RewardObjective(model), replace(REWARD, seed=seed))

    def in_units_of_gold(prompts: Sequence, answers: Sequence[str]) -> torch.Tensor:
        return CAREFUL.temperature * model.score(prompts, answers)[:, 0]

    policy = load_policy(MODELS / MODEL)
    config = replace(setting, seed=seed)
    train(policy, practice_prompts(), in_units_of_gold, config, tokenizer=tokenizer)
    return policy


def by_dpo(
    labels: Sequence[Preference],
    setting: tuple[float, FitConfig],
    seed: int,
    policy: Policy | None = None,
) -> Policy:
    """DPO on the labels, from the start or going on from a policy."""
    _, tokenizer, reference = loaded(MODEL)
    beta, config = setting
    policy = policy or load_policy(MODELS / MODEL)
    objective = PairObjective(tokenizer, reference, partial(dpo_loss, beta=beta))
    fit(policy, labels, objective, replace(config, seed=seed))
    return policy


def by_rounds(
    labels: Sequence[Preference], setting: tuple[float, FitConfig], seed: int
) -> Policy:
    """DPO on a part of the labels, then on new ones of its own answers."""
    part = len(labels) // ROUNDS
    policy = by_dpo(labels[:part], setting, seed)
    for n in range(1, ROUNDS):
        fresh = compared(policy, part, seed + 1000 * n)
        policy = by_dpo(fresh, setting, seed + 1000 * n, policy)
    return policy


WAYS: dict[str, Callable] = {"RLHF": by_rlhf, "DPO": by_dpo, "online DPO": by_rounds}


def at_distance(policy: Policy, nats: float) -> tuple[Policy, float]:
    """A policy averaged with its start until it is so far from it, and the share."""
    start = loaded(MODEL)[0]

    @torch.no_grad()
    def too_far(share: float) -> float:
        if share == 0:
            return -nats
        found = held_out(averaged(start, policy, share), MODEL, 4, 70, "validation")
        return float(found.kl.mean()) - nats

    share = 1.0
    if too_far(1.0) > 0:
        share = brentq(too_far, 0, 1, xtol=0.02)
    return averaged(start, policy, share), share


@study(
    "dpo_rlhf_settings",
    MODEL,
    data=(*TOWN, practised),
    recipe=(TRIED, REWARD, EQUAL, CHOOSING),
)
def settings() -> Iterator[Row]:
    """Settings tried for RLHF, DPO and online DPO, at equal KL, on validation."""
    for seed in each(CHOOSING):
        for way, tried in TRIED.items():
            for name in tried:
                found, facts = _at_equal_kl(way, name, seed, "validation")
                yield facts | {"gold": mean(found.gold.mean(axis=1))}


def best(rows: Sequence[Row], way: str) -> str:
    """The setting of a way with the most gold on average over the seeds."""
    names = dict.fromkeys(row["setting"] for row in rows if row["way"] == way)
    return max(
        names,
        key=lambda name: np.mean(
            [r["gold"] for r in rows if (r["way"], r["setting"]) == (way, name)]
        ),
    )


@study(
    "dpo_against_rlhf",
    MODEL,
    data=(*TOWN, practised),
    recipe=(TRIED, RECOMMENDED, REWARD, EQUAL, len(SEEDS)),
)
def against() -> Iterator[Row]:
    """RLHF, DPO and online DPO from as many labels, at equal KL, on five seeds.

    Gold over RLHF's and KL over RLHF's are paired by prompt.
    """
    for seed in each(SEEDS):
        gold, kl = None, None
        for way, name in RECOMMENDED.items():
            found, facts = _at_equal_kl(way, name, seed, "test")
            own, nats = found.gold.mean(axis=1), found.kl.mean(axis=1)
            gold, kl = (own, nats) if gold is None else (gold, kl)
            yield {
                **facts,
                "gold": mean(own),
                "gold_over_rlhf": paired_difference(own, gold),
                "kl_over_rlhf": paired_difference(nats, kl),
            }


def _at_equal_kl(way: str, name: str, seed: int, split: str) -> tuple[HeldOut, Row]:
    """Answers of a policy that was trained and brought to the common distance."""
    labels = first_labels(seed)
    began = time.process_time()
    policy = WAYS[way](labels, TRIED[way][name], seed)
    seconds = time.process_time() - began
    nearer, share = at_distance(policy, NATS)
    found = held_out(nearer, MODEL, n=8, seed=50, split=split)
    return found, {
        "way": way,
        "setting": name,
        "seed": seed,
        "labels": len(labels),
        "share": round(share, 3),
        "kl": mean(found.kl.mean(axis=1)),
        "seconds": round(seconds, 1),
    }
