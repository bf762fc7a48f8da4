"""Studies of Lab 3: what goes wrong on purpose, and whether the monitor names it.

Reward hacking with its mitigations, and every instability that the monitor knows, on
town-xs. Judged by gold on the held-out prompts, which the monitor never sees; where a
reward model is optimised, it sees a second opinion on them, by the one of Lab 1.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from labs_helpers.course.profile import MODELS
from labs_helpers.fit import FitConfig, RewardObjective, fit
from labs_helpers.models import RewardModel
from labs_helpers.rl import (
    RLConfig,
    SecondOpinion,
    alarms,
    ensemble,
    length_penalised,
    model_reward,
    standardised,
)
from labs_helpers.world import recorded, town_task
from labs_helpers.world.annotators import BIASED, label
from labs_helpers.world.prompts import prompts
from labs_tools.studies.lab3 import PPO, RECIPE, Trained, random_values
from labs_tools.studies.measures import held_out, loaded
from labs_tools.studies.study import RECORDED, Row, each, study

# Instabilities show soon, or not at all.
SHORT = replace(RECIPE, updates=30)
HACKING_RATE = 5e-4  # to go farther than is good, and soon
HACKING = replace(RECIPE, updates=48, lr=HACKING_RATE, evaluate_every=4)
MODEL = "town-xs"
USED = (MODEL, "town-s", "town-s-reward")
BIAS = FitConfig(lr=1e-3, batch_size=16, epochs=10, progress=False)
# Price of a nat of KL; the last three change the reward.
MITIGATIONS = {
    "none": 0.0,
    "KL weight 0.1": 0.1,
    "KL weight 0.3": 0.3,
    "ensemble of three": 0.0,
    "worst of three": 0.0,
    "length penalty": 0.0,
}
# Columns of a trajectory, by their names in the log.
FIGURES = {
    "kl": "held_out_kl",
    "proxy": "held_out_reward",
    "second": "second_opinion",
    "gold": "held_out_gold",
}
FREE = {"kl_weight": 0.0}
LONG = {**FREE, "lr": 1e-3, "missing_end_penalty": 0.0}
# By the monitor's name: how it is provoked, by settings, and by what an answer earns.
PROVOKED: dict[str, tuple[str, dict, Callable[[str], float] | None]] = {
    "learning rate too high": ("learning rate 1e-2", {"lr": 1e-2}, None),
    "entropy collapse": (
        "the entropy bonus with the wrong sign, no KL penalty",
        {**FREE, "entropy_weight": -3.0, "lr": 1e-3, "schedule": "constant"},
        None,
    ),
    "values do not fit": ("values start large and random", {}, None),
    "dead reward": ("a constant reward", {}, lambda text: 0.5),
    "no end of sequence": (
        "a reward for words, no penalty for a missing end",
        LONG,
        lambda text: len(text.split()) / 20,
    ),
    "repetition": (
        'a reward for the word "the"',
        LONG,
        lambda text: text.split().count("the") / 5,
    ),
    "length drift": (
        "a penalty for words",
        {**FREE, "lr": 1e-3},
        lambda text: -len(text.split()) / 10,
    ),
    "reward hacking": (
        "a reward model from 100 biased comparisons, no KL penalty",
        {**FREE, "lr": HACKING_RATE, "evaluate_every": 3},
        None,
    ),
}
SETTINGS = {name: settings for name, (_, settings, _) in PROVOKED.items()}


def _trained(config: RLConfig, reward: Callable | None, **options: Any) -> Trained:
    """On the prompts that have recorded answers: what goes wrong needs no more."""
    return Trained(MODEL, config, reward, asked=prompts("train"), **options)


@cache
def biased_reward(seed: int = 0, comparisons: int = 100):
    """A reward model from few comparisons by somebody who likes length and flattery.

    On the scale of what town-s says before it is trained: mean 0, variance 1.
    """
    torch.manual_seed(seed)
    policy = loaded("town-s")[0]
    model = RewardModel.from_policy(policy, request=town_task().self_check)
    rows = label(recorded.pairs("train", comparisons, seed=seed), [BIASED], seed)
    fit(model, rows, RewardObjective(model), replace(BIAS, seed=seed))
    asked, said = zip(*recorded.recorded_answers("validation"), strict=True)
    first = [answers[0] for answers in said]
    return standardised(model_reward(model), asked, first)


@study("rl_hacking", *USED, data=RECORDED, recipe=(HACKING, BIAS, MITIGATIONS))
def hacking() -> Iterator[Row]:
    """PPO on town-xs under a biased reward model: proxy, gold and KL along the way.

    Columns: mitigation, seed, update (0 is the start), kl, proxy, second (the second
    opinion), gold (held-out, one answer each), alarm (the monitor's first alarm that is
    up by then, or "none").
    """
    for seed in each(range(2)):
        biased = biased_reward(seed)
        several = [biased, biased_reward(seed + 10), biased_reward(seed + 20)]
        other = {
            "ensemble of three": ensemble(several),
            "worst of three": ensemble(several, "worst"),
            "length penalty": length_penalised(biased, 0.1, free=10),
        }
        for name, weight in MITIGATIONS.items():
            reward = other.get(name, biased)
            config = replace(HACKING, kl_weight=weight, seed=seed)
            look = _along(reward)
            start = {"step": 0, **look(loaded(MODEL)[0])}
            run = _trained(config, reward, evaluate=look)
            yield from _trajectory(name, seed, start, run)


def _along(proxy: Callable) -> Callable:
    """What is measured on the way: gold, KL, proxy and second opinion, held out."""
    start, tokenizer, _ = loaded(MODEL)
    first = held_out(start, MODEL, n=1, seed=6)
    opinions = SecondOpinion(proxy, second_judge(), first.asked, first.texts, tokenizer)

    def evaluate(policy: nn.Module) -> dict[str, float]:
        found = held_out(policy, MODEL, n=1, seed=6)
        return {
            "held_out_gold": float(found.gold.mean()),
            "held_out_kl": float(found.kl.mean()),
            **opinions.about(found.texts),
        }

    return evaluate


@cache
def second_judge():
    """The reward model that Lab 1 ends with: many comparisons, no bias."""
    return model_reward(RewardModel.from_pretrained(MODELS / "town-s-reward"))


def _trajectory(mitigation: str, seed: int, start: dict, run: Trained) -> Iterator[Row]:
    raised = alarms(run.history)
    for row in [start, *run.history.rows]:
        if "held_out_gold" in row:
            up = [alarm.name for alarm in raised if alarm.step <= row["step"]]
            figures = {name: round(row[of], 4) for name, of in FIGURES.items()}
            about = {"mitigation": mitigation, "seed": seed, "update": int(row["step"])}
            yield about | figures | {"alarm": up[0] if up else "none"}


def provoked(name: str, seed: int) -> Trained:
    """A run that is to show an instability."""
    _, settings, pays = PROVOKED[name]
    config = replace(SHORT, seed=seed, **settings)
    if name == "reward hacking":
        reward = biased_reward(seed)
        return _trained(config, reward, evaluate=_along(reward))
    if name == "values do not fit":
        return _trained(config, None, prepare=partial(random_values, size=10.0))
    return _trained(config, pays and (lambda asked, said: [pays(x) for x in said]))


@study("rl_instabilities", *USED, data=RECORDED, recipe=(PPO, SHORT, BIAS, SETTINGS))
def instabilities() -> Iterator[Row]:
    """Every instability that the monitor knows, provoked on town-xs, two seeds.

    Columns: provoked, how, seed, alarms (all, in order), update (of the alarm that is
    right, 0 if there is none), gold.
    """
    for seed in each(range(2)):
        for name, (how, _, _) in PROVOKED.items():
            run = provoked(name, seed)
            right = [a.step for a in alarms(run.history) if a.name == name]
            gold = held_out(run.policy, MODEL, n=1, seed=5).gold.mean()
            yield {
                "provoked": name,
                "how": how,
                "seed": seed,
                "alarms": run.alarms,
                "update": right[0] if right else 0,
                "gold": round(float(gold), 4),
            }
