"""What every update rule needs: gradients in parts, one optimiser step, its precision.

Holds the model that is trained and its optimiser. Of several processes (see
`processes`) each computes a share of every step, and all take the same. Knows no
update rule, and nothing of prompts and rewards.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

import torch
from jaxtyping import Int
from torch import Tensor, nn

from labs_helpers.common.interrupts import uninterrupted
from labs_helpers.fit import TrainingStopped
from labs_helpers.losses import entropy
from labs_helpers.models import Policy, PolicyWithValue, default_device_and_dtype
from labs_helpers.rl.config import RLConfig
from labs_helpers.rl.experience import Experience, Now, read
from labs_helpers.rl.processes import (
    add_gradients,
    added_figures,
    from_main,
    processes,
    share,
)

Measured = dict[str, float]
PartLoss = Callable[[Now, Experience], tuple[Tensor, Measured]]
PretrainingLoss = Callable[[Policy], Tensor]


class Learner:
    """A model with values, and how a loss of it becomes a step.

    Args:
        trained: what the optimiser may move.
        pretraining_loss: of the policy, added to every step's loss.
    """

    def __init__(
        self,
        model: PolicyWithValue,
        config: RLConfig,
        trained: list[nn.Parameter],
        pretraining_loss: PretrainingLoss | None = None,
    ):
        self.model, self.config, self.trained = model, config, trained
        self.pretraining_loss = pretraining_loss
        self.device = model.policy.device
        self.optimizer = torch.optim.AdamW(self._groups(), weight_decay=0.0, fused=True)
        self.optimizer.zero_grad(set_to_none=True)  # of whoever used the model before
        self.set_learning_rate(0)
        dtype = default_device_and_dtype().dtype
        mixed = self.device.type == "cuda" and dtype != torch.float32
        self.autocast = torch.autocast("cuda", dtype) if mixed else nullcontext()
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=mixed and dtype == torch.float16
        )
        for parameter in trained:
            parameter.data.copy_(from_main(parameter.data))

    def set_learning_rate(self, update: int) -> float:
        """Follow the schedule; `update` counts from 0."""
        linear = self.config.schedule == "linear"
        self.step_share = 1 - update / self.config.updates if linear else 1.0
        self.lr = self.step_share * self.config.learning_rate
        for group in self.optimizer.param_groups:
            group["lr"] = self.step_share * group["peak"]
        return self.lr

    def _groups(self) -> list[dict]:
        """What is trained, by its learning rate at the schedule's peak."""
        of_values = {id(p) for p in self.model.value_parameters()}
        values = [p for p in self.trained if id(p) in of_values]
        policy = [p for p in self.trained if id(p) not in of_values]
        rates = (self.config.learning_rate, self.config.value_learning_rate)
        groups = zip((policy, values), rates, strict=True)
        return [{"params": ps, "peak": rate} for ps, rate in groups if ps]

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

    def read(self, part: Experience) -> Now:
        """What the policy says now of the answers' tokens, with gradient."""
        return read(self.model, part, self.config.temperature)

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
        parameters = self.trained if parameters is None else parameters
        total = int(experience.mask[rows].sum())
        measured: Measured = {}
        for part_rows in experience.by_length(share(rows), self.config.accumulate):
            part = experience.take(part_rows)
            weight = int(part.mask.sum()) / total
            with self.autocast:
                now = self.read(part)
                loss, metrics = loss_of(now, part)
                if self.config.entropy_weight and now.logits.requires_grad:
                    every = torch.ones(1, len(now.logits), device=self.device)
                    bonus = entropy(now.logits[None], every)
                    loss = loss - self.config.entropy_weight * bonus
            metrics = {"loss": loss.item(), **metrics}
            self.scaler.scale(loss * weight).backward(inputs=parameters)
            for name, value in metrics.items():
                measured[name] = measured.get(name, 0.0) + weight * value
        if self.pretraining_loss is not None and parameters is self.trained:
            with self.autocast:
                loss = self.pretraining_loss(self.model.policy)
            loss = loss / processes().num_processes
            self.scaler.scale(loss).backward()
            measured["pretraining_loss"] = loss.item()
        measured = added_figures(measured)
        measured["grad_norm"] = self._apply(parameters, measured)
        return measured

    def require_finite(self, what: str, value: float) -> None:
        """Stop before a step that would spoil the weights."""
        if math.isfinite(value):
            return
        self.optimizer.zero_grad(set_to_none=True)
        lr = self.config.learning_rate
        raise TrainingStopped(
            f"the {what} is {value}, with learning rate {lr:.2g}. The model keeps the "
            f"weights from before this step. Try a third of the learning rate (lr="
            f"{lr / 3:.1g}); if it was so from the first update, look for extreme "
            "rewards and for a policy in float16"
        )

    def _apply(self, parameters: list[nn.Parameter], measured: Measured) -> float:
        add_gradients(parameters)
        for name, value in measured.items():
            if name.endswith("loss"):
                self.require_finite(name.replace("_", " "), value)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm).item()
        if not self.scaler.is_enabled():  # the scaler leaves such steps out itself
            self.require_finite("gradient", norm)
        with uninterrupted():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        return norm


def mean_of_steps(steps: Iterable[Measured]) -> Measured:
    """Average what the steps of an update measured."""
    steps = list(steps)
    return {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
