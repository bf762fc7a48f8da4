"""Studies of Lab 4: variants of its recipe, and AI feedback beside that of people.

The recipe and its measures are `cai_recipe`; people are simulated, and only where they
are compared with.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.special import expit, logit

from labs_helpers import constitution as cai
from labs_helpers import safety
from labs_helpers.course.profile import load_profile
from labs_helpers.data import Preference
from labs_helpers.evaluation import (
    BothOrders,
    RewardJudge,
    TruthJudge,
    paired_difference,
    rate,
)
from labs_helpers.fit import FitConfig, SoftRewardObjective, fit
from labs_helpers.models import Policy, RewardModel
from labs_helpers.rl import RLConfig, model_reward, train
from labs_helpers.rl.config import ALGORITHMS as LEARNING_RATES
from labs_helpers.world import Gold, Pair, town_task
from labs_helpers.world.annotators import PANEL, differing, probabilities, votes
from labs_helpers.world.prompts import prompts
from labs_tools.studies.cai_recipe import BETA, DATA, STAGES, Town, rules, shuffled
from labs_tools.studies.measures import LONGEST, paired
from labs_tools.studies.study import Row, each, study

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
LABELS = (50, 150, 400)
PAIRS = 150  # for a judge to compare
PEOPLE = {who.name: who for who in PANEL if who.name in ("careful", "careless")}
FEEDBACK = FitConfig(lr=2e-4, batch_size=32, epochs=2, progress=False)
EDGE = 1e-9  # a probability this near to 0 or 1 is taken as it


@study("revision_rounds", "town-xs", data=DATA, recipe=(STAGES, WAYS))
def revision_rounds() -> Iterator[Row]:
    """What more rounds do to a model trained on revisions, and what the paper's way.

    The paper draws one principle for an answer and revises it whatever the critique.
    Columns: way, seed, and those of `Measured.row`.
    """
    town = Town()
    for seed in each(SEEDS):
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
    for seed in each(SEEDS):
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
    town, held_out = Town(), prompts("test")
    for seed in each(SEEDS):
        start = town.sl_cai(town.sft, seed)
        labels = town.ai_labels(start, seed)
        texts = safety.answers_of(start, town.tokenizer, held_out, 2, seed=60 + seed)
        (asked, a), (_, b) = _sides(differing(paired(held_out, texts)))
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
    for seed in each(range(5)):
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


@study("rlaif_vs_rlhf", "town-xs", "town-s", data=DATA, recipe=(BETA, FEEDBACK, LABELS))
def rlaif_vs_rlhf() -> Iterator[Row]:
    """Labels of an AI judge and of simulated people on the same pairs, and DPO on them.

    The AI labels are soft and both orders are asked; a person says which answer is
    better. Columns: labels (their number), labeller, seed, agrees (with gold), those of
    `Measured.row`; gold_change (since SFT, by prompt).
    """
    town, larger = Town("town-xs"), Town("town-s")
    for seed in each(SEEDS):
        before = town.measured(town.sft, seed)
        pairs = compared(town, seed, max(LABELS))
        better = _better(pairs)
        people = {f"simulated, {x}": votes(pairs, PEOPLE[x], seed) for x in PEOPLE}
        stated = {
            "AI, the same model": _by_principles(town, pairs).probability,
            "AI, a larger model": _by_principles(larger, pairs).probability,
            **people,
        }
        for n in LABELS:
            for labeller, label in stated.items():
                rows = _labelled(pairs[:n], label[:n])
                config = replace(FEEDBACK, seed=seed)
                policy = town.soft_dpo(town.sft, town.reference, rows, config)
                after = town.measured(policy, seed)
                yield {
                    "labels": n,
                    "labeller": labeller,
                    "seed": seed,
                    "agrees": rate((label[:n] > 0.5) == better[:n]),
                    **after.row(),
                    "gold_change": paired_difference(after.gold, before.gold),
                }


@study("chain_of_thought", "town-xs", "town-s", data=DATA, recipe=PAIRS)
def chain_of_thought() -> Iterator[Row]:
    """A judge that compares at once, writes critiques first, or only criticises.

    Three ways to a label: the comparison alone; a critique of each answer, then the
    comparison, in one conversation; and no comparison, only how likely each critique
    finds the principle kept. Columns: model, way, seed, one_order and both_orders
    (agreement with gold), first_wins and turns (position bias, and verdicts that turn
    with the order, of the principles together), careless (agreement of a careless
    simulated person).
    """
    for model in ("town-xs", "town-s"):
        town = Town(model)
        for seed in SEEDS:
            pairs = compared(town, seed, PAIRS)
            better = _better(pairs)
            chance = probabilities(pairs, [PEOPLE["careless"]])
            careless = rate(np.where(better, chance, 1 - chance))
            ways = {
                "compares": _orders(_by_principles(town, pairs)),
                "critiques, then compares": _orders(
                    _by_principles(town, pairs, critiques_first=True)
                ),
                "critiques alone": _critiques_alone(town, pairs),
            }
            for way, said in ways.items():
                both = expit((logit_of(said.a_first) + logit_of(said.a_second)) / 2)
                yield {
                    "model": model,
                    "way": way,
                    "seed": seed,
                    "one_order": rate((said.a_first > 0.5) == better),
                    "both_orders": rate((both > 0.5) == better),
                    "first_wins": said.position_bias,
                    "turns": said.disagreement,
                    "careless": careless,
                }


def compared(town: Town, seed: int, n: int) -> list[Pair]:
    """At most n pairs of different gold, in random order of the prompts."""
    asked = shuffled(town.red_team(seed), seed)
    texts = safety.answers_of(town.sft, town.tokenizer, asked, 2, seed=30 + seed)
    return differing(paired(asked, texts), n=n)


def logit_of(probability: np.ndarray) -> np.ndarray:
    """Log-odds, finite at 0 and 1."""
    return logit(np.clip(probability, EDGE, 1 - EDGE))


def _better(pairs: list[Pair]) -> np.ndarray:
    """Whether gold prefers a."""
    a, b = (Gold().scores(*side) for side in _sides(pairs))
    return a > b


def _sides(pairs: list[Pair]) -> list[tuple[list, list]]:
    asked = [pair.prompt for pair in pairs]
    return [(asked, [pair.a for pair in pairs]), (asked, [pair.b for pair in pairs])]


def _by_principles(town: Town, pairs: list[Pair], **options: bool) -> cai.Comparisons:
    (asked, a), (_, b) = _sides(pairs)
    return cai.compare_by_principles(
        town.sft, town.tokenizer, asked, a, b, rules(), **options
    )


def _orders(said: cai.Comparisons) -> BothOrders:
    """The principles' log-odds added up, in either order."""
    first, second = (
        np.diff(x)[..., 0].sum(axis=0) for x in (said.a_shown_first, said.b_shown_first)
    )
    return BothOrders(expit(-first), expit(second))


def _critiques_alone(town: Town, pairs: list[Pair]) -> BothOrders:
    """The log-odds that a keeps each principle, less those of b: there is no order."""
    judged = [
        cai.judge_by_principles(town.sft, town.tokenizer, *side, rules())
        for side in _sides(pairs)
    ]
    a, b = (logit_of(kept).sum(axis=0) for kept in judged)
    return BothOrders(expit(a - b), expit(a - b))


def _labelled(pairs: list[Pair], label: np.ndarray) -> list[Preference]:
    (asked, a), (_, b) = _sides(pairs)
    return cai.preferences_from(asked, a, b, label)
