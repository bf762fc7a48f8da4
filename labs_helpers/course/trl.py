"""Settings with which TRL trains as plainly as the labs do, and a bar over its steps.

In goes one of TRL's config classes, out comes an instance for training in float32 that
saves and reports nothing. Knows nothing of what is trained.
"""

from dataclasses import fields
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PrinterCallback, TrainerCallback


def trl_config(kind: type, **settings: Any) -> Any:
    """Configure a trainer of TRL: float32, no checkpoints, no recomputing, no reports.

    Args:
        kind: `DPOConfig`, `RewardConfig` or another of TRL's configs.
        **settings: the run's own, by TRL's names; they win over the plain ones.
    """
    plain = {
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        # transformers 5 renamed the second to the first; early releases know but it
        "activation_checkpointing": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }
    known = {field.name for field in fields(kind)}
    return kind(**{n: x for n, x in plain.items() if n in known} | settings)


class Bar(TrainerCallback):
    """A bar over the steps of a training."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw it."""
        self._bar = tqdm(total=state.max_steps, leave=False)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count a step."""
        self._bar.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take it away."""
        self._bar.close()


def with_bar(trainer: Any) -> Any:
    """Return a trainer with a bar in place of what transformers prints."""
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Bar())
    return trainer
