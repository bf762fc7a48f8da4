"""Studies of Lab 4: what variants of its recipe make of a policy.

The recipe and its measures are `cai_recipe`; nothing here sees a label of a person.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from labs_helpers import constitution as cai
from labs_helpers import safety
from labs_helpers.course.profile import load_profile
from labs_helpers.data import Preference, Prompt
from labs_helpers.evaluation import RewardJudge, TruthJudge, paired_difference, rate
from labs_helpers.fit import FitConfig, SoftRewardObjective, fit
from labs_helpers.models import Policy, RewardModel
from labs_helpers.rl import RLConfig, model_reward, train
from labs_helpers.rl.config import LEARNING_RATES
from labs_helpers.world import Gold, town_task
from labs_helpers.world.annotators import differing
from labs_helpers.world.prompts import prompts
from labs_tools.studies.cai_recipe import BETA, DATA, STAGES, Town, rules
from labs_tools.studies.measures import LONGEST, paired
from labs_tools.studies.study import Row, study

SEEDS = range(3)
WAYS: dict[str, dict[str, Any]] = {
    "one round": {},
    "two rounds": {"rounds": 2},
    "three rounds": {"rounds": 3},
    "as in the paper": {"each": 1, "always": True},
}
REWARD = FitConfig(lr=1e-3, batch_size=32, epochs=2, progress=False)
PPO = RLConfig(updates=40, max_new_tokens=LONGEST, kl_weight=BETA, progress=False)
BY_REWARD = (STAGES, REWARD, PPO, LEARNING_RATES)
SIZES = load_profile("tiny").sizes(4)
LAB = (SIZES.train_prompts, SIZES.pairs, SIZES.use_samples)


@study("revision_rounds", "town-xs", data=DATA, recipe=(STAGES, WAYS))
def revision_rounds() -> Iterator[Row]:
    """What more rounds do to a model trained on revisions, and what the paper's way.

    The paper draws one principle for an answer and revises it whatever the critique.
    Columns: way, seed, and those of `Measured.row`.
    """
    town = Town()
    for seed in SEEDS:
        unrevised = town.measured(town.sft, seed).row()
        yield {"way": "no revision", "seed": seed} | unrevised
        for way, options in WAYS.items():
            policy = town.sl_cai(town.sft, seed, **options)
            yield {"way": way, "seed": seed} | town.measured(policy, seed).row()


@study("second_iteration", "town-xs", data=DATA, recipe=STAGES)
def second_iteration() -> Iterator[Row]:
    """SL-CAI and RL-CAI, and both again from there, by two kinds of critics.

    In the second iteration the policy is critic and judge itself, or the supervised
    policy still is. Columns: stage, critic, seed, and those of `Measured.row`.
    """
    town = Town()
    for seed in SEEDS:
        supervised = town.sl_cai(town.sft, seed)
        aligned = town.rl_cai(supervised, seed)
        stages = {"SFT": town.sft, "SL-CAI": supervised, "RL-CAI": aligned}
        found = {(stage, "SFT"): policy for stage, policy in stages.items()}
        for name, critic in {"SFT": town.sft, "itself": aligned}.items():
            again = town.sl_cai(aligned, 100 + seed, critic)
            found["SL-CAI again", name] = again
            found["RL-CAI again", name] = town.rl_cai(again, 100 + seed, critic)
        for (stage, critic), policy in found.items():
            place = {"stage": stage, "critic": critic, "seed": seed}
            yield place | town.measured(policy, seed).row()


@study("rl_cai_ways", "town-xs", data=DATA, recipe=BY_REWARD)
def rl_cai_ways() -> Iterator[Row]:
    """RL-CAI by DPO, and by a reward model and PPO, on the same AI labels.

    Both seek the most reward less 0.1 of the KL from SL-CAI. Columns: way, seed, those
    of `Measured.row`, agrees (with gold, of what the policy was given to go by, on
    held-out pairs that SL-CAI answers differently) and seconds (of training).
    """
    town = Town()
    for seed in SEEDS:
        start = town.sl_cai(town.sft, seed)
        labels = town.ai_labels(start, seed)
        asked, a, b = _held_out_pairs(town, start, seed)
        judge = cai.ConstitutionJudge(town.sft, town.tokenizer, rules())
        began = time.perf_counter()
        policies = {"SL-CAI": start, "DPO": town.dpo(start, labels, seed)}
        times = {"SL-CAI": 0.0, "DPO": time.perf_counter() - began}
        verdicts = dict.fromkeys(policies, judge.compare(asked, a, b))
        began, way = time.perf_counter(), "reward model and PPO"
        reward_model = _reward_model(town, labels, seed)
        policies[way] = _ppo(town, start, reward_model, seed)
        times[way] = time.perf_counter() - began
        verdicts[way] = RewardJudge(reward_model).compare(asked, a, b)
        better = TruthJudge(Gold()).compare(asked, a, b)
        for way, policy in policies.items():
            yield {
                "way": way,
                "seed": seed,
                **town.measured(policy, seed).row(),
                "agrees": rate(verdicts[way] == better),
                "seconds": round(times[way], 1),
            }


def _held_out_pairs(
    town: Town, policy: Policy, seed: int
) -> tuple[list[Prompt], list[str], list[str]]:
    """Held-out prompts with two answers of different gold."""
    asked = prompts("test")
    texts = safety.answers_of(policy, town.tokenizer, asked, 2, seed=60 + seed)
    kept = differing(paired(asked, texts))
    return [x.prompt for x in kept], [x.a for x in kept], [x.b for x in kept]


def _reward_model(town: Town, rows: Sequence[Preference], seed: int) -> RewardModel:
    torch.manual_seed(seed)
    model = RewardModel.from_policy(town.sft, request=town_task().self_check)
    fit(model, rows, SoftRewardObjective(model), replace(REWARD, seed=seed))
    return model


def _ppo(town: Town, start: Policy, reward_model: RewardModel, seed: int) -> Policy:
    policy, asked = town.copy_of(start), town.red_team(seed)
    reward, config = model_reward(reward_model), replace(PPO, seed=seed)
    torch.manual_seed(seed)
    train(policy, asked, reward, config, tokenizer=town.tokenizer)
    return policy


@study("rl_cai_seeds", "town-s", data=DATA, recipe=(STAGES, LAB))
def rl_cai_seeds() -> Iterator[Row]:
    """The lab's RL-CAI with its own sizes on town-s, five seeds.

    Columns: seed; attack, over_refusal, helpfulness, capability and the rest of
    `Measured.row`; sft_attack; attack_beyond_half (attack success less half of SFT's),
    helpfulness_change, capability_change, paired with SFT.
    """
    town = Town("town-s", others=SIZES.train_prompts, pairs=SIZES.pairs)
    for seed in range(5):
        policy = town.rl_cai(town.sl_cai(town.sft, seed), seed)
        before, after = (
            town.measured(p, seed, SIZES.use_samples) for p in (town.sft, policy)
        )
        half = before.attacks.per_item() / 2
        yield {
            "seed": seed,
            **after.row(),
            "sft_attack": before.attacks.overall(),
            "attack_beyond_half": paired_difference(after.attacks.per_item(), half),
            "helpfulness_change": paired_difference(
                after.helpfulness, before.helpfulness
            ),
            "capability_change": paired_difference(after.capability, before.capability),
        }
