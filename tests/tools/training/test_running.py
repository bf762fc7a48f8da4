"""`labs train` from a settings file to a model that loads again, and on from a kill."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from labs_helpers.common.files import ROOT
from labs_helpers.fit import History
from labs_helpers.models import RewardModel, load_policy, load_tokenizer
from labs_helpers.rl.config import ALGORITHMS
from labs_helpers.sampling import sample
from labs_tools.cli import main
from labs_tools.training.settings import METHODS

OFFLINE = ("sft", "reward", "dpo", "ipo", "kto", "slic")
ON_POLICY = tuple(ALGORITHMS)


def trained(method, path):
    return main(["train", method, "--config", path])


def weights(folder, name="model.safetensors"):
    return load_file(folder / "out" / name)


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("method", [*OFFLINE, *ON_POLICY])
def test_a_file_becomes_a_model_that_loads(project, capsys, method, write):
    kind = "offline" if method in OFFLINE else "on-policy"
    assert trained(method, write(kind, validation=0.25)) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{method}: ")
    assert "Model and history.csv are in out" in said
    history = History.load("out/history.csv")
    assert len(history.rows) == 3
    figure = "validation_loss" if method in OFFLINE else "validation_objective"
    assert np.isfinite(history[figure][-1])
    if method == "reward":
        assert RewardModel.from_pretrained("out").score(["Who?"], ["I."]).shape == (
            1,
            1,
        )
    else:
        policy, tokenizer = load_policy("out"), load_tokenizer("out")
        assert sample(policy, tokenizer, ["Who?"], max_new_tokens=2).texts


@pytest.mark.parametrize("method", ["dpo", "kto", "reward", "ppo"])
def test_with_an_adapter(project, method, write):
    kind = "offline" if method in OFFLINE else "on-policy"
    path = write(kind, lora=2, validation=0.25)
    assert trained(method, path) == 0
    if method == "reward":
        assert RewardModel.from_pretrained("out")
    else:
        assert (project / "out" / "adapter_model.safetensors").exists()
        assert load_policy("out").peft_config


def test_an_adapter_is_drawn_from_the_seed(project, write):
    drawn = []
    for out in ("one", "two"):
        path = write("offline", lora=2, out=out)
        torch.manual_seed(len(drawn))  # whatever came before
        assert trained("dpo", path) == 0
        drawn.append(load_file(project / out / "adapter_model.safetensors"))
    assert same(*drawn)


def test_the_best_is_saved(project, capsys, write):
    settings = "lr = 0.3\nsteps = 20\nevaluate_every = 1\npatience = 2"
    path = write("offline", validation=0.25, settings=settings)
    assert trained("dpo", path) == 0
    history = History.load("out/history.csv")
    best = int(np.argmin(history["validation_loss"])) + 1
    assert history.last["step"] == best + 2
    said = capsys.readouterr().out
    assert f"Saved is the model of step {best}, the best by -validation_loss" in said


def test_a_finished_run_is_not_repeated(project, capsys, write):
    path = write("offline")
    assert trained("dpo", path) == 0
    before, said = weights(project), capsys.readouterr().out
    assert trained("dpo", path) == 0
    assert same(before, weights(project))
    assert capsys.readouterr().out == said


def test_goes_on_with_a_run_that_was_broken_off(project, capsys, write):
    path = write("on-policy", settings="save_every = 1")
    (project / "mine.py").write_text(
        "from pathlib import Path\n"
        "calls = []\n"
        "def says_b(prompts, answers):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3:\n"
        "        Path('server').read_text()\n"
        "    return [a.count('b') for a in answers]\n"
    )
    assert trained("reinforce", path) == 1
    said = capsys.readouterr().err
    assert "stopped at update 3 of 3: the reward function failed" in said
    assert "last good checkpoint" in said
    (project / "server").write_text("is up again")
    assert trained("reinforce", path) == 0
    assert len(History.load("out/history.csv").rows) == 3


@pytest.mark.parametrize(
    ("method", "change", "message"),
    [
        ("dpo", {"beta": 0.5}, "beta was 0.1, is 0.5"),
        ("dpo", {"data": "other.jsonl"}, "number of rows was 12, is 1"),
        ("ppo", {"data": "other.txt"}, "number of prompts was 4, is 1"),
        ("ppo", {"reward": "mine.py:says_c"}, "reward"),
    ],
)
def test_another_run_in_the_same_folder(
    project, capsys, method, change, message, write
):
    row = '{"prompt": "Who?", "chosen": "a", "rejected": "b"}\n'
    (project / "other.jsonl").write_text(row)
    (project / "other.txt").write_text("Who?\n")
    more = "def says_c(prompts, answers):\n    return [1.0 for a in answers]\n"
    (project / "mine.py").write_text((project / "mine.py").read_text() + more)
    kind = "offline" if method == "dpo" else "on-policy"
    assert trained(method, write(kind)) == 0
    capsys.readouterr()
    assert trained(method, write(kind, **change)) == 1
    said = capsys.readouterr().err
    assert said.startswith("labs: ")
    assert "is the checkpoint of another run" in said
    assert message in said


@pytest.mark.parametrize(
    ("method", "keys", "message"),
    [
        ("dpo", {"policy": "town-xxl"}, "policy 'town-xxl' cannot be loaded"),
        ("dpo", {"data": "gone.jsonl"}, "data 'gone.jsonl'"),
        ("ppo", {"data": "gone.txt"}, "data 'gone.txt'"),
        ("ppo", {"reward": "mine.py:nothing"}, "has no function nothing"),
        ("ppo", {"reward": "mine.py:nothing"}, "reward: mine.py"),
        ("dpo", {"out": "pairs.jsonl"}, "pairs.jsonl"),
    ],
)
def test_says_what_is_wrong(project, capsys, method, keys, message, write):
    kind = "offline" if method == "dpo" else "on-policy"
    assert trained(method, write(kind, **keys)) == 1
    error = capsys.readouterr().err
    assert error.startswith("labs: ")
    assert message in error
    assert "Traceback" not in error


class TestLaunchers:
    @pytest.mark.parametrize(
        ("variable", "name"),
        [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")],
    )
    def test_a_model_in_pieces_is_refused(
        self, project, capsys, monkeypatch, variable, name, write
    ):
        monkeypatch.setenv(variable, "true")
        assert trained("dpo", write("offline")) == 1
        assert f"labs: {name} cuts a model into pieces" in capsys.readouterr().err

    def test_one_process_in_place_of_several_is_refused(
        self, project, capsys, monkeypatch, write
    ):
        monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
        monkeypatch.setenv("MASTER_PORT", "29500")
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        assert trained("dpo", write("offline")) == 1
        assert "launch with --multi_gpu" in capsys.readouterr().err


EXAMPLE = re.compile(r"```toml\n# labs train (\w+) --config (\S+)\n(.*?)```", re.DOTALL)
FEW = {
    "policy": '"town-xs"',
    "samples": "4",
    "answers": "2",
    "max_new_tokens": "4",
    "updates": "2",
    "pairs": "3",
    "evaluate_every": "1",
    "validation": "0.25",
}
GUIDE = (ROOT / "docs" / "practitioners.md").read_text(encoding="utf-8")
EXAMPLES = {method: text for method, _, text in EXAMPLE.findall(GUIDE)}
# All others take the same file.
EXAMPLES = {method: EXAMPLES["ppo"] for method in ON_POLICY} | EXAMPLES


def test_every_method_has_an_example():
    assert set(EXAMPLES) == set(METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("method", EXAMPLES)
def test_examples_of_the_guide_train(project, method):
    text = EXAMPLES[method]
    for name, value in FEW.items():
        text = re.sub(rf"^{name} = \S+", f"{name} = {value}", text, flags=re.M)
    text = re.sub(r"^batch_size = \d+", "batch_size = 4\nsteps = 2", text, flags=re.M)
    for name, code in re.findall(r"```python\n# (\S+)\n(.*?)```", GUIDE, re.DOTALL):
        (project / name).write_text(code)
    rows = [{"prompt": f"What is {i} plus 1?", "answer": str(i + 1)} for i in range(8)]
    (project / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (project / "run.toml").write_text(text)
    assert trained(method, "run.toml") == 0
    out = re.search(r'^out = "(.*)"', text, re.M)[1]
    if method == "reward":
        assert RewardModel.from_pretrained(out)
    else:
        policy, tokenizer = load_policy(out), load_tokenizer(out)
        assert sample(policy, tokenizer, ["Who?"], max_new_tokens=2).texts


KILLED = """
import os, signal, sys
from labs_helpers.fit import run
from labs_tools.cli import main

applied, real = [], run.Run.apply

def apply(self, *arguments):
    applied.append(1)
    if len(applied) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, *arguments)

run.Run.apply = apply
main(sys.argv[2:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "at"), [("dpo", 4), ("kto", 6), ("ppo", 9)])
def test_a_killed_run_ends_as_an_unbroken_one(project, method, at, write):
    settings = "save_every = 2\nevaluate_every = 1\nbest_by = '-validation_loss'\n"
    kind = "offline" if method in OFFLINE else "on-policy"
    if kind == "on-policy":
        settings = settings.replace("-validation_loss", "validation_reward")
    settings += "updates = 7" if kind == "on-policy" else "steps = 7"
    options = {"validation": 0.25, "lora": 2, "settings": settings}
    path = write(kind, **options)
    (project / "script.py").write_text(KILLED)
    command = [sys.executable, "script.py", str(at), "train", method, "--config", path]
    ended = subprocess.run(command, timeout=110, capture_output=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr[-2000:]
    assert (project / "out" / "checkpoint" / "state.pt").exists()
    assert not (project / "out" / "history.csv").exists()
    assert trained(method, path) == 0
    whole = write(kind, name="whole.toml", out="whole", **options)
    assert trained(method, whole) == 0
    name = "adapter_model.safetensors"
    assert same(weights(project, name), load_file(project / "whole" / name))
    one, two = (History.load(f"{out}/history.csv") for out in ("out", "whole"))
    for column in one.columns:
        if "seconds" not in column:
            np.testing.assert_array_equal(one[column], two[column], column)
