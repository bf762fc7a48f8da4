"""Labs 1 and 2 reach their reports when somebody has annotated, today or before."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from labs_helpers.course.profile import ROOT, load_profile
from labs_tools.notebooks import execute

CHOOSE = """
for choice in {choices}:
    mine.choose(choice)
print(mine.progress)
mine = Annotator(mine._pairs, mine.path, name="me")  # as at the next start
"""


def said(cell):
    return "".join(output.get("text", "") for output in cell.outputs)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("name", "choices", "after"),
    [
        ("1_reward_model.ipynb", ["A", "B", "tie", "skip"], "comparisons so far: 2"),
        ("2_dpo.ipynb", ["tie", "skip", "tie"], "You say: DPO wins 0.500"),
    ],
)
def test_a_lab_with_annotations_reaches_its_report(tmp_path, name, choices, after):
    (tmp_path / "data").symlink_to(ROOT / "data")
    path = tmp_path / "notebooks" / name
    path.parent.mkdir()
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    asks = next(
        i for i, cell in enumerate(notebook.cells) if "import Annotator" in cell.source
    )
    notebook.cells.insert(asks + 1, new_code_cell(CHOOSE.format(choices=choices)))
    out = tmp_path / "build" / "labs"
    failure = execute(notebook, path, load_profile(), out)
    assert not failure, failure
    assert f"{len(choices)} of" in said(notebook.cells[asks + 1])
    assert after in said(notebook.cells[asks + 2])
    results = json.loads((out / "results.json").read_text("utf-8"))
    assert name[0] in results["labs"]
    kept = list(out.glob("my_*.jsonl"))
    assert sum(len(file.read_text().splitlines()) for file in kept) == len(choices)
