"""The state of a training run on disk: whole or not at all.

A state is a dict of tensors, numbers and containers of them. The file is replaced in
one move, so that whatever ends the program leaves the old or the new one. Knows
nothing of what the state means.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def save(path: Path, state: dict[str, Any], identity: dict[str, Any]) -> None:
    """Write the state beside the file, then put it in the file's place.

    Args:
        path: the file; its folder is made.
        state: what `load` gives back.
        identity: settings that a run must share to go on from here.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    torch.save({"identity": identity, "state": state}, unfinished)
    os.replace(unfinished, path)


def load(
    path: Path, identity: dict[str, Any], device: torch.device | str
) -> dict[str, Any]:
    """Read a state back.

    Raises:
        ValueError: it is that of a run with other settings, which are named.
    """
    saved = torch.load(path, map_location=device, weights_only=True)
    differences = [
        f"{name} was {saved['identity'].get(name)}, is {value}"
        for name, value in identity.items()
        if saved["identity"].get(name) != value
    ]
    if differences:
        raise ValueError(
            f"{path} is the checkpoint of another run: {'; '.join(differences)}. "
            "Delete it to start anew, or give this run a folder of its own"
        )
    return saved["state"]


def random_state(device: torch.device) -> list[Tensor]:
    """Read torch's random state: the CPU's, and the device's if it is another."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def set_random_state(device: torch.device, states: list[Tensor]) -> None:
    """Go back to what `random_state` read."""
    torch.set_rng_state(states[0].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1].cpu(), device)
