"""What the doctor finds, and that it works where packages are missing."""

import subprocess
import sys

import pytest

from labs_helpers.course.profile import load_profile
from labs_tools import cli, doctor
from labs_tools.endings import install


def findings(monkeypatch, requirements):
    return {f.name: f for f in doctor.packages(requirements)}


def test_doctor_tells_versions(monkeypatch):
    found = findings(monkeypatch, ["numpy>=2.0", "torch>=99", "no-such-package>=1"])
    assert found["numpy"].state == "ok"
    assert found["torch"].state == "MISSING"
    assert "wanted >=99" in found["torch"].text
    assert "not installed" in found["no-such-package"].text
    assert found["no-such-package"].remedy == install("lab")


def test_doctor_groups_what_only_some_people_need(monkeypatch):
    found = findings(
        monkeypatch,
        [
            "no-such-a; extra == 'grade'",
            "no-such-b; extra == 'grade'",
            "no-such-c; extra == 'lab'",
        ],
    )
    assert found["[grade]"].state == "note"
    assert "no-such-a, no-such-b" in found["[grade]"].text
    assert found["no-such-c"].state == "MISSING"
    assert found["no-such-c"].remedy == install("lab")


def test_doctor_tells_a_wrong_path_from_what_the_hub_has(monkeypatch, tmp_path):
    monkeypatch.setenv("LABS_MODEL", str(tmp_path / "none"))
    monkeypatch.setenv("LABS_DATA", "nobody/has-this")
    monkeypatch.setattr("labs_helpers.course.needs.ask_hub", lambda need: "")
    found = {f.name: f for f in doctor.named(load_profile("small"))}
    assert found["model"].state == "MISSING"
    assert "LABS_MODEL names it" in found["model"].text
    assert (found["data"].state, found["data"].text[-10:]) == ("ok", "on the hub")


def test_doctor_exit_code_and_text(monkeypatch, capsys):
    good = doctor.Finding("ok", "cores", "2")
    note = doctor.Finding("note", "memory", "1 GB", "buy some")
    bad = doctor.Finding("MISSING", "torch", "not installed", "pip install it")
    monkeypatch.setattr(doctor, "examine", lambda: iter([good, note]))
    assert cli.main(["doctor"]) == 0
    monkeypatch.setattr(doctor, "examine", lambda: iter([good, bad]))
    assert cli.main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "-> buy some" in printed
    assert "-> pip install it" in printed
    assert "cannot run yet" in printed


def test_doctor_looks_at_everything(monkeypatch, tmp_path):
    monkeypatch.setenv("LABS_OUT", str(tmp_path / "out"))
    names = {finding.name for finding in doctor.examine()}
    wanted = {"Python", "torch", "device", "cores", "memory", "profile", "results"}
    wanted |= {"bubblewrap", "studies"}
    assert wanted | {"town-xs", "town-s"} <= names


def test_doctor_names_an_unknown_profile(monkeypatch, tmp_path):
    monkeypatch.setenv("LABS_OUT", str(tmp_path / "out"))
    monkeypatch.setenv("LABS_PROFILE", "big")
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["profile"].state == "MISSING"
    assert "tiny" in found["profile"].text


def test_doctor_says_where_a_real_model_comes_from(monkeypatch, tmp_path):
    monkeypatch.setenv("LABS_OUT", str(tmp_path / "out"))
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setenv("LABS_MODEL", str(tmp_path))
    monkeypatch.setenv("LABS_DATA", "nobody/has-this-one")
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["model"].state == "ok"
    assert found["data"].state == "MISSING"
    assert "LABS_DATA" in found["data"].remedy


def test_doctor_notices_a_folder_that_it_cannot_write(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    finding = doctor.folder(tmp_path / "file")
    assert finding.state == "MISSING"
    assert "LABS_OUT" in finding.remedy


@pytest.mark.parametrize("missing", ["torch", "ipywidgets"])
def test_doctor_works_where_packages_are_missing(missing, monkeypatch, capsys):
    code = (
        "import sys\n"
        f"sys.modules[{missing!r}] = None\n"
        "from labs_tools import doctor\n"
        "print(*doctor.examine(), sep='\\n')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "cores" in done.stdout
    assert missing == "ipywidgets" or "MISSING  labs" in done.stdout


def test_doctor_says_it_too(monkeypatch, tmp_path):
    monkeypatch.setenv("LABS_OUT", str(tmp_path / "out"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = list(doctor.named(load_profile("gpu")))
    assert {finding.state for finding in found} == {"MISSING"}
    assert all("LABS_PROFILE=tiny" in finding.remedy for finding in found)
