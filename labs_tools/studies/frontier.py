"""The frontier: every method of the labs on one figure of gold against KL.

All on town-xs, for there are many runs, judged by gold on held-out prompts. `labs study
frontier` also draws docs/frontier.png.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch

from labs_helpers.common.files import ROOT
from labs_helpers.course.profile import MODELS
from labs_helpers.data import Preference
from labs_helpers.evaluation import (
    Estimate,
    best_of_n,
    best_of_n_kl,
    mean,
    optimal_frontier,
)
from labs_helpers.fit import (
    FitConfig,
    KTOObjective,
    Objective,
    PairObjective,
    SLiCObjective,
    fit,
)
from labs_helpers.losses import dpo_loss, ipo_loss, kto_loss, slic_loss
from labs_helpers.models import Policy, load_policy
from labs_helpers.plots import gold_against_kl_by_method
from labs_helpers.rl import RLConfig, train
from labs_helpers.rl.config import ALGORITHMS as LEARNING_RATES
from labs_helpers.sampling import sample
from labs_helpers.world import Gold
from labs_helpers.world.annotators import PANEL, differing, label
from labs_helpers.world.prompts import prompts
from labs_tools.studies.cai_recipe import DATA, STAGES, Town
from labs_tools.studies.goal_recipe import unpaired
from labs_tools.studies.measures import LONGEST, held_out, paired
from labs_tools.studies.study import Row, study

TOWN = Town("town-xs")
MODEL = MODELS / TOWN.model
FIGURE = ROOT / "docs" / "frontier.png"
SEEDS = range(3)
NS = (1, 2, 4, 8, 16)
KL_WEIGHTS = (0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 10.0)
CAREFUL = PANEL[0]
PAIRS = 400
OFFLINE = FitConfig(lr=2e-4, batch_size=32, epochs=2, progress=False)
ONLINE = RLConfig(updates=30, progress=False)
ALGORITHMS = ("REINFORCE", "actor-critic", "TRPO", "PPO")


@study(
    "frontier",
    TOWN.model,
    data=DATA,
    recipe=(PAIRS, OFFLINE, ONLINE, LEARNING_RATES, STAGES),
)
def frontier() -> Iterator[Row]:
    """Gold against KL for eleven methods and the optimum, three seeds; a figure too.

    Best of n and the on-policy methods are given gold itself, best of n even that of
    the very prompts it is tested on. The offline methods have 400 comparisons by a
    careful simulated annotator. SL-CAI and RL-CAI have principles and no label of these
    answers, but their critic, the SFT model, learned to judge from the world's truth.
    """
    rows = []
    for row in _frontier():
        rows.append(row)
        yield row
    FIGURE.parent.mkdir(exist_ok=True)
    gold_against_kl_by_method(rows).savefig(FIGURE, dpi=150)


def _frontier() -> Iterator[Row]:
    for seed in SEEDS:
        yield from _best_of(seed)
        yield _row("SFT", seed, TOWN.sft)
        for name, trained in _methods().items():
            yield _row(name, seed, trained(seed))
        supervised = TOWN.sl_cai(TOWN.sft, seed)
        yield _row("SL-CAI", seed, supervised)
        yield _row("RL-CAI", seed, TOWN.rl_cai(supervised, seed))
    yield from _optima()


def _row(method: str, seed: int, policy: Policy) -> Row:
    found = held_out(policy, TOWN.model, n=2, seed=50 + seed)
    return {
        "method": method,
        "seed": seed,
        "n": "",
        "kl": mean(found.kl.ravel(), found.clusters),
        "gold": mean(found.gold.ravel(), found.clusters),
    }


def _optima() -> Iterator[Row]:
    """The closed-form optimum for several KL weights, from 512 answers to a prompt."""
    found = optimal_frontier(
        TOWN.sft,
        prompts("test"),
        Gold().scores,
        KL_WEIGHTS,
        tokenizer=TOWN.tokenizer,
        max_new_tokens=LONGEST,
        seed=123,
    )
    for weight, optimum in zip(KL_WEIGHTS, found, strict=True):
        kl, gold = mean(optimum.kl), mean(optimum.reward)
        yield {"method": "optimum", "seed": 0, "n": weight, "kl": kl, "gold": gold}


def _best_of(seed: int) -> Iterator[Row]:
    """The best of n by gold, exactly, from 16 answers to each prompt."""
    gold = held_out(TOWN.sft, TOWN.model, max(NS), seed=70 + seed).gold
    for column, n in zip(best_of_n(gold, gold, list(NS)).T, NS, strict=True):
        kl = float(best_of_n_kl(n))
        yield {
            "method": "best of n",
            "seed": seed,
            "n": n,
            "kl": Estimate(kl, kl, kl, len(gold)),
            "gold": mean(column),
        }


def _methods() -> dict[str, Callable[[int], Policy]]:
    tokenizer, reference = TOWN.tokenizer, TOWN.reference

    def offline(objective: Objective, rows: Callable = list) -> Callable:
        return lambda seed: _offline(rows(_compared(seed)), objective, seed)

    kto = KTOObjective(tokenizer, reference, partial(kto_loss, beta=0.1))
    slic = SLiCObjective(tokenizer, partial(slic_loss, delta=1.0, weight=0.1))
    pairs = partial(PairObjective, tokenizer, reference)
    return {
        "DPO": offline(pairs(partial(dpo_loss, beta=0.1))),
        "IPO": offline(pairs(partial(ipo_loss, beta=0.1))),
        "KTO": offline(kto, unpaired),
        "SLiC": offline(slic),
        **{name: partial(_online, name) for name in ALGORITHMS},
    }


@cache
def _compared(seed: int) -> tuple[Preference, ...]:
    """Two sampled answers that differ in gold to each of the training prompts."""
    asked = prompts("train")
    texts = sample(
        TOWN.sft, TOWN.tokenizer, asked, max_new_tokens=LONGEST, n=2, seed=30 + seed
    ).texts
    pairs = differing(paired(asked, texts), n=PAIRS)
    return tuple(label(pairs, [CAREFUL], seed))


def _offline(rows: Sequence[Any], objective: Objective, seed: int) -> Policy:
    torch.manual_seed(seed)
    policy = load_policy(MODEL)
    fit(policy, rows, objective, replace(OFFLINE, seed=seed))
    return policy


def _online(name: str, seed: int) -> Policy:
    torch.manual_seed(seed)
    policy = load_policy(MODEL)
    algorithm = name.lower().replace("-", "_")
    config = replace(ONLINE, algorithm=algorithm, seed=seed)
    train(policy, prompts("train"), Gold().scores, config, tokenizer=TOWN.tokenizer)
    return policy
