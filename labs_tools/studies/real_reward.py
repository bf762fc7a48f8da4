"""Reward models on real preferences: a head on frozen features, and LoRA beside it.

The model is the one that LABS_MODEL names, the pairs are those of LABS_DATA, split by
prompt. Layer and pooling of the frozen features were chosen by cross-validation on the
training pairs of SmolLM2-135M-Instruct.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from tqdm.auto import tqdm

from labs_helpers import evaluation
from labs_helpers.data import Preference, load_preferences, split
from labs_helpers.evaluation.fitted import (
    bradley_terry_fit,
    drop_upper_layers,
    exchanges,
)
from labs_helpers.fit import FitConfig, RewardObjective, fit
from labs_helpers.models import RewardModel, load_policy
from labs_helpers.models.chat import encode_prompt
from labs_helpers.models.together import together
from labs_tools.studies.study import Row, named, study

TEST_PAIRS = 607
KEPT_LAYERS = 0.73
POOLED = "last token, mean of the answer"
AT_ONCE = 4  # pairs of like length
LORA, LORA_PAIRS = 16, 800
CONFIG = FitConfig(lr=3e-4, batch_size=4, epochs=1, max_length=320)

Margins = Float[np.ndarray, " pairs"]


@study(
    "real_reward",
    recipe=(TEST_PAIRS, KEPT_LAYERS, POOLED, LORA, LORA_PAIRS, CONFIG),
    data=(),
)
def rewards() -> Iterator[Row]:
    """Accuracy on pairs to unseen prompts; `more` is that over the frozen features'.

    Columns: model, way, pairs, seconds, accuracy, more; the last two with intervals.
    """
    name = named("LABS_MODEL")
    rows = load_preferences(named("LABS_DATA"))
    share = TEST_PAIRS / len(rows)
    train, test = split(rows, (1 - share, share), 0)
    frozen: np.ndarray | None = None
    for way, learn in (("frozen features", on_frozen), ("LoRA", by_lora)):
        started = time.perf_counter()
        torch.manual_seed(0)
        model = RewardModel.from_policy(
            load_policy(name), lora=LORA if learn is by_lora else None
        )
        drop_upper_layers(model.trunk, KEPT_LAYERS)
        pairs, margins = learn(model, train, test)
        right = evaluation.pairs_right(margins)
        frozen = right if frozen is None else frozen
        yield {
            "model": Path(name).name,
            "way": way,
            "pairs": pairs,
            "seconds": round(time.perf_counter() - started),
            "accuracy": evaluation.rate(right),
            "more": evaluation.paired_difference(right, frozen),
        }


def on_frozen(
    model: RewardModel, train: Sequence[Preference], test: Sequence[Preference]
) -> tuple[int, Margins]:
    """Bradley-Terry on features of the lower layers: training pairs, test margins."""
    weights, _ = bradley_terry_fit(gaps(model, train))
    return len(train), gaps(model, test) @ weights


def by_lora(
    model: RewardModel, train: Sequence[Preference], test: Sequence[Preference]
) -> tuple[int, Margins]:
    """The same layers trained with an adapter, on pairs that fit the longest length."""
    tokens = np.reshape([len(x) for x in encoded(model, train)], (2, -1)).max(axis=0)
    fitting = [
        row for row, n in zip(train, tokens, strict=True) if n <= CONFIG.max_length
    ]
    learned = fitting[:LORA_PAIRS]
    fit(model, learned, RewardObjective(model), CONFIG)
    rewards = model.score(*exchanges(test), batch_size=2 * AT_ONCE)
    chosen, rejected = rewards[:, 0].double().reshape(2, -1)
    return len(learned), (chosen - rejected).numpy()


def encoded(model: RewardModel, rows: Sequence[Preference]) -> list[list[int]]:
    """Token ids of all chosen conversations, then of all rejected ones."""
    return [*map(model.encode, *exchanges(rows))]


@torch.no_grad()
def gaps(
    model: RewardModel, rows: Sequence[Preference]
) -> Float[np.ndarray, "pairs D2"]:
    """Features of chosen less rejected: last hidden state, and the answer's mean."""
    sequences, found = encoded(model, rows), np.zeros((2 * len(rows), 2 * model.width))
    before = [len(encode_prompt(model.tokenizer, x)) for x in exchanges(rows)[0]]
    by_length = sorted(range(len(rows)), key=lambda i: len(sequences[i]))
    for at in tqdm(range(0, len(rows), AT_ONCE), "features"):
        members = [j for i in by_length[at : at + AT_ONCE] for j in (i, i + len(rows))]
        read = together(model.trunk, [sequences[j] for j in members])
        hidden = model.trunk(**read.inputs, use_cache=False).last_hidden_state
        for k, j in enumerate(members):
            own = slice(before[j], len(sequences[j]))
            answer = hidden[read.rows[k, own], read.columns[k, own]].float()
            found[j] = torch.cat([answer[-1], answer.mean(0)]).double().numpy()
    return found[: len(rows)] - found[len(rows) :]
