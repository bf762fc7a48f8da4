"""The alignment tax: what training for one goal costs the capability, and what helps.

The same recipe on every size of the town: each model's own answers, compared by the
same simulated annotator; as many pairs, steps and passes, the same learning rate.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from labs_helpers.data import Message, Preference
from labs_helpers.evaluation import mean, paired_difference
from labs_helpers.fit import (
    FitConfig,
    PairObjective,
    PretrainingObjective,
    SFTObjective,
    fit,
)
from labs_helpers.losses import dpo_loss
from labs_helpers.models import Policy, averaged, branch
from labs_helpers.rl import pretraining_mix
from labs_helpers.sampling import rollout_kl, sample
from labs_helpers.world import GOALS, Gold, sampled_pairs
from labs_helpers.world.annotators import PANEL, label
from labs_helpers.world.prompts import capability_prompts, lot, practice_prompts
from labs_tools.studies.measures import LONGEST, by_prompt, loaded, repeated
from labs_tools.studies.study import TOWN, Row, each, practised, study

SIZES = ("town-xs", "town-s", "town-m")
GOAL = GOALS["safety"]
PROMPTS, ANSWERS, PAIRS = 96, 8, 200
CONFIG = FitConfig(lr=1e-3, batch_size=32, steps=30, progress=False)

RANK = 8
BETA, LARGE_BETA = 0.02, 1.0
REPLAYED, WEIGHT = 500, 1.0
SHARES = (0.5, 0.25)
FEWER = 5  # steps
TASKS, TRIES = 240, 8  # of the capability probe, at temperature 1
GOAL_TRIES = 4
SETTINGS = (
    PROMPTS,
    ANSWERS,
    PAIRS,
    RANK,
    BETA,
    LARGE_BETA,
    REPLAYED,
    WEIGHT,
    SHARES,
    FEWER,
)


def goal_pairs(model: str, seed: int) -> list[Preference]:
    """Answers of a model to the goal's prompts, compared by a careful annotator."""
    policy, tokenizer, _ = loaded(model)
    asked = GOAL.prompts("train", PROMPTS)
    how = {"max_new_tokens": LONGEST, "n": ANSWERS, "seed": seed + 1}
    texts = sample(policy, tokenizer, asked, **how).texts
    pairs = sampled_pairs(asked, texts, GOAL.dimension, 3, seed)[:PAIRS]
    return label(pairs, PANEL[:1], seed, GOAL.dimension)


def earlier_talks(model: str, seed: int) -> list[list[Message]]:
    """What a model says before training, to what the goal is not about."""
    policy, tokenizer, _ = loaded(model)
    others = [p for p in practice_prompts() if p.meta["type"] not in GOAL.kinds]
    asked = lot("replayed", seed).sample(others, REPLAYED)
    drawn = sample(policy, tokenizer, asked, max_new_tokens=LONGEST, seed=seed)
    return [
        [*prompt.messages, {"role": "assistant", "content": text}]
        for prompt, text in zip(asked, drawn.texts, strict=True)
    ]


def handled(model: str, seed: int) -> Iterator[tuple[str, Policy]]:
    """The goal's pairs alone, and what may keep the capability, one policy each."""
    start, tokenizer, reference = loaded(model)
    rows = goal_pairs(model, seed)

    def dpo(beta: float) -> PairObjective:
        return PairObjective(tokenizer, reference, partial(dpo_loss, beta=beta))

    def trained(objective: Any, config: FitConfig, lora: int | None = None) -> Policy:
        policy = branch(start, lora)
        fit(policy, rows, objective, replace(config, seed=seed))
        return policy

    alone = trained(dpo(BETA), CONFIG)
    yield "the pairs alone", alone
    for share in SHARES:
        yield f"averaged, {share:g} of it", averaged(start, alone, share)
    yield "fewer steps", trained(dpo(BETA), replace(CONFIG, steps=FEWER))
    yield f"KL, beta {LARGE_BETA:g}", trained(dpo(LARGE_BETA), CONFIG)
    talks = earlier_talks(model, seed)
    mix = pretraining_mix(SFTObjective(tokenizer), talks, WEIGHT)
    yield "replay", trained(PretrainingObjective(dpo(BETA), mix), CONFIG)
    yield "LoRA", trained(dpo(BETA), CONFIG, RANK)


@study("dpo_tax", *SIZES, data=(*TOWN, practised), recipe=(SETTINGS, CONFIG))
def tax() -> Iterator[Row]:
    """Gain in the goal and alignment tax, by handling and size, three seeds."""
    for seed in each(range(3)):
        for model in SIZES:
            before = _measured(loaded(model)[0], model)
            could = before["capability"]
            for handling, policy in handled(model, seed):
                after = _measured(policy, model)
                yield {
                    "model": model,
                    "handling": handling,
                    "seed": seed,
                    "before": mean(could),
                    "tax": paired_difference(could, after["capability"]),
                    "gain": paired_difference(after["goal"], before["goal"]),
                    "kl": mean(after["kl"]),
                }


def _measured(policy: Policy, model: str) -> dict[str, np.ndarray]:
    """By prompt: tasks done right, the goal reached, and KL on the goal's prompts."""
    start, tokenizer, _ = loaded(model)
    ask: Callable = partial(sample, policy, tokenizer)
    tasks, asked = capability_prompts("test", TASKS), GOAL.prompts("test")
    done = ask(tasks, max_new_tokens=12, n=TRIES, seed=7).texts
    right = Gold().scores(repeated(tasks, TRIES), done, "helpfulness") == 1
    drawn = ask(asked, max_new_tokens=LONGEST, n=GOAL_TRIES, seed=5)
    reached = Gold().scores(repeated(asked, GOAL_TRIES), drawn.texts, GOAL.dimension)
    kl = rollout_kl(policy, start, drawn).numpy()
    return {
        "capability": by_prompt(right, TRIES),
        "goal": by_prompt(reached, GOAL_TRIES),
        "kl": by_prompt(kl, GOAL_TRIES),
    }
