"""What a profile needs, told before a lab begins."""

import time

import pytest

from labs_helpers.course import start
from labs_helpers.course.needs import Need, Unreachable, ask_hub, require
from labs_helpers.course.profile import MODELS, load_profile
from labs_tools import cli


@pytest.mark.parametrize("name", ["smoke", "tiny"])
def test_embedded_profiles_need_nothing(name, monkeypatch):
    monkeypatch.setattr(
        "labs_helpers.course.needs.ask_hub", lambda need: pytest.fail("asked the hub")
    )
    require(load_profile(name))


@pytest.mark.parametrize("name", ["small", "gpu"])
def test_without_a_hub_the_way_out_is_named_within_seconds(name, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    profile, begun = load_profile(name), time.monotonic()
    with pytest.raises(Unreachable, match="LABS_PROFILE=tiny") as raised:
        require(profile)
    assert profile.model in str(raised.value)
    assert f"profile {name}" in str(raised.value)
    assert "cannot be reached" in str(raised.value)
    assert time.monotonic() - begun < 10


def test_a_gpu_without_network_says_so_in_the_first_cell(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("LABS_PROFILE")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(Unreachable, match=r"gpu needs .*LABS_PROFILE=tiny"):
        start(1)


def test_the_command_ends_in_that_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert cli.main(["run", "1", "--profile", "gpu", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "LABS_PROFILE=tiny" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("variable", ["LABS_MODEL", "LABS_REWARD_MODEL", "LABS_DATA"])
@pytest.mark.parametrize("name", ["./none", "/no/such", "~/none", "none.jsonl"])
def test_a_path_that_leads_nowhere_is_named(monkeypatch, variable, name):
    monkeypatch.setenv(variable, name)
    with pytest.raises(
        Unreachable, match=rf"{variable} names .*(none|such).*, and there is no"
    ):
        require(load_profile("tiny"))


def test_a_folder_that_holds_no_model_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("LABS_MODEL", str(tmp_path))
    with pytest.raises(Unreachable, match=r"no folder of a model.*config.json"):
        require(load_profile("tiny"))


def test_what_is_there_passes(monkeypatch, tmp_path):
    (tmp_path / "pairs.jsonl").write_text("")
    monkeypatch.setenv("LABS_MODEL", str(MODELS / "town-xs"))
    monkeypatch.setenv("LABS_DATA", str(tmp_path / "pairs.jsonl"))
    require(load_profile("tiny"))


def test_what_was_downloaded_before_needs_no_hub(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    need = Need("data", "some/set:test")
    assert not need.downloaded
    snapshot = tmp_path / "datasets--some--set" / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    assert not need.downloaded  # a download that was broken off
    (snapshot / "rows.parquet").write_text("")
    assert need.downloaded


@pytest.mark.parametrize("name", ["a b", "x/y/z", "--", "é"])
def test_names_that_the_hub_cannot_have(name):
    assert "no name" in ask_hub(Need("model", name))
