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
from labs_helpers.course.recorded import attainable
from labs_helpers.data import Prompt
from labs_helpers.evaluation import distance_covered, mean, rate
from labs_helpers.fit import SFTObjective
from labs_helpers.models import PolicyWithValue, load_policy, load_tokenizer
from labs_helpers.rl import RLConfig, alarms, pretraining_mix, train
from labs_helpers.sampling import rollout_kl, sample
from labs_helpers.world.prompts import capability_prompts
from labs_helpers.world.task import town_task
from labs_tools.studies import Row, Study, columns

KL_WEIGHT = 0.03
LONGEST = 64
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


class Trained:
    """One run: a policy of the town, its log, and what it has become."""

    def __init__(
        self,
        model: str,
        config: RLConfig,
        reward: Callable | None = None,
        *,
        prepare: Callable[[PolicyWithValue], Any] | None = None,
        separate: bool = False,
        along: Callable | None = None,
        pretraining_loss: Callable | None = None,
        asked: Sequence[Prompt] | None = None,
    ):
        task = town_task()
        self.model, self.policy = model, load_policy(MODELS / model)
        torch.manual_seed(config.seed)
        with_value = PolicyWithValue.from_policy(self.policy, separate=separate)
        if prepare is not None:
            prepare(with_value)
        self.history = train(
            with_value,
            task.practice() if asked is None else asked,
            reward or task.truth.scores,
            config,
            evaluate=along,
            pretraining_loss=pretraining_loss,
        )

    @property
    def alarms(self) -> str:
        """Names of the monitor's alarms, in order."""
        return "; ".join(alarm.name for alarm in alarms(self.history)) or "none"

    def measured(self) -> Row:
        """Gold, KL and the way covered, on held-out prompts."""
        return measured(self.policy, self.model)

    @property
    def seconds(self) -> float:
        """Of training alone."""
        return round(self.history.seconds, 1)


def measured(policy: nn.Module, model: str) -> Row:
    """Gold, KL and the way covered by a policy of this size, on held-out prompts."""
    gold, kl = held_out(policy, model)
    row = {**columns("gold", mean(gold)), "kl": round(float(kl.mean()), 3)}
    try:
        start, best = attainable(model, KL_WEIGHT)
    except KeyError:  # a size whose optimum was not sampled
        return row
    way = distance_covered(gold - KL_WEIGHT * kl, start, best.objective)
    return row | columns("covered", way)


def held_out(
    policy: nn.Module, model: str, n: int = 4, split: str = "test"
) -> tuple[np.ndarray, ...]:
    """Gold and KL from the SFT policy by held-out prompt, means of n answers."""
    task, tokenizer = town_task(), load_tokenizer(MODELS / model)
    asked = task.prompts(split)
    rollout = sample(policy, tokenizer, asked, max_new_tokens=LONGEST, n=n, seed=5)
    repeated = [prompt for prompt in asked for _ in range(n)]
    gold = task.truth.scores(repeated, rollout.texts).reshape(-1, n).mean(axis=1)
    kl = rollout_kl(policy, load_policy(MODELS / model), rollout)
    return gold, kl.double().numpy().reshape(-1, n).mean(axis=1)


def capability(policy: nn.Module, model: str):
    """Share of held-out capability tasks that a policy gets right, greedily."""
    asked = capability_prompts("test", 240)
    tokenizer = load_tokenizer(MODELS / model)
    texts = sample(policy, tokenizer, asked, max_new_tokens=12, temperature=0).texts
    return rate(town_task().truth.scores(asked, texts, "helpfulness") == 1)


def algorithms() -> Iterator[Row]:
    """The four algorithms on town-xs at equal samples; PPO with twenty seeds.

    Columns: algorithm, seed, gold, kl, covered, alarms, seconds.
    """
    for seed in range(20):
        for algorithm in ALGORITHMS if seed < 2 else ("ppo",):
            yield _seeded("town-xs", replace(RECIPE, algorithm=algorithm, seed=seed))


def seeds_s() -> Iterator[Row]:
    """PPO on town-s with five seeds, the others with one; columns of rl_algorithms.

    Every run is as long as in the lab.
    """
    for seed in range(5):
        for algorithm in ALGORITHMS if seed < 1 else ("ppo",):
            yield _seeded("town-s", replace(LONG, algorithm=algorithm, seed=seed))


def _seeded(model: str, config: RLConfig) -> Row:
    run = Trained(model, config)
    return {
        "algorithm": config.algorithm,
        "seed": config.seed,
        **run.measured(),
        "alarms": run.alarms,
        "seconds": run.seconds,
    }


def details() -> Iterator[Row]:
    """PPO's details, each changed alone, on town-xs with two seeds.

    Columns: detail, seed, gold, kl, covered, finished (share of training answers that
    end, at the end), alarms, seconds.
    """
    variants: dict[str, tuple[dict, dict]] = {
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
    for seed in range(2):
        for detail, (settings, options) in variants.items():
            run = Trained("town-xs", replace(RECIPE, seed=seed, **settings), **options)
            yield {
                "detail": detail,
                "seed": seed,
                **run.measured(),
                "finished": round(float(run.history["finished"][-5:].mean()), 4),
                "alarms": run.alarms,
                "seconds": run.seconds,
            }


def _drops(model: PolicyWithValue) -> None:
    for layer in model.policy.model.layers:
        layer.self_attn.attention_dropout = 0.1


def random_values(model: PolicyWithValue, size: float) -> None:
    """Let the values start at random, this large."""
    nn.init.normal_(model.value_head.weight, std=size)


def sizes() -> Iterator[Row]:
    """PPO on every size of the town: gain and capability kept, two seeds.

    Columns: model, parameters, seed, start, gold, kl, covered (xs and s),
    capability_before, capability, seconds.
    """
    for model in ("town-xs", "town-s", "town-m"):
        if not (MODELS / model).is_dir():
            continue
        untrained = load_policy(MODELS / model)
        start, _ = held_out(untrained, model)
        before = capability(untrained, model)
        for seed in range(2):
            run = Trained(model, replace(RECIPE, seed=seed))
            found = run.measured()
            way = {f"covered{end}": np.nan for end in ("", "_low", "_high")}
            yield {
                "model": model,
                "parameters": untrained.num_parameters(),
                "seed": seed,
                "start": round(float(start.mean()), 4),
                **way,
                **found,
                "capability_before": round(before.value, 4),
                **columns("capability", capability(run.policy, model)),
                "seconds": run.seconds,
            }


def ptx() -> Iterator[Row]:
    """The pretraining loss mixed in (PPO-ptx) against the alignment tax, on town-xs.

    Columns: weight, seed, gold, kl, covered, capability_before, capability.
    """
    rows = [
        [*p.messages, {"role": "assistant", "content": f"It is {p.meta['expected']}."}]
        for p in capability_prompts("train", 300)
    ]
    objective = SFTObjective(load_tokenizer(MODELS / "town-xs"))
    before = capability(load_policy(MODELS / "town-xs"), "town-xs")
    for seed in range(2):
        for weight in (0.0, 0.1, 1.0):
            mix = pretraining_mix(objective, rows, weight) if weight else None
            run = Trained(
                "town-xs",
                replace(RECIPE, seed=seed, kl_weight=0.0),
                pretraining_loss=mix,
            )
            yield {
                "weight": weight,
                "seed": seed,
                **run.measured(),
                "capability_before": round(before.value, 4),
                **columns("capability", capability(run.policy, "town-xs")),
            }


def exploration() -> Iterator[Row]:
    """Temperature, entropy bonus and an adaptive price of KL, on town-xs.

    Columns: variant, seed, gold, kl, covered, entropy (nats a token at the end),
    kl_weight (at the end), alarms.
    """
    variants = {
        "the recipe": {},
        "temperature 0.7": {"temperature": 0.7},
        "temperature 1.3": {"temperature": 1.3},
        "entropy bonus 0.01": {"entropy_weight": 0.01},
        "entropy bonus 0.05": {"entropy_weight": 0.05},
        "KL adapts to 1 nat": {"kl_target": 1.0},
        "KL adapts to 3 nats": {"kl_target": 3.0},
    }
    for seed in range(2):
        for variant, settings in variants.items():
            run = Trained("town-xs", replace(RECIPE, seed=seed, **settings))
            yield {
                "variant": variant,
                "seed": seed,
                **run.measured(),
                "entropy": round(float(run.history["entropy"][-5:].mean()), 4),
                "kl_weight": round(float(run.history["kl_weight"][-1]), 4),
                "alarms": run.alarms,
            }


STUDIES: dict[str, Study] = {
    "rl_algorithms": algorithms,
    "rl_seeds_s": seeds_s,
    "rl_details": details,
    "rl_sizes": sizes,
    "rl_ptx": ptx,
    "rl_exploration": exploration,
}
