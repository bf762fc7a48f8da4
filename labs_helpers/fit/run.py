"""One machine under all training: precision, step, clip, log, checkpoint, resume.

A loop makes a `Run` of a model and an update, which differentiates losses by `backward`
and moves the weights by `apply`; `go` takes such updates to the end. Several processes
are one run: gradients are summed, the main process saves.

Why not `accelerate.Accelerator`: its precision is one for the whole process, so that a
notebook could no longer train with TRL in another one beside this. Its parts that hold
no state (`reduce`, `broadcast`, `gather`) do the work between processes.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast, gather_object, reduce
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from labs_helpers.common import progress as waiting
from labs_helpers.common.interrupts import uninterrupted
from labs_helpers.fit import checkpoint
from labs_helpers.fit.history import History
from labs_helpers.fit.identity import Identity, describe, describe_start, moved
from labs_helpers.models import default_device_and_dtype

_COUNTERS = (
    "step", "tokens", "seconds", "history", "pending", "moving",
    "best", "waited", "best_weights",
)  # fmt: skip
# What a training left of a model: its folder, what it made of it, and out of what.
_LEFT: WeakKeyDictionary[nn.Module, tuple[Path, Identity, Identity]]
_LEFT = WeakKeyDictionary()


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says at which step, why, and what to do."""


class Run:
    """A model in training: its optimiser, its counts, its log, its checkpoint.

    Attributes:
        trained: parameters with a gradient, by name.
        optimizer: AdamW over the groups.
        step: of the loop; so many are done.
        tokens: learnt from, padding not counted.
        seconds: spent in training.
        history: rows for a `History`.
        best: the best figure evaluated, the larger the better.
        waited: evaluations since then.
        best_weights: what was `trained` then; none if nobody asks for the best.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: list[dict[str, Any]],
        config: Any,
        of: str,
        steps: int,
    ):
        """Start at step 0.

        Args:
            groups: what AdamW moves, with "lr" the highest of the schedule.
            config: a `FitConfig`, or what shares its names.
            of: what a step is called, in messages.
            steps: so many are to be done.
        """
        self.model, self.config, self.of, self.steps = model, config, of, steps
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if processes().num_processes > 1:
            model.to(processes().device)
            for parameter in self.trained.values():
                parameter.data.copy_(from_main(parameter.data))
        self.peak = max(group["lr"] for group in groups)
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        self.optimizer.zero_grad(set_to_none=True)  # of whoever used the model before
        self.device = next(model.parameters()).device
        dtype = default_device_and_dtype().dtype
        mixed = self.device.type == "cuda" and dtype != torch.float32
        self.autocast = torch.autocast("cuda", dtype) if mixed else nullcontext()
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=mixed and dtype == torch.float16
        )
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.history: list[dict[str, float]] = []
        self.pending: list[dict[str, float]] = []
        self.moving: list[str] = []
        self.best, self.waited = -math.inf, 0
        self.best_weights: dict[str, Tensor] = {}
        folder = config.checkpoint
        self.path = None if folder is None else Path(folder) / "state.pt"

    def identify(self, settings: Identity, asked: dict[str, Any]) -> None:
        """Say what this run is, for its checkpoint; costs a look at every weight.

        Args:
            settings: what may not change.
            asked: objects that are used, which may change by themselves.
        """
        self.asked, now = asked, describe_start(self.model)
        place, left, start = _LEFT.get(self.model, (self.path, now, now))
        self.start = start if (place, left) == (self.path, now) else now
        self.found = self._described()
        self.identity = {**settings, **self.start, **self.found}

    def backward(self, loss: Tensor, inputs: list[nn.Parameter] | None = None) -> None:
        """Add to the gradient, of all parameters or of these."""
        self.scaler.scale(loss).backward(inputs=inputs)

    def apply(self, parameters: list[nn.Parameter], losses: dict[str, float]) -> float:
        """Take the optimiser's step, unless it would spoil the weights.

        Args:
            parameters: those to clip, whose gradients all processes share.
            losses: to be finite, by name.

        Returns:
            The gradient's norm, before it was scaled down.

        Raises:
            TrainingStopped: a loss or the gradient is not finite; nothing has moved.
        """
        if processes().num_processes > 1:
            for p in parameters:  # without gradient: no row of the step was here
                p.grad = added(torch.zeros_like(p) if p.grad is None else p.grad)
        for name, value in losses.items():
            self.require_finite(name, value)
        self.scaler.unscale_(self.optimizer)
        limit = self.config.max_grad_norm
        norm = nn.utils.clip_grad_norm_(parameters, limit).item()
        if not self.scaler.is_enabled():  # the scaler leaves such steps out itself
            self.require_finite("gradient", norm)
        with uninterrupted():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        return norm

    def require_finite(self, what: str, value: float) -> None:
        """Stop before a step that would spoil the weights."""
        if math.isfinite(value):
            return
        lr = max(group["lr"] for group in self.optimizer.param_groups)
        raise TrainingStopped(
            f"the {what} is {value}, with learning rate {lr:.2g}. The model keeps the "
            "weights from before this step. Try a third of the learning rate "
            f"(lr={self.peak / 3:.1g}) or a longer warm-up; if it was so from the "
            "start, look for rows or rewards with extreme values, and for a policy in "
            "float16"
        )

    @contextmanager
    def saying_where(self) -> Iterator[None]:
        """Around a step: what stops the training is told with its number."""
        try:
            yield
        except (TrainingStopped, FloatingPointError) as error:
            where = f"{self.of} {self.step + 1} of {self.steps}"
            kept = ""
            if self.path is not None and self.path.exists():
                kept = f". {self.path} holds the last good checkpoint"
            raise TrainingStopped(f"{where}: {error}{kept}") from error

    def go(
        self,
        update: Callable[[], tuple[dict[str, float], int]],
        evaluate: Callable[[], dict[str, float]] | None,
        report: Callable[[dict[str, float]], Any] | None,
        *,
        log_every: int,
        name: str,
        shown: Sequence[str],
    ) -> History:
        """Take steps to the end; evaluate, log and save where that is due.

        The model ends with the best weights, if those are asked for.

        Args:
            update: takes a step; gives what it measured, and the tokens learnt from.
            evaluate: asked without gradient; its figures go into the history.
            report: given each row of it, in the main process.
            log_every: steps that one row of the history averages over.
            name: of the bar.
            shown: figures beside it.

        Raises:
            TrainingStopped: the message says at which step.
        """
        every, wanted = self.config.evaluate_every, self.config.progress
        self.report = report if processes().is_main_process else None
        by, patience = self.config.best_by, self.config.patience
        if (by and evaluate is None) or (patience and not by):
            raise ValueError(
                "patience needs best_by, the figure that is to become better, and "
                "best_by needs `evaluate`, which gives it"
            )
        with waiting.bar(
            self.steps, name, done=self.step, wanted=wanted, keep=True
        ) as bar:
            while not self.has_ended:
                started = time.perf_counter()
                with self.saying_where():
                    measured, tokens = update()
                self.step += 1
                self.tokens += tokens
                self.seconds += time.perf_counter() - started
                self.pending.append(measured)
                figures = {figure: f"{measured[figure]:.3f}" for figure in shown}
                bar.set_postfix(figures, refresh=False)
                bar.update()
                if evaluate is not None and self.is_due(every):
                    with torch.no_grad():
                        self.log(everyones(evaluate())[0])
                    self.keep_best()
                elif self.is_due(log_every):
                    self.log({})
                if self.is_due(self.config.save_every):
                    self.save()
        with torch.no_grad():
            for name, weight in self.best_weights.items():
                self.trained[name].copy_(weight)
        return History(self.history)

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
        if self.report is not None:
            self.report(self.history[-1])

    def keep_best(self) -> None:
        """Note whether the last evaluation is the best, and keep its weights if so."""
        asked = self.config.best_by
        if asked is None:
            return
        row, name = self.history[-1], asked.removeprefix("-")
        if name not in row:
            raise ValueError(
                f"best_by is {asked!r}, and there is no such figure; there are "
                f"{', '.join(row)}"
            )
        figure = -row[name] if asked.startswith("-") else row[name]
        self.waited += 1
        if figure > self.best:
            self.best, self.waited = figure, 0
            self.best_weights = {
                n: p.detach().to("cpu", copy=True) for n, p in self.trained.items()
            }

    @property
    def has_ended(self) -> bool:
        """Whether all steps are done, or nothing has become better for too long."""
        patience = self.config.patience
        return self.step == self.steps or (
            patience is not None and self.waited >= patience
        )

    def is_due(self, every: int) -> bool:
        """Whether something is to be done after this step, or every so many."""
        return self.has_ended or (every > 0 and self.step % every == 0)

    def save(self) -> None:
        """Write a checkpoint, if one was asked for."""
        if self.path is not None and processes().is_main_process:
            self.moving = sorted({*self.moving, *moved(self.found, self._described())})
            state = {name: getattr(self, name) for name in _COUNTERS}
            state["parameters"] = {n: p.detach() for n, p in self.trained.items()}
            state["optimizer"] = self.optimizer.state_dict()
            state["scaler"] = self.scaler.state_dict()
            state["random"] = [torch.get_rng_state()]
            if self.device.type == "cuda":
                state["random"].append(torch.cuda.get_rng_state(self.device))
            checkpoint.save(self.path, state, self.identity)
        processes().wait_for_everyone()

    def saved(self) -> dict[str, Any] | None:
        """What the checkpoint holds, if there is one.

        Raises:
            BadCheckpoint: it is another run's, or damaged.
        """
        if self.path is None or not self.path.exists():
            return None
        return checkpoint.load(self.path, self.identity, self.device)

    @torch.no_grad()
    def resume(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        with checkpoint.fitting(self.path):
            for name, parameter in self.trained.items():
                parameter.copy_(state["parameters"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            torch.set_rng_state(state["random"][0].cpu())
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(state["random"][1].cpu(), self.device)
            for name in _COUNTERS:
                setattr(self, name, state[name])

    def free(self) -> None:
        """Let the gradients go."""
        self.optimizer.zero_grad(set_to_none=True)

    def remember(self) -> None:
        """Know the model again if it comes to go on in this folder, as it is now.

        Its start is then this training's. With an adapter it has to be loaded again,
        for what it was at the start may be asked as a reference.
        """
        adapted = any(isinstance(m, BaseTunerLayer) for m in self.model.modules())
        if self.path is not None and not adapted:
            _LEFT[self.model] = (self.path, describe_start(self.model), self.start)

    def _described(self) -> Identity:
        """What is used, with all that it holds but the model."""
        known = {id(m): "the model in training" for m in self.model.modules()}
        parts = [describe(name, value, known) for name, value in self.asked.items()]
        return {name: word for part in parts for name, word in part.items()}


def processes() -> PartialState:
    """Which of how many processes this is: `torchrun` starts several."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return PartialState(cpu=several and not torch.cuda.is_available())


def share(rows: Tensor) -> Tensor:
    """This process's share of rows that all of them know, in the same order."""
    return rows[processes().process_index :: processes().num_processes]


def added(x: Tensor) -> Tensor:
    """Sum over the processes."""
    return reduce(x, "sum") if processes().num_processes > 1 else x


def from_main(x: Tensor) -> Tensor:
    """What the main process has."""
    return broadcast(x) if processes().num_processes > 1 else x


def everyones(x: Any) -> list[Any]:
    """What each process has of something, in their order."""
    return gather_object([x]) if processes().num_processes > 1 else [x]
