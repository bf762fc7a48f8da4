"""What every update rule needs: one optimiser step on answers, in parts.

Of several processes each computes a share of every step, and all take the same. Knows
no update rule, and nothing of prompts and rewards.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Int
from torch import Tensor, nn

from labs_helpers.fit.parts import Parts
from labs_helpers.fit.run import Run, everyones, from_main, processes, share
from labs_helpers.models import Policy, PolicyWithValue
from labs_helpers.rl.config import RLConfig
from labs_helpers.rl.experience import Experience, Outputs, read

Measured = dict[str, float]
PartLoss = Callable[[Outputs, Experience], tuple[Tensor, Measured]]
PretrainingLoss = Callable[[Policy], Tensor]


class Learner:
    """A model with values, and how a loss of it becomes a step.

    Args:
        pretraining_loss: of the policy, added to every step's loss.
        longest: tokens of a prompt and its answer, at most.
    """

    def __init__(
        self,
        model: PolicyWithValue,
        config: RLConfig,
        pretraining_loss: PretrainingLoss | None = None,
        longest: int = 1,
    ):
        self.model, self.config = model, config
        self.pretraining_loss = pretraining_loss
        rates = (config.learning_rate, config.value_learning_rate)
        parts = (model.policy_parameters(), model.value_parameters())
        groups = [
            {"params": parameters, "weight_decay": 0.0, "lr": rate, "peak": rate}
            for parameters, rate in zip(parts, rates, strict=True)
            if parameters
        ]
        self.run = Run(model, groups, config, "update", config.updates)
        self.device, self.trained = self.run.device, list(self.run.trained.values())
        readers = [model.policy, *([model.value_trunk] if model.value_trunk else [])]
        model.eval()
        self.parts = Parts(self.run, readers, longest, mode=lambda: recomputing(model))
        self.set_learning_rate(0)

    def set_learning_rate(self, update: int) -> float:
        """Follow the schedule; `update` counts from 0."""
        linear = self.config.schedule == "linear"
        self.step_share = 1 - update / self.config.updates if linear else 1.0
        for group in self.run.optimizer.param_groups:
            group["lr"] = self.step_share * group["peak"]
        return self.step_share * self.config.learning_rate

    @torch.no_grad()
    def center_values(self, experience: Experience) -> None:
        """Set the mean of the values to that of the returns, by the head's bias.

        It is set and not learnt: Adam moves all weights alike, so that weights which
        have to learn a mean spread it unevenly over the states, and such values explain
        less than nothing.
        """
        mask = experience.mask
        gap = (experience.returns - experience.values)[mask].mean()
        self.model.value_head.bias += gap
        experience.values = torch.where(mask, experience.values + gap, 0.0)

    def read(self, part: Experience) -> Outputs:
        """What the policy says now of the answers' tokens, with gradient."""
        return read(self.model, part, self.config.temperature)

    def by_length(
        self, experience: Experience, rows: Int[Tensor, " b"], number: int | None = None
    ) -> list[Tensor]:
        """Rows in parts that fit into memory, at least `accumulate` or so many."""
        number = number or self.config.accumulate
        return experience.by_length(rows, number, self.parts.of)

    def minibatches(self, experience: Experience) -> Iterator[Int[Tensor, " b"]]:
        """One pass over the answers in random order."""
        order = from_main(torch.randperm(len(experience)).to(self.device))
        yield from order.tensor_split(self.config.minibatches)

    def step(
        self,
        experience: Experience,
        rows: Int[Tensor, " b"],
        loss_of: PartLoss,
        parameters: list[nn.Parameter] | None = None,
    ) -> Measured:
        """Take one optimiser step on the mean loss of these rows' tokens.

        Args:
            loss_of: the mean loss of a part's tokens, and what to log of it.
            parameters: those to move; None all that are trained.

        Raises:
            TrainingStopped: loss or gradient are not finite; nothing has moved.
        """
        moving = self.trained if parameters is None else parameters
        mine = self.parts.trying(
            lambda: self._differentiate(experience, rows, loss_of, moving)
        )
        if self.pretraining_loss is not None and parameters is None:
            with self.run.autocast:
                loss = self.pretraining_loss(self.model.policy)
            loss = loss / processes().num_processes
            self.run.backward(loss)
            mine["pretraining_loss"] = loss.item()
        measured: Measured = {}
        for part in everyones(mine):
            for name, value in part.items():
                measured[name] = measured.get(name, 0.0) + value
        losses = {n.replace("_", " "): x for n, x in measured.items() if "loss" in n}
        return {**measured, "grad_norm": self.run.apply(moving, losses)}

    def _differentiate(
        self,
        experience: Experience,
        rows: Int[Tensor, " b"],
        loss_of: PartLoss,
        moving: list[nn.Parameter],
    ) -> Measured:
        """Add up the gradient of this process's parts; each weighs by its tokens."""
        total = int(experience.mask[rows].sum())
        mine: Measured = {}
        for part_rows in self.by_length(experience, share(rows)):
            part = experience.take(part_rows)
            weight = int(part.mask.sum()) / total
            with self.run.autocast:
                now = self.read(part)
                loss, metrics = loss_of(now, part)
                if self.config.entropy_weight and now.logprobs.requires_grad:
                    bonus = now.entropies.mean()
                    loss = loss - self.config.entropy_weight * bonus
            metrics = {"loss": loss.item(), **metrics}
            self.parts.backward(loss * weight, moving)
            for name, value in metrics.items():
                mine[name] = mine.get(name, 0.0) + weight * value
        return mine


def mean_of_steps(steps: Iterable[Measured]) -> Measured:
    """Average what the steps of an update measured."""
    steps = list(steps)
    return {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """Let layers compute again what the backward pass needs, if they are asked to.

    After `model.gradient_checkpointing_enable()` Hugging Face's layers do so only in
    training mode, in which dropout is on, and ratios would compare two random policies.
    Here those layers alone are in it, and their own dropout is 0.
    """
    asked = [m for m in model.modules() if getattr(m, "gradient_checkpointing", False)]
    layers = [layer for layer in asked if not layer.training]
    usual = [
        {n: x for n, x in vars(layer).items() if "dropout" in n and type(x) is float}
        for layer in layers
    ]
    try:
        for layer, rates in zip(layers, usual, strict=True):
            vars(layer).update(dict.fromkeys(rates, 0.0), training=True)
        yield
    finally:
        for layer, rates in zip(layers, usual, strict=True):
            vars(layer).update(rates, training=False)
