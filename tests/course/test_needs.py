"""What a profile needs, told before a lab begins."""

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from labs_helpers.common import hub
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
    why = "[Errno -3] Temporary failure in name resolution"
    monkeypatch.setattr(hub, "out_of_reach", lambda: why)
    profile, begun = load_profile(name), time.monotonic()
    with pytest.raises(Unreachable, match="LABS_PROFILE=tiny") as raised:
        require(profile)
    assert time.monotonic() - begun < 10
    said = str(raised.value)
    for part in (f"profile {name}", profile.model, profile.data, "cannot be reached"):
        assert said.count(part) == 1
    assert f"`labs fetch {name}`" in said
    assert ("`labs fetch smollm2`" in said) == (name == "small")
    assert len(said) <= 400  # what the command shows


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
    said = rf"(none|such)\S*: {variable} names it, and there is no"
    with pytest.raises(Unreachable, match=said) as raised:
        require(load_profile("tiny"))
    assert "tiny needs nothing" not in str(raised.value)


@pytest.mark.parametrize(
    ("variable", "name", "said"),
    [
        ("JUDGE", "./none", "there is no such file or folder"),
        ("JUDGE", "http://127.0.0.1:1/v1#model", "cannot be reached"),
        ("JUDGE", "http://127.0.0.1:1/v1", "names no model"),
        ("SUITES", "xstest", "there is no such file or folder"),
        ("CAPABILITY", "gsm8k", "there is no such file or folder"),
    ],
)
def test_what_measures_is_looked_for_too(monkeypatch, tmp_path, variable, name, said):
    (tmp_path / "pairs.jsonl").write_text("")
    monkeypatch.setenv(f"LABS_{variable}", name)
    require(load_profile("tiny"))  # the embedded world does without
    monkeypatch.setenv("LABS_DATA", str(tmp_path / "pairs.jsonl"))
    with pytest.raises(Unreachable, match=said):
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


@pytest.mark.parametrize("name", ["a b", "x/y/z", "--", "é"])
def test_names_that_the_hub_cannot_have(name):
    assert "nor a name" in ask_hub(Need("model", name))


HUB = {  # what each owner's models answer: status, and headers of the hub
    "open": (200, {}),
    "gated": (403, {"X-Error-Code": "GatedRepo"}),
    "nobody": (404, {"X-Error-Code": "RepoNotFound"}),
    "mirror": (404, {}),
    "broken": (500, {}),
    "token": (200, {}),
}


class Hub(BaseHTTPRequestHandler):
    """A hub on this machine."""

    def do_GET(self):
        owner = self.path.split("/")[3] if self.path.count("/") > 3 else "open"
        status, headers = HUB[owner]
        if owner == "token" and self.headers["Authorization"] != "Bearer secret":
            status, headers = 401, {"X-Error-Code": "RepoNotFound"}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def a_hub(monkeypatch):
    """The address of a hub that is asked in place of the real one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)
        hub._heard.clear()
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield address
        server.shutdown()
        hub._heard.clear()


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        ("open", ""),
        ("mirror", ""),
        ("gated", "ask at {hub}/gated/x, then set HF_TOKEN"),
        ("nobody", "no such model, or shows it only to HF_TOKEN"),
        ("token", "no such model, or shows it only to HF_TOKEN"),
        ("broken", "500"),
    ],
)
def test_what_the_hub_answers_is_told(a_hub, owner, said):
    found = ask_hub(Need("model", f"{owner}/x"))
    assert said.format(hub=a_hub) in found
    assert bool(found) == bool(said)


def test_a_token_of_the_user_is_shown_to_the_hub(a_hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert ask_hub(Need("model", "token/x")) == ""


COLAB = """
import sys, types
from importlib.machinery import ModuleSpec

def module(name, **content):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__spec__ = ModuleSpec(name, None)
    vars(sys.modules[name]).update(content)

class Refused(Exception): ...

secrets = types.SimpleNamespace(
    get={"HF_TOKEN": "secret"}.__getitem__,
    NotebookAccessError=Refused,
    SecretNotFoundError=Refused,
)
module("google")
module("google.colab", userdata=secrets)
module("google.colab.errors", Error=Refused)
from huggingface_hub.utils import _runtime
_runtime._is_google_colab = True
from labs_helpers.course.needs import Need, ask_hub
print(repr(ask_hub(Need("model", "token/x"))))
"""


@pytest.mark.slow
def test_a_secret_of_colab_is_shown_to_the_hub(a_hub):
    environment = {**os.environ, "HF_ENDPOINT": a_hub, "HF_HUB_OFFLINE": "0"}
    asked = [sys.executable, "-c", COLAB]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True)
    assert done.stdout == "''\n", done.stderr
