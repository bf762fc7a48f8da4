"""Student versions: what they keep and leave out, and that they are up to date."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from labs_helpers.course.profile import ROOT
from labs_tools import cli
from labs_tools.colab import badge, below_notebooks, installation, with_colab
from labs_tools.release import (
    WRITE_HERE,
    BrokenMarks,
    release,
    student_version,
    without_regions,
    without_solutions,
)

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[1-9]_*.ipynb"))
SOURCES = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
ALL = sorted(
    {*(ROOT / "notebooks").rglob("[0-9]_*.ipynb")}
    - {*(ROOT / "notebooks/student").iterdir()}
)
ON_COLAB = '"google.colab" in sys.modules'
SOLUTION = {"grade_id": "double", "grade": False, "solution": True, "locked": False}
CHECK = {"grade_id": "check", "grade": True, "solution": False, "locked": True}


def notebook_of(*cells):
    return new_notebook(cells=[new_markdown_cell("# Lab"), *cells])


def exercise(source):
    return new_code_cell(source, metadata={"nbgrader": dict(SOLUTION)})


def test_solution_in_a_function_becomes_a_stub():
    source = "def f(x):\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION"
    stub = "def f(x):\n    # YOUR CODE HERE\n    raise NotImplementedError"
    assert without_solutions(source) == stub


def test_solution_at_the_top_leaves_what_was_there():
    source = "old = f\n### BEGIN SOLUTION\ndef f(x):\n    return x\n### END SOLUTION"
    stub = "old = f\n# YOUR CODE HERE: write f anew"
    assert without_solutions(source) == stub


@pytest.mark.parametrize(
    "source",
    [
        "### BEGIN SOLUTION\nx = 1",
        "x = 1\n### END SOLUTION",
        "### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION",
    ],
)
def test_broken_marks_are_an_error(source):
    with pytest.raises(BrokenMarks):
        without_solutions(source)


def test_solution_in_an_unmarked_cell_is_an_error():
    source = "### BEGIN SOLUTION\nx = 1\n### END SOLUTION"
    with pytest.raises(BrokenMarks, match="metadata"):
        student_version(notebook_of(new_code_cell(source)), "1_a.ipynb")


def test_what_stands_around_regions_stays():
    marks = "### BEGIN HIDDEN TESTS\nb\nc\n### END HIDDEN TESTS"
    source = f"a\n{marks}\n\nd\n{marks}"
    assert without_regions(source, "HIDDEN TESTS") == "a\n\nd"


def test_checks_are_locked_and_outputs_gone():
    cell = new_code_cell(
        "lab.check('1.1', f)\n### BEGIN HIDDEN TESTS\nsecret\n### END HIDDEN TESTS",
        metadata={"nbgrader": dict(CHECK, points=2)},
        outputs=[nbformat.v4.new_output("stream", text="2")],
        execution_count=7,
    )
    [*_, student] = student_version(notebook_of(cell), "1_a.ipynb").cells
    assert student.source == "lab.check('1.1', f)"
    assert student.metadata.deletable is False
    assert student.metadata.editable is False
    assert student.metadata.nbgrader.points == 2
    assert (student.outputs, student.execution_count) == ([], None)


def test_a_written_answer_is_left_to_the_student():
    marks = {"grade": True, "grade_id": "written_1", "solution": True, "points": 2}
    cell = new_markdown_cell("Because it is so.", metadata={"nbgrader": marks})
    [*_, student] = student_version(notebook_of(cell), "1_a.ipynb").cells
    assert student.source == WRITE_HERE
    assert student.metadata.deletable is False
    assert "editable" not in student.metadata


def test_paths_and_links_lead_one_folder_further_up():
    cells = [
        new_markdown_cell("[![Open in Colab](x)](y) [y](../docs) [z](further/1_a)"),
        new_code_cell('read("../data/x.csv")'),
        new_code_cell('if "google.colab" in sys.modules:\n    %cd labs'),
    ]
    cells = student_version(notebook_of(*cells), "1_a.ipynb").cells[2:]
    assert "notebooks/student/1_a.ipynb" in cells[0].source
    assert "(../../docs) [z](../further/1_a)" in cells[0].source
    assert cells[1].source == 'read("../../data/x.csv")'
    assert cells[2].source.endswith("\n    %cd -q notebooks/student")


def test_a_cell_for_an_answer_may_fail_and_no_other():
    check = new_code_cell("lab.check('1.1')", metadata={"nbgrader": dict(CHECK)})
    cells = [exercise("x = 1"), check, new_code_cell("x")]
    _, _, *student = student_version(notebook_of(*cells), "1_a.ipynb").cells
    assert [cell.metadata.get("tags") for cell in student] == [
        ["raises-exception"],
        None,
        None,
    ]


def test_release_renews_what_all_notebooks_share(tmp_path):
    path = tmp_path / "1_a.ipynb"
    cell = new_code_cell(f"if {ON_COLAB}:\n    old()")
    nbformat.write(notebook_of(cell), path)
    release([path], tmp_path / "student")
    [_, renewed] = nbformat.read(path, as_version=4).cells
    assert renewed.source == installation("notebooks")


def test_what_has_no_exercises_is_for_students_as_it_is(tmp_path):
    path = tmp_path / "further" / "1_a.ipynb"
    path.parent.mkdir()
    nbformat.write(notebook_of(new_code_cell(ON_COLAB)), path)
    assert release([path], tmp_path / "student") == []
    [_, renewed] = nbformat.read(path, as_version=4).cells
    assert renewed.source == installation("notebooks/further")


def test_release_is_a_command(tmp_path, capsys):
    assert cli.main(["release", "--out", str(tmp_path)]) == 0
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == [path.name for path in NOTEBOOKS]
    assert NOTEBOOKS[0].name in capsys.readouterr().out


@SOURCES
def test_student_version_is_up_to_date(path, tmp_path):
    [fresh] = release([path], tmp_path)
    committed = ROOT / "notebooks" / "student" / path.name
    assert committed.exists(), "run `labs release`"
    assert committed.read_text() == fresh.read_text(), "run `labs release`"


@pytest.mark.parametrize("path", ALL, ids=below_notebooks)
def test_badge_and_installation_are_up_to_date(path):
    source, place = nbformat.read(path, as_version=4), below_notebooks(path)
    text = "".join(cell.source for cell in source.cells)
    assert badge(f"notebooks/{place}") in text
    assert with_colab(source, f"notebooks/{place}") == source, "run `labs release`"


@SOURCES
def test_student_version_tells_nothing(path):
    notebook = student_version(nbformat.read(path, as_version=4), path.name)
    nbformat.validate(notebook)
    text = nbformat.writes(notebook)
    assert "SOLUTION" not in text
    assert "HIDDEN" not in text
    assert "seed=2026" not in text
    assert all(not c.outputs for c in notebook.cells if c.cell_type == "code")
    graded = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("locked")]
    assert graded
    assert all(cell.metadata.editable is False for cell in graded)


@SOURCES
def test_nbgrader_would_make_the_same(path):
    preprocessors = pytest.importorskip(
        "nbgrader.preprocessors", reason="nbgrader is not installed (extra grade)"
    )
    source = nbformat.read(path, as_version=4)
    theirs = nbformat.read(path, as_version=4)
    stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError"}
    for step in (
        preprocessors.ClearSolutions(code_stub=stub, text_stub=WRITE_HERE),
        preprocessors.ClearHiddenTests(),
        preprocessors.LockCells(),
    ):
        theirs, _ = step.preprocess(theirs, {})
    ours = student_version(source, path.name)
    del ours.cells[1]  # the note to students
    for own, other in zip(ours.cells, theirs.cells, strict=True):
        marks = other.metadata.get("nbgrader", {})
        assert own.metadata.get("nbgrader", {}) == marks
        for lock in ("deletable", "editable"):
            assert own.metadata.get(lock) == other.metadata.get(lock)
        # At the top of a cell nbgrader's stub would stop "Run All".
        if marks and "\nraise NotImplementedError" not in f"\n{other.source}":
            assert own.source == other.source
