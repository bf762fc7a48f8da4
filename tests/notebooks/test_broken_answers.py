"""A broken answer costs its own exercise and nothing else, whatever is wrong with it.

Notebooks run as "Run All" runs them: an error stops them, but in a cell whose tag says
that it may fail. The exhaustive tests run by name: `pytest -m exhaustive`.
"""

import ast
import copy
import json
import os
import re

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_raw_cell

from labs_helpers.course.exercises import exercises_of
from labs_helpers.course.profile import ROOT
from labs_tools.grading.code import definitions, named, statements
from labs_tools.release import student_version

NOTEBOOKS = sorted((ROOT / "notebooks").glob("[1-9]_*.ipynb"))
LABS = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
CHECKED = re.compile(r'lab\.check\("([\d.]+)"')
# Each takes the exercise's function and its cell, and gives what stands there instead.
BROKEN = {
    "syntax error": lambda name, cell: f"{cell.source}\n)",
    "exception": lambda name, cell: f"raise ValueError('broken')\n{cell.source}",
    "name error": lambda name, cell: f"@numba.njit\n{cell.source}",
    "deleted": lambda name, cell: None,
    "never run": lambda name, cell: new_raw_cell(cell.source),
    "emptied": lambda name, cell: "",
    "a comment": lambda name, cell: "# later",
    "renamed": lambda name, cell: cell.source.replace(f"def {name}", f"def my_{name}"),
    "no function": lambda name, cell: f"{name} = 3",
}
KINDS = pytest.mark.parametrize("kind", BROKEN)


def marks(cell):
    return cell.metadata.get("nbgrader", {})


def is_answer(cell):
    return cell.cell_type == "code" and marks(cell).get("solution")


def checked(cell):
    found = CHECKED.search(cell.source) if marks(cell).get("locked") else None
    return found[1] if found else None


def solved(path):
    """The student version with every answer right."""
    source = nbformat.read(path, as_version=4)
    student = student_version(source, path.name)
    right = {cell.id: cell.source for cell in source.cells if is_answer(cell)}
    for cell in student.cells:
        cell.source = right.get(cell.id, cell.source)
    return student


def lab_of(path):
    return int(path.stem[0])


def exercises(path, cells):
    """Exercises by the id of the cell with the answer, in the order of the lab."""
    known, found, answer = exercises_of(lab_of(path)), {}, None
    for cell in cells:
        if is_answer(cell):
            answer = cell.id
        elif id := checked(cell):
            found[answer] = known[id]
    return found


def broken(cell, kind, name):
    """The cells in place of a cell with an answer."""
    instead = BROKEN[kind](name, cell)
    if instead is None:
        return []
    if not isinstance(instead, str):
        return [instead]
    cell = copy.deepcopy(cell)
    cell.source = instead
    return [cell]


def run(cells, tmp_path):
    """Run cells to the end in the folder of the student versions."""
    notebook = nbformat.v4.new_notebook(cells=cells)
    environment = {**os.environ, "LABS_STRICT": "0", "LABS_OUT": str(tmp_path)}
    environment.pop("MPLBACKEND")
    folder = str(ROOT / "notebooks" / "student")
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", extra_arguments=["--log-level=40"]
    )
    client.resources = {"metadata": {"path": folder}}
    client.execute(env=environment)
    return notebook.cells


def text(cell):
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


def assert_message_names(exercise, kind, said):
    if kind == "no function":
        assert "Not a function: " in said
    else:
        problem = re.search(r"Not (defined|repaired yet): the cell for `(\w+)`", said)
        assert problem, said
        assert problem[2] == exercise.name
        assert f"the card of exercise {exercise.id}," in said
    assert "goes on with the reference" in said


def assert_no_answer_is_missed(path, kinds, tmp_path):
    """Break every answer of a whole lab; what is below reaches the end."""
    cells = solved(path).cells
    known = exercises(path, cells)
    kind_of = {id: kinds[i % len(kinds)] for i, id in enumerate(known)}
    ran = run(
        [
            new
            for cell in cells
            for new in (
                broken(cell, kind_of[cell.id], known[cell.id].name)
                if cell.id in known
                else [cell]
            )
        ],
        tmp_path,
    )
    [entry] = json.loads((tmp_path / "results.json").read_text())["labs"].values()
    assert {row["id"]: row["points"] for row in entry["exercises"]} == {
        exercise.id: 0.0 for exercise in known.values()
    }
    said = {checked(cell): text(cell) for cell in ran if checked(cell)}
    for id, exercise in known.items():
        assert_message_names(exercise, kind_of[id], said[exercise.id])


@pytest.mark.slow
@pytest.mark.timeout(600)
@LABS
def test_a_lab_reaches_its_end_whatever_its_answers_are(path, tmp_path):
    kinds = list(BROKEN)
    first = 2 * lab_of(path)
    assert_no_answer_is_missed(path, kinds[first:] + kinds[:first], tmp_path)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@LABS
@KINDS
def test_a_lab_reaches_its_end_with_all_answers(path, kind, tmp_path):
    assert_no_answer_is_missed(path, [kind], tmp_path)


def once_more(cell):
    """A copy with an id of its own."""
    new = new_raw_cell if cell.cell_type == "raw" else new_code_cell
    return new(cell.source, metadata=cell.metadata)


def given(source, names):
    """The imports of a cell, and what it gives under the name of an answer."""
    wanted = {*names, *(f"buggy_{name}" for name in names)}
    for statement in statements(definitions(source)):
        imports = isinstance(statement, ast.Import | ast.ImportFrom)
        if imports or named(statement) & wanted:
            yield ast.unparse(statement)


def without_experiments(path, cells, target, kind):
    """What answers build on, answers and checks; one is broken, the others right."""
    known = exercises(path, cells)
    names = sorted(exercise.name for exercise in known.values())
    forget = f"for name in {names}:\n    globals().pop(name, None)"
    begin = f"from labs_helpers.course import start\nlab = start({lab_of(path)})"
    yield new_code_cell(forget)
    yield new_code_cell(begin)
    for cell in cells:
        if cell.id == target:
            for instead in broken(cell, kind, known[target].name):
                yield once_more(instead)
        elif is_answer(cell) or checked(cell):
            yield once_more(cell)
        elif cell.cell_type == "code":
            yield new_code_cell("\n".join(given(cell.source, names)))
    points = "{id: lab.points(id) for id in lab.diagnoses}"
    yield new_code_cell(f"import json\nprint(json.dumps({points}))")


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@LABS
@KINDS
def test_each_answer_in_turn_costs_its_own_exercise_alone(path, kind, tmp_path):
    cells = solved(path).cells
    known = exercises(path, cells)
    turns = {id: list(without_experiments(path, cells, id, kind)) for id in known}
    ran = iter(run([cell for turn in turns.values() for cell in turn], tmp_path))
    for id, turn in turns.items():
        done = [next(ran) for _ in turn]
        *_, last = done
        expected = {e.id: float(e.points) for e in known.values()}
        expected[known[id].id] = 0.0
        assert json.loads(text(last)) == expected
        [said] = [text(cell) for cell in done if checked(cell) == known[id].id]
        assert_message_names(known[id], kind, said)
