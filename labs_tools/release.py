"""Make student versions of the labs: no solutions, no hidden tests, no outputs.

In go lab notebooks with nbgrader's metadata and marks, out come notebooks of the same
name that run to the end unsolved. Follows nbgrader's conventions and does not need it.
What all notebooks share, the badge and the cell that installs on Colab, is written
into them by `colab`.
"""

import ast
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from labs_helpers.common.files import write_atomically
from labs_tools.colab import below_notebooks, with_colab

FOLDER = "student"
MAY_FAIL = "raises-exception"
HERE = "# YOUR CODE HERE"
WRITE_HERE = "*Your answer here.*"
NOTE = """\
**Student version.** Write your code where it says `YOUR CODE HERE`, run the cell below
it, and read what the check says. Until an answer is right the lab goes on with the
reference, so that you can work in any order and "Run All" always reaches the end.

Hand in this notebook, executed. The instructor runs your answers again, without the
experiments: they may use Python, torch, NumPy, answers before them, functions and
constants of your own cells, and of `labs_helpers` only what the exercise itself uses.
Cells that check are restored before that."""


class BrokenMarks(ValueError):
    """BEGIN and END of a region do not match."""


def release(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Write the student version of each lab into a folder; return their paths.

    Where the badge or the installation of a source is out of date, it is renewed too.
    A notebook without exercises has no student version: it is for students as it is.
    """
    written = []
    for path in paths:
        source = nbformat.read(path, as_version=4)
        if (
            renewed := with_colab(source, f"notebooks/{below_notebooks(path)}")
        ) != source:
            write_atomically(path, nbformat.writes(renewed) + "\n")
        if not any("nbgrader" in cell.metadata for cell in source.cells):
            continue
        notebook = student_version(source, path.name)
        write_atomically(folder / path.name, nbformat.writes(notebook) + "\n")
        written.append(folder / path.name)
    return written


def student_version(notebook: NotebookNode, name: str) -> NotebookNode:
    """Copy a notebook without what students must not see.

    Args:
        notebook: the source.
        name: of its file, for messages and the link to Colab.
    """
    notebook = with_colab(notebook, f"notebooks/{FOLDER}/{name}")
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        cell.metadata = nbformat.from_dict(_metadata(marks))
        try:
            if marks.get("solution") and cell.cell_type == "markdown":
                cell.source = WRITE_HERE
            elif marks.get("solution"):
                cell.source = without_solutions(cell.source)
            if marks.get("grade"):
                cell.source = without_regions(cell.source, "HIDDEN TESTS")
            if mark := re.search(
                "### (BEGIN|END) (SOLUTION|HIDDEN TESTS)", cell.source
            ):
                raise BrokenMarks(
                    f"{mark[0]!r} stands in a cell whose nbgrader metadata does not "
                    "say so; students would see what follows"
                )
        except BrokenMarks as error:
            raise BrokenMarks(f"{name}, cell {cell.id}: {error}") from None
        cell.source = _one_folder_deeper(cell)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells.insert(1, _note())
    notebook.metadata.get("language_info", {}).pop("version", None)
    return notebook


def without_solutions(source: str) -> str:
    """Put a stub in place of every solution in a cell.

    In a function it raises NotImplementedError, which the check knows; at the top it is
    a comment alone, and what the lab gave before stays as it was.

    >>> print(without_solutions('''def double(x):
    ...     ### BEGIN SOLUTION
    ...     return 2 * x
    ...     ### END SOLUTION'''))
    def double(x):
        # YOUR CODE HERE
        raise NotImplementedError
    """
    return without_regions(source, "SOLUTION", _stub)


def without_regions(
    source: str, what: str, stub: Callable[[re.Match[str]], str] = lambda region: ""
) -> str:
    """Take the regions that are marked as `what` out of a cell.

    Args:
        source: of the cell.
        what: SOLUTION or HIDDEN TESTS.
        stub: takes a region, with groups indent and text; gives what is in its place.

    Raises:
        BrokenMarks: a BEGIN without an END after it, or the other way round.
    """
    begin, end = f"### BEGIN {what}", f"### END {what}"
    text = rf"(?P<text>(?:(?! *{begin}).*\n)*?)"
    region = re.compile(rf"^(?P<indent> *){begin} *\n{text} *{end} *(\n|\Z)", re.M)
    rest = region.sub(stub, source)
    for mark in (begin, end):
        if mark in rest:
            raise BrokenMarks(f"{begin!r} and {end!r} do not alternate")
    return rest.removesuffix("\n")


def _stub(region: re.Match[str]) -> str:
    if indent := region["indent"]:
        return f"{indent}{HERE}\n{indent}raise NotImplementedError\n"
    named = (ast.FunctionDef, ast.ClassDef)
    names = [n.name for n in ast.parse(region["text"]).body if isinstance(n, named)]
    return f"{HERE}: write {' and '.join(names)} anew\n" if names else f"{HERE}\n"


def _metadata(marks: dict[str, Any]) -> dict[str, Any]:
    """Keep nbgrader's marks, and lock what it would lock.

    A cell for an answer may fail, a syntax error included: front ends, nbclient and
    nbval take its tag for that, and "Run All" goes on with the cells below.
    """
    if not marks:
        return {}
    metadata: dict[str, Any] = {"nbgrader": dict(marks), "deletable": False}
    if marks.get("locked"):
        metadata["editable"] = False
    if marks.get("solution") and not marks.get("grade"):
        metadata["tags"] = [MAY_FAIL]
    return metadata


def _one_folder_deeper(cell: NotebookNode) -> str:
    """Mend paths and links: student versions lie one folder deeper."""
    if cell.cell_type != "code":
        return re.sub(r"\]\((?=\.\./|further/|0_primer)", "](../", cell.source)
    return re.sub(r"([\"'])\.\./", r"\1../../", cell.source)


def _note() -> NotebookNode:
    cell = nbformat.v4.new_markdown_cell(NOTE)
    cell.id = "student-version"
    return cell
