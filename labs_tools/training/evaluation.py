"""How good a model is on rows that no step learns from, while it is trained.

In go an objective and rows, or a reward and prompts; out comes a function of the model
for `fit` and `rl.train`, whose figures begin with "validation_". Several processes
share the work and get the same figures.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from labs_helpers.fit import FitConfig, Objective
from labs_helpers.fit.objectives import Mean, encode_rows
from labs_helpers.fit.references import AtStart
from labs_helpers.fit.run import everyones, processes
from labs_helpers.models import Policy
from labs_helpers.rl import Reward, RLConfig
from labs_helpers.rl.rewards import scores_in_training
from labs_helpers.sampling import rollout_logprobs, sample

Evaluate = Callable[[Any], dict[str, float]]
Found = tuple[str, float, float]  # a figure's name, its sum, and over how many
FEW = 128  # prompts: the mean of a reward of spread 1 is then known to within 0.09
SEED = 1_000_003  # of the answers; training has others


def on_rows(
    model: nn.Module, objective: Objective, rows: Sequence[Any], config: FitConfig
) -> Evaluate:
    """Loss, accuracy and what else an objective measures, over all rows."""
    encoded = encode_rows(rows, objective, config.max_length)
    objective.check(model, encoded, len(encoded))
    size = -(-config.batch_size // config.accumulate)
    parts = [encoded[i : i + size] for i in range(0, len(encoded), size)]

    def evaluate(model: nn.Module) -> dict[str, float]:
        whole, found = objective.whole(model, encoded, size), []
        for part in _mine(parts):
            more = () if whole is None else (whole,)
            loss, metrics = objective.loss(model, part, *more)
            share = len(part) if whole is None else len(encoded)  # parts add up
            found.append(("loss", loss.item() * share, len(part)))
            for name, value in metrics.items():
                count = value.count if isinstance(value, Mean) else len(part)
                found.append((name, value * count, count))
        return _means(found)

    return evaluate


def on_prompts(
    prompts: Sequence[Any],
    reward: Reward,
    reference: Policy | AtStart,
    tokenizer: Any,
    config: RLConfig,
) -> Evaluate:
    """Reward and KL of a policy's answers, and the objective, reward less priced KL.

    Args:
        prompts: the first of them are asked.
        reference: what KL is measured from (`reference_of`), by log-prob differences.
        config: how to sample, and the price of KL.
    """
    prompts = list(prompts[:FEW])
    mine = _mine(range(len(prompts)))

    def evaluate(policy: Policy) -> dict[str, float]:
        if not mine:
            return _means([])
        asked = [prompts[i] for i in mine]
        with torch.random.fork_rng([]):
            torch.manual_seed(SEED)
            torch.rand(mine[0], config.max_new_tokens)  # what others draw from
            rollout = sample(
                policy,
                tokenizer,
                asked,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
            )
        scores = scores_in_training(reward, asked, rollout.texts)
        here = rollout_logprobs(policy, rollout)
        at_start = isinstance(reference, AtStart)
        with reference.active() if at_start else nullcontext(reference) as frozen:
            there = rollout_logprobs(frozen, rollout)
        kl = (here - there).sum(dim=1)
        found = {"reward": scores, "kl": kl, "finished": rollout.finished.float()}
        found["objective"] = scores - config.kl_weight * kl
        return _means((k, x.sum().item(), len(asked)) for k, x in found.items())

    return evaluate


def _mine(things: Sequence[Any]) -> Sequence[Any]:
    """This process's share, in a row."""
    state = processes()
    first, last = (
        len(things) * i // state.num_processes
        for i in (state.process_index, state.process_index + 1)
    )
    return things[first:last]


def _means(found: Iterable[Found]) -> dict[str, float]:
    """Means over what all processes found."""
    sums: dict[str, tuple[float, float]] = {}
    for name, value, count in (one for some in everyones(list(found)) for one in some):
        total, number = sums.get(name, (0.0, 0.0))
        sums[name] = (total + value, number + count)
    return {f"validation_{k}": total / (n or 1.0) for k, (total, n) in sums.items()}
