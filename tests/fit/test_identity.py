"""What a run is: the same in every process, and another where its result would be."""

import logging
import re
import subprocess
import sys
import threading
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache, partial
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from torch import nn
from tqdm import tqdm

from labs_helpers.fit.identity import describe, differences, digest, moved
from labs_helpers.losses import dpo_loss, ipo_loss
from labs_helpers.models import RewardModel
from labs_helpers.rl import ensemble, length_penalised, model_reward

SCRIPT = """
import logging, random, threading
from dataclasses import dataclass, field
from functools import lru_cache, partial
from labs_helpers.fit.identity import describe, digest
from labs_helpers.losses import dpo_loss

LOG, LOCK, WORDS = logging.getLogger("x"), threading.Lock(), {"a", "bb", "ccc", "d"}

@lru_cache
def known(text):
    return text in {"x", "yy", "zzz"} or text in WORDS

@dataclass
class Judge:
    scale: float = 2.0
    seen: list = field(default_factory=list)

    def __call__(self, prompts, answers):
        LOG.info("asked")
        with LOCK:
            return [self.scale * known(a) + random.random() for a in answers]

class Plain:
    def __init__(self):
        self.thing, self.me, self.rng = object(), self, random.Random()

things = [Judge(), Plain(), Judge().__call__, partial(dpo_loss, beta=0.3),
          lambda p, a: [known(x) for x in a], {frozenset("abc"): {1, 2}}]
print(digest([describe("it", thing) for thing in things]))
"""


def same(a, b, name="reward"):
    return differences(describe(name, a), describe(name, b))


def scaled(scale):
    return lambda prompts, answers: [scale * len(answer) for answer in answers]


class Scorer:
    """Has a setting, a count and a cache."""

    def __init__(self, weight=1.0):
        self.weight, self.calls, self._cache = weight, 0, {}

    def __call__(self, prompts, answers):
        self.calls += 1
        self._cache[len(answers)] = answers
        return [self.weight for _ in answers]

    def score(self, prompts, answers):
        return self(prompts, answers)


def Kept(weight):
    """Of a class that keeps a setting under a private name."""
    return type("Kept", (), {"_weight": weight})()


@pytest.mark.slow
def test_is_the_same_in_every_process(tmp_path):
    script = tmp_path / "script.py"
    found = set()
    for seed, remark in (("1", "# one"), ("2", "# two\n\n\n"), ("3", "'doc'\n")):
        script.write_text(remark + SCRIPT)
        command = [sys.executable, str(script)]
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=100
        )
        assert ended.returncode == 0, ended.stderr
        found.add(ended.stdout)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (scaled(1), scaled(-1), "reward.scale was 1, is -1"),
        (partial(dpo_loss, beta=0.1), partial(dpo_loss, beta=0.9), "beta was 0.1, is"),
        (dpo_loss, ipo_loss, "dpo_loss, is labs_helpers"),
        (Scorer(1.0), Scorer(2.0), "reward.weight was 1.0, is 2.0"),
        (Scorer(1.0).score, Scorer(2.0).score, "reward.weight was 1.0, is 2.0"),
        (
            ensemble([scaled(1)]),
            ensemble([scaled(1)], "worst"),
            "was mean, is worst",
        ),
        (ensemble([scaled(1)]), ensemble([scaled(2)]), r"\[0\].scale was 1, is 2"),
        (
            length_penalised(scaled(1), 0.1),
            length_penalised(scaled(1), 0.2),
            "weight was 0.1",
        ),
        (lambda p, a: [1.0], lambda p, a: [2.0], "reward's code: not the same"),
        (lambda p, a, k=1: [k], lambda p, a, k=2: [k], "reward.k was 1, is 2"),
        (np.ones(3), np.array([1.0, 1.0, 1.5]), "not the same"),
        ({"a": 1}, {"a": 2}, r"reward\[a\] was 1, is 2"),
        ({"a": 1}, {"a": 1, "b": 2}, "1 entries, is 2 entries"),
        ([1] * 100, [1] * 99 + [2], "not the same"),
        ({"x", "y"}, {"x", "z"}, "not the same"),
        ("x" * 100, "x" * 99 + "y", "not the same"),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]}), "not the same"),
        (pd.Series([1], ["a"]), pd.Series([1], ["b"]), "not the same"),
        (
            Dataset.from_list([{"a": "x"}]),
            Dataset.from_list([{"a": "y"}]),
            "not the same",
        ),
        (np.ones(2, ">i4"), np.zeros(2, ">i4"), "not the same"),
        (array("d", [1]), array("d", [2]), "not the same"),
        (torch.ones(2) + 0j, (torch.ones(2) + 1j).conj(), "not the same"),
        (SimpleNamespace(a=1), SimpleNamespace(a=2), r"reward\[a\] was 1, is 2"),
        (Enum("E", {"A": 1}).A, Enum("E", {"A": 2}).A, "A 1, is E.A 2"),
        (nn.Sequential(nn.Dropout(0.1)), nn.Sequential(nn.Dropout(0.2)), "layers"),
        (Kept(1), Kept(2), "reward's code._weight was 1, is 2"),
    ],
)
def test_says_what_differs(one, other, said):
    assert same(one, one) == []
    found = same(one, other)
    assert len(found) == 1
    assert re.search(said, found[0]), found


def test_code_that_a_function_uses_is_part_of_it():
    def build(body):
        place = {"__name__": "somebodys"}
        exec(f"LIMIT = {body}\ndef helper(a): return len(a) > LIMIT\n", place)
        exec("def f(p, a): return [helper(x) for x in a]\n", place)
        return place["f"]

    assert same(build("3"), build("3")) == []
    assert same(build("3"), build("4")) == ["reward.helper.LIMIT was 3, is 4"]
    assert same(build("3"), build("(3)")) == []


def test_weights_of_a_reward_model_are_part_of_its_reward(tiny_policy, tiny_tokenizer):
    def build():
        return RewardModel.from_policy(tiny_policy(), tokenizer=tiny_tokenizer)

    one, other = build(), build()
    assert same(model_reward(one), model_reward(other)) == []
    other.head.weight.data[0, -1] = 1e-6
    assert same(model_reward(one), model_reward(other)) == [
        "reward.model's weights: not the same"
    ]


def test_what_a_run_changes_itself_is_no_part_of_it():
    scorer, seen = Scorer(), []

    def reward(prompts, answers):
        seen.append(answers)
        return scorer(prompts, answers)

    before = describe("reward", reward)
    reward([], ["a", "b"])
    changes = moved(before, describe("reward", reward))
    reward([], ["a", "b", "c"])
    assert differences(before, describe("reward", reward), changes) == []
    scorer.weight = 2.0
    assert differences(before, describe("reward", reward), changes) == [
        "reward.scorer.weight was 1.0, is 2.0"
    ]


@dataclass
class Strange:
    """Holds what cannot be compared, and itself."""

    thing: object = field(default_factory=object)
    lock: object = field(default_factory=threading.Lock)
    log: object = logging.getLogger("strange")
    rng: object = field(default_factory=np.random.default_rng)
    file: object = Path("here")
    count: object = field(default_factory=lambda: Counter("abc"))
    made: object = field(default_factory=lambda: (x for x in "abc"))
    cached: object = lru_cache(len)

    def __post_init__(self):
        self.me = [self]


def test_what_cannot_be_told_apart_differs_from_nothing():
    assert same(Strange(), Strange()) == []


class Refusing:
    """Raises what it likes when it is looked at."""

    def __array__(self, *_, **__):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "build",
    [
        Refusing,
        lambda: tqdm(disable=True),
        lambda: tqdm(file=StringIO(), delay=100),  # knows when it was made
        lambda: np.ones(2, np.longdouble),
    ],
)
def test_any_object_may_be_held_by_a_reward(build):
    one, other = build(), build()
    assert same(lambda p, a: one, lambda p, a: one) == []
    assert same(one, other) == []


def test_large_things_are_told_in_a_second():
    held = {
        "texts": {f"prompt {i}": f"answer {i}" for i in range(50_000)},
        "table": pd.DataFrame({"n": range(200_000), "s": ["word"] * 200_000}),
        "array": np.zeros(5_000_000, np.float32),
    }
    started = time.perf_counter()
    describe("reward", held)
    assert time.perf_counter() - started < 2


def test_wide_and_deep_things_end():
    deep = []
    for _ in range(5000):
        deep = [deep]
    wide = {str(i): {str(j): [i, j] for j in range(30)} for i in range(30)}
    assert same(deep, deep) == same(wide, wide) == []


def test_content_tells_order_and_type_apart():
    rows = [{"tokens": [1, 2, 3]}, {"tokens": [4]}]
    assert digest(rows) == digest([dict(row) for row in rows])
    assert digest(rows) != digest(rows[::-1])
    assert digest(torch.ones(4)) != digest(torch.ones(2, 2))
    assert digest(torch.ones(2)) != digest(torch.ones(2, dtype=torch.float64))
    assert digest(torch.ones(2, dtype=torch.bfloat16)) == digest(
        torch.ones(2, dtype=torch.bfloat16)
    )
