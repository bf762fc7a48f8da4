"""Trackers and the hub: what cannot be used is told first, what can gets everything."""

import json

import huggingface_hub
import pytest
from accelerate import tracking

from labs_tools.training import publishing
from labs_tools.training.settings import BadSettings, read_settings


@pytest.fixture
def asking(tmp_path, monkeypatch):
    """Settings with some keys."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)

    def asked(**keys):
        table = {"policy": "p", "out": "out", "settings": {"lr": 1e-4}, **keys}
        (tmp_path / "run.yaml").write_text(json.dumps(table))
        return read_settings("dpo", tmp_path / "run.yaml")

    return asked


class Recorder(tracking.GeneralTracker):
    """A tracker that remembers."""

    name = "recorder"
    requires_logging_directory = False
    made = ()

    def __init__(self, run_name):
        super().__init__()
        self.run_name, self.said = run_name, []
        Recorder.made = [*Recorder.made, self]

    @property
    def tracker(self):
        return self

    def start(self):
        self.said.append("start")

    def store_init_configuration(self, values):
        self.said.append(values)

    def log(self, values, step=None, **kwargs):
        self.said.append((step, values))

    def finish(self):
        self.said.append("finish")


@pytest.fixture
def recorder(monkeypatch):
    """In the place of wandb."""
    monkeypatch.setitem(publishing.LOGGER_TYPE_TO_CLASS, "wandb", Recorder)
    monkeypatch.setattr(publishing, "get_available_trackers", lambda: ["wandb"])
    monkeypatch.setattr(Recorder, "made", [])


@pytest.mark.parametrize(
    ("tracker", "package"), [("wandb", "wandb"), ("comet_ml", "comet-ml")]
)
def test_a_tracker_that_is_not_installed(asking, monkeypatch, tracker, package):
    monkeypatch.setattr(publishing, "get_available_trackers", lambda: [])
    with pytest.raises(BadSettings, match=f"{tracker}, which is .* install {package}$"):
        publishing.require_published(asking(report_to=[tracker]))


def test_trackers_get_settings_and_every_row(asking, recorder):
    asked = asking(report_to=["wandb"])
    publishing.require_published(asked)
    with publishing.reporting(asked) as report:
        report({"step": 3.0, "loss": 0.5})
    (tracker,) = Recorder.made
    start, settings, row, finish = tracker.said
    assert (tracker.run_name, start, finish) == ("out", "start", "finish")
    assert settings["settings.lr"] == 1e-4
    assert settings["report_to"] == "('wandb',)"
    assert row == (3, {"step": 3.0, "loss": 0.5})


def test_stages_are_runs_of_their_own(asking, recorder):
    for stage in ("sft", "dpo"):
        with publishing.reporting(asking(report_to=["wandb"]), stage):
            pass
    assert [tracker.run_name for tracker in Recorder.made] == ["out-sft", "out-dpo"]


def test_tensorboard_writes_below_out(asking, tmp_path):
    pytest.importorskip("tensorboardX")
    asked = asking(report_to=["tensorboard"])
    publishing.require_published(asked)
    with publishing.reporting(asked) as report:
        report({"step": 1.0, "loss": 0.5})
    assert list((tmp_path / "out" / "out").glob("events*"))


def test_without_trackers_nothing_is_reported(asking):
    with publishing.reporting(asking()) as report:
        assert report is None


class TestHub:
    def test_no_token(self, asking, monkeypatch):
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
        with pytest.raises(BadSettings, match="needs a token that may write"):
            publishing.require_published(asking(push_to_hub="me/mine"))

    def test_offline(self, asking, monkeypatch):
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(BadSettings, match="HF_HUB_OFFLINE is set"):
            publishing.require_published(asking(push_to_hub="me/mine"))

    def test_nothing_is_asked_without_a_name(self, asking):
        publishing.require_published(asking())
        assert publishing.push(asking()) is None

    def test_uploads_the_folder_without_its_checkpoint(self, asking, monkeypatch):
        asked, calls = asking(push_to_hub="me/mine"), []

        class Api:
            def create_repo(self, name, exist_ok):
                return f"https://hub/{name}"

            def upload_folder(self, **options):
                calls.append(options)

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        assert publishing.push(asked) == "https://hub/me/mine"
        assert calls[0]["folder_path"] == "out"
        assert "checkpoint/*" in calls[0]["ignore_patterns"]

    def test_a_hub_that_refuses_is_a_sentence(self, asking, monkeypatch):
        class Api:
            def create_repo(self, name, exist_ok):
                raise RuntimeError("403 Forbidden")

        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        with pytest.raises(BadSettings, match=r"403 Forbidden.* is in out; to try ag"):
            publishing.push(asking(push_to_hub="me/mine"))
