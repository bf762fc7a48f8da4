"""`labs train`: on-policy training from a settings file, without a notebook.

In go an algorithm and a small TOML or YAML file; out come a trained policy, its log and
what the monitor says of it, in one folder. A run that was broken off goes on from its
last checkpoint when the same command is given again.

    policy = "town-s"        # an embedded model, a folder, or a name on the hub
    prompts = "train"        # a split of the embedded world, or a file of prompts
    reward = "gold"          # or a reward model, or "my_rewards.py:function"
    out = "build/train/ppo"
    [settings]               # of RLConfig
    updates = 50
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field, fields
from pathlib import Path
from typing import Any

import torch

from labs_helpers.common.settings import Rank, Text, require_known, settings, short
from labs_helpers.course.profile import MODELS
from labs_helpers.data import SPLITS, read_prompts
from labs_helpers.data.files import read_table
from labs_helpers.rl import RLConfig
from labs_helpers.rl.config import ALGORITHMS
from labs_tools.reward_files import Function, load_function


class BadSettings(ValueError):
    """A settings file that cannot be used; the message says what to change."""


@settings
class TrainSettings:
    """What a settings file says.

    Attributes:
        policy: an embedded model, a folder, or a name on the hub.
        prompts: a split of the embedded world; or a file, .txt with a prompt a line or
            .jsonl with rows that have a "prompt" (text or messages), preferences too.
        reward: "gold" for prompts of the embedded world; the folder or name of a reward
            model; or "file.py:function", a function of prompts and answers.
        head: of the reward model.
        out: folder for the policy, history.csv and the checkpoint.
        lora: rank of an adapter; 0 trains all weights.
        settings: of `RLConfig`.
    """

    policy: Text
    prompts: Text = "train"
    reward: Text = "gold"
    head: int | str = 0
    out: Text = "build/train"
    lora: Rank = 0
    settings: dict[str, Any] = field(default_factory=dict)


@contextmanager
def _saying(what: str) -> Iterator[None]:
    """Around what reads somebody's files: what is wrong there is a wrong setting."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise BadSettings(f"{what}{error}") from error


def read_settings(path: Path) -> TrainSettings:
    """Read a TOML or YAML file.

    Raises:
        BadSettings: not such a file, or it names what there is not.
    """
    if not path.is_file():
        raise BadSettings(f"there is no file {path}: give --config a TOML or YAML file")
    with _saying(""):
        table = read_table(path)
    with _saying(f"{path}: "):
        require_known(table, [f.name for f in fields(TrainSettings)])
        if "policy" not in table:
            raise ValueError("names no policy: add policy = 'town-s', say")
        asked = TrainSettings(**table)
        known = [f.name for f in fields(RLConfig) if f.name != "algorithm"]
        require_known(asked.settings, known)
    return asked


def run(algorithm: str, path: Path) -> int:
    """Train as a settings file says; return the exit code.

    Raises:
        BadSettings: unknown algorithm, or a file that cannot be used.
    """
    if algorithm not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise BadSettings(f"no algorithm {short(algorithm)}; there are {known}")
    asked = read_settings(path)
    out = Path(asked.out)
    usual = {"checkpoint": out / "checkpoint", "save_every": 10}
    with _saying(f"{path}: "):
        config = RLConfig(**{**usual, **asked.settings}, algorithm=algorithm)
    prompts, reward = _prompts(asked.prompts), _reward(asked)

    # Here, for they take seconds, and a wrong file is told at once.
    from labs_helpers.fit import TrainingStopped
    from labs_helpers.fit.run import processes
    from labs_helpers.models import load_policy, load_tokenizer, save_policy
    from labs_helpers.rl import alarms, train

    name = _located(asked.policy)
    torch.manual_seed(config.seed)  # a new adapter is drawn at random
    with _saying(f"policy {asked.policy!r} cannot be loaded: "):
        policy = load_policy(name, lora=asked.lora or None)
        tokenizer = load_tokenizer(name)
    is_main = processes().is_main_process
    try:
        with _saying(f"{path}: "):  # the folder holds another run, say
            history = train(policy, prompts, reward, config, tokenizer=tokenizer)
    except TrainingStopped as error:
        if is_main:
            print(f"labs: training stopped at {error}", file=sys.stderr)
        return 1
    if is_main:
        save_policy(policy, out)
        tokenizer.save_pretrained(out)
        history.save(out / "history.csv")
        last = history.last
        print(
            f"{algorithm}: reward {history['reward'][0]:.3g} to {last['reward']:.3g} "
            f"at {last['kl']:.2g} nats an answer, {history.seconds:.0f} s. "
            f"Policy and history.csv are in {out}"
        )
        for alarm in alarms(history):
            print(alarm)
    return 0


def _located(name: str) -> str:
    return str(MODELS / name) if name.startswith("town-") else name


def _prompts(name: str) -> list[Any]:
    if name in SPLITS:
        from labs_helpers.world.task import town_task

        return town_task().prompts(name)
    if not Path(name).exists():
        raise BadSettings(
            f"prompts is a split ({', '.join(SPLITS)}) or a file; there is no {name}"
        )
    with _saying(""):
        return read_prompts(name)


def _reward(asked: TrainSettings) -> Function:
    if asked.reward == "gold":
        if asked.prompts not in SPLITS:
            raise BadSettings(
                "gold is the reward of the embedded world's prompts alone: set prompts "
                "to one of its splits, or reward to a reward model or file.py:function"
            )
        from labs_helpers.world.gold import Gold

        return Gold().scores
    with _saying("reward: "):
        if asked.reward.endswith(".py"):
            raise ValueError(f"which function? Write {asked.reward}:function")
        if ".py:" in asked.reward:
            return load_function(*asked.reward.rsplit(":", 1))
        from labs_helpers.models import RewardModel
        from labs_helpers.rl import model_reward

        model = RewardModel.from_pretrained(_located(asked.reward))
        return model_reward(model, asked.head)
