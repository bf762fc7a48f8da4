"""One loop for all offline training: supervised, reward models, the DPO family.

Rows and an objective come in, a trained model and a `History` go out. The loop
encodes every row once, batches rows of like length, clips, logs, saves and resumes.
It does not know what it minimises, and it leaves the model on the device it is on.
"""

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from labs_helpers.common.settings import (
    MANY,
    Count,
    CountOrZero,
    NotNegative,
    Positive,
    Seed,
    Share,
    Text,
    settings,
)
from labs_helpers.data import as_rows
from labs_helpers.fit.checkpoint import folder_of_one_run
from labs_helpers.fit.history import History
from labs_helpers.fit.identity import Identity, digest
from labs_helpers.fit.objectives import Encoded, Mean, Metrics, Objective, encode_rows
from labs_helpers.fit.parts import Parts
from labs_helpers.fit.run import Run, everyones, processes
from labs_helpers.models.memory import language_model
from labs_helpers.models.together import reads_together, tokens_together

WINDOW = 50  # batches whose rows are sorted by length
# What of a configuration must not change in a run.
FIXED = (
    "lr batch_size epochs steps warmup schedule weight_decay max_grad_norm seed best_by"
)


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
        best_by: a figure of `evaluate`, with a minus before it where less is better:
            the model ends with the weights of its best evaluation, not the last.
        patience: so many evaluations in a row without a better figure end the training.
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
    best_by: Text | None = None
    patience: Count | None = None
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
    report: Callable[[dict[str, float]], Any] | None = None,
) -> History:
    """Train the model in place and return what was logged.

    Where `config.checkpoint` holds an unfinished run, it goes on from there and ends
    with the weights of an unbroken one; a finished run is loaded and not repeated.

    Args:
        evaluate: given the model in eval mode; its figures go into the history.
        report: given every row of the history as it is logged, in the main process.

    Raises:
        ValueError: a row cannot be encoded, or the model cannot read it.
        TrainingStopped: the loss or its gradient is not finite. The model keeps the
            weights of the last good step, the folder its last good checkpoint.
    """
    encoded = encode_rows(as_rows(rows), objective, config.max_length)
    plan = _plan(encoded, config)
    objective.check(model, encoded, min(map(len, plan)))
    with ExitStack() as stack:
        is_main = processes().is_main_process
        stack.enter_context(folder_of_one_run(config.checkpoint if is_main else None))
        run = Run(model, _groups(model, config), config, "step", len(plan))
        if run.path is not None:
            run.identify(_identity(config, encoded), {"objective": objective})
        for undo in (run.remember, run.free):
            stack.callback(undo)
        stack.callback(model.train, model.training)
        cuda = [run.device] if run.device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(cuda))
        torch.manual_seed(config.seed)
        saved = run.saved()
        if saved is None or saved["step"] < len(plan):
            with run.autocast:  # while the model is what it is at the start
                objective.prepare(model, encoded)
        if saved is not None:
            run.resume(saved)
        parts = parts_of(run, encoded)
        stack.callback(parts.undo)

        def update() -> tuple[Metrics, int]:
            batch = [encoded[i] for i in plan[run.step]]
            model.train()
            measured = _update(run, objective, batch, parts)
            return measured, sum(row["length"] for row in batch)

        return run.go(
            update,
            evaluate and (lambda: evaluate(model.eval())),
            report,
            log_every=config.log_every,
            name="fit",
            shown=["loss"],
        )


def parts_of(run: Run, encoded: list[Encoded]) -> Parts:
    """How batches are cut; notes of each row as what length it is `read`."""
    reader = language_model(run.model)
    sequences = max(len(row.get("answers", [0])) for row in encoded)
    pairs = sequences > 1 and reader is not None and reads_together(reader)
    for row in encoded:
        row["read"] = row["length"]
        if pairs:
            row["read"] = tokens_together(reader, [said for said, _ in row["answers"]])
    longest = max(row["read"] for row in encoded)
    return Parts(run, [run.model.train()], longest, 1 if pairs else sequences)


def _update(
    run: Run, objective: Objective, batch: list[Encoded], parts: Parts
) -> Metrics:
    """Take one optimiser step; return what was measured."""
    lr = _learning_rate(run)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    measured = parts.trying(lambda: _differentiate(run, objective, batch, parts))
    losses = {"loss": measured["loss"]}
    norm = run.apply(list(run.trained.values()), losses)
    return {**measured, "grad_norm": norm, "lr": lr}


def _differentiate(
    run: Run, objective: Objective, batch: list[Encoded], parts: Parts
) -> Metrics:
    """Add up the gradient of the parts; each weighs by what its means count."""
    state = processes()
    wanted = run.config.accumulate * state.num_processes
    cut = parts.of([row["read"] for row in batch], wanted)
    with run.autocast:
        whole = objective.whole(run.model, batch, min(map(len, cut)))
    found: list[tuple[str, float, float]] = []  # not every part measures everything
    for rows in cut[state.process_index :: state.num_processes]:
        part = [batch[row] for row in sorted(rows)]
        with run.autocast:
            more = () if whole is None else (whole,)
            loss, metrics = objective.loss(run.model, part, *more)
        if whole is None:
            loss = loss * (len(part) / len(batch))
        parts.backward(loss)
        found.append(("loss", loss.item(), 0.0))
        for name, value in metrics.items():
            count = value.count if isinstance(value, Mean) else len(part)
            found.append((name, count * value, count))
    measured: Metrics = {}
    counts: Metrics = {}
    for name, value, count in (one for some in everyones(found) for one in some):
        measured[name] = measured.get(name, 0.0) + value
        counts[name] = counts.get(name, 0.0) + count
    return {name: value / (counts[name] or 1.0) for name, value in measured.items()}


def _groups(model: nn.Module, config: FitConfig) -> list[dict[str, Any]]:
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise ValueError(
            "the model has no parameter with requires_grad: nothing to train"
        )
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    decays = ((matrices, config.weight_decay), (vectors, 0.0))
    return [{"params": p, "weight_decay": w, "lr": config.lr} for p, w in decays]


def _learning_rate(run: Run) -> float:
    config = run.config
    warmup = max(1, round(config.warmup * run.steps))
    if run.step < warmup:
        return config.lr * (run.step + 1) / warmup
    if config.schedule == "constant":
        return config.lr
    done = (run.step - warmup) / max(1, run.steps - warmup)
    return config.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


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


def bucketed_batches(
    lengths: np.ndarray, batch_size: int, steps: int, seed: int
) -> list[np.ndarray]:
    """Plan the rows of every step, the same for the same seed.

    Rows are shuffled, then sorted by length inside windows of about fifty batches,
    and the batches shuffled again: a batch holds little padding and yet they come in
    random order. Each pass uses every row once; batches are equally large, give or
    take one row.
    """
    random = np.random.default_rng(seed)
    per_pass = math.ceil(len(lengths) / batch_size)
    plan: list[np.ndarray] = []
    while len(plan) < steps:
        order = random.permutation(len(lengths))
        bounds = np.arange(per_pass + 1) * len(order) // per_pass
        batches = []
        for first in range(0, per_pass, WINDOW):
            ends = bounds[first : first + WINDOW + 1]
            window = order[ends[0] : ends[-1]]
            window = window[np.argsort(lengths[window], kind="stable")]
            batches += np.split(window, ends[1:-1] - ends[0])
        plan += [batches[i] for i in random.permutation(per_pass)]
    return plan[:steps]


def _identity(config: FitConfig, encoded: list[Encoded]) -> Identity:
    """What must not change in a run, beside model and objective."""
    return {
        **{name: getattr(config, name) for name in FIXED.split()},
        "number of rows": len(encoded),
        "tokens in the rows": sum(int(row["length"]) for row in encoded),
        "the rows' content or order": digest(encoded),
    }
