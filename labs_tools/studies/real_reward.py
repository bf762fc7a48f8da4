"""Reward models on real preferences: a head on frozen features, and LoRA beside it.

The model is the one that LABS_MODEL names, the pairs are those of LABS_DATA, split by
prompt.
"""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from labs_helpers import evaluation
from labs_helpers.data import Preference, load_preferences, split
from labs_helpers.evaluation.fitted import drop_upper_layers, exchanges, fit_head
from labs_helpers.fit import FitConfig, RewardObjective, fit
from labs_helpers.models import RewardModel, load_policy
from labs_tools.studies.study import Row, study

TEST_PAIRS = 607
KEPT_LAYERS = 2 / 3
LORA, LORA_PAIRS = 16, 800
CONFIG = FitConfig(lr=3e-4, batch_size=4, epochs=1, max_length=320)


@study(
    "real_reward", recipe=(TEST_PAIRS, KEPT_LAYERS, LORA, LORA_PAIRS, CONFIG), data=()
)
def rewards() -> Iterator[Row]:
    """Accuracy on pairs to unseen prompts; `more` is that over the frozen features'.

    Columns: model, way, pairs, seconds, accuracy, more; the last two with intervals.
    """
    name = os.environ["LABS_MODEL"]
    rows = load_preferences(os.environ["LABS_DATA"])
    share = TEST_PAIRS / len(rows)
    train, test = split(rows, (1 - share, share), 0)
    frozen: np.ndarray | None = None
    for way, learn in (("frozen", on_frozen), ("LoRA", by_lora)):
        started = time.perf_counter()
        torch.manual_seed(0)
        model, pairs = learn(name, train)
        right = evaluation.pairs_right(margins(model, test))
        frozen = right if frozen is None else frozen
        yield {
            "model": Path(name).name,
            "way": way,
            "pairs": pairs,
            "seconds": round(time.perf_counter() - started),
            "accuracy": evaluation.rate(right),
            "more": evaluation.paired_difference(right, frozen),
        }


def on_frozen(name: str, rows: Sequence[Preference]) -> tuple[RewardModel, int]:
    """A linear head on features of the lower layers, by Bradley-Terry."""
    model = RewardModel.from_policy(load_policy(name))
    drop_upper_layers(model.trunk, KEPT_LAYERS)
    fit_head(model, rows)
    return model, len(rows)


def by_lora(name: str, rows: Sequence[Preference]) -> tuple[RewardModel, int]:
    """The same layers trained with an adapter."""
    model = RewardModel.from_policy(load_policy(name), lora=LORA)
    drop_upper_layers(model.trunk, KEPT_LAYERS)
    fit(model, rows[:LORA_PAIRS], RewardObjective(model), CONFIG)
    return model, min(len(rows), LORA_PAIRS)


def margins(model: RewardModel, rows: Sequence[Preference]) -> np.ndarray:
    """Rewards of the chosen answers less those of the rejected ones."""
    rewards = model.score(*exchanges(rows))[:, 0].double().numpy()
    chosen, rejected = rewards.reshape(2, len(rows))
    return chosen - rejected
