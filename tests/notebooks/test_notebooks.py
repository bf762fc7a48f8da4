"""The committed notebooks are clean, executed, and say what the checks say."""

import ast
import re
import warnings

import nbformat
import pytest

from labs_helpers.course.exercises import exercises_of
from labs_helpers.course.profile import ROOT
from labs_tools.colab import below_notebooks

LABS = sorted((ROOT / "notebooks").glob("[1-9]_*.ipynb"))
NOTEBOOKS = [
    *sorted((ROOT / "notebooks").glob("[0-9]_*.ipynb")),
    *sorted((ROOT / "notebooks/further").glob("[0-9]_*.ipynb")),
]
CARD = re.compile(
    r"\*\*Exercise ([\d.]+)\*\*.*?difficulty (\d) of 5 · (\d+) minutes ·"
    r"\s*>?\s*(\d+) points",
    re.DOTALL,
)


FOR_LABS = pytest.mark.parametrize("path", LABS, indirect=True, ids=below_notebooks)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


@pytest.fixture(params=NOTEBOOKS, ids=below_notebooks)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def source(notebook, kind):
    return [cell.source for cell in notebook.cells if cell.cell_type == kind]


def test_it_is_valid_and_small(notebook, path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nbformat.validate(notebook)
    assert path.stat().st_size < 1_000_000
    assert "widgets" not in notebook.metadata
    assert "jupytext" not in notebook.metadata


def test_it_imports_from_faces_alone(notebook):
    for cell in source(notebook, "code"):
        for module in re.findall(r"^\s*(?:from|import) (labs_[\w.]+)", cell, re.M):
            assert re.fullmatch(r"labs_helpers(\.\w+)?", module), module


def test_it_is_executed_from_top_to_bottom(notebook):
    counts = [c.execution_count for c in notebook.cells if c.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))


def test_no_cell_failed_and_no_machine_shows(notebook):
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error", cell.source
            text = str(output.get("text", "")) + str(output.get("data", {}))
            assert "/home/" not in text
            assert str(ROOT) not in text


@FOR_LABS
def test_cards_say_what_the_checks_say(notebook, path):
    exercises = exercises_of(int(path.stem[0]))
    cards = {
        m[1]: tuple(map(int, m.groups()[1:]))
        for text in source(notebook, "markdown")
        for m in CARD.finditer(text)
    }
    assert cards == {e.id: e.card for e in exercises.values()}


@FOR_LABS
def test_every_exercise_is_marked_for_grading(notebook, path):
    exercises = exercises_of(int(path.stem[0]))
    marked = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade")]
    graded = [c for c in marked if not c.metadata.nbgrader.solution]
    points = {
        re.search(r'lab\.points\("([\d.]+)"\)', c.source)[1]: c.metadata.nbgrader.points
        for c in graded
    }
    assert points == {e.id: e.points for e in exercises.values()}
    solutions = [c for c in notebook.cells if "### BEGIN SOLUTION" in c.source]
    assert len(solutions) == len(exercises)
    assert all(c.metadata.nbgrader.solution for c in solutions)


@FOR_LABS
def test_a_question_is_graded_by_hand(notebook, path):
    by_hand = [
        cell.metadata.nbgrader
        for cell in notebook.cells
        if cell.cell_type == "markdown" and cell.metadata.get("nbgrader")
    ]
    assert [(m.grade_id, m.grade, m.solution, m.locked) for m in by_hand] == [
        (f"written_{path.stem[0]}", True, True, False)
    ]


def test_cells_are_short(notebook):
    for text in source(notebook, "code"):
        assert len(text.splitlines()) <= 36, text.splitlines()[0]


def test_every_figure_has_a_text_in_its_place(notebook, path):
    figures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(figures) >= (8 if path in LABS else 2)
    texts = [f.metadata.get("image/png", {}).get("alt", "") for f in figures]
    assert all(len(text) > 20 for text in texts), texts
    assert len(set(texts)) == len(texts)


def test_every_figure_is_shown_by_the_lab(notebook):
    for text in source(notebook, "code"):
        assert not re.search(r"display\(\s*\w*(plots|draw)", text)
        assert not re.search(r"^(safety_)?plots\.", text, re.MULTILINE)


def test_answers_need_no_import_of_their_own_and_give_no_other_name(notebook):
    exercises = {
        exercise.name
        for number in (1, 2, 3, 4)
        for exercise in exercises_of(number).values()
    }
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and marks.get("solution"):
            [function] = ast.parse(cell.source).body
            assert isinstance(function, ast.FunctionDef)
            assert function.name in exercises


@FOR_LABS
def test_a_check_finds_its_answer_by_name(notebook, path):
    names = {e.id: e.name for e in exercises_of(int(path.stem[0])).values()}
    found = {}
    for text in source(notebook, "code"):
        if checked := re.match(r'(\w+) = lab\.check\("([\d.]+)"\)\n', text):
            found[checked[2]] = checked[1]
    assert found == names


def test_links_lead_to_files(path):
    student = path.parent / "student" / path.name
    for file in [path, *([student] if path in LABS else [])]:
        for cell in source(nbformat.read(file, as_version=4), "markdown"):
            for link in LINK.findall(cell):
                assert (file.parent / link).exists(), f"{link} in {file}"


@FOR_LABS
def test_a_lab_leads_to_its_studies(notebook, path):
    assert f"(further/{path.name})" in "".join(source(notebook, "markdown"))


def test_nothing_is_written_beside_the_labs_folder(notebook):
    for text in source(notebook, "code"):
        assert "build/" not in text
