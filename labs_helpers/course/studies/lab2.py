"""Studies of Lab 2: what goals, beta, noise, losses and data do to a policy.

All on town-s, judged by gold on held-out prompts and phrasings.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import combinations
from typing import Any

import numpy as np

from labs_helpers.course.profile import MODELS
from labs_helpers.course.studies import Row, Study, columns
from labs_helpers.data import Preference, Unpaired
from labs_helpers.evaluation import (
    Estimate,
    WinRate,
    bradley_terry_ratings,
    length_controlled_win_rate,
    mean,
    paired_difference,
    win_rate,
)
from labs_helpers.fit import (
    FitConfig,
    KTOObjective,
    Objective,
    PairObjective,
    Reference,
    SLiCObjective,
    fit,
)
from labs_helpers.logprobs import rollout_kl
from labs_helpers.losses import dpo_loss, ipo_loss, kto_loss, slic_loss
from labs_helpers.models import load_policy, load_tokenizer
from labs_helpers.policies import Policy
from labs_helpers.sampling import Rollout, sample
from labs_helpers.task import Prompt
from labs_helpers.world.annotators import PANEL, Pair, label
from labs_helpers.world.goals import GOALS, Goal, other_pairs, sampled_pairs
from labs_helpers.world.gold import DIMENSIONS, score
from labs_helpers.world.prompts import capability_prompts, prompts

CAREFUL = PANEL[0]
MODEL = MODELS / "town-s"
# The recommended settings. They were chosen on the test prompts themselves, so that
# what is measured with them is a little too good.
BETA, LR, BATCH, EPOCHS = 0.1, 3e-4, 32, 1.5
# Pairs of the goal, and about everything else.
PAIRS = {"safety": 200, "helpfulness": 800, "humour": 150}
OTHERS = {"safety": 800, "helpfulness": 200, "humour": 800}
# Sweeps have many runs: half of the other pairs, in one pass.
SWEEP_OTHERS, SWEEP_EPOCHS = 400, 1.0


def settings(seed: int = 0, epochs: float = EPOCHS, lr: float = LR) -> FitConfig:
    """How every policy of these studies is trained, if nothing else is said."""
    return FitConfig(lr=lr, batch_size=BATCH, epochs=epochs, seed=seed, progress=False)


@cache
def _sft() -> tuple[Policy, Any, Reference]:
    """The policy that everything starts from, its tokenizer, and its memory."""
    policy = load_policy(MODEL)
    return policy, load_tokenizer(MODEL), Reference(policy)


def _answers(policy: Policy, asked: Sequence[Prompt], n: int, seed: int) -> Rollout:
    tokenizer = _sft()[1]
    return sample(policy, tokenizer, asked, max_new_tokens=64, n=n, seed=seed)


def _scores(asked: Sequence[Prompt], texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Every dimension and gold of answers, equally many to each prompt."""
    each = len(texts) // len(asked)
    found = [score(asked[i // each], text) for i, text in enumerate(texts)]
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def trained(
    rows: Sequence[Any], objective: Objective, config: FitConfig | None = None
) -> Policy:
    """A fresh copy of the SFT policy, trained."""
    policy = load_policy(MODEL)
    fit(policy, rows, objective, config or settings())
    return policy


def _pairwise(loss: Callable[..., Any], **options: Any) -> PairObjective:
    _, tokenizer, reference = _sft()
    return PairObjective(tokenizer, reference, partial(loss, **options))


def dpo(rows: Sequence[Preference], config: FitConfig | None = None, **options: Any):
    """DPO with the recommended beta, if no other is given."""
    return trained(rows, _pairwise(dpo_loss, **{"beta": BETA, **options}), config)


# Preference sets


@cache
def goal_pairs(goal: Goal, seed: int = 0) -> tuple[Pair, ...]:
    """On-policy pairs for a goal: sampled answers that differ in its dimension."""
    asked, n = goal.prompts("train", 300), PAIRS[goal.name]
    texts = _answers(_sft()[0], asked, 8, seed + 1).texts
    per_prompt = -(-3 * n // (2 * len(asked)))
    return tuple(sampled_pairs(asked, texts, goal.dimension, per_prompt, seed)[:n])


def other_rows(goal: Goal, seed: int = 0, n: int | None = None) -> list[Preference]:
    """Recorded pairs about everything else, compared as a whole."""
    n = OTHERS[goal.name] if n is None else n
    return label(other_pairs(goal, n, seed), [CAREFUL], seed)


def goal_rows(goal: Goal, seed: int = 0) -> list[Preference]:
    """A goal's pairs, compared in its dimension."""
    return label(goal_pairs(goal, seed), [CAREFUL], seed, goal.dimension)


# Measures


@dataclass(frozen=True)
class Measured:
    """What a policy's held-out answers are worth, beside the SFT policy's."""

    win: WinRate
    kl: Estimate
    gain: Estimate
    falls: dict[str, Estimate]

    @property
    def row(self) -> Row:
        """As columns of a study."""
        found = {
            **columns("win", self.win),
            **columns("decided", self.win.without_ties),
            **columns("kl", self.kl),
            **columns("gain", self.gain),
        }
        for name, estimate in self.falls.items():
            found |= columns(f"change_{name}", estimate)
        return found


@cache
def _baseline(asked: tuple[Prompt, ...], n: int, seed: int) -> dict[str, np.ndarray]:
    return _scores(asked, _answers(_sft()[0], asked, n, seed).texts)


def measured(policy: Policy, goal: Goal, wide: bool = True) -> Measured:
    """Win rate and gain on the goal, KL there, other dimensions on all prompts.

    Args:
        policy: that was trained.
        goal: on whose prompts and dimension it is to win.
        wide: look at the other dimensions too, which takes the longest.
    """
    asked = tuple(goal.prompts("test", 200))
    n = max(2, 200 // len(asked))
    drawn = _answers(policy, asked, n, seed=5)
    cluster = np.repeat(np.arange(len(asked)), n)
    own = _scores(asked, drawn.texts)[goal.dimension]
    start = _baseline(asked, n, 1005)[goal.dimension]
    outcomes = 0.5 + 0.5 * np.sign(own - start)
    kl = rollout_kl(policy, _sft()[0], drawn).numpy()
    falls = {}
    if wide:
        everything, n = tuple(prompts("test")[:160]), 4
        new = _scores(everything, _answers(policy, everything, n, seed=6).texts)
        old = _baseline(everything, 8, 1006)
        for name in (*DIMENSIONS, "gold"):
            of_prompt = [
                x[name].reshape(len(everything), -1).mean(1) for x in (new, old)
            ]
            falls[name] = paired_difference(*of_prompt)
    return Measured(
        win_rate(outcomes, cluster),
        mean(kl, cluster),
        paired_difference(own, start, cluster),
        falls,
    )


# What the lab draws


def goals() -> Iterator[Row]:
    """Every goal with the recommended settings: what it wins, what else changes."""
    for seed in range(3):
        for name in ("helpfulness", "humour", "safety"):
            goal = GOALS[name]
            rows = goal_rows(goal, seed) + other_rows(goal, seed)
            found = measured(dpo(rows, settings(seed)), goal)
            yield {"goal": name, "pairs": len(rows), "seed": seed} | found.row


def beta_sweep() -> Iterator[Row]:
    """Win rate, KL and gain of the goal of safety by beta."""
    goal = GOALS["safety"]
    for seed in range(3):
        rows = _sweep_rows(goal, seed)
        for beta in (0.02, 0.1, 0.5, 2.0):
            policy = dpo(rows, _sweep(seed), beta=beta)
            found = measured(policy, goal, wide=False)
            yield {"beta": beta, "seed": seed} | found.row


def _sweep_rows(goal: Goal, seed: int) -> list[Preference]:
    return goal_rows(goal, seed) + other_rows(goal, seed, SWEEP_OTHERS)


def _sweep(seed: int) -> FitConfig:
    return settings(seed, SWEEP_EPOCHS)


def _with_flips(
    rows: Sequence[Preference], share: float, seed: int
) -> list[Preference]:
    draws = np.random.default_rng(seed).random(len(rows))
    return [
        replace(row, chosen=row.rejected, rejected=row.chosen) if d < share else row
        for row, d in zip(rows, draws, strict=True)
    ]


def label_noise() -> Iterator[Row]:
    """30 % of the labels flipped, without and with label smoothing."""
    goal = GOALS["safety"]
    for seed in range(3):
        clean = _sweep_rows(goal, seed)
        for share, smoothing in ((0.0, 0.0), (0.3, 0.0), (0.3, 0.3)):
            rows = _with_flips(clean, share, seed)
            policy = dpo(rows, _sweep(seed), label_smoothing=smoothing)
            found = measured(policy, goal, wide=False)
            yield {"flipped": share, "smoothing": smoothing, "seed": seed} | found.row


def _unpaired(rows: Sequence[Preference]) -> list[Unpaired]:
    return [
        Unpaired(row.prompt, getattr(row, side), side == "chosen", dict(row.meta))
        for row in rows
        for side in ("chosen", "rejected")
    ]


def few_desirable() -> Iterator[Row]:
    """KTO with all desirable answers, with a tenth, and with a tenth weighted up."""
    goal = GOALS["safety"]
    _, tokenizer, reference = _sft()
    for seed in range(3):
        rows = _unpaired(_sweep_rows(goal, seed))
        draws = np.random.default_rng(seed).random(len(rows))
        tenth = [
            row for row, d in zip(rows, draws, strict=True) if not row.label or d < 0.1
        ]
        for name, kept, weight in (
            ("all", rows, 1.0),
            ("a tenth", tenth, 1.0),
            ("a tenth, weighted", tenth, 10.0),
        ):
            loss = partial(kto_loss, beta=BETA, desirable_weight=weight)
            objective = KTOObjective(tokenizer, reference, loss)
            found = measured(trained(kept, objective, _sweep(seed)), goal, wide=False)
            yield {
                "desirable": name,
                "answers": len(kept),
                "desirable_weight": weight,
                "undesirable_weight": 1.0,
                "seed": seed,
            } | found.row


def pair_sources() -> Iterator[Row]:
    """Pairs of the policy's own answers, against those of a smaller model."""
    goal = GOALS["safety"]
    _, tokenizer, _ = _sft()
    asked = goal.prompts("train", 250)
    stranger = load_policy(MODELS / "town-xs")
    for seed in range(3):
        theirs = sample(
            stranger, tokenizer, asked, max_new_tokens=64, n=8, seed=seed + 1
        )
        own = goal_rows(goal, seed)
        pairs = sampled_pairs(asked, theirs.texts, goal.dimension, 4, seed)[: len(own)]
        off_policy = label(pairs, [CAREFUL], seed, goal.dimension)
        for source, rows in (("on-policy", own), ("off-policy", off_policy)):
            policy = dpo(rows + other_rows(goal, seed, SWEEP_OTHERS), _sweep(seed))
            found = measured(policy, goal, wide=False)
            yield {"pairs": source, "goal_pairs": len(rows), "seed": seed} | found.row


def variants() -> Iterator[Row]:
    """Ratings, win rates at equal length and alignment tax of every loss."""
    goal = GOALS["safety"]
    sft, tokenizer, reference = _sft()
    rows = goal_rows(goal) + other_rows(goal)
    policies = {
        "SFT": sft,
        "DPO": dpo(rows),
        "IPO": trained(rows, _pairwise(ipo_loss, beta=BETA)),
        "KTO": trained(
            _unpaired(rows),
            KTOObjective(tokenizer, reference, partial(kto_loss, beta=BETA)),
        ),
        "SLiC": trained(
            rows, SLiCObjective(tokenizer, partial(slic_loss, delta=2.0, weight=0.1))
        ),
    }
    asked, n = goal.prompts("test"), 8
    drawn = {
        name: _answers(policy, asked, n, seed=20 + i)
        for i, (name, policy) in enumerate(policies.items())
    }
    worth = {name: _scores(asked, d.texts)[goal.dimension] for name, d in drawn.items()}
    words = {name: [len(t.split()) for t in d.texts] for name, d in drawn.items()}
    cluster = np.repeat(np.arange(len(asked)), n)

    def outcomes(a: str, b: str) -> np.ndarray:
        return 0.5 + 0.5 * np.sign(worth[a] - worth[b])

    rated = bradley_terry_ratings(
        {
            (a, b): outcomes(a, b).reshape(-1, n).mean(1)
            for a, b in combinations(policies, 2)
        },
        baseline="SFT",
    )
    for name, policy in policies.items():
        won = outcomes(name, "SFT")
        equal = length_controlled_win_rate(won, words[name], words["SFT"], cluster)
        yield {
            "loss": name,
            **columns("rating", rated[name]),
            **columns("win", win_rate(won, cluster)),
            **columns("win_equal_length", equal),
            **columns("words", mean(words[name], cluster)),
            **columns("capability", _capability(policy)),
            **columns("gold_elsewhere", _elsewhere(policy, goal)),
        }


def _capability(policy: Policy) -> Estimate:
    asked = capability_prompts("test", 240)
    texts = _answers(policy, asked, 1, seed=7).texts
    return mean(_scores(asked, texts)["helpfulness"] == 1)


def _elsewhere(policy: Policy, goal: Goal) -> Estimate:
    """Gold of answers to what the goal is not about."""
    asked = [p for p in prompts("test") if p.meta["type"] not in goal.kinds]
    texts = _answers(policy, asked, 4, seed=8).texts
    return mean(_scores(asked, texts)["gold"], np.repeat(np.arange(len(asked)), 4))


STUDIES: dict[str, Study] = {
    "dpo_goals": goals,
    "dpo_beta": beta_sweep,
    "dpo_noise": label_noise,
    "kto_few_desirable": few_desirable,
    "dpo_pair_sources": pair_sources,
    "dpo_variants": variants,
}
