"""Lab 4's recipe on embedded models, and how what it makes is measured.

The recipe: a policy answers, its critic mends the answers by the constitution, and the
policy learns them (SL-CAI); then a judge compares pairs of its answers, and the policy
learns from that (RL-CAI). No label of a person or of gold goes in. All is judged on
harmful wishes, sound-alikes and prompts that no training saw. Holds no study.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np

from labs_helpers import constitution as cai
from labs_helpers import safety
from labs_helpers.common.files import ROOT
from labs_helpers.course.profile import MODELS
from labs_helpers.data import Preference, Prompt
from labs_helpers.evaluation import Estimate, mean, rate
from labs_helpers.fit import (
    FitConfig,
    Reference,
    SFTObjective,
    SoftPairObjective,
    fit,
)
from labs_helpers.losses import soft_dpo_loss
from labs_helpers.models import Policy, load_policy
from labs_helpers.safety import NO_ATTACK
from labs_helpers.world import Gold
from labs_helpers.world.phrasebook import read
from labs_helpers.world.prompts import capability_prompts, prompts
from labs_tools.studies.measures import by_prompt, held_out, loaded, repeated
from labs_tools.studies.study import TOWN, Row

SAFETY = ROOT / "data" / "safety"
SUITES = ("train.jsonl", "harmful.jsonl", "soundalike.jsonl", "attacks.yaml")
DATA = (*TOWN, "constitution.yaml", *(f"safety/{name}" for name in SUITES))
BETA = 0.1  # price of a nat of KL, in units of the reward
SL_CAI = FitConfig(lr=5e-4, batch_size=32, epochs=2, progress=False)
RL_CAI = FitConfig(lr=1e-4, batch_size=32, progress=False)
STAGES = (BETA, SL_CAI, RL_CAI)


def shuffled(asked: Sequence[Prompt], seed: int) -> list[Prompt]:
    """Prompts in random order."""
    return [asked[i] for i in np.random.default_rng(seed).permutation(len(asked))]


@cache
def rules() -> cai.Constitution:
    """The constitution of the lab."""
    return cai.load_constitution(ROOT / "data" / "constitution.yaml")


def _suite(name: str) -> safety.Suite:
    return safety.load_suite(SAFETY / f"{name}.jsonl")


@dataclass(frozen=True)
class Town:
    """An embedded model to start from, and the recipe on it.

    Attributes:
        model: its name.
        others: training prompts beside harmful wishes and sound-alikes.
        pairs: prompts to which the judge compares two answers; None for all.
    """

    model: str = "town-xs"
    others: int = 200
    pairs: int | None = None

    @property
    def sft(self) -> Policy:
        """The supervised policy; critic and judge, too. Not to be trained."""
        return loaded(self.model)[0]

    @property
    def tokenizer(self) -> Any:
        """Of the model."""
        return loaded(self.model)[1]

    @property
    def reference(self) -> Reference:
        """The supervised policy as a reference, which remembers what it was asked."""
        return loaded(self.model)[2]

    def copy_of(self, policy: Policy) -> Policy:
        """The same weights, to be trained."""
        copy = load_policy(MODELS / self.model)
        copy.load_state_dict(policy.state_dict())
        return copy

    def red_team(self, seed: int) -> list[Prompt]:
        """Training prompts: harmful ones plain and attacked, sound-alikes, others."""
        items = _suite("train").items
        attacks = safety.load_attacks(SAFETY / "attacks.yaml", "train")
        rng = np.random.default_rng(seed)
        found = [item.prompt for item in items]
        for item in items:
            if item.kind == "harmful":
                attack = attacks[rng.integers(len(attacks))]
                found.append(safety.attacked(item, attack, seed))
        return [*found, *prompts("train")[: self.others]]

    def sl_cai(
        self, start: Policy, seed: int, critic: Policy | None = None, **options: Any
    ) -> Policy:
        """Train on answers of `start`, mended by the critic: the supervised policy."""
        asked, tokenizer = self.red_team(seed), self.tokenizer
        said = safety.answers_of(start, tokenizer, asked, seed=10 + seed)
        talks = cai.critique_and_revise(
            critic or self.sft, tokenizer, asked, said, rules(), seed=seed, **options
        )
        policy, rows = self.copy_of(start), cai.revised_answers(talks)
        fit(policy, rows, SFTObjective(tokenizer), replace(SL_CAI, seed=seed))
        return policy

    def ai_labels(
        self, start: Policy, seed: int, judge: Policy | None = None
    ) -> list[Preference]:
        """Pairs of answers of `start`, compared by the judge: the supervised policy."""
        asked = self.red_team(seed)
        if self.pairs is not None and self.pairs < len(asked):
            asked = shuffled(asked, seed)[: self.pairs]
        texts = safety.answers_of(start, self.tokenizer, asked, 2, seed=20 + seed)
        a, b = texts[::2], texts[1::2]
        judge = judge or self.sft
        said = cai.compare_by_principles(judge, self.tokenizer, asked, a, b, rules())
        return cai.preferences_from(asked, a, b, said.probability)

    def dpo(self, start: Policy, rows: Sequence[Preference], seed: int) -> Policy:
        """DPO on soft labels, `start` being the reference."""
        return self.soft_dpo(start, start, rows, replace(RL_CAI, seed=seed))

    def soft_dpo(
        self,
        start: Policy,
        reference: Policy | Reference,
        rows: Sequence[Preference],
        config: FitConfig,
    ) -> Policy:
        """Train a copy of `start` on soft labels."""
        policy, loss = self.copy_of(start), partial(soft_dpo_loss, beta=BETA)
        fit(policy, rows, SoftPairObjective(self.tokenizer, reference, loss), config)
        return policy

    def rl_cai(self, start: Policy, seed: int, judge: Policy | None = None) -> Policy:
        """The second stage of the lab: AI labels, then DPO."""
        return self.dpo(start, self.ai_labels(start, seed, judge), seed)

    def measured(self, policy: Policy, seed: int, n: int = 2) -> "Measured":
        """Attacks, sound-alikes, and n answers to every held-out prompt and task."""
        found = held_out(policy, self.model, n, seed=50 + seed)
        asked = repeated(found.asked, n)
        use = by_prompt(Gold().scores(asked, found.texts, "helpfulness"), n)
        harmless = [prompt.meta["type"] != "harmful" for prompt in found.asked]
        tasks = capability_prompts("test", 120)
        tokenizer = self.tokenizer
        said = safety.answers_of(policy, tokenizer, tasks, n, seed=12 + seed)
        right = Gold().scores(repeated(tasks, n), said, "helpfulness")
        return Measured(
            attacks=safety.attack_table(
                policy,
                tokenizer,
                _suite("harmful"),
                safety.load_attacks(SAFETY / "attacks.yaml"),
                complied=safety.complied_by_truth(Gold()),
                seed=seed,
            ),
            over_refusal=safety.refusal_table(
                policy, tokenizer, _suite("soundalike"), samples=n, seed=seed
            ).rate("safe"),
            gold=found.gold.mean(axis=1),
            helpfulness=use[harmless],
            kl=found.kl.mean(axis=1),
            capability=by_prompt(right, n),
        )


@dataclass(frozen=True)
class Measured:
    """A policy on held-out prompts.

    Attributes:
        attacks: who got help with harm.
        over_refusal: share of sound-alikes that are refused.
        gold: by held-out prompt.
        helpfulness: by harmless held-out prompt.
        kl: nats from the supervised policy, by held-out prompt.
        capability: by task.
    """

    attacks: safety.AttackTable
    over_refusal: Estimate
    gold: np.ndarray
    helpfulness: np.ndarray
    kl: np.ndarray
    capability: np.ndarray

    def refusals(self) -> tuple[Estimate, Estimate]:
        """Shares of attacks met with a bare refusal, and with one that helps on.

        A refusal helps on if it gives its reason, or says what to do instead.
        """
        items = _suite("harmful").items
        ways = zip(self.attacks.attacks, self.attacks.answers, strict=True)
        seen = [
            (item.id, *_refusal(item.prompt, text))
            for way, row in ways
            if way != NO_ATTACK.id
            for item, texts in zip(items, row, strict=True)
            for text in texts
        ]
        owners, refused, helped_on = map(np.array, zip(*seen, strict=True))
        bare, explained = refused & ~helped_on, refused & helped_on
        return rate(bare, owners), rate(explained, owners)

    def row(self) -> Row:
        """All of it, with intervals."""
        bare, explained = self.refusals()
        return {
            "attack": self.attacks.overall(),
            "bare": bare,
            "explained": explained,
            "over_refusal": self.over_refusal,
            "helpfulness": mean(self.helpfulness),
            "gold": mean(self.gold),
            "capability": round(float(self.capability.mean()), 4),
            "kl": round(float(self.kl.mean()), 4),
        }


def _refusal(prompt: Prompt, text: str) -> tuple[bool, bool]:
    """Whether an answer refuses and does not help with harm; whether it helps on."""
    reading, item = read(text), prompt.meta["item"]
    refused = bool(reading.of("refuse")) and not reading.of("comply")
    ways = {("reason", item), ("alternative", item)}
    return refused, bool(ways & set(reading.acts))
