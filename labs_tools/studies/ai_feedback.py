"""Studies of AI feedback: against people at equal labels, and with critiques first.

Pairs are answers of an embedded model to Lab 4's training prompts, of different gold;
people are simulated. Gold says who is right, and what DPO made of the labels.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.special import expit, logit

from labs_helpers import constitution as cai
from labs_helpers import safety
from labs_helpers.data import Preference
from labs_helpers.evaluation import BothOrders, paired_difference, rate
from labs_helpers.fit import FitConfig
from labs_helpers.world import Gold, Pair
from labs_helpers.world.annotators import PANEL, differing, probabilities, votes
from labs_tools.studies.cai_recipe import BETA, DATA, Town, rules, shuffled
from labs_tools.studies.measures import paired
from labs_tools.studies.study import Row, study

SEEDS = range(3)
LABELS = (50, 150, 400)
PAIRS = 150  # for a judge to compare
PEOPLE = {who.name: who for who in PANEL if who.name in ("careful", "careless")}
CONFIG = FitConfig(lr=2e-4, batch_size=32, epochs=2, progress=False)
EDGE = 1e-9  # a probability this near to 0 or 1 is taken as it


@study("rlaif_vs_rlhf", "town-xs", "town-s", data=DATA, recipe=(BETA, CONFIG, LABELS))
def rlaif_vs_rlhf() -> Iterator[Row]:
    """Labels of an AI judge and of simulated people on the same pairs, and DPO on them.

    The AI labels are soft and both orders are asked; a person says which answer is
    better. Columns: labels (their number), labeller, seed, agrees (with gold), those of
    `Measured.row`; gold_change (since SFT, by prompt).
    """
    town, larger = Town("town-xs"), Town("town-s")
    for seed in SEEDS:
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
                config = replace(CONFIG, seed=seed)
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
