"""A small lab of two exercises, and what students and others make of it."""

import copy

import nbformat
import pytest

from labs_helpers.common.files import ROOT
from labs_tools.release import student_version

SOURCE = ROOT / "notebooks" / "1_reward_model.ipynb"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[1-9]_*.ipynb"))
SOURCES = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
KEPT = ("bayes_ceiling", "bradley_terry_loss")


def marks(cell):
    return cell.metadata.get("nbgrader", {})


def cell_of(notebook, grade_id):
    return next(c for c in notebook.cells if marks(c).get("grade_id") == grade_id)


@pytest.fixture(scope="session")
def small_lab(tmp_path_factory):
    """Lab 1 with two exercises and a written question, and what comes before them."""
    notebook = nbformat.read(SOURCE, as_version=4)
    wanted = {f"{prefix}{name}" for name in KEPT for prefix in ("", "check_")}
    graded = [marks(c).get("grade_id") in wanted for c in notebook.cells]
    last = max(i for i, kept in enumerate(graded) if kept)
    written = next(
        c for c in notebook.cells if c.cell_type == "markdown" and marks(c).get("grade")
    )
    notebook.cells = [*notebook.cells[: last + 1], written]
    path = tmp_path_factory.mktemp("lab") / "notebooks" / SOURCE.name
    path.parent.mkdir()
    nbformat.write(notebook, path)
    return path


@pytest.fixture(scope="session")
def solved(small_lab):
    """Make a solved and executed student version, fresh in every call."""
    source = nbformat.read(small_lab, as_version=4)
    student = student_version(source, small_lab.name)

    def build(names=KEPT):
        notebook = copy.deepcopy(student)
        for i, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
            cell.execution_count = i + 1
        for name in names:
            cell_of(notebook, name).source = cell_of(source, name).source
        return notebook

    return build
