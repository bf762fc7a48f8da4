"""What of the hub is here, and how long it takes to learn that it does not answer."""

import socket
import time

import pytest

from labs_helpers.common import hub


@pytest.fixture(autouse=True)
def asks_anew():
    hub._heard.clear()
    yield
    hub._heard.clear()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(hub.constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


NAME = hub.PACKAGED["smollm2"]


class TestPlaces:
    def test_a_copy_is_taken_under_both_names(self, cache):
        assert hub.located("smollm2") == hub.located(NAME) == NAME
        touch(hub.copy_of(NAME) / "model.safetensors")
        assert hub.located("smollm2") == hub.located(NAME) == str(hub.copy_of(NAME))

    def test_the_hubs_own_comes_first(self, cache):
        touch(hub.copy_of(NAME) / "model.safetensors")
        snapshot = cache / f"hub/models--{NAME.replace('/', '--')}/snapshots/1"
        touch(snapshot / "config.json")  # a download that was broken off
        assert hub.located("smollm2") == str(hub.copy_of(NAME))
        touch(snapshot / "model.safetensors")
        assert hub.located("smollm2") == NAME

    def test_what_somebody_has_comes_before(self, cache, monkeypatch, tmp_path):
        touch(hub.copy_of(NAME) / "model.safetensors")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "smollm2").mkdir()
        assert hub.located("smollm2") == "smollm2"

    @pytest.mark.parametrize("name", ["nobody/nothing", "./x", "/x", "x"])
    def test_other_names_stay(self, cache, name):
        assert hub.located(name) == name

    def test_data_sets(self, cache):
        assert not hub.downloaded("some/set", "dataset")
        touch(cache / "datasets" / "some___set" / "default")
        assert hub.downloaded("some/set", "dataset")


class TestReach:
    def test_offline_is_said(self):
        assert hub.out_of_reach() == "HF_HUB_OFFLINE is set"

    def test_refused(self, monkeypatch):
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
        assert "refused" in hub.out_of_reach()

    def test_a_connection_that_hangs_ends_within_the_seconds_given(self, monkeypatch):
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub, "SECONDS", 0.3)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            monkeypatch.setattr(hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
            begun = time.monotonic()
            assert hub.out_of_reach()
            assert time.monotonic() - begun < 1

    def test_a_name_server_that_is_silent_too(self, monkeypatch):
        with pytest.raises(TimeoutError, match=r"within 0.1 s"):
            hub.within(0.1, lambda: time.sleep(0.5))

    def test_what_is_in_time_comes_through(self):
        assert hub.within(5, lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            hub.within(5, lambda: 1 / 0)

    def test_the_hub_is_asked_once_in_a_while(self, monkeypatch):
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        asked = []
        monkeypatch.setattr(hub, "within", lambda *how: asked.append(how))
        assert [hub.out_of_reach() for _ in range(3)] == ["", "", ""]
        assert len(asked) == 1


def test_gated_data_sets_have_their_own_address():
    assert "/datasets/a/b," in hub.how_to_be_let_in("a/b", "dataset")
    assert ".co/a/b," in hub.how_to_be_let_in("a/b")
