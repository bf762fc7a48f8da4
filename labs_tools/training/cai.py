"""`labs train cai`: the two stages of Constitutional AI, with Lab 4's defaults.

In go settings; out come the policy of each stage, the revisions and comparisons that
they learnt from, and their histories. What a stage has finished is not done again when
the command is repeated.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from peft import PeftModel

from labs_helpers import safety
from labs_helpers.common.files import ROOT, write_atomically
from labs_helpers.constitution import (
    compare_by_principles,
    critique_and_revise,
    load_constitution,
    preferences_from,
    revised_answers,
)
from labs_helpers.course.profile import located
from labs_helpers.data import SPLITS, load_preferences, save_preferences
from labs_helpers.data.rows import contents, said
from labs_helpers.fit import (
    FitConfig,
    History,
    Objective,
    SFTObjective,
    SoftPairObjective,
    fit,
)
from labs_helpers.fit.identity import describe_start, digest
from labs_helpers.fit.run import processes
from labs_helpers.losses import soft_dpo_loss
from labs_helpers.models import Policy, load_policy
from labs_tools.training.data import rows_of
from labs_tools.training.models import model_of, save
from labs_tools.training.publishing import reporting
from labs_tools.training.settings import CAI

SAFETY = ROOT / "data" / "safety"
OTHERS = 400  # prompts of the embedded world beside its harmful and sound-alike ones


def run_cai(asked: CAI) -> History:
    """Revise, learn the revisions, compare, learn the comparisons; save both stages."""
    out, prompts = Path(asked.out), _prompts(asked)
    rules = load_constitution(asked.constitution or ROOT / "data" / "constitution.yaml")
    critic = load_policy(located(asked.policy))
    policy, tokenizer = model_of(asked, asked.sft.seed)
    say = partial(
        safety.answers_of, tokenizer=tokenizer, max_new_tokens=asked.max_new_tokens
    )

    def revisions() -> list[Any]:
        answers = say(critic, prompts=prompts, seed=asked.sft.seed)
        talks = critique_and_revise(
            critic, tokenizer, prompts, answers, rules, seed=asked.sft.seed
        )
        if processes().is_main_process:
            revised = sum(t.revised for t in talks)
            print(f"{revised} of {len(talks)} answers were revised")
        return revised_answers(talks)

    made_of = [asked.max_new_tokens, rules, prompts]
    rows = _once(out / "revisions.jsonl", revisions, [critic, asked.sft.seed, *made_of])
    first = out / "sl-cai"
    objective = SFTObjective(tokenizer)
    history = _stage(asked, "sft", policy, rows, objective, asked.sft)
    save(policy, tokenizer, history, first)

    def comparisons() -> list[Any]:
        drawn = np.random.default_rng(asked.dpo.seed).permutation(len(prompts))
        some = [prompts[i] for i in drawn[: asked.pairs]]
        texts = say(policy, prompts=some, samples=2, seed=asked.dpo.seed + 1)
        a, b = texts[::2], texts[1::2]
        found = compare_by_principles(critic, tokenizer, some, a, b, rules)
        return preferences_from(some, a, b, found.probability)

    made_of = [policy, critic, asked.pairs, asked.dpo.seed, *made_of]
    pairs = _once(out / "comparisons.jsonl", comparisons, made_of)
    # Under an adapter the policy is its own reference, as it is at the start.
    reference = None if isinstance(policy, PeftModel) else policy
    aligned = load_policy(first)
    loss = partial(soft_dpo_loss, beta=asked.beta)
    objective = SoftPairObjective(tokenizer, reference, loss)
    history = _stage(asked, "dpo", aligned, pairs, objective, asked.dpo)
    save(aligned, tokenizer, history, out)
    return history


def _prompts(asked: CAI) -> list[Any]:
    """Those of the file; of the embedded world, those of Lab 4."""
    prompts = rows_of(asked)[0]
    if asked.data not in SPLITS:
        return prompts
    items = safety.load_suite(SAFETY / "train.jsonl").items
    attacks = safety.load_attacks(SAFETY / "attacks.yaml", split="train")
    random = np.random.default_rng(asked.sft.seed)
    attacked = [
        safety.attacked(item, attacks[random.integers(len(attacks))], i)
        for i, item in enumerate(items)
        if item.kind == "harmful"
    ]
    return [*(item.prompt for item in items), *attacked, *prompts[:OTHERS]]


def _stage(
    asked: CAI,
    name: str,
    policy: Policy,
    rows: list[Any],
    objective: Objective,
    config: FitConfig,
) -> History:
    folder = Path(asked.out) / "checkpoint" / name
    config = replace(
        config,
        checkpoint=config.checkpoint or folder,
        save_every=config.save_every or 100,
    )
    with reporting(asked, name) as report:
        return fit(policy, rows, objective, config, report=report)


def _once(path: Path, make: Callable[[], list[Any]], made_of: list[Any]) -> list[Any]:
    """Rows that are made once and kept in a file, as long as they would be the same.

    All processes make the same; the main one writes.
    """
    made_of = [describe_start(x) if isinstance(x, Policy) else x for x in made_of]
    mark, known = path.with_suffix(".made_of"), digest(made_of)
    if path.exists() and mark.exists() and mark.read_text() == known:
        return load_preferences(path)
    rows = [
        row for row in make() if all(said(x).strip() for x in contents(row).values())
    ]
    processes().wait_for_everyone()
    if processes().is_main_process:
        save_preferences(rows, path)
        write_atomically(mark, known)
    processes().wait_for_everyone()
    return rows
