"""Studies of Lab 1: what data, margins, ensembles and training do to a reward model.

All on town-s, judged by gold on held-out prompts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from labs_helpers.course.profile import MODELS
from labs_helpers.data import Preference, Prompt
from labs_helpers.evaluation import (
    best_of_n,
    expected_right,
    mean,
    paired_difference,
    probability_gap,
    rate,
    toward_ceiling,
)
from labs_helpers.fit import FitConfig, RewardObjective, SFTObjective, fit
from labs_helpers.models import RewardModel, load_policy, load_tokenizer
from labs_helpers.sampling import sample
from labs_helpers.world import recorded
from labs_helpers.world.annotators import BIASED, UNBIASED, differing, known, label
from labs_helpers.world.gold import score
from labs_helpers.world.prompts import capability_prompts, prompts
from labs_helpers.world.task import town_task
from labs_tools.studies import Row, Study, columns

LR, BATCH = 1e-3, 64
NS = (1, 2, 4, 8, 16, 32, 64)
FEW = 100  # comparisons that the weak reward models see


def _policy():
    return load_policy(MODELS / "town-s")


def _fresh(lora: int | None = None) -> RewardModel:
    return RewardModel.from_policy(_policy(), lora=lora, request=town_task().self_check)


def _trained(
    rows: Sequence[Preference],
    seed: int,
    *,
    epochs: float = 1.0,
    batch_size: int = BATCH,
    lora: int | None = None,
    margin: bool = False,
    center_weight: float = 0.0,
) -> RewardModel:
    torch.manual_seed(seed)
    model = _fresh(lora)
    config = FitConfig(
        lr=LR, batch_size=batch_size, epochs=epochs, seed=seed, progress=False
    )
    fit(model, rows, RewardObjective(model, margin, center_weight), config)
    return model


def _margins(model: RewardModel, rows: Sequence[Preference]) -> np.ndarray:
    answers = [r.chosen[-1]["content"] for r in rows]
    answers += [r.rejected[-1]["content"] for r in rows]
    rewards = model.score([r.prompt for r in rows] * 2, answers)[:, 0].double().numpy()
    return rewards[: len(rows)] - rewards[len(rows) :]


@cache
def _held_out() -> tuple[tuple[Preference, ...], np.ndarray]:
    rows = label(differing(recorded.pairs("test"), n=2000), seed=100)
    return tuple(rows), known(rows)


def data_size() -> Iterator[Row]:
    """Way to the ceiling against the number of comparisons, three seeds each."""
    rows, p = _held_out()
    for size in (50, 150, 500, 1500, 3000):
        for seed in range(3):
            pairs = differing(recorded.pairs("train", seed=seed), n=size)
            epochs = max(1.0, min(10.0, 1000 / size))
            model = _trained(
                label(pairs, seed=seed), seed, epochs=epochs, batch_size=min(BATCH, 32)
            )
            way = toward_ceiling(expected_right(_margins(model, rows), p), p)
            yield {"comparisons": size, "seed": seed, **columns("covered", way)}


def margins() -> Iterator[Row]:
    """Plain, with a margin from the strength of preference, and centred."""
    rows, p = _held_out()
    for seed in range(3):
        pairs = differing(recorded.pairs("train", seed=seed), n=1500)
        labelled = [
            replace(row, margin=abs(_gold_gap(row))) for row in label(pairs, seed=seed)
        ]
        variants = {
            "plain": {},
            "margin": {"margin": True},
            "centred": {"center_weight": 0.01},
        }
        for name, options in variants.items():
            model = _trained(labelled, seed, **options)
            found = _margins(model, rows)
            level = model.score(
                [r.prompt for r in rows], [r.chosen[-1]["content"] for r in rows]
            )[:, 0]
            way = toward_ceiling(expected_right(found, p), p)
            gap = probability_gap(1 / (1 + np.exp(-found)), p)
            yield {
                "variant": name,
                "seed": seed,
                **columns("covered", way),
                **columns("gap", gap),
                "mean_reward": round(float(level.mean()), 4),
            }


def _gold_gap(row: Preference) -> float:
    prompt = Prompt(tuple(row.prompt), row.meta)
    sides = (row.chosen, row.rejected)
    a, b = (score(prompt, side[-1]["content"])["gold"] for side in sides)
    return a - b


class _Candidates:
    """64 answers to each held-out prompt, and what choosing among them is worth."""

    def __init__(self):
        policy, tokenizer = _policy(), load_tokenizer(MODELS / "town-s")
        asked = prompts("test")
        self.texts = sample(
            policy, tokenizer, asked, max_new_tokens=64, n=NS[-1], seed=11
        ).texts
        self.asked = [p for p in asked for _ in range(NS[-1])]
        worth = [
            score(p, t)["gold"] for p, t in zip(self.asked, self.texts, strict=True)
        ]
        self.gold = np.array(worth).reshape(len(asked), NS[-1])
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
                **columns("gold", mean(won[:, i])),
                "believed": round(float(believed[:, i].mean()), 5),
                **columns("lost", paired_difference(self.ideal[:, i], won[:, i])),
            }


def overoptimisation() -> Iterator[Row]:
    """Best of n up to 64 under reward models from few, more and all comparisons.

    One row for each proxy, seed and n: gold and proxy of the chosen answer, and what
    is lost against choosing by gold, paired over prompts.
    """
    candidates = _Candidates()
    weak = []
    for seed in range(5):
        pairs = recorded.pairs("train", FEW, seed=seed)
        model = _trained(label(pairs, [BIASED], seed), seed, epochs=10, batch_size=16)
        weak.append(candidates.rewards(model))
        yield from candidates.rows(f"{FEW} biased", seed, weak[-1])
    ensemble = np.mean([w / w.std() for w in weak], axis=0)
    yield from candidates.rows("ensemble of five", 0, ensemble)
    more = label(recorded.pairs("train", 2000, seed=9), [BIASED], 9)
    for name, rows in {
        "2000 biased": more,
        "5000 unbiased": label(differing(recorded.pairs("train"), n=5000), [UNBIASED]),
    }.items():
        yield from candidates.rows(name, 0, candidates.rewards(_trained(rows, 0)))
    yield from candidates.rows("gold", 0, candidates.gold)


def town_reward() -> Iterator[Row]:
    """Best of n up to 64 under town-s-reward, with the answers of overoptimisation."""
    candidates = _Candidates()
    model = RewardModel.from_pretrained(MODELS / "town-s-reward")
    yield from candidates.rows("town-s-reward", 0, candidates.rewards(model))


def alignment_tax() -> Iterator[Row]:
    """What training on the policy's own trunk costs the policy, by way of training."""
    rows, p = _held_out()
    pairs = differing(recorded.pairs("train", seed=1), n=1500)
    labelled = label(pairs, seed=1)
    yield {
        "training": "none",
        "seed": 0,
        **columns("covered", mean([0.0, 0.0])),
    } | _kept(_policy())
    for seed in range(3):
        for way, lora, mixed in (
            ("full", None, 0.0),
            ("LoRA", 8, 0.0),
            ("full, language-model loss mixed in", None, 0.5),
        ):
            torch.manual_seed(seed)
            model = _fresh(lora)
            objective = _Mixed(model, mixed) if mixed else RewardObjective(model)
            config = FitConfig(lr=LR, batch_size=BATCH, seed=seed, progress=False)
            fit(model, labelled, objective, config)
            covered = toward_ceiling(expected_right(_margins(model, rows), p), p)
            policy = _policy()
            trunk = model.trunk.merge_and_unload() if lora else model.trunk
            policy.model.load_state_dict(trunk.state_dict())
            yield {
                "training": way,
                "seed": seed,
                **columns("covered", covered),
            } | _kept(policy)


class _Mixed(RewardObjective):
    """Bradley-Terry plus the cross-entropy of the chosen answers on the same trunk."""

    def __init__(self, model: RewardModel, weight: float):
        super().__init__(model)
        self.weight = weight
        self.sft = SFTObjective(model.tokenizer)

    def encode(self, row: Preference) -> dict:
        return super().encode(row) | {"sft": self.sft.encode(row)}

    def loss(self, model, batch: list[dict]) -> tuple[Tensor, dict[str, float]]:
        loss, metrics = super().loss(model, batch)
        tokens = [torch.tensor(row["sft"]["tokens"]) for row in batch]
        answer = [torch.tensor(row["sft"]["answer"]) for row in batch]
        pad = torch.nn.utils.rnn.pad_sequence
        tokens, answer = pad(tokens, batch_first=True), pad(answer, batch_first=True)
        hidden = model.trunk(input_ids=tokens[:, :-1]).last_hidden_state
        counted = answer[:, 1:].bool()
        table = model.trunk.get_input_embeddings().weight
        language = F.cross_entropy(hidden[counted] @ table.T, tokens[:, 1:][counted])
        return loss + self.weight * language, metrics


def _kept(policy) -> Row:
    """Capability, and perplexity of held-out answers, of a policy."""
    tokenizer = load_tokenizer(MODELS / "town-s")
    asked = capability_prompts("test", 240)
    texts = sample(policy, tokenizer, asked, max_new_tokens=12, temperature=0).texts
    right = [score(q, t)["helpfulness"] == 1 for q, t in zip(asked, texts, strict=True)]
    objective = SFTObjective(tokenizer)
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
    return {
        **columns("capability", rate(right)),
        "perplexity": round(float(np.exp(np.mean(losses))), 4),
    }


STUDIES: dict[str, Study] = {
    "reward_data_size": data_size,
    "reward_margins": margins,
    "reward_overoptimisation": overoptimisation,
    "reward_of_the_town": town_reward,
    "reward_alignment_tax": alignment_tax,
}
