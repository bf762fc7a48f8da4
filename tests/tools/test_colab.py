"""What notebooks need on Colab: address, badge, and the cell that installs."""

import json
import os
import subprocess
import sys

import pytest

from labs_tools.colab import badge, installation, repository

# A kernel in which google.colab is loaded runs the cell twice, in one session.
KERNEL = """
import json, os, sys, types
from IPython.core.interactiveshell import InteractiveShell

sys.modules["google.colab"] = types.ModuleType("google.colab")
shell = InteractiveShell.instance()
cell = json.loads(sys.argv[1])
for again in range(2):
    shell.run_cell(cell).raise_error()
import labs_helpers

print(json.dumps({
    "folder": os.getcwd(),
    "found": labs_helpers.__file__,
    "times": sys.path.count(sys.argv[2]),
}))
"""
GIT = """#!/bin/sh
echo "git $@" >> "$LOG"
mkdir -p alignment-labs/notebooks/further alignment-labs/labs_helpers
touch alignment-labs/labs_helpers/__init__.py
"""
PIP = """#!/bin/sh
echo "pip $@" >> "$LOG"
[ "$1" = freeze ] && echo torch==2.11.0 || true
"""


@pytest.fixture
def colab(tmp_path):
    """Run the cell of a folder twice; what came of it, and what was called."""
    tools, content, log = tmp_path / "tools", tmp_path / "content", tmp_path / "log"
    tools.mkdir()
    content.mkdir()
    for name, script in {"git": GIT, "pip": PIP}.items():
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)

    def run(folder):
        cell = installation(folder).replace("/content", str(content))
        cell = cell.replace("/tmp/hold.txt", str(tmp_path / "hold.txt"))
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
        environment["LOG"] = str(log)
        environment["IPYTHONDIR"] = str(tmp_path / "ipython")
        project = content / "alignment-labs"
        asked = [sys.executable, "-c", KERNEL, json.dumps(cell), str(project)]
        ended = subprocess.run(
            asked, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout.splitlines()[-1]), log.read_text().splitlines()

    return run


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["notebooks", "notebooks/further"])
def test_the_package_is_there_at_once_and_the_cell_runs_twice(colab, folder, tmp_path):
    found, called = colab(folder)
    project = tmp_path / "content" / "alignment-labs"
    assert found["folder"] == str(project / folder)
    assert found["found"] == str(project / "labs_helpers" / "__init__.py")
    assert found["times"] == 1
    assert [call for call in called if call.startswith("git")] == [
        f"git clone -q --depth 1 {repository()}"
    ]
    assert not list(project.rglob("alignment-labs"))
    assert (tmp_path / "hold.txt").read_text() == "torch==2.11.0\n"


def test_outside_of_colab_nothing_happens(capsys):
    code = installation("notebooks")
    head, body = code.split("\n\nif ", maxsplit=1)
    assert head == "import sys"
    assert all(line.startswith("    ") for line in body.splitlines()[1:])


def test_the_address_stands_in_pyproject_alone():
    assert repository().startswith("https://")
    assert f"clone -q --depth 1 {repository()}" in installation("notebooks")
    owner_and_name = repository().removeprefix("https://github.com/")
    assert owner_and_name in badge("notebooks/1_a.ipynb")
    assert badge("notebooks/1_a.ipynb").endswith("/blob/main/notebooks/1_a.ipynb)")
