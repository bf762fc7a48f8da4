"""One training of `labs train`, from a settings file to a model that loads again.

In go a method and a file; out come the model, its tokenizer and history.csv in one
folder. A run that was broken off goes on from its last checkpoint when the same command
is given again.
"""

import os
import sys
from pathlib import Path

import numpy as np

from labs_helpers.fit import History, TrainingStopped
from labs_helpers.fit.run import processes
from labs_helpers.rl import alarms
from labs_tools.training.cai import run_cai
from labs_tools.training.data import saying
from labs_tools.training.offline import run_offline
from labs_tools.training.on_policy import run_on_policy
from labs_tools.training.publishing import push, require_published
from labs_tools.training.settings import (
    CAI,
    BadSettings,
    OnPolicy,
    Settings,
    read_settings,
)

SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
}


def run(method: str, path: Path) -> int:
    """Train as a settings file says; return the exit code.

    Raises:
        BadSettings: unknown method, or a file or an environment that cannot be used.
    """
    asked = read_settings(method, path)
    require_whole_models()
    require_published(asked)
    is_main = processes().is_main_process  # also takes this process's device
    try:
        with saying(f"{path}: "):  # the folder holds another run, say
            if isinstance(asked, CAI):
                history = run_cai(asked)
            elif isinstance(asked, OnPolicy):
                history = run_on_policy(asked)
            else:
                history = run_offline(asked)
    except TrainingStopped as error:
        if is_main:
            print(f"labs: training stopped at {error}", file=sys.stderr)
        return 1
    if is_main:
        _tell(asked, history)
        address = push(asked)
        if address:
            print(f"Uploaded to {address}")
    return 0


def require_whole_models() -> None:
    """Refuse launchers that ask for what is not done here.

    Raises:
        BadSettings: with the launcher that does it.
    """
    for name, what in SHARDED.items():
        if os.environ.get(name, "").lower() in ("true", "1"):
            raise BadSettings(
                f"{what} cuts a model into pieces, and labs train keeps a whole one in "
                "every process: launch it without (docs/practitioners.md says how), "
                "with lora, which needs little memory beside the frozen weights"
            )
    alone = "WORLD_SIZE" not in os.environ and "MASTER_PORT" in os.environ
    if alone and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
        raise BadSettings(
            "accelerate was asked for several processes and started one, as it does on "
            "CPUs without MPI: launch with --multi_gpu in place of --cpu, which starts "
            "them on CPUs, too, where there is no GPU"
        )


def _tell(asked: Settings, history: History) -> None:
    """Say in a few lines what has become of a training."""
    names = ["reward", "kl"] if isinstance(asked, OnPolicy) else ["loss", "accuracy"]
    names += [f"validation_{name}" for name in ("loss", "accuracy", "reward", "kl")]
    changes = []
    for name in (name for name in names if name in history):
        seen = history[name][np.isfinite(history[name])]
        changes.append(f"{name} {seen[0]:.3g} to {seen[-1]:.3g}")
    steps, out = int(history.last["step"]), asked.out
    print(
        f"{asked.method}: {', '.join(changes)}; {steps} steps, {history.seconds:.0f} s"
    )
    by = None if isinstance(asked, CAI) else asked.settings.best_by
    if by is not None:
        figures = history[by.removeprefix("-")] * (-1 if by.startswith("-") else 1)
        best = history["step"][np.nanargmax(figures)]
        print(f"Saved is the model of step {best:.0f}, the best by {by}")
    print(f"Model and history.csv are in {out}")
    for alarm in alarms(history) if isinstance(asked, OnPolicy) else ():
        print(alarm)
