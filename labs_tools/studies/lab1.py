"""Studies of Lab 1: what data, margins, ensembles and training do to a reward model.

All on town-s, judged by gold on held-out prompts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from labs_helpers import evaluation
from labs_helpers.course.profile import MODELS
from labs_helpers.data import Preference, Prompt
from labs_helpers.evaluation import Estimate, best_of_n, mean
from labs_helpers.fit import FitConfig, RewardObjective, SFTObjective, fit
from labs_helpers.models import Policy, RewardModel, load_policy
from labs_helpers.sampling import sample
from labs_helpers.world import Gold, recorded, town_task
from labs_helpers.world.annotators import BIASED, UNBIASED, differing, known, label
from labs_helpers.world.prompts import prompts
from labs_tools.studies.measures import LONGEST, capability, loaded, repeated
from labs_tools.studies.study import RECORDED, Row, each, study
from labs_tools.town.build import TownObjective
from labs_tools.town.rankings import Speaking

CONFIG = FitConfig(lr=1e-3, batch_size=64, progress=False)
COMPARISONS = (50, 150, 500, 1500, 3000)
VARIANTS = {"plain": {}, "margin": {"margin": True}, "centred": {"center_weight": 0.01}}
# Name, rank of an adapter, and weight of a language-model loss that is mixed in.
TRAININGS = (
    ("full", None, 0.0),
    ("LoRA", 8, 0.0),
    ("full, language-model loss mixed in", None, 0.5),
)
NS = (1, 2, 4, 8, 16, 32, 64)
FEW = 100  # comparisons that the weak reward models see


def _fresh(lora: int | None = None) -> RewardModel:
    policy = loaded("town-s")[0]
    return RewardModel.from_policy(policy, lora=lora, request=town_task().self_check)


def _trained(
    rows: Sequence[Preference], config: FitConfig, **options: Any
) -> RewardModel:
    torch.manual_seed(config.seed)
    model = _fresh()
    fit(model, rows, RewardObjective(model, **options), config)
    return model


def _rewards(model: RewardModel, rows: Sequence[Preference], side: str) -> np.ndarray:
    answers = [getattr(row, side)[-1]["content"] for row in rows]
    return model.score([r.prompt for r in rows], answers)[:, 0].double().numpy()


def _margins(model: RewardModel, rows: Sequence[Preference]) -> np.ndarray:
    return _rewards(model, rows, "chosen") - _rewards(model, rows, "rejected")


@cache
def _held_out() -> tuple[tuple[Preference, ...], np.ndarray]:
    rows = label(differing(recorded.pairs("test"), n=2000), seed=100)
    return tuple(rows), known(rows)


def _covered(margins: np.ndarray) -> Estimate:
    """The way to the Bayes ceiling, of margins between held-out answers."""
    _, p = _held_out()
    return evaluation.toward_ceiling(evaluation.expected_right(margins, p), p)


@study("reward_data_size", "town-s", data=RECORDED, recipe=(CONFIG, COMPARISONS))
def data_size() -> Iterator[Row]:
    """Way to the ceiling against the number of comparisons, three seeds each."""
    rows, _ = _held_out()
    for size in COMPARISONS:
        for seed in range(3):
            pairs = differing(recorded.pairs("train", seed=seed), n=size)
            epochs = max(1.0, min(10.0, 1000 / size))
            config = replace(CONFIG, batch_size=32, epochs=epochs, seed=seed)
            model = _trained(label(pairs, seed=seed), config)
            way = _covered(_margins(model, rows))
            yield {"comparisons": size, "seed": seed, "covered": way}


@study("reward_margins", "town-s", data=RECORDED, recipe=(CONFIG, VARIANTS))
def margins() -> Iterator[Row]:
    """Plain, with a margin from the strength of preference, and centred."""
    rows, p = _held_out()
    for seed in each(range(3)):
        pairs = differing(recorded.pairs("train", seed=seed), n=1500)
        labelled = [
            replace(row, margin=abs(_gold_gap(row))) for row in label(pairs, seed=seed)
        ]
        for name, options in VARIANTS.items():
            model = _trained(labelled, replace(CONFIG, seed=seed), **options)
            found = _margins(model, rows)
            yield {
                "variant": name,
                "seed": seed,
                "covered": _covered(found),
                "gap": evaluation.probability_gap(expit(found), p),
                "mean_reward": round(_rewards(model, rows, "chosen").mean(), 4),
            }


def _gold_gap(row: Preference) -> float:
    asked = [Prompt(tuple(row.prompt), row.meta)] * 2
    said = [side[-1]["content"] for side in (row.chosen, row.rejected)]
    return float(np.subtract(*Gold().scores(asked, said)))


class _Candidates:
    """64 answers to each held-out prompt, and what choosing among them is worth."""

    def __init__(self):
        (policy, tokenizer, _), asked, n = loaded("town-s"), prompts("test"), NS[-1]
        drawn = sample(policy, tokenizer, asked, max_new_tokens=LONGEST, n=n, seed=11)
        self.asked, self.texts = repeated(asked, n), drawn.texts
        self.gold = Gold().scores(self.asked, self.texts).reshape(len(asked), n)
        self.ideal = best_of_n(self.gold, self.gold, NS)

    def rewards(self, model: RewardModel) -> np.ndarray:
        """What a model thinks of them: a row for each prompt."""
        rewards = model.score(self.asked, self.texts)[:, 0]
        return rewards.double().numpy().reshape(self.gold.shape)

    def rows(self, name: str, seed: int, proxy: np.ndarray) -> Iterator[Row]:
        """One row for each n: gold and proxy of the chosen answer, and gold lost."""
        standard = (proxy - proxy.mean()) / proxy.std()
        won = best_of_n(proxy, self.gold, NS)
        believed = best_of_n(proxy, standard, NS)
        for i, n in enumerate(NS):
            yield {
                "proxy": name,
                "seed": seed,
                "n": n,
                "gold": mean(won[:, i]),
                "believed": round(float(believed[:, i].mean()), 5),
                "lost": evaluation.paired_difference(self.ideal[:, i], won[:, i]),
            }


@study("reward_overoptimisation", "town-s", data=RECORDED, recipe=(CONFIG, NS, FEW))
def overoptimisation() -> Iterator[Row]:
    """Best of n up to 64 under reward models from few, more and all comparisons.

    One row for each proxy, seed and n: gold and proxy of the chosen answer, and what
    is lost against choosing by gold, paired over prompts.
    """
    candidates = _Candidates()
    weak = []
    for seed in range(5):
        pairs = recorded.pairs("train", FEW, seed=seed)
        config = replace(CONFIG, batch_size=16, epochs=10, seed=seed)
        model = _trained(label(pairs, [BIASED], seed), config)
        weak.append(candidates.rewards(model))
        yield from candidates.rows(f"{FEW} biased", seed, weak[-1])
    ensemble = np.mean([w / w.std() for w in weak], axis=0)
    yield from candidates.rows("ensemble of five", 0, ensemble)
    biased = label(recorded.pairs("train", 2000, seed=9), [BIASED], 9)
    unbiased = label(differing(recorded.pairs("train"), n=5000), [UNBIASED])
    for name, rows in {"2000 biased": biased, "5000 unbiased": unbiased}.items():
        yield from candidates.rows(name, 0, candidates.rewards(_trained(rows, CONFIG)))
    yield from candidates.rows("gold", 0, candidates.gold)


@study("reward_of_the_town", "town-s", "town-s-reward", recipe=NS)
def town_reward() -> Iterator[Row]:
    """Best of n up to 64 under town-s-reward, with the answers of overoptimisation."""
    candidates = _Candidates()
    model = RewardModel.from_pretrained(MODELS / "town-s-reward")
    yield from candidates.rows("town-s-reward", 0, candidates.rewards(model))


@study("reward_alignment_tax", "town-s", data=RECORDED, recipe=(CONFIG, TRAININGS))
def alignment_tax() -> Iterator[Row]:
    """What training on the policy's own trunk costs the policy, by way of training."""
    rows, _ = _held_out()
    labelled = label(differing(recorded.pairs("train", seed=1), n=1500), seed=1)
    start = {"training": "none", "seed": 0, "covered": mean([0.0, 0.0])}
    yield start | _kept(loaded("town-s")[0])
    for seed in range(3):
        for way, lora, mixed in TRAININGS:
            torch.manual_seed(seed)
            model = _fresh(lora)
            objective = _Mixed(model, mixed) if mixed else RewardObjective(model)
            fit(model, labelled, objective, replace(CONFIG, seed=seed))
            covered = _covered(_margins(model, rows))
            policy = load_policy(MODELS / "town-s")
            trunk = model.trunk.merge_and_unload() if lora else model.trunk
            policy.model.load_state_dict(trunk.state_dict())
            yield {"training": way, "seed": seed, "covered": covered} | _kept(policy)


class _Mixed(RewardObjective):
    """Bradley-Terry plus the cross-entropy of the chosen answers on the same trunk."""

    def __init__(self, model: RewardModel, weight: float):
        super().__init__(model)
        self.weight = weight
        self.speech = TownObjective(model.tokenizer)

    def encode(self, row: Preference) -> dict:
        talk = self.speech.encode([*row.prompt, *row.chosen])
        return super().encode(row) | {"talk": talk}

    def loss(self, model, batch: list[dict], whole: Any = None) -> tuple[Tensor, dict]:
        loss, metrics = super().loss(model, batch, whole)
        talks = [row["talk"] for row in batch]
        spoken, _ = self.speech.loss(Speaking(model), talks)
        return loss + self.weight * spoken, metrics


def _kept(policy: Policy) -> Row:
    """Capability, and perplexity of held-out answers, of a policy."""
    objective = SFTObjective(loaded("town-s")[1])
    rows = [
        objective.encode([*prompt.messages, {"role": "assistant", "content": answer}])
        for prompt, answers in recorded.recorded_answers("test")
        for answer in answers[:2]
    ]
    with torch.no_grad():
        losses = [
            objective.loss(policy, rows[i : i + 64])[0].item()
            for i in range(0, len(rows), 64)
        ]
    perplexity = round(float(np.exp(np.mean(losses))), 4)
    return {"capability": capability(policy, "town-s"), "perplexity": perplexity}
