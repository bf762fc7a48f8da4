"""Settings with which TRL trains as plainly as the labs do.

In goes one of TRL's config classes, out comes an instance for training in float32 that
saves and reports nothing. Knows neither TRL's trainers nor the labs.
"""

from dataclasses import fields
from typing import Any

import torch


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
