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

# Every algorithm is the function of its name in `updates`; here its learning rate. PPO
# takes two steps where REINFORCE takes one; TRPO's is that of its values alone.
ALGORITHMS = {"reinforce": 3e-4, "actor_critic": 3e-4, "trpo": 1e-3, "ppo": 1.5e-4}
Algorithm = Literal[tuple(ALGORITHMS)]
# What may differ between a run and its resumption.
FREE = {"progress", "checkpoint", "save_every", "evaluate_every", "patience"}


@settings
class RLConfig:
    """How to train on a policy's own answers.

    Attributes:
        algorithm: the update rule; all else is shared.
        updates: rounds of sampling answers, scoring them and learning from them.
        samples: answers of a round, one prompt each; of every process, if there are
            several: N processes with S samples are one with N x S.
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
        epochs: passes over a round's answers (PPO; TRPO's values). REINFORCE and
            actor-critic make one, in one step: their gradient is right only once.
        minibatches: optimiser steps a pass.
        accumulate: parts that a step is computed in, to save memory; a CPU takes more
            where it is faster for it.
        kl_weight: price of a nat of KL from the reference, in units of the reward;
            token by token in the reward, which keeps what the reward cannot judge.
        kl_target: nats an answer that the price adapts to (arXiv 1909.08593, section
            2.2); None leaves it fixed.
        gamma: discount of a reward by the tokens until it comes.
        lam: GAE's lambda, 0 trusts the values, 1 the rewards alone. Where the reward
            comes at the end and values explain little of it, less than 1 takes credit
            from the first tokens, which decide most. REINFORCE has none.
        clip: PPO's limit to a token's ratio, and to a value's move.
        kl_bound: TRPO's trust region, nats a token that the first update may move.
        value_weight: weight of the value loss.
        entropy_weight: bonus for a nat of entropy a token; below 0 it is a malus.
        missing_end_penalty: taken off the reward of an answer that had to be cut.
        whiten: scale advantages to mean 0 and variance 1, so that the learning rate
            does not depend on the reward's scale.
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
    max_new_tokens: Count = 48
    temperature: Positive = 1.0
    lr: NotNegative | None = None
    value_lr: NotNegative | None = None
    schedule: Literal["linear", "constant"] = "linear"
    epochs: Count = 2
    minibatches: Count = 1
    accumulate: Count = 1
    kl_weight: NotNegative = 0.03
    kl_target: Positive | None = None
    gamma: Share = 1.0
    lam: Share = 1.0
    clip: Positive = 0.2
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
        """Whether the algorithm does; REINFORCE trusts returns alone."""
        return self.algorithm != "reinforce"

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change between a run and its resumption."""
        names = [field.name for field in fields(self) if field.name not in FREE]
        return {name: getattr(self, name) for name in names}
