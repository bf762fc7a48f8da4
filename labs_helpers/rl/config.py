"""Settings of on-policy training, each with its reason. Knows no algorithm."""

from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from labs_helpers.common.settings import (
    Count,
    CountOrZero,
    NotNegative,
    Number,
    Positive,
    Seed,
    Share,
    Text,
    settings,
)
from labs_helpers.losses import Normaliser

# Every algorithm is the function of its name in `updates`; here its learning rate. PPO
# takes two steps where REINFORCE takes one; TRPO's is that of its values alone.
ALGORITHMS = {
    "reinforce": 3e-4, "rloo": 3e-4, "grpo": 3e-4, "actor_critic": 3e-4, "trpo": 1e-3,
    "ppo": 1.5e-4,
}  # fmt: skip
Algorithm = Literal[tuple(ALGORITHMS)]
GROUPED = ("rloo", "grpo")  # compare answers to one prompt with each other
# What may differ between a run and its resumption.
FREE = {"progress", "checkpoint", "save_every", "evaluate_every", "patience"}


@settings
class RLConfig:
    """How to train on a policy's own answers.

    Attributes:
        algorithm: the update rule; all else is shared.
        updates: rounds of sampling answers, scoring them and learning from them.
        samples: answers of a round; of every process, if there are several: N processes
            with S samples are one with N x S.
        answers: of these to each prompt; None is 4 where RLOO and GRPO compare them
            with each other, else 1.
        redraw: so often prompts whose answers all earn the same, from which their
            comparison learns nothing, give place to others in a round (DAPO, arXiv
            2503.14476, section 3.2); 0 leaves them.
        max_new_tokens: longest answer, its end token included.
        temperature: of sampling, and of every log-probability; above 0, for greedy
            answers have no probabilities to learn from.
        lr: Adam's learning rate; None takes what suits the algorithm.
        value_lr: that of the values' own weights, the head and a model of its own;
            None takes lr. A value model of its own can learn several times faster than
            the policy may: what it forgets spoils no answer.
        schedule: linear lets the learning rate, and the length of TRPO's step, fall to
            0 with the updates, so that the noise of single rounds averages out at the
            end.
        epochs: passes over a round's answers; None is 2 for PPO and TRPO's values, 1
            for RLOO and GRPO. REINFORCE and actor-critic make one, in one step: their
            gradient is right only once.
        minibatches: optimiser steps a pass.
        accumulate: parts that a step is computed in, to save memory; a CPU takes more
            where it is faster for it.
        kl_weight: price of a nat of KL from the reference, in units of the reward;
            token by token in the reward, which keeps what the reward cannot judge.
        kl_in: RLOO's and GRPO's place for it: the reward of an answer, by its sampled
            KL, or the loss of each token, by the k3 estimate, in units of the scaled
            advantages. None is the reward for RLOO and the loss for GRPO, where KL
            alone must not tell apart the answers of a group.
        kl_target: nats an answer that the price adapts to (arXiv 1909.08593, section
            2.2); None leaves it fixed.
        gamma: discount of a reward by the tokens until it comes.
        lam: GAE's lambda, 0 trusts the values, 1 the rewards alone. Where the reward
            comes at the end and values explain little of it, less than 1 takes credit
            from the first tokens, which decide most. Rules without values have none.
        clip: PPO's and GRPO's limit to a token's ratio, RLOO's to a whole answer's, and
            the limit to a value's move.
        clip_high: RLOO's and GRPO's limit above 1, if it is another than below: a
            larger one lets rare answers grow (DAPO, section 3.1).
        normaliser: what RLOO and GRPO divide a round's sum over tokens by: token, all
            tokens (DAPO); sequence, each answer's own, which spares long bad answers
            (GRPO, arXiv 2402.03300); constant, max_new_tokens (Dr. GRPO, arXiv
            2503.20783).
        kl_bound: TRPO's trust region, nats a token that the first update may move.
        value_weight: weight of the value loss.
        entropy_weight: bonus for a nat of entropy a token; below 0 it is a malus.
        missing_end_penalty: taken off the reward of an answer that had to be cut.
        whiten: scale advantages to mean 0 and variance 1, so that the learning rate
            does not depend on the reward's scale; over a round, in GRPO over each
            prompt's answers (False is Dr. GRPO's).
        dropout: leave dropout on in updates. The ratio then compares two random
            policies: only to see what that does.
        max_grad_norm: the gradient is scaled down to this norm.
        seed: order of the prompts, sampled answers, minibatches.
        evaluate_every: updates between calls of `evaluate`; 0 is at the end only.
        best_by: a figure of `evaluate`, with a minus before it where less is better:
            the policy ends with the weights of its best evaluation, not the last.
        patience: so many evaluations in a row without a better figure end the training.
        checkpoint: folder to save to, and to resume from where it has a checkpoint.
        save_every: updates between checkpoints; 0 is at the end only.
        progress: show a bar with the time left, the reward and the KL.
    """

    algorithm: Algorithm = "ppo"
    updates: Count = 100
    samples: Count = 64
    answers: Count | None = None
    redraw: CountOrZero = 0
    max_new_tokens: Count = 48
    temperature: Positive = 1.0
    lr: NotNegative | None = None
    value_lr: NotNegative | None = None
    schedule: Literal["linear", "constant"] = "linear"
    epochs: Count | None = None
    minibatches: Count = 1
    accumulate: Count = 1
    kl_weight: NotNegative = 0.03
    kl_in: Literal["reward", "loss"] | None = None
    kl_target: Positive | None = None
    gamma: Share = 1.0
    lam: Share = 1.0
    clip: Positive = 0.2
    clip_high: Positive | None = None
    normaliser: Normaliser = "token"
    kl_bound: Positive = 0.01
    value_weight: NotNegative = 0.1
    entropy_weight: Number = 0.0
    missing_end_penalty: NotNegative = 1.0
    whiten: bool = True
    dropout: bool = False
    max_grad_norm: Positive = 1.0
    seed: Seed = 0
    evaluate_every: CountOrZero = 0
    best_by: Text | None = None
    patience: Count | None = None
    checkpoint: str | Path | None = None
    save_every: CountOrZero = 0
    progress: bool = True

    def __post_init__(self):
        """Refuse what each setting allows and all together do not."""
        if self.minibatches * self.accumulate > self.samples:
            raise ValueError(
                f"{self.samples} samples cannot be cut into {self.minibatches} "
                f"minibatches of {self.accumulate} parts: take more samples or fewer "
                "parts"
            )
        if self.algorithm == "trpo" and self.entropy_weight:
            raise ValueError(
                "TRPO's step maximises the surrogate alone: leave entropy_weight at 0, "
                "or take algorithm='ppo'"
            )
        self._require_groups()

    def _require_groups(self) -> None:
        """Refuse groups that are none, and settings of groups where there are none."""
        grouped = self.algorithm in GROUPED
        if grouped and self.group < 2:
            raise ValueError(
                f"{self.algorithm} compares the answers to a prompt with each other: "
                "take answers=2 or more"
            )
        if self.samples % self.group:
            raise ValueError(
                f"{self.samples} samples are no whole number of prompts with "
                f"{self.group} answers each: take a multiple of {self.group}"
            )
        usual = {"kl_in": None, "clip_high": None, "normaliser": "token", "redraw": 0}
        set_ = [name for name, value in usual.items() if getattr(self, name) != value]
        if set_ and not grouped:
            raise ValueError(
                f"only {' and '.join(GROUPED)} read {', '.join(set_)}: leave it out of "
                f"the settings of {self.algorithm}"
            )

    @property
    def learning_rate(self) -> float:
        """The one given, or what suits the algorithm."""
        return ALGORITHMS[self.algorithm] if self.lr is None else self.lr

    @property
    def value_learning_rate(self) -> float:
        """The one given, or the policy's."""
        return self.learning_rate if self.value_lr is None else self.value_lr

    @property
    def learns_values(self) -> bool:
        """Whether the algorithm does; REINFORCE, RLOO and GRPO trust returns alone."""
        return self.algorithm not in ("reinforce", *GROUPED)

    @property
    def group(self) -> int:
        """Answers to each prompt."""
        return self.answers or (4 if self.algorithm in GROUPED else 1)

    @property
    def passes(self) -> int:
        """Over a round's answers."""
        return self.epochs or (1 if self.algorithm in GROUPED else 2)

    @property
    def takes_ratios(self) -> bool:
        """Whether a step can begin from other weights than answers were sampled with.

        Else every ratio is 1, and the sampler's log-probs do.
        """
        steps = self.passes * self.minibatches
        return self.learns_values or (self.algorithm in GROUPED and steps > 1)

    @property
    def kl_in_loss(self) -> bool:
        """Whether KL is priced in the loss, or in the reward."""
        return (
            self.kl_in or ("loss" if self.algorithm == "grpo" else "reward")
        ) == "loss"

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change between a run and its resumption."""
        names = [field.name for field in fields(self) if field.name not in FREE]
        return {name: getattr(self, name) for name in names}
