"""What notebooks need on Colab: the badge that opens them, the cell that installs.

In goes a notebook, out comes a copy with both as they stand here. The repository's
address is that of pyproject.toml. Nothing here runs anywhere but on Colab.
"""

import copy
import re
import tomllib
from pathlib import Path
from typing import Any

from jinja2 import Template
from nbformat import NotebookNode

from labs_helpers.common.files import ROOT

BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\([^)]*\)")
IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"
ON_COLAB = '"google.colab" in sys.modules'
# What Colab has loaded is held, so that no kernel runs half of one version and half of
# another. TRL's trainers work with the datasets that is there and asks for a newer.
INSTALLATION = """\
import sys

if "google.colab" in sys.modules:  # nothing happens anywhere else
    %cd -q /content
    !test -d {{ name }} || git clone -q --depth 1 {{ repository }}
    %cd -q /content/{{ name }}
    !pip freeze --exclude-editable | grep == > /tmp/hold.txt
    !pip install -q --no-warn-conflicts -c /tmp/hold.txt -e .
    !pip install -q --no-deps "{{ trl }}"
    if "/content/{{ name }}" not in sys.path:  # this kernel began before pip's link
        sys.path.insert(0, "/content/{{ name }}")
    %cd -q {{ folder }}"""


def below_notebooks(path: Path) -> str:
    """Return where a notebook lies below notebooks/: its name, in further or not.

    >>> below_notebooks(Path("notebooks/further/2_dpo.ipynb"))
    'further/2_dpo.ipynb'
    """
    return f"further/{path.name}" if path.parent.name == "further" else path.name


def repository() -> str:
    """Return the project's address, as pyproject.toml has it."""
    return _project()["urls"]["Repository"]


def _project() -> dict[str, Any]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["project"]


def with_colab(notebook: NotebookNode, path: str) -> NotebookNode:
    """Copy a notebook, its badge and its installation cell up to date.

    Args:
        notebook: with a badge and an installation cell, or without.
        path: of its file in the repository.
    """
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = BADGE.sub(badge(path), cell.source)
        elif ON_COLAB in cell.source:
            cell.source = installation(path.rpartition("/")[0])
    return notebook


def badge(path: str) -> str:
    """Return the Markdown of the badge that opens a file of the repository on Colab."""
    address = repository().replace("https://github.com", "github", 1)
    opens = f"https://colab.research.google.com/{address}/blob/main/{path}"
    return f"[![Open in Colab]({IMAGE})]({opens})"


def installation(folder: str) -> str:
    """Return the source of the cell that installs the project and goes to a folder."""
    needed = _project()["optional-dependencies"]["lab"]
    return Template(INSTALLATION).render(
        name=repository().rpartition("/")[2],
        repository=repository(),
        trl=next(package for package in needed if package.startswith("trl")),
        folder=folder,
    )
