"""A cell that is run again gives the same names the same values.

Exhaustive, so it runs by name: `pytest -m exhaustive`.
"""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from labs_helpers.course.profile import ROOT, load_profile
from labs_tools.colab import below_notebooks
from labs_tools.notebooks import kernel_environment

NOTEBOOKS = [
    path
    for folder in ("notebooks", "notebooks/further")
    for path in sorted((ROOT / folder).glob("[0-9]_*.ipynb"))
]
# What the names of a kernel stand for: values, weights, states of generators.
FACTS = """
def _facts():
    import dataclasses, hashlib, random
    import numpy, torch

    def digest(array):
        return hashlib.sha1(numpy.ascontiguousarray(array).tobytes()).hexdigest()

    def fact(x, depth=0):
        if x is None or isinstance(x, (bool, int, float, str, bytes)):
            return repr(x)
        if isinstance(x, random.Random):
            return hash(x.getstate())
        if isinstance(x, torch.nn.Module):
            return {k: fact(v) for k, v in x.state_dict().items()}
        if isinstance(x, torch.Tensor):
            return digest(x.detach().cpu().float().numpy())
        if isinstance(x, numpy.ndarray) and x.dtype != object:
            return digest(x)
        if depth > 4:
            return type(x).__name__
        if isinstance(x, dict):
            timed = {k: v for k, v in x.items() if "second" not in str(k)}
            return {str(k): fact(v, depth + 1) for k, v in timed.items()}
        if isinstance(x, (list, tuple, numpy.ndarray)):
            return [fact(v, depth + 1) for v in x]
        if dataclasses.is_dataclass(x) and not isinstance(x, type):
            fields = {f.name: getattr(x, f.name) for f in dataclasses.fields(x)}
            return fact(fields, depth + 1)
        if hasattr(x, "rows"):
            return fact(x.rows, depth + 1)
        return type(x).__name__

    own = {k: v for k, v in get_ipython().user_ns.items() if not k.startswith("_")}
    hidden = {"In", "Out", "get_ipython", "exit", "quit", "open"}
    timed = {k for k in own if "second" in k or k == "started"}
    return {k: fact(v) for k, v in own.items() if k not in hidden | timed}


def _changed(before):
    import json

    after = _facts()
    names = {k for k in {*before, *after} if before.get(k) != after.get(k)}
    print(json.dumps(sorted(names)))
"""


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=below_notebooks)
def test_a_cell_may_be_run_twice(path, tmp_path):
    from nbclient import NotebookClient

    source = nbformat.read(path, as_version=4)
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    cells, looks = [new_code_cell(FACTS)], {}
    for cell in code:
        looks[cell.id] = new_code_cell("_changed(_before)")
        first, again = (new_code_cell(cell.source) for _ in range(2))
        cells += [first, new_code_cell("_before = _facts()"), again, looks[cell.id]]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", extra_arguments=["--log-level=40"]
    )
    client.resources = {"metadata": {"path": str(path.parent)}}
    client.execute(env=kernel_environment(load_profile("smoke"), tmp_path))
    changed = {id: json.loads(text(look)) for id, look in looks.items()}
    assert {id: names for id, names in changed.items() if names} == {}


def text(cell):
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout")
