"""A process that is killed in the middle of a run loses nothing that was saved."""

import signal
import subprocess
import sys

import pytest
import torch

SCRIPT = """
import os, signal, sys, torch
from labs_helpers.rl import RLConfig, train
from labs_helpers.rl.probes import probe_policy

folder, out = sys.argv[1], sys.argv[3]
calls = []

def reward(prompts, answers):
    calls.append(1)
    if len(calls) == int(sys.argv[2]):  # no part of what the reward is
        os.kill(os.getpid(), signal.SIGKILL)
    return [float(answer.count("b")) for answer in answers]

policy, tokenizer = probe_policy()
config = RLConfig(
    updates=5, samples=8, max_new_tokens=4, lr=1e-2, minibatches=2, save_every=2,
    progress=False, checkpoint=folder,
)
train(policy, ["a", "b", "c"], reward, config, tokenizer=tokenizer)
torch.save({"weights": policy.state_dict(), "calls": len(calls)}, out)
"""


def run(tmp_path, folder, kill_at, out="out.pt"):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, script, tmp_path / folder, kill_at, tmp_path / out]
    return subprocess.run(
        [str(part) for part in command], timeout=110, capture_output=True, text=True
    )


@pytest.mark.slow
def test_ends_as_an_unbroken_run(tmp_path):
    assert run(tmp_path, "broken", kill_at=4).returncode == -signal.SIGKILL
    assert (tmp_path / "broken" / "state.pt").exists()
    resumed, unbroken = (
        run(tmp_path, folder, 0, f"{folder}.pt") for folder in ("broken", "whole")
    )
    assert resumed.returncode == unbroken.returncode == 0, resumed.stderr[-2000:]
    one, two = (torch.load(tmp_path / f"{name}.pt") for name in ("broken", "whole"))
    assert (one["calls"], two["calls"]) == (3, 5)
    for name, weight in one["weights"].items():
        assert torch.equal(weight, two["weights"][name]), name
