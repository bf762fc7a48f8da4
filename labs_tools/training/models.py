"""The policy that a settings file starts from, and the folder that it ends in."""

from pathlib import Path
from typing import Any

import torch

from labs_helpers.course.profile import located
from labs_helpers.fit import History
from labs_helpers.fit.run import processes
from labs_helpers.models import (
    Policy,
    RewardModel,
    load_policy,
    load_tokenizer,
    save_policy,
)
from labs_tools.training.data import saying
from labs_tools.training.settings import Settings


def model_of(asked: Settings, seed: int) -> tuple[Policy, Any]:
    """The policy to train, with its adapter, and its tokenizer."""
    name = located(asked.policy)
    lora = None if asked.method == "reward" else asked.lora  # which has its own
    torch.manual_seed(seed)  # a new adapter is drawn at random
    with saying(f"policy {asked.policy!r} cannot be loaded: "):
        return load_policy(name, lora=lora or None), load_tokenizer(name)


def save(
    model: Policy | RewardModel, tokenizer: Any, history: History, out: Path
) -> None:
    """Save what was trained so that it loads again, in the main process."""
    if processes().is_main_process:
        if isinstance(model, RewardModel):
            model.save_pretrained(out)
        else:
            save_policy(model, out)
            tokenizer.save_pretrained(out)
        history.save(out / "history.csv")
    processes().wait_for_everyone()
