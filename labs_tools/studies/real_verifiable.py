"""A reward that a program verifies, on a real model: before and after.

The model is the one that LABS_MODEL names; the prompts are those of LABS_DATA, split by
prompt. What is reported are held-out prompts.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from labs_helpers import evaluation, rl
from labs_helpers.data import load_preferences, task_from_preferences
from labs_helpers.models import Policy, branch, load_policy, load_tokenizer
from labs_helpers.sampling import Rollout, rollout_kl, sample
from labs_tools.studies.study import Row, named, study

WORDS = 10  # are what the reward wants
LONGEST = 400  # characters of a conversation: long ones cost time and teach the same
LORA, HELD_OUT, SHOWN = 16, 96, 4
CONFIG = rl.RLConfig(
    algorithm="rloo",
    updates=24,
    samples=48,
    max_new_tokens=32,
    lr=7e-4,
    kl_weight=0.02,
    accumulate=2,
)


@study("real_verifiable", recipe=(WORDS, LONGEST, LORA, HELD_OUT, CONFIG), data=())
def verified() -> Iterator[Row]:
    """Reward of held-out prompts before and after, in (0, 1), and KL in nats.

    Columns: model, algorithm, answers, seconds, deviation (of the reward before), and
    with intervals before, after, gain (in deviations), kl.
    """
    name = named("LABS_MODEL")
    tokenizer, start = load_tokenizer(name), load_policy(name)
    rows = load_preferences(named("LABS_DATA"))
    short = [row for row in rows if len(str(row.prompt)) <= LONGEST]
    task = task_from_preferences(short, "short prompts")
    unseen = task.prompts("test")[:HELD_OUT]

    def said(policy: Policy) -> tuple[Rollout, np.ndarray]:
        tokens = CONFIG.max_new_tokens
        found = sample(policy, tokenizer, unseen, max_new_tokens=tokens, seed=0)
        return found, np.array(of_ten_words(unseen, found.texts))

    first, before = said(start)
    policy, started = branch(start, LORA), time.perf_counter()
    rl.train(policy, task.practice(), of_ten_words, CONFIG, tokenizer=tokenizer)
    seconds = round(time.perf_counter() - started)
    last, after = said(policy)
    for i in range(SHOWN):
        print(f"{unseen[i].text!r:.200}\n  {first.texts[i]!r}\n  {last.texts[i]!r}")
    deviation = float(before.std(ddof=1))
    yield {
        "model": Path(name).name,
        "algorithm": CONFIG.algorithm,
        "answers": CONFIG.updates * CONFIG.samples,
        "seconds": seconds,
        "deviation": deviation,
        "before": evaluation.rate(before),
        "after": evaluation.rate(after),
        "gain": evaluation.paired_difference(after / deviation, before / deviation),
        "kl": evaluation.mean(rollout_kl(policy, start, last)),
    }


def of_ten_words(prompts: Sequence[Any], answers: Sequence[str]) -> list[float]:
    """1 for an answer of ten words, less the farther it is from that: 0 from thirty."""
    return [max(0.0, 1 - abs(len(answer.split()) - WORDS) / 20) for answer in answers]
