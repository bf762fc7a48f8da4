"""One loop for all offline training: supervised, reward models, the DPO family.

Rows and an objective come in, a trained model and a `History` go out. The loop
encodes every row once, batches rows of like length, clips, logs, saves and resumes.
It does not know what it minimises, and it leaves the model on the device it is on.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from labs_helpers import checkpoint
from labs_helpers.batching import bucketed_batches
from labs_helpers.history import History
from labs_helpers.limits import naming_row
from labs_helpers.models import default_device_and_dtype
from labs_helpers.objectives import Encoded, Objective, RewardObjective, SFTObjective
from labs_helpers.preference_objectives import (
    KTOObjective,
    PairObjective,
    Reference,
    SLiCObjective,
)

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


@dataclass(frozen=True)
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

    lr: float
    batch_size: int = 32
    epochs: float = 1.0
    steps: int | None = None
    warmup: float = 0.05
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    accumulate: int = 1
    max_length: int | None = None
    seed: int = 0
    log_every: int = 10
    evaluate_every: int = 0
    checkpoint: str | Path | None = None
    save_every: int = 0
    progress: bool = True


def fit(
    model: nn.Module,
    rows: Sequence[Any],
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
    encoded = _encode(rows, objective, config.max_length)
    lengths = np.array([row["length"] for row in encoded])
    steps = config.steps or max(
        1, round(config.epochs * math.ceil(len(encoded) / config.batch_size))
    )
    plan = bucketed_batches(lengths, config.batch_size, steps, config.seed)
    if hasattr(objective, "check"):
        parts = [len(batch) // min(config.accumulate, len(batch)) for batch in plan]
        objective.check(model, encoded, min(parts))
    run = _Run(model, config, len(plan), lengths)
    device = next(model.parameters()).device
    with ExitStack() as stack:
        stack.callback(model.train, model.training)
        stack.enter_context(torch.random.fork_rng(_cuda_only(device)))
        torch.manual_seed(config.seed)
        run.resume()
        if run.step < len(plan) and hasattr(objective, "prepare"):
            with run.autocast:
                objective.prepare(model, encoded)
        bar = tqdm(total=len(plan), initial=run.step, disable=not config.progress)
        stack.enter_context(bar)
        while run.step < len(plan):
            model.train()
            started = time.perf_counter()
            batch = [encoded[i] for i in plan[run.step]]
            measured = run.update(objective, batch)
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
        self, model: nn.Module, config: FitConfig, steps: int, lengths: np.ndarray
    ):
        self.model, self.config, self.steps = model, config, steps
        folder = config.checkpoint
        self.path = None if folder is None else Path(folder) / "state.pt"
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.history: list[dict[str, float]] = []
        self.pending: list[dict[str, float]] = []
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not self.trained:
            raise ValueError(
                "the model has no parameter with requires_grad: nothing to train"
            )
        self.identity = _identity(config, lengths, self.trained)
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

    def update(self, objective: Objective, batch: list[Encoded]) -> dict[str, float]:
        """Take one optimiser step."""
        lr = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        parts = min(self.config.accumulate, len(batch))
        measured: dict[str, float] = {}
        shares: dict[str, float] = {}  # not every part measures everything
        for part in (batch[i::parts] for i in range(parts)):
            share = len(part) / len(batch)
            with self.autocast:
                loss, metrics = objective.loss(self.model, part)
            metrics = {"loss": loss.item(), **metrics}
            self._require_finite("loss", metrics["loss"])
            self.scaler.scale(loss * share).backward()
            for name, value in metrics.items():
                measured[name] = measured.get(name, 0.0) + share * value
                shares[name] = shares.get(name, 0.0) + share
        measured = {name: value / shares[name] for name, value in measured.items()}
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(
            self.trained.values(), self.config.max_grad_norm
        ).item()
        if not self.scaler.is_enabled():  # the scaler leaves such steps out itself
            self._require_finite("gradient", norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += sum(row["length"] for row in batch)
        self.pending.append({**measured, "grad_norm": norm, "lr": lr})
        return measured

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
        checkpoint.save(self.path, state, self.identity)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self.path is None or not self.path.exists():
            return
        state = checkpoint.load(self.path, self.identity, self.device)
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        checkpoint.set_random_state(self.device, state["random"])
        for name in _COUNTERS:
            setattr(self, name, state[name])

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


def _encode(
    rows: Sequence[Any], objective: Objective, max_length: int | None
) -> list[Encoded]:
    encoded = []
    for i, row in enumerate(rows):
        with naming_row(f"row {i}"):
            encoded.append({**objective.encode(row), "number": i})
    if max_length is not None:
        kept = [row for row in encoded if row["length"] <= max_length]
        if len(kept) < len(encoded):
            left_out = len(encoded) - len(kept)
            print(f"{left_out} of {len(encoded)} rows exceed {max_length} tokens: out")
        encoded = kept
    if not encoded:
        raise ValueError(
            f"no row to train on: {len(rows)} came in, none has at most "
            f"{max_length} tokens"
            if rows
            else "no row to train on: `rows` is empty"
        )
    return encoded


def _identity(
    config: FitConfig, lengths: np.ndarray, trained: dict[str, nn.Parameter]
) -> dict[str, Any]:
    """Describe what must not change between a run and its resumption."""
    names = "lr batch_size epochs steps warmup schedule weight_decay max_grad_norm seed"
    return {
        **{name: getattr(config, name) for name in names.split()},
        "number of rows": len(lengths),
        "tokens in the rows": int(lengths.sum()),
        "trained parameters": sum(p.numel() for p in trained.values()),
    }
