"""Seconds a step and memory of our training beside TRL's, on a real model.

Each run is a process of its own, so that its peak is nobody else's; ours and TRL's take
turns. The model is the one that LABS_MODEL names, the pairs are those of LABS_DATA.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PrinterCallback,
    TrainerCallback,
)

from labs_helpers import data, fit, rl
from labs_helpers.course import trl_config
from labs_helpers.losses import dpo_loss
from labs_helpers.models import RewardModel, encode_chat, load_policy, load_tokenizer
from labs_tools.studies.study import Row, named, study

METHODS = ("dpo", "reward", "sft", "kto", "rloo", "grpo")
BATCHES = (4, 8)
SIDES = ("ours", "trl")
STEPS = 4  # timed, after one that is not
LENGTHS = (100, 256)  # tokens of each answer with its prompt
LORA, LR, BETA = 16, 1e-5, 0.1
ANSWERS, NEW, KL = 4, 48, 0.03
WORDS = 20  # is what the verifiable reward wants


class Asked(NamedTuple):
    """One run; a batch of RL is so many answers, several to a prompt."""

    model: str
    data: str
    method: str
    side: str
    batch: int


@study("real_speed", recipe=(METHODS, BATCHES, STEPS, LENGTHS, LORA, NEW), data=())
def beside_trl() -> Iterator[Row]:
    """Seconds a step and peak memory (GB), ours and TRL's, and theirs over ours.

    Columns: model, method, batch, seconds, trl_seconds, faster, peak, trl_peak, more.
    """
    model, rows = named("LABS_MODEL"), named("LABS_DATA")
    for batch, method in product(BATCHES, METHODS):
        found = {side: apart(Asked(model, rows, method, side, batch)) for side in SIDES}
        (seconds, peak), (their_seconds, their_peak) = found.values()
        yield {
            "model": Path(model).name,
            "method": method,
            "batch": batch,
            "seconds": round(seconds, 2),
            "trl_seconds": round(their_seconds, 2),
            "faster": round(their_seconds / seconds, 2),
            "peak": round(peak, 2),
            "trl_peak": round(their_peak, 2),
            "more": round(their_peak / peak, 2),
        }


def apart(asked: Asked) -> tuple[float, float]:
    """Seconds a step and peak of a run in a process of its own."""
    command = [sys.executable, "-m", __name__, json.dumps(asked)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def _rows(asked: Asked, tokenizer: Any) -> list[Any]:
    """As many pairs as the steps take, none short and none long."""
    wanted, found = asked.batch * (STEPS + 1), []
    for row in data.load_preferences(asked.data):
        sides = [[*row.prompt, *answer] for answer in (row.chosen, row.rejected)]
        encode = partial(encode_chat, tokenizer, add_generation_prompt=False)
        lengths = [len(encode(side)) for side in sides]
        if LENGTHS[0] <= min(lengths) and max(lengths) <= LENGTHS[1]:
            found.append(row)
        if len(found) == wanted:
            break
    if asked.method in ("sft", "kto"):
        good = [i % 2 == 0 or asked.method == "sft" for i in range(len(found))]
        return [
            data.Unpaired(row.prompt, row.chosen if g else row.rejected, g)
            for row, g in zip(found, good, strict=True)
        ]
    return found


def _reward(prompts: Any, answers: list[str]) -> list[float]:
    """Answers of so many words are best."""
    return [-abs(len(answer.split()) - WORDS) / WORDS for answer in answers]


def ours(asked: Asked) -> float:
    """Seconds a step of our training; what comes before the first is shared out."""
    tokenizer = load_tokenizer(asked.model)
    rows = _rows(asked, tokenizer)
    policy = load_policy(asked.model, lora=None if asked.method == "reward" else LORA)
    if asked.method in ("rloo", "grpo"):
        settings = rl.RLConfig(
            algorithm=asked.method,
            answers=ANSWERS,
            updates=STEPS + 1,
            samples=asked.batch,
            max_new_tokens=NEW,
            kl_weight=KL,
            lr=LR,
            epochs=1,
            progress=False,
        )
        prompts = [row.prompt for row in rows]
        seconds = rl.train(policy, prompts, _reward, settings, tokenizer=tokenizer)
        return (seconds["seconds"][-1] - seconds["seconds"][0]) / STEPS
    if asked.method == "reward":
        policy = RewardModel.from_policy(policy, lora=LORA)
    objective = {
        "dpo": lambda: fit.PairObjective(tokenizer, None, partial(dpo_loss, beta=BETA)),
        "sft": lambda: fit.SFTObjective(tokenizer),
        "kto": lambda: fit.KTOObjective(tokenizer, None),
        "reward": lambda: fit.RewardObjective(policy),
    }[asked.method]()
    config = fit.FitConfig(
        lr=LR, batch_size=asked.batch, steps=STEPS + 1, log_every=1, progress=False
    )
    started = time.perf_counter()
    history = fit.fit(policy, rows, objective, config)
    steps = history["seconds"][-1] - history["seconds"][0]
    before = time.perf_counter() - started - history["seconds"][-1]
    return steps / STEPS + before / (STEPS + 1)  # the reference reads all rows first


class _Clock(TrainerCallback):
    """When the steps of a trainer ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())


def theirs(asked: Asked) -> float:
    """Seconds a step of TRL's training."""
    import trl  # takes seconds, and only this side needs it

    rows = _rows(asked, load_tokenizer(asked.model))
    rewards, online = asked.method == "reward", asked.method in ("rloo", "grpo")
    adapter = LoraConfig(
        r=LORA,
        lora_alpha=2 * LORA,
        target_modules="all-linear",
        task_type="SEQ_CLS" if rewards else "CAUSAL_LM",
    )
    kind = AutoModelForSequenceClassification if rewards else AutoModelForCausalLM
    more = {"num_labels": 1} if rewards else {}
    model = kind.from_pretrained(asked.model, dtype=torch.float32, **more)
    name = asked.method.upper() if asked.method != "reward" else "Reward"
    table = data.to_trl(rows)
    if asked.method == "sft":
        table = table.select_columns(["prompt", "completion"])
    own: dict[str, Any] = {"max_length": None}
    made: dict[str, Any] = {}
    if online:
        table = table.select_columns(["prompt"])
        own = {
            "num_generations": ANSWERS, "max_completion_length": NEW, "beta": KL,
            "temperature": 1.0,
        }  # fmt: skip
        made["reward_funcs"] = lambda completions, **_: _reward(
            None, [answer[0]["content"] for answer in completions]
        )
    with TemporaryDirectory() as folder:
        settings = trl_config(
            getattr(trl, f"{name}Config"),
            output_dir=folder,
            per_device_train_batch_size=asked.batch,
            max_steps=STEPS + 1,
            learning_rate=LR,
            **own,
        )
        trainer = getattr(trl, f"{name}Trainer")(
            model=model,
            args=settings,
            train_dataset=table,
            processing_class=load_tokenizer(asked.model),
            peft_config=adapter,
            **made,
        )
        clock = _Clock()
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(clock)
        trainer.train()
    return (clock.ends[-1] - clock.ends[0]) / STEPS


if __name__ == "__main__":
    given = Asked(*json.loads(sys.argv[1]))
    spent = {"ours": ours, "trl": theirs}[given.side](given)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps([spent, used]))
