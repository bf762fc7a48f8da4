"""Two processes learn as one that gives as many answers."""

import subprocess
import sys

import pytest
import torch

from labs_helpers.rl.config import ALGORITHMS, GROUPED

SCRIPT = """
import os, sys, torch
from labs_helpers.fit import FitConfig, Objective, fit
from labs_helpers.rl import RLConfig, train
from labs_helpers.rl.probes import probe_policy

folder = sys.argv[1]
rank, number = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
asked = []

def reward(prompts, answers):
    asked.extend(prompts)
    return [answer.count("b") - 0.1 * len(answer) for answer in answers]

def coarse(prompts, answers):
    return [float("b" in answer) for answer in answers]

def pretraining_loss(policy):
    tokens = torch.randint(8, (1, 4))
    return policy(input_ids=tokens, labels=tokens).loss

GROUPS = {"answers": 2, "redraw": 1, "normaliser": "sequence"}
for algorithm in ("reinforce", "rloo", "grpo", "actor_critic", "ppo", "trpo"):
    asked.clear()
    policy, tokenizer = probe_policy(seed=rank)  # to be made the same at the start
    config = RLConfig(
        algorithm=algorithm, updates=3, samples=8 // number, max_new_tokens=4, lr=1e-2,
        epochs=2, minibatches=3, progress=False, checkpoint=f"{folder}/{algorithm}",
        **(GROUPS if algorithm in ("rloo", "grpo") else {}),
    )
    mixed = pretraining_loss if algorithm == "ppo" else None
    history = train(
        policy, ["a", "b", "c b a", "d", "e", "f"],
        coarse if algorithm in ("rloo", "grpo") else reward, config,
        tokenizer=tokenizer, pretraining_loss=mixed,
    )
    torch.save(
        {"weights": policy.state_dict(), "asked": asked, "rows": history.rows},
        f"{folder}/{algorithm}{rank}of{number}.pt",
    )

class Words(Objective):
    def encode(self, row):
        return {"tokens": row, "length": len(row)}

    def loss(self, model, batch):
        tokens = torch.tensor([row["tokens"] for row in batch])
        first = tokens[:, 0].float().mean().item()
        return model(input_ids=tokens, labels=tokens).loss, {"first": first}

policy, _ = probe_policy(seed=rank)
rows = [[i % 8, i % 5, i % 3] for i in range(22)]
config = FitConfig(
    lr=1e-2, batch_size=8, epochs=2, log_every=1, progress=False,
    checkpoint=f"{folder}/fit", accumulate=4 // number,
)
history = fit(policy, rows, Words(), config)
torch.save(
    {"weights": policy.state_dict(), "asked": [], "rows": history.rows},
    f"{folder}/fit{rank}of{number}.pt",
)
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_end_with_the_weights_of_one_process(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    for folder, start in (
        ("two", [*launch, "--nproc_per_node", "2"]),
        ("one", [sys.executable]),
    ):
        (tmp_path / folder).mkdir()
        ended = subprocess.run(
            [*start, str(script), str(tmp_path / folder)],
            timeout=220,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
    for algorithm in (*ALGORITHMS, "fit"):
        left, right = (
            torch.load(tmp_path / "two" / f"{algorithm}{rank}of2.pt") for rank in (0, 1)
        )
        alone = torch.load(tmp_path / "one" / f"{algorithm}0of1.pt")
        for name, tensor in left["weights"].items():
            assert torch.equal(tensor, right["weights"][name]), name
            # Adam makes steps of lr, here 1e-2, of what rounding leaves of a gradient.
            torch.testing.assert_close(
                tensor, alone["weights"][name], rtol=0, atol=1e-3
            )
        # Groups are drawn anew by numbers that the processes share otherwise.
        for i in () if algorithm in GROUPED else (0, 4, 8):
            asked = left["asked"][i : i + 4] + right["asked"][i : i + 4]
            assert asked == alone["asked"][2 * i : 2 * i + 8]
        if algorithm in GROUPED:
            assert any(row["redrawn"] for row in alone["rows"])
        for ours, theirs in zip(left["rows"], alone["rows"], strict=True):
            for name in ours:
                # What conjugate gradients leave is mostly rounding.
                if "seconds" not in name and name != "residual":
                    assert ours[name] == pytest.approx(
                        theirs[name], rel=1e-3, abs=1e-4
                    ), (algorithm, name)
