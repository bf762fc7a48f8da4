"""Studies of Lab 3: on-policy training over seeds, algorithms, settings and sizes.

All ask the task's practice prompts, unless others are given.
Judged by gold on the held-out prompts, four answers each (one along the way). The way
covered is (J - J_sft) / (J* - J_sft) for J = E[gold] - 0.03 KL, with KL over the full
vocabulary at the sampled answers' states, and J* from the study `optimum`. What goes
wrong on purpose is in `instabilities`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from labs_helpers.course.profile import MODELS
from labs_helpers.course.recorded import SIZES, attainable
from labs_helpers.data import Prompt
from labs_helpers.evaluation import Estimate, distance_covered, mean
from labs_helpers.fit import SFTObjective
from labs_helpers.models import PolicyWithValue, load_policy
from labs_helpers.rl import RLConfig, alarms, pretraining_mix, train
from labs_helpers.rl.config import ALGORITHMS as LEARNING_RATES
from labs_helpers.world import town_task
from labs_helpers.world.prompts import capability_prompts
from labs_tools.studies.measures import LONGEST, capability, held_out, loaded
from labs_tools.studies.study import TOWN, Row, each, optima, practised, study

KL_WEIGHT = 0.03
ALGORITHMS = ("ppo", "trpo", "actor_critic", "reinforce")
# 6,400 answers
RECIPE = RLConfig(
    updates=100,
    samples=64,
    max_new_tokens=LONGEST,
    kl_weight=KL_WEIGHT,
    progress=False,
)
# What a lab has time for on two cores, with town-s.
LONG = replace(RECIPE, updates=120)
# Of a value model of its own: 8 times PPO's learning rate.
FAST = 8 * RECIPE.learning_rate
PPO = (RECIPE, LEARNING_RATES)
PRACTICE = (*TOWN, practised, optima)


def _drops(model: PolicyWithValue) -> None:
    for layer in model.policy.model.layers:
        layer.self_attn.attention_dropout = 0.1


def random_values(model: PolicyWithValue, size: float) -> None:
    """Let the values start at random, this large."""
    nn.init.normal_(model.value_head.weight, std=size)


# Each changes one detail: settings, and how the model is prepared.
DETAILS: dict[str, tuple[dict, dict]] = {
    "nothing changed": ({}, {}),
    "no penalty for a missing end": ({"missing_end_penalty": 0.0}, {}),
    "advantages not whitened": ({"whiten": False}, {}),
    "no KL in the reward": ({"kl_weight": 0.0}, {}),
    "dropout on": ({"dropout": True}, {"prepare": _drops}),
    "values start at random": ({}, {"prepare": partial(random_values, size=0.2)}),
    "value model of its own": ({}, {"separate": True}),
    "fast value model of its own": (
        {"value_lr": FAST, "lam": 0.95},
        {"separate": True},
    ),
    "learning rate constant": ({"schedule": "constant"}, {}),
    "one epoch": ({"epochs": 1}, {}),
    "no clip": ({"clip": 1e6}, {}),
}
CHANGED = {detail: settings for detail, (settings, _) in DETAILS.items()}
EXPLORATION = {
    "the recipe": {},
    "temperature 0.7": {"temperature": 0.7},
    "temperature 1.3": {"temperature": 1.3},
    "entropy bonus 0.01": {"entropy_weight": 0.01},
    "entropy bonus 0.05": {"entropy_weight": 0.05},
    "KL adapts to 1 nat": {"kl_target": 1.0},
    "KL adapts to 3 nats": {"kl_target": 3.0},
}
MIXED = (0.0, 0.1, 1.0)  # weights of the pretraining loss


class Trained:
    """One run: a policy of the town, its log, and what it has become."""

    def __init__(
        self,
        model: str,
        config: RLConfig,
        reward: Callable | None = None,
        *,
        prepare: Callable[[PolicyWithValue], Any] = lambda model: None,
        separate: bool = False,
        asked: Sequence[Prompt] | None = None,
        **options: Any,
    ):
        task = town_task()
        self.model, self.policy = model, load_policy(MODELS / model)
        torch.manual_seed(config.seed)
        with_value = PolicyWithValue.from_policy(self.policy, separate=separate)
        prepare(with_value)
        asked = task.practice() if asked is None else asked
        reward = reward or task.truth.scores
        self.history = train(with_value, asked, reward, config, **options)

    @property
    def alarms(self) -> str:
        """Names of the monitor's alarms, in order."""
        return "; ".join(alarm.name for alarm in alarms(self.history)) or "none"

    def row(self) -> Row:
        """Gold, KL and the way covered on held-out prompts; alarms, and seconds."""
        return measured(self.policy, self.model) | {
            "alarms": self.alarms,
            "seconds": round(self.history.seconds, 1),
        }

    def at_the_end(self, name: str) -> float:
        """The mean of a figure of the log in the last five updates."""
        return round(float(self.history[name][-5:].mean()), 4)


def measured(policy: nn.Module, model: str) -> Row:
    """Gold, KL and the way covered by a policy of this size, on held-out prompts."""
    gold, kl = gold_and_kl(policy, model)
    row = {"gold": mean(gold), "kl": round(float(kl.mean()), 3)}
    if model not in SIZES:  # its optimum was not sampled
        return row | {"covered": Estimate(np.nan, np.nan, np.nan, 0)}
    start, best = attainable(model, KL_WEIGHT)
    way = distance_covered(gold - KL_WEIGHT * kl, start, best.objective)
    return row | {"covered": way}


def gold_and_kl(
    policy: nn.Module, model: str, n: int = 4, split: str = "test"
) -> tuple[np.ndarray, ...]:
    """Gold and KL from the SFT policy by held-out prompt, means of n answers."""
    found = held_out(policy, model, n, seed=5, split=split)
    return found.gold.mean(axis=1), found.kl.mean(axis=1)


@study("rl_algorithms", "town-xs", data=PRACTICE, recipe=PPO)
def algorithms() -> Iterator[Row]:
    """The four algorithms on town-xs at equal samples; PPO with twenty seeds.

    Columns: algorithm, seed, gold, kl, covered, alarms, seconds.
    """
    for seed in each(range(20)):
        for algorithm in ALGORITHMS if seed < 2 else ("ppo",):
            config = replace(RECIPE, algorithm=algorithm, seed=seed)
            run = Trained("town-xs", config)
            yield {"algorithm": algorithm, "seed": seed} | run.row()


@study("rl_seeds_s", "town-s", data=PRACTICE, recipe=(LONG, LEARNING_RATES))
def seeds_s() -> Iterator[Row]:
    """PPO on town-s with five seeds, the others with one; columns of rl_algorithms.

    Every run is as long as in the lab.
    """
    for seed in each(range(5)):
        for algorithm in ALGORITHMS if seed < 1 else ("ppo",):
            run = Trained("town-s", replace(LONG, algorithm=algorithm, seed=seed))
            yield {"algorithm": algorithm, "seed": seed} | run.row()


@study("rl_details", "town-xs", data=PRACTICE, recipe=(PPO, CHANGED))
def details() -> Iterator[Row]:
    """PPO's details, each changed alone, on town-xs with two seeds.

    Columns: detail, seed, gold, kl, covered, finished (share of training answers that
    end, at the end), alarms, seconds.
    """
    for seed in each(range(2)):
        for detail, (settings, options) in DETAILS.items():
            run = Trained("town-xs", replace(RECIPE, seed=seed, **settings), **options)
            finished = {"finished": run.at_the_end("finished")}
            yield {"detail": detail, "seed": seed} | run.row() | finished


@study("rl_sizes", *SIZES, "town-m", data=PRACTICE, recipe=PPO)
def sizes() -> Iterator[Row]:
    """PPO on every size of the town: gain and capability kept, two seeds.

    Columns: model, parameters, seed, start, gold, kl, covered (xs and s),
    capability_before, capability, seconds.
    """
    for model in (*SIZES, "town-m"):
        untrained = loaded(model)[0]
        start, _ = gold_and_kl(untrained, model)
        before = capability(untrained, model)
        for seed in range(2):
            run = Trained(model, replace(RECIPE, seed=seed))
            yield {
                "model": model,
                "parameters": untrained.num_parameters(),
                "seed": seed,
                "start": round(float(start.mean()), 4),
                "capability_before": round(before.value, 4),
                "capability": capability(run.policy, model),
                **run.row(),
            }


@study("rl_ptx", "town-xs", data=PRACTICE, recipe=(PPO, MIXED))
def ptx() -> Iterator[Row]:
    """The pretraining loss mixed in (PPO-ptx) against the alignment tax, on town-xs.

    Columns: weight, seed, gold, kl, covered, capability_before, capability.
    """
    rows = [
        [*p.messages, {"role": "assistant", "content": f"It is {p.meta['expected']}."}]
        for p in capability_prompts("train", 300)
    ]
    untrained, tokenizer, _ = loaded("town-xs")
    before = capability(untrained, "town-xs")
    for seed in each(range(2)):
        config = replace(RECIPE, seed=seed, kl_weight=0.0)
        for weight in MIXED:
            mix = None
            if weight:
                mix = pretraining_mix(SFTObjective(tokenizer), rows, weight)
            run = Trained("town-xs", config, pretraining_loss=mix)
            yield {
                "weight": weight,
                "seed": seed,
                "capability_before": round(before.value, 4),
                "capability": capability(run.policy, "town-xs"),
                **run.row(),
            }


@study("rl_exploration", "town-xs", data=PRACTICE, recipe=(PPO, EXPLORATION))
def exploration() -> Iterator[Row]:
    """Temperature, entropy bonus and an adaptive price of KL, on town-xs.

    Columns: variant, seed, gold, kl, covered, entropy (nats a token at the end),
    kl_weight (at the end), alarms.
    """
    for seed in each(range(2)):
        for variant, settings in EXPLORATION.items():
            run = Trained("town-xs", replace(RECIPE, seed=seed, **settings))
            entropy, price = run.at_the_end("entropy"), run.history["kl_weight"][-1]
            ends = {"entropy": entropy, "kl_weight": round(float(price), 4)}
            yield {"variant": variant, "seed": seed} | run.row() | ends
