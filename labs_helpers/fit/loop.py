"""One loop for all offline training: supervised, reward models, the DPO family.

Rows and an objective come in, a trained model and a `History` go out. The loop
encodes every row once, batches rows of like length, clips, logs, saves and resumes.
It does not know what it minimises, and it leaves the model on the device it is on.
"""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from labs_helpers.common import progress as waiting
from labs_helpers.common.interrupts import uninterrupted
from labs_helpers.common.settings import (
    MANY,
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Seed,
    Share,
    settings,
)
from labs_helpers.data import as_rows
from labs_helpers.fit import checkpoint
from labs_helpers.fit.batching import bucketed_batches
from labs_helpers.fit.history import History
from labs_helpers.fit.identity import Identity, describe, digest, moved
from labs_helpers.fit.objectives import (
    Encoded,
    Mean,
    Objective,
    RewardObjective,
    SFTObjective,
    encode_rows,
)
from labs_helpers.fit.preferences import (
    KTOObjective,
    PairObjective,
    Reference,
    SLiCObjective,
)
from labs_helpers.fit.starts import leave, start_for
from labs_helpers.models import default_device_and_dtype

__all__ = [
    "FitConfig",
    "History",
    "KTOObjective",
    "Objective",
    "PairObjective",
    "Reference",
    "RewardObjective",
    "SFTObjective",
    "SLiCObjective",
    "TrainingStopped",
    "fit",
]


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says at which step, why, and what to do."""


@settings
class FitConfig:
    """How to train.

    Attributes:
        lr: highest learning rate of the schedule.
        batch_size: rows in one optimiser step.
        epochs: passes over the data; a fraction is allowed.
        steps: number of optimiser steps instead of epochs.
        warmup: share of the steps in which the learning rate rises to `lr`.
        schedule: what follows the warm-up; cosine falls to a tenth of `lr`.
        weight_decay: on matrices; vectors (norms, biases) are left out.
        max_grad_norm: the gradient is scaled down to this norm.
        accumulate: parts that a batch is computed in, to save memory.
        max_length: rows with more tokens are left out.
        seed: order of the rows, and dropout where there is any.
        log_every: steps that one row of the history averages over.
        evaluate_every: steps between calls of `evaluate`; 0 is at the end only.
        checkpoint: folder to save to, and to resume from where it has a checkpoint.
        save_every: steps between checkpoints; 0 is at the end only.
        progress: show a bar with the time left and the loss.
    """

    lr: NotNegative
    batch_size: Count = 32
    epochs: Positive = 1.0
    steps: Count | None = None
    warmup: Share = 0.05
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: NotNegative = 0.0
    max_grad_norm: Positive = 1.0
    accumulate: Count = 1
    max_length: Count | None = None
    seed: Seed = 0
    log_every: CountOrZero = 10
    evaluate_every: CountOrZero = 0
    checkpoint: str | Path | None = None
    save_every: CountOrZero = 0
    progress: bool = True


def fit(
    model: nn.Module,
    rows: Iterable[Any],
    objective: Objective,
    config: FitConfig,
    *,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
) -> History:
    """Train the model in place and return what was logged.

    Where `config.checkpoint` holds an unfinished run, it goes on from there and ends
    with the weights of an unbroken one; a finished run is loaded and not repeated.

    Args:
        evaluate: given the model in eval mode; its figures go into the history.

    Raises:
        ValueError: a row cannot be encoded, or the model cannot read it.
        TrainingStopped: the loss or its gradient is not finite. The model keeps the
            weights of the last good step, the folder its last good checkpoint.
    """
    encoded = encode_rows(as_rows(rows), objective, config.max_length)
    plan = _plan(encoded, config)
    if hasattr(objective, "check"):
        objective.check(model, encoded, min(map(len, plan)))
    folder = None if config.checkpoint is None else Path(config.checkpoint)
    with ExitStack() as stack:
        stack.enter_context(checkpoint.folder_of_one_run(folder))
        run = _Run(model, config, len(plan), objective, encoded)
        stack.callback(run.leave)
        stack.callback(model.train, model.training)
        stack.enter_context(torch.random.fork_rng(_cuda_only(run.device)))
        torch.manual_seed(config.seed)
        saved = run.saved()
        finished = saved is not None and saved["step"] == len(plan)
        if not finished and hasattr(objective, "prepare"):
            with run.autocast:  # while the model is what it is at the start
                objective.prepare(model, encoded)
        if saved is not None:
            run.resume(saved)
        bar = stack.enter_context(
            waiting.bar(
                len(plan), "fit", done=run.step, wanted=config.progress, keep=True
            )
        )
        while run.step < len(plan):
            model.train()
            started = time.perf_counter()
            batch = [encoded[i] for i in plan[run.step]]
            measured = run.update(batch)
            run.seconds += time.perf_counter() - started
            bar.set_postfix(loss=f"{measured['loss']:.3f}", refresh=False)
            bar.update()
            last = run.step == len(plan)
            if evaluate and (last or _due(run.step, config.evaluate_every)):
                model.eval()
                with torch.no_grad():
                    run.log(evaluate(model))
            elif last or _due(run.step, config.log_every):
                run.log({})
            if last or _due(run.step, config.save_every):
                run.save()
    return History(run.history)


class _Run:
    """The state of a run: what a checkpoint holds, and one step of it."""

    def __init__(
        self,
        model: nn.Module,
        config: FitConfig,
        steps: int,
        objective: Objective,
        encoded: list[Encoded],
    ):
        self.model, self.config, self.steps = model, config, steps
        self.objective = objective
        folder = config.checkpoint
        self.path = None if folder is None else Path(folder) / "state.pt"
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.history: list[dict[str, float]] = []
        self.pending: list[dict[str, float]] = []
        self.moving: list[str] = []
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not self.trained:
            raise ValueError(
                "the model has no parameter with requires_grad: nothing to train"
            )
        self.identity: Identity = {}
        self.asked: Identity = {}
        if self.path is not None:  # costs a look at every weight
            self.asked = self._described()
            self.identity = {**_identity(config, encoded), **self.asked}
            self.start = start_for(model, self.path.parent)
            self.identity |= self.start
        matrices = [p for p in self.trained.values() if p.ndim > 1]
        vectors = [p for p in self.trained.values() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.lr,
            fused=True,
        )
        self.device = next(model.parameters()).device
        dtype = default_device_and_dtype()[1]
        mixed = self.device.type == "cuda" and dtype != torch.float32
        self.autocast = torch.autocast("cuda", dtype) if mixed else nullcontext()
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=mixed and dtype == torch.float16
        )

    def update(self, batch: list[Encoded]) -> dict[str, float]:
        """Take one optimiser step."""
        lr = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        measured = self._differentiate(batch)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(
            self.trained.values(), self.config.max_grad_norm
        ).item()
        if not self.scaler.is_enabled():  # the scaler leaves such steps out itself
            self._require_finite("gradient", norm)
        with uninterrupted():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
            self.tokens += sum(row["length"] for row in batch)
            self.pending.append({**measured, "grad_norm": norm, "lr": lr})
        return measured

    def _differentiate(self, batch: list[Encoded]) -> dict[str, float]:
        """Add up the gradient of the parts; each weighs by what its means count."""
        parts = min(self.config.accumulate, len(batch))
        of_batch: list[Any] = []
        if hasattr(self.objective, "whole"):
            with self.autocast:
                size = -(-len(batch) // parts)
                of_batch = [self.objective.whole(self.model, batch, size)]
        measured: dict[str, float] = {"loss": 0.0}
        counts: dict[str, float] = {}  # not every part measures everything
        for part in (batch[i::parts] for i in range(parts)):
            with self.autocast:
                loss, metrics = self.objective.loss(self.model, part, *of_batch)
            if not of_batch:
                loss = loss * (len(part) / len(batch))
            self._require_finite("loss", loss.item())
            self.scaler.scale(loss).backward()
            measured["loss"] += loss.item()
            for name, value in metrics.items():
                count = value.count if isinstance(value, Mean) else len(part)
                measured[name] = measured.get(name, 0.0) + count * value
                counts[name] = counts.get(name, 0.0) + count
        return {name: v / counts.get(name, 1.0) for name, v in measured.items()}

    def log(self, evaluated: dict[str, float]) -> None:
        """Add a row: the means since the last one, and what was evaluated."""
        names = dict.fromkeys(name for row in self.pending for name in row)
        means = {
            name: float(np.mean([row[name] for row in self.pending if name in row]))
            for name in names
        }
        counts = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds}
        evaluated = {name: float(value) for name, value in evaluated.items()}
        self.history.append({**counts, **means, **evaluated})
        self.pending = []

    def save(self) -> None:
        """Write a checkpoint, if one was asked for."""
        if self.path is None:
            return
        state = {name: getattr(self, name) for name in _COUNTERS}
        state["parameters"] = {n: p.detach() for n, p in self.trained.items()}
        state["optimizer"] = self.optimizer.state_dict()
        state["scaler"] = self.scaler.state_dict()
        state["random"] = checkpoint.random_state(self.device)
        changed = moved(self.asked, self._described())
        state["moving"] = self.moving = sorted({*self.moving, *changed})
        checkpoint.save(self.path, state, self.identity)

    def saved(self) -> dict[str, Any] | None:
        """What the checkpoint holds, if there is one."""
        if self.path is None or not self.path.exists():
            return None
        return checkpoint.load(self.path, self.identity, self.device)

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        with checkpoint.fitting(self.path):
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(state["parameters"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            checkpoint.set_random_state(self.device, state["random"])
            for name in (*_COUNTERS, "moving"):
                setattr(self, name, state[name])

    def leave(self) -> None:
        """Free the gradients; know the model again if it comes to go on."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.path is not None:
            leave(self.model, self.path.parent, self.start)

    def _described(self) -> Identity:
        """The objective, with all that it holds but the model."""
        known = {id(m): "the model in training" for m in self.model.modules()}
        return describe("objective", self.objective, known)

    def _learning_rate(self) -> float:
        warmup = max(1, round(self.config.warmup * self.steps))
        if self.step < warmup:
            return self.config.lr * (self.step + 1) / warmup
        if self.config.schedule == "constant":
            return self.config.lr
        done = (self.step - warmup) / max(1, self.steps - warmup)
        return self.config.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))

    def _require_finite(self, what: str, value: float) -> None:
        if math.isfinite(value):
            return
        self.optimizer.zero_grad(set_to_none=True)
        kept = ""
        if self.path is not None and self.path.exists():
            kept = f" {self.path} holds the last good checkpoint."
        raise TrainingStopped(
            f"the {what} is {value} at step {self.step + 1} of {self.steps}, with "
            f"learning rate {self._learning_rate():.2g}. The model keeps the weights "
            f"of step {self.step}.{kept} Try a third of the learning rate "
            f"(lr={self.config.lr / 3:.1g}) or a longer warm-up; if the loss was bad "
            "from the first step, look for rows with extreme values."
        )


_COUNTERS = ("step", "tokens", "seconds", "history", "pending")


def _cuda_only(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _plan(encoded: list[Encoded], config: FitConfig) -> list[np.ndarray]:
    """The rows of every step."""
    per_pass = math.ceil(len(encoded) / config.batch_size)
    steps = config.steps or max(1, round(config.epochs * per_pass))
    if steps > MANY:
        raise ValueError(
            f"epochs={config.epochs:g} of {len(encoded):,} rows are {steps:,} steps, "
            f"more than {MANY:,}: take fewer"
        )
    lengths = np.array([row["length"] for row in encoded])
    return bucketed_batches(lengths, config.batch_size, steps, config.seed)


def _identity(config: FitConfig, encoded: list[Encoded]) -> Identity:
    """What must not change in a run, beside model and objective."""
    names = "lr batch_size epochs steps warmup schedule weight_decay max_grad_norm seed"
    return {
        **{name: getattr(config, name) for name in names.split()},
        "number of rows": len(encoded),
        "tokens in the rows": sum(int(row["length"]) for row in encoded),
        "the rows' content or order": digest(encoded),
    }
