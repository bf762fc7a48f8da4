"""Checkpoints and their folder: whole, of this run, and of one training at a time."""

import math
import zipfile

import pytest
import torch

from labs_helpers.fit import checkpoint
from labs_helpers.fit.checkpoint import BadCheckpoint, folder_of_one_run

STATE = {
    "step": 3,
    "parameters": {"weight": torch.arange(6.0).reshape(2, 3)},
    "history": [{"loss": 0.5}],
}


@pytest.fixture
def path(tmp_path):
    checkpoint.save(tmp_path / "state.pt", STATE, {"lr": 0.1})
    return tmp_path / "state.pt"


def changed(path, change):
    saved = torch.load(path, weights_only=True)
    change(saved)
    torch.save(saved, path)


def flipped(path):
    """One bit of a weight."""
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith("data/0"))
        content = archive.read(name)
    whole = bytearray(path.read_bytes())
    whole[whole.find(content) + 6] ^= 1
    path.write_bytes(whole)


DAMAGES = {
    "cut off": lambda p: p.write_bytes(p.read_bytes()[:-200]),
    "cut by little": lambda p: p.write_bytes(p.read_bytes()[:-21]),
    "half": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "empty": lambda p: p.write_bytes(b""),
    "zeros": lambda p: p.write_bytes(bytes(p.stat().st_size)),
    "text": lambda p: p.write_text("not a checkpoint"),
    "a bit": flipped,
    "no state": lambda p: changed(p, lambda s: s.pop("state")),
    "no step": lambda p: changed(p, lambda s: s["state"].pop("step")),
    "step": lambda p: changed(p, lambda s: s["state"].update(step=10**6)),
    "shape": lambda p: changed(
        p, lambda s: s["state"]["parameters"].update(weight=torch.zeros(3, 2))
    ),
    "nan": lambda p: changed(
        p, lambda s: s["state"]["parameters"]["weight"].fill_(math.nan)
    ),
    "a list": lambda p: torch.save([1], p),
    "another's": lambda p: torch.save({"identity": {}, "state": {}}, p),
    "code": lambda p: torch.save({"identity": print}, p),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_said_in_a_sentence(path, damage):
    DAMAGES[damage](path)
    with pytest.raises(BadCheckpoint, match="is damaged: ") as caught:
        checkpoint.load(path, {"lr": 0.1}, "cpu")
    said = str(caught.value)
    assert str(path) in said
    assert "Delete it to start anew" in said
    assert "weights_only" not in said
    assert "\n" not in said


def test_comes_back_as_it_was(path):
    found = checkpoint.load(path, {"lr": 0.1}, "cpu")
    assert torch.equal(found["parameters"]["weight"], STATE["parameters"]["weight"])
    assert found["step"] == 3


def test_a_full_disk_leaves_the_old_one(path, monkeypatch):
    def full(state, target):
        target.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0\nmore")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"state\.pt cannot be written: Pytorch.*data/0$"):
        checkpoint.save(path, {"step": 4}, {"lr": 0.1})
    monkeypatch.undo()
    assert checkpoint.load(path, {"lr": 0.1}, "cpu")["step"] == 3
    assert list(path.parent.iterdir()) == [path]


def test_two_trainings_do_not_share_a_folder(tmp_path):
    with folder_of_one_run(tmp_path):
        with (
            pytest.raises(ValueError, match="another training is running in"),
            folder_of_one_run(tmp_path),
        ):
            pass
        with folder_of_one_run(tmp_path / "other"), folder_of_one_run(None):
            pass
    with folder_of_one_run(tmp_path):
        pass


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "run").write_text("")
    with (
        pytest.raises(OSError, match="no checkpoint can be written to"),
        folder_of_one_run(tmp_path / "run"),
    ):
        pass
