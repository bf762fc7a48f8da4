"""Two processes train as one: the same file, the same curve."""

import subprocess
import sys

import numpy as np
import pytest
from safetensors.torch import load_file

from labs_helpers.common.files import ROOT
from labs_helpers.fit import History
from labs_tools.cli import main

LAUNCH = (sys.executable, "-m", "accelerate.commands.launch")
TRAIN = ("-m", "labs_tools.cli", "train")


def launched(*command):
    ended = subprocess.run(
        [str(part) for part in command], timeout=110, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dpo", "reward", "ppo"])
def test_a_loss_curve_is_that_of_one_process(project, method, write):
    kind = "on-policy" if method == "ppo" else "offline"
    settings = "evaluate_every = 1\n"
    settings += "updates = 5" if method == "ppo" else "steps = 5"
    for out in ("one", "two"):
        write(kind, f"{out}.toml", settings, out=out, validation=0.25)
    assert main(["train", method, "--config", "one.toml"]) == 0
    said = launched(
        *LAUNCH,
        "--multi_gpu",
        "--num_processes",
        2,
        *TRAIN,
        method,
        "--config",
        "two.toml",
    )
    assert said.count(f"{method}: ") == 1
    one, two = (History.load(f"{out}/history.csv") for out in ("one", "two"))
    assert one.columns == two.columns
    for column in one.columns:
        if "seconds" not in column:
            # Before its first step a policy is its own reference: every margin is 0
            # but for rounding, whose sign is what `accuracy` would count.
            first = 1 if (method, column) == ("dpo", "accuracy") else 0
            np.testing.assert_allclose(
                one[column][first:],
                two[column][first:],
                rtol=1e-4,
                atol=1e-4,
                err_msg=column,
            )
    saved = load_file("two/model.safetensors")
    for name, tensor in load_file("one/model.safetensors").items():
        np.testing.assert_allclose(tensor, saved[name], atol=1e-3)


@pytest.mark.slow
def test_by_a_file_of_accelerate(project, write):
    path = write("offline")
    file = ROOT / "docs" / "accelerate.yaml"
    said = launched(*LAUNCH, "--config_file", file, *TRAIN, "sft", "--config", path)
    assert said.count("sft: ") == 1


@pytest.mark.slow
def test_by_torchrun(project, write):
    path = write("on-policy")
    said = launched(
        sys.executable,
        *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2),
        *(*TRAIN, "reinforce", "--config", path),
    )
    assert said.count("reinforce: ") == 1


@pytest.mark.slow
def test_samples_that_cannot_be_shared_are_a_sentence(project, write):
    path = write("on-policy", settings="samples = 3")
    with pytest.raises(
        AssertionError, match=r"2 processes cannot share settings\.samples"
    ):
        launched(
            *LAUNCH,
            "--multi_gpu",
            "--num_processes",
            2,
            *TRAIN,
            "ppo",
            "--config",
            path,
        )


@pytest.mark.slow
def test_one_process_that_was_to_be_two_says_so(project, write):
    path = write("offline")
    with pytest.raises(AssertionError, match="launch with --multi_gpu"):
        launched(
            *LAUNCH, "--cpu", "--num_processes", 2, *TRAIN, "dpo", "--config", path
        )


@pytest.mark.slow
def test_a_model_in_pieces_is_refused_by_name(write):
    path = write("offline")
    with pytest.raises(AssertionError, match="FSDP cuts a model into pieces"):
        launched(
            *(*LAUNCH, "--use_fsdp", "--num_processes", 2),
            *(*TRAIN, "dpo", "--config", path),
        )
