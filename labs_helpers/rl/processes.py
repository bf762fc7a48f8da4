"""Several processes as one: each answers and differentiates a share of the whole.

Under `torchrun` (`accelerate launch` starts one process on CPUs, whatever it is asked
for) every process samples answers to prompts of its own. All answers then go to all of
them, so that whatever is counted or averaged is of the whole round, and each computes a
share of every step, whose sums are added up: N processes with S samples learn what one
with N x S does, but for rounding. Knows no update rule. With one process everything
here leaves what it is given.
"""

import os
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, gather_object, reduce
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from labs_helpers.sampling import Rollout


def processes() -> PartialState:
    """Which of how many processes this is."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return PartialState(cpu=several and not torch.cuda.is_available())


def share(rows: Tensor) -> Tensor:
    """This process's share of rows that all of them know, in the same order."""
    state = processes()
    return rows[state.process_index :: state.num_processes]


def added(x: Tensor) -> Tensor:
    """Sum over the processes."""
    return reduce(x, "sum") if processes().num_processes > 1 else x


def from_main(x: Tensor) -> Tensor:
    """What the main process has."""
    return broadcast(x) if processes().num_processes > 1 else x


def added_figures(measured: dict[str, float]) -> dict[str, float]:
    """Sum figures over the processes, some of which may have measured nothing."""
    if processes().num_processes == 1:
        return measured
    total: dict[str, float] = {}
    for part in everyones(measured):
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + value
    return total


def everyones(x: Any) -> list[Any]:
    """What each process has of something, in their order."""
    return gather_object([x]) if processes().num_processes > 1 else [x]


def add_gradients(parameters: list[nn.Parameter]) -> None:
    """Sum gradients over the processes."""
    if processes().num_processes == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # no row of the step was this process's
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad = added(parameter.grad)


def seed_sampling(seed: int, samples: int, max_new_tokens: int) -> int | None:
    """Give the seed for `sample`; None is torch's own state, set by this.

    A token is drawn by a number of its row and place. This skips those of the rows that
    processes before this one sample, so that all draw as one would.
    """
    state = processes()
    if state.num_processes == 1:
        return seed
    torch.manual_seed(seed)
    torch.rand(state.process_index * samples, max_new_tokens)
    return None


def gathered(rollout: Rollout, scores: Tensor) -> tuple[Rollout, Tensor]:
    """The answers of all processes, in their order, and the scores of all."""
    if processes().num_processes == 1:
        return rollout, scores
    asked = rollout.tokens[:, : rollout.prompt_mask.shape[1]]
    mine = zip(
        _unpadded(asked, rollout.prompt_mask),
        _unpadded(rollout.responses, rollout.response_mask),
        rollout.texts,
        rollout.finished.tolist(),
        scores.tolist(),
        strict=True,
    )
    every = gather_object(list(mine))
    prompts, responses, texts, finished, everyones = zip(*every, strict=True)
    prompt, prompt_mask = _padded(prompts, "left")
    response, response_mask = _padded(responses, "right")
    whole = Rollout(
        tokens=torch.cat([prompt, response], dim=1),
        prompt_mask=prompt_mask,
        response_mask=response_mask,
        logprobs=torch.zeros(response.shape),  # experience takes its own
        texts=list(texts),
        finished=torch.tensor(finished),
    )
    return whole, torch.tensor(everyones)


def _unpadded(tokens: Tensor, mask: Tensor) -> list[Tensor]:
    return [row[counts] for row, counts in zip(tokens, mask, strict=True)]


def _padded(rows: tuple[Tensor, ...], side: str) -> tuple[Tensor, Tensor]:
    """Rows in one tensor, and where they are in it."""
    pair = (rows, [torch.ones_like(row, dtype=torch.bool) for row in rows])
    tokens, mask = (pad_sequence(list(x), True, 0, side) for x in pair)
    return tokens, mask
