"""What pyproject.toml promises about versions agrees with the lists beside it."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PROJECT = tomllib.loads(TEXT)["project"]
EXTRAS = PROJECT["optional-dependencies"]


def requirements(*extras):
    """Requirements of the package with these extras."""
    lists = (PROJECT["dependencies"], *(EXTRAS[name] for name in extras))
    return [Requirement(line) for group in lists for line in group]


def lower_bound(requirement):
    (bound,) = (s for s in requirement.specifier if s.operator == ">=")
    return Version(bound.version)


def pinned(name):
    """Versions in a list of exact ones, by name."""
    text = (ROOT / name).read_text(encoding="utf-8")
    pins = (line.split("==") for line in text.splitlines() if "==" in line)
    return {canonicalize_name(name): version for name, version in pins}


@pytest.mark.parametrize("requirement", requirements(*EXTRAS), ids=str)
def test_every_requirement_has_a_lower_bound_and_an_exact_version(requirement):
    exact = pinned(".ci/constraints.txt")[canonicalize_name(requirement.name)]
    assert lower_bound(requirement)
    assert requirement.specifier.contains(exact)


@pytest.mark.parametrize("requirement", requirements("lab", "test"), ids=str)
def test_oldest_versions_that_run_in_ci_are_the_lower_bounds(requirement):
    oldest = pinned(".ci/lower-bounds.txt")[canonicalize_name(requirement.name)]
    if requirement.name == "torch":  # its oldest has no build without CUDA
        assert requirement.specifier.contains(oldest)
    else:
        assert Version(oldest) == lower_bound(requirement)


def test_no_lower_bound_is_above_what_colab_has():
    colab = pinned("tests/colab/colab.txt")
    for requirement in requirements():
        name = canonicalize_name(requirement.name)
        if name in colab:
            had = Version(colab[name].replace("*", "999"))
            assert lower_bound(requirement) <= had, name


def test_students_environment_has_no_tools_of_instructors():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert "-e .[lab]" in conda["dependencies"][-1]["pip"]
    assert not {"nbgrader", "pytest"} & {r.name for r in requirements("lab")}


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("target", ["environment", "labs", "jupyter"])
def test_what_students_run_installs_no_instructors_menu(target):
    command = ["make", "--always-make", "--dry-run", target]
    said = subprocess.run(command, cwd=ROOT, text=True, stdout=-1, check=True).stdout
    assert re.findall(r"-e '\.\[(.*?)\]'", said) == ["lab"]


def test_notebooks_name_the_projects_address_and_no_other():
    address = PROJECT["urls"]["Repository"]
    repository = address.removeprefix("https://github.com/")
    for path in sorted((ROOT / "notebooks").rglob("[0-9]_*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for found in re.findall(r"git clone .*?(https://\S+)", cell.source):
                assert found == address
            for found in re.findall(r"colab\.\S+?/github/([\w-]+/[\w-]+)", cell.source):
                assert found == repository


def test_the_guides_name_the_projects_address_and_no_other():
    address = PROJECT["urls"]["Repository"]
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = path.read_text(encoding="utf-8")
        for found in re.findall(r"https://github\.com/[\w-]+/alignment-labs", text):
            assert found == address
