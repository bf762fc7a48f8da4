"""The frontier: every method of the labs on one figure of gold against KL.

All on town-xs, for there are many runs, judged by gold on held-out prompts. `labs study
frontier` also draws docs/frontier.png.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from labs_helpers.course.profile import MODELS, ROOT
from labs_helpers.data import Preference, Prompt, Unpaired
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
from labs_helpers.sampling import rollout_kl, sample
from labs_helpers.world.annotators import PANEL, Pair, differing, label
from labs_helpers.world.gold import Gold
from labs_helpers.world.prompts import prompts
from labs_tools.studies import Row, Study, columns
from labs_tools.studies.cai_recipe import Town

TOWN = Town("town-xs")
MODEL = MODELS / TOWN.model
FIGURE = ROOT / "docs" / "frontier.png"
SEEDS = range(3)
NS = (1, 2, 4, 8, 16)
KL_WEIGHTS = (0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 10.0)
CAREFUL = PANEL[0]
ONLINE = ("REINFORCE", "actor-critic", "TRPO", "PPO")
UPDATES, PAIRS = 30, 400
TEXT = 64  # tokens of an answer at most


def frontier() -> Iterator[Row]:
    """Gold against KL for eleven methods and the optimum, three seeds; a figure too.

    Best of n and the on-policy methods are given gold itself, the offline ones 400
    comparisons by a careful simulated annotator, SL-CAI and RL-CAI a constitution and
    no label at all.
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
        for name, train in _methods().items():
            yield _row(name, seed, train(seed))
        supervised = TOWN.sl_cai(TOWN.sft, seed)
        yield _row("SL-CAI", seed, supervised)
        yield _row("RL-CAI", seed, TOWN.rl_cai(supervised, seed))
    yield from _optima()


def _row(method: str, seed: int, policy: Policy) -> Row:
    asked = prompts("test")
    drawn = sample(
        policy, TOWN.tokenizer, asked, max_new_tokens=TEXT, n=2, seed=50 + seed
    )
    repeated = [prompt for prompt in asked for _ in range(2)]
    clusters = np.repeat(np.arange(len(asked)), 2)
    gold = mean(Gold().scores(repeated, drawn.texts), clusters)
    kl = mean(rollout_kl(policy, TOWN.sft, drawn).double().numpy(), clusters)
    return {
        "method": method,
        "seed": seed,
        "n": "",
        **columns("kl", kl),
        **columns("gold", gold),
    }


def _optima() -> Iterator[Row]:
    """The closed-form optimum for several KL weights, from 512 answers to a prompt."""
    asked = prompts("test")
    found = optimal_frontier(
        TOWN.sft,
        asked,
        Gold().scores,
        KL_WEIGHTS,
        tokenizer=TOWN.tokenizer,
        max_new_tokens=TEXT,
        seed=123,
    )
    for weight, optimum in zip(KL_WEIGHTS, found, strict=True):
        yield {
            "method": "optimum",
            "seed": 0,
            "n": weight,
            **columns("kl", mean(optimum.kl)),
            **columns("gold", mean(optimum.reward)),
        }


def _best_of(seed: int) -> Iterator[Row]:
    """The best of n by gold, exactly, from 16 answers to each prompt."""
    asked, n = prompts("test"), max(NS)
    texts = sample(
        TOWN.sft, TOWN.tokenizer, asked, max_new_tokens=TEXT, n=n, seed=70 + seed
    ).texts
    repeated = [prompt for prompt in asked for _ in range(n)]
    gold = Gold().scores(repeated, texts).reshape(len(asked), n)
    won = best_of_n(gold, gold, list(NS))
    for column, each in zip(won.T, NS, strict=True):
        kl = float(best_of_n_kl(each))
        yield {
            "method": "best of n",
            "seed": seed,
            "n": each,
            **columns("kl", Estimate(kl, kl, kl, len(asked))),
            **columns("gold", mean(column)),
        }


# Offline methods: comparisons of a careful simulated annotator


def _methods() -> dict[str, Callable[[int], Policy]]:
    tokenizer, reference = TOWN.tokenizer, TOWN.reference

    def pairs(loss: Callable[..., Any]) -> Callable[[int], Policy]:
        objective = PairObjective(tokenizer, reference, loss)
        return lambda seed: _offline(_compared(seed), objective, seed)

    def kto(seed: int) -> Policy:
        rows = [
            Unpaired(row.prompt, answer, good)
            for row in _compared(seed)
            for answer, good in ((row.chosen, True), (row.rejected, False))
        ]
        objective = KTOObjective(tokenizer, reference, partial(kto_loss, beta=0.1))
        return _offline(rows, objective, seed)

    def slic(seed: int) -> Policy:
        objective = SLiCObjective(tokenizer, partial(slic_loss, delta=1.0, weight=0.1))
        return _offline(_compared(seed), objective, seed)

    return {
        "DPO": pairs(partial(dpo_loss, beta=0.1)),
        "IPO": pairs(partial(ipo_loss, beta=0.1)),
        "KTO": kto,
        "SLiC": slic,
        **{name: partial(_online, name) for name in ONLINE},
    }


@cache
def _compared(seed: int) -> tuple[Preference, ...]:
    """Two sampled answers that differ in gold to each of the training prompts."""
    asked = prompts("train")
    texts = sample(
        TOWN.sft, TOWN.tokenizer, asked, max_new_tokens=TEXT, n=2, seed=30 + seed
    ).texts
    drawn = [Pair(p, *texts[2 * i : 2 * i + 2]) for i, p in enumerate(asked)]
    return tuple(label(differing(drawn, n=PAIRS), [CAREFUL], seed))


def _offline(rows: Sequence[Any], objective: Objective, seed: int) -> Policy:
    torch.manual_seed(seed)
    policy = load_policy(MODEL)
    config = FitConfig(lr=2e-4, batch_size=32, epochs=2, seed=seed, progress=False)
    fit(policy, rows, objective, config)
    return policy


# On-policy methods: gold itself


def _online(name: str, seed: int) -> Policy:
    from labs_helpers.rl import RLConfig, train

    torch.manual_seed(seed)
    policy = load_policy(MODEL)
    algorithm = name.lower().replace("-", "_")
    config = RLConfig(algorithm=algorithm, updates=UPDATES, seed=seed, progress=False)
    gold = Gold()

    def reward(asked: Sequence[Prompt], texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor(gold.scores(asked, texts), dtype=torch.float)

    train(policy, prompts("train"), reward, config, tokenizer=TOWN.tokenizer)
    return policy


STUDIES: dict[str, Study] = {"frontier": frontier}
