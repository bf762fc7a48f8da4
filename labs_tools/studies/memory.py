"""Memory of a training step: what was predicted, and what it took.

Each configuration runs in a process of its own on rows of random tokens, so that its
peak is nobody else's. The model is the one that LABS_MODEL names.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch

from labs_helpers.data import Preference, Unpaired
from labs_helpers.fit import (
    FitConfig,
    KTOObjective,
    PairObjective,
    RewardObjective,
    SFTObjective,
    fit,
)
from labs_helpers.fit.loop import parts_of
from labs_helpers.fit.objectives import encode_rows
from labs_helpers.fit.run import Run
from labs_helpers.models import RewardModel, load_policy, load_tokenizer, memory
from labs_tools.studies.study import Row, named, study

STATUS = Path("/proc/self/status")
STEPS = 2  # in the first, AdamW makes its means


class Configuration(NamedTuple):
    """What is trained, on rows of so many words."""

    method: str
    lora: int
    batch: int
    words: int
    room_gb: float = 2.0


CONFIGURATIONS = (
    Configuration("sft", 16, 4, 100),
    Configuration("sft", 16, 16, 100),
    Configuration("sft", 0, 4, 100),
    Configuration("sft", 16, 1, 800, 0.25),  # a row that has to be computed again
    Configuration("dpo", 16, 2, 200),
    Configuration("dpo", 16, 16, 200),
    Configuration("kto", 16, 8, 60),
    Configuration("reward", 16, 4, 150),
)


@study("memory", recipe=(CONFIGURATIONS, STEPS), data=())
def predicted() -> Iterator[Row]:
    """Peak memory of a step beside its prediction, in GB above that before training.

    Columns: model, method, lora, batch, words, room, tokens, parts, recomputed,
    predicted, measured, ratio.
    """
    model = named("LABS_MODEL")
    for configuration in CONFIGURATIONS:
        yield {"model": Path(model).name, **apart(model, configuration)}


def apart(model: str, configuration: Configuration) -> Row:
    """Measure a configuration in a process of its own."""
    asked = json.dumps([model, configuration])
    command = [sys.executable, "-m", __name__, asked]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _measure(model: str, asked: Configuration) -> Row:
    memory.CPU_BYTES = int(asked.room_gb * 2**30)
    torch.manual_seed(0)
    trained, rows, objective = _made(model, asked)
    config = FitConfig(lr=1e-6, batch_size=asked.batch, steps=STEPS, progress=False)
    encoded = encode_rows(rows, objective, None)
    run = Run(trained, [{"params": [*trained.parameters()], "lr": 0.0}], config, "", 1)
    parts = parts_of(run, encoded)
    lengths = [row["read"] for row in encoded]
    cut = parts.of(lengths[: asked.batch])
    parts.undo()
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that from here on
    fit(trained, rows, objective, config)
    peak = next(s for s in STATUS.read_text().splitlines() if s.startswith("VmHWM"))
    measured = int(peak.split()[1]) * 1024 - before
    return {
        **asked._asdict(),
        "tokens": sum(len(part) * lengths[part[-1]] for part in cut),
        "parts": len(cut),
        "recomputed": parts.recomputes,
        "predicted": round(parts.peak / 2**30, 3),
        "measured": round(measured / 2**30, 3),
        "ratio": round(parts.peak / measured, 3),
    }


def _made(model: str, asked: Configuration) -> tuple[Any, list[Any], Any]:
    """The model, its rows and the objective."""
    tokenizer = load_tokenizer(model)
    said = ["stone", "hall", "baker", "river", "town", "bell", "glass", "bridge"]

    def words(number: int) -> str:
        drawn = torch.randint(len(said), (number,)).tolist()
        return " ".join(said[i] for i in drawn)

    half = asked.words // 2
    if asked.method in ("sft", "kto"):
        rows = [Unpaired(words(half), words(half), i % 2 == 0) for i in range(64)]
    else:
        rows = [Preference(words(half), words(half), words(half)) for _ in range(64)]
    policy = load_policy(model, lora=asked.lora if asked.method != "reward" else None)
    if asked.method == "reward":
        reward = RewardModel.from_policy(policy, lora=asked.lora)
        return reward, rows, RewardObjective(reward)
    objective = {
        "sft": lambda: SFTObjective(tokenizer),
        "dpo": lambda: PairObjective(tokenizer, None),
        "kto": lambda: KTOObjective(tokenizer, None),
    }[asked.method]()
    return policy, rows, objective


if __name__ == "__main__":
    name, given = json.loads(sys.argv[1])
    print(json.dumps(_measure(name, Configuration(*given))))
