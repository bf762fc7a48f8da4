"""Two processes learn from answers of their own and stay one model."""

import subprocess
import sys

import pytest
import torch

SCRIPT = """
import os, sys, torch
from labs_helpers.rl import RLConfig, train
from labs_helpers.rl.probes import probe_policy

folder = sys.argv[1]
rank = int(os.environ["RANK"])
asked = []

def reward(prompts, answers):
    asked.extend(answers)
    return [float(answer.count("b")) for answer in answers]

for algorithm in ("ppo", "trpo"):
    policy, tokenizer = probe_policy(seed=rank)  # to be made the same at the start
    config = RLConfig(
        algorithm=algorithm, updates=3, samples=8, max_new_tokens=4, lr=1e-2,
        epochs=2, progress=False, checkpoint=f"{folder}/{algorithm}",
    )
    history = train(policy, ["a", "b", "c"], reward, config, tokenizer=tokenizer)
    torch.save(
        {"weights": policy.state_dict(), "asked": asked, "rows": history.rows},
        f"{folder}/{algorithm}{rank}.pt",
    )
"""


@pytest.mark.slow
def test_end_with_the_same_weights(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    # What `accelerate launch` does on several GPUs; on CPUs it starts one process.
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    ended = subprocess.run(
        [*launch, "--nproc_per_node", "2", str(script), str(tmp_path)],
        timeout=110,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    for algorithm in ("ppo", "trpo"):
        one, two = (torch.load(tmp_path / f"{algorithm}{rank}.pt") for rank in (0, 1))
        for name, tensor in one["weights"].items():
            assert torch.equal(tensor, two["weights"][name]), name
        assert one["asked"] != two["asked"]
        assert one["rows"][-1]["samples"] == 3 * 8 * 2
        assert one["rows"][-1]["reward"] == two["rows"][-1]["reward"]
