"""Executing, cleaning and judging notebooks."""

import json
import os

import nbformat
import pytest
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
)

from labs_helpers.course.profile import load_profile
from labs_tools import notebooks
from labs_tools.endings import Interrupted
from labs_tools.notebooks import VIEW, clean, without_times
from labs_tools.progress import CellProgress, headings

RESULTS = """
import json, os, pathlib
claim = {{"id": "a", "text": "It holds", "value": {value}, "ci": None, "at_least": 0.5,
    "holds": {holds}}}
entry = {{"seconds": 1.0, "peak_memory_gb": 1.25, "claims": [claim], "exercises": []}}
path = pathlib.Path(os.environ["LABS_OUT"]) / "results.json"
labs = json.loads(path.read_text())["labs"] if path.exists() else {{}}
labs["{lab}"] = entry
path.write_text(json.dumps({{"profile": os.environ["LABS_PROFILE"], "labs": labs}}))
"""


LANGUAGE = {"name": "python", "version": "3.11.7"}


def write(path, *cells):
    kernel = {"name": "no-such-kernel", "display_name": "x", "language": "python"}
    notebook = new_notebook(cells=list(cells), metadata={"kernelspec": kernel})
    nbformat.write(notebook, path)
    return path


def report(lab, holds=True):
    return new_code_cell(
        RESULTS.format(lab=lab, holds=holds, value=float(holds is not False))
    )


@pytest.mark.slow
def test_labs_run_to_the_end_whatever_happens_in_one(tmp_path, capsys):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    (folder / "beside.txt").write_text("found")
    paths = [
        write(
            folder / "1_breaks.ipynb",
            new_markdown_cell("# Lab\n\n## Where it breaks"),
            new_code_cell("x = 1"),
            new_code_cell("raise ValueError('first line\\nsecond line')"),
            report(1),
        ),
        write(
            folder / "2_works.ipynb",
            new_code_cell(
                "import os\n"
                "print(open('beside.txt').read(), os.environ['LABS_PROFILE'],\n"
                "      os.environ['LABS_STRICT'], os.environ['GOMP_SPINCOUNT'])"
            ),
            report(2),
        ),
    ]
    before = paths[0].read_text()
    out = tmp_path / "out"
    code = notebooks.run(
        dict(zip("12", paths, strict=True)), load_profile("tiny"), out, in_place=True
    )
    printed = capsys.readouterr().out
    assert code == 1
    assert (
        "1_breaks.ipynb, code cell 2 (Where it breaks):\n  ValueError: first line "
        in (printed)
    )
    assert "Traceback" not in printed
    assert "It holds" in printed
    assert "Lab 2 · profile tiny · 1 s · at most 1.2 GB · 0 of 0 points" in printed
    assert paths[0].read_text() == before
    executed = nbformat.read(paths[1], as_version=4)
    assert executed.cells[0].outputs[0].text == "found tiny 1 2000\n"
    assert "execution" not in executed.cells[0].metadata
    names = {path.name for path in out.iterdir()}
    assert names == {
        "results.json",
        *(f"{path.stem}{end}" for path in paths for end in (".ipynb", ".html")),
    }
    assert "found tiny 1 2000" in (out / "2_works.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1), (None, 0)])
def test_exit_code_is_that_of_the_claims(tmp_path, capsys, holds, code):
    path = write(tmp_path / "1_lab.ipynb", report(1, holds))
    assert notebooks.run({"1": path}, load_profile("tiny"), tmp_path / "out") == code
    assert ("Lab 1, claim a" in capsys.readouterr().out) is (code == 1)


@pytest.mark.slow
def test_results_left_over_do_not_count(tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    stale = {"profile": "tiny", "labs": {"1": {}, "2": {"claims": []}}}
    (out / "results.json").write_text(json.dumps(stale))
    path = write(tmp_path / "1_lab.ipynb", new_code_cell("1"))
    assert notebooks.run({"1": path}, load_profile("tiny"), out) == 1
    assert "left no results" in capsys.readouterr().out
    assert list(json.loads((out / "results.json").read_text())["labs"]) == ["2"]


@pytest.mark.slow
def test_interrupted_it_keeps_what_ran(tmp_path, capsys):
    first = write(tmp_path / "1_lab.ipynb", report(1))
    second = write(
        tmp_path / "2_lab.ipynb",
        new_markdown_cell("## Slow"),
        new_code_cell("print('one')"),
        new_code_cell(
            "import os, signal, time\n"
            "print('two', flush=True)\n"
            f"os.kill({os.getpid()}, signal.SIGINT)\n"
            "time.sleep(100)"
        ),
        new_code_cell("print('three')"),
    )
    third = write(tmp_path / "3_lab.ipynb", report(3))
    out = tmp_path / "out"
    out.mkdir()
    earlier = {"profile": "tiny", "labs": {"3": {"claims": [{"text": "Old"}]}}}
    (out / "results.json").write_text(json.dumps(earlier))
    with pytest.raises(Interrupted, match=r"2_lab.ipynb, code cell 2 \(Slow\).*out"):
        notebooks.run({"1": first, "2": second, "3": third}, load_profile("tiny"), out)
    cells = nbformat.read(out / "2_lab.ipynb", as_version=4).cells
    assert cells[1].outputs[0].text == "one\n"
    assert cells[2].outputs[0].text == "two\n"
    assert cells[3].outputs == []
    assert "two" in (out / "2_lab.html").read_text()
    kept = json.loads((out / "results.json").read_text())["labs"]
    assert sorted(kept) == ["1", "3"]
    printed = capsys.readouterr().out
    assert "It holds" in printed
    assert "Lab 3" not in printed  # of an earlier run


def dirty():
    bar = "  3%|▎         | 3/100 [00:01<00:40,  2.4it/s]"
    view = {VIEW: {"model_id": "abc"}}
    cell = new_code_cell(
        "1",
        execution_count=3,
        metadata={"execution": {"a": "b"}, "colab": {}, "tags": ["keep"]},
        outputs=[
            new_output("stream", name="stderr", text=bar),
            new_output("stream", name="stderr", text="UserWarning: look here"),
            new_output("stream", name="stdout", text="100%|"),
            new_output("display_data", data={**view, "text/plain": bar}),
            new_output("display_data", data={**view, "text/plain": "VBox(children=1)"}),
            new_output("display_data", data={**view, "text/plain": "Annotator me"}),
            new_output("display_data", data={"image/png": "abc"}),
        ],
    )
    metadata = {"widgets": {"a": 1}, "colab": {}, "language_info": LANGUAGE}
    return new_notebook(cells=[cell, new_markdown_cell("text")], metadata=metadata)


def test_clean_keeps_what_readers_need():
    notebook = dirty()
    cleaned = clean(notebook)
    assert [cell.id for cell in cleaned.cells] == [cell.id for cell in notebook.cells]
    assert cleaned.cells[0].execution_count == 3
    assert cleaned.metadata == {"language_info": {"name": "python"}}
    assert cleaned.cells[0].metadata == {"execution": {"a": "b"}, "tags": ["keep"]}
    assert without_times(cleaned).cells[0].metadata == {"tags": ["keep"]}
    texts = [
        output.get("text") or output.data.get("text/plain") or list(output.data)
        for output in cleaned.cells[0].outputs
    ]
    assert texts == ["UserWarning: look here", "100%|", "Annotator me", ["image/png"]]
    assert VIEW not in json.dumps(cleaned)


@pytest.mark.slow
def test_bars_of_a_notebook_are_not_stored(tmp_path):
    path = write(
        tmp_path / "1_lab.ipynb",
        new_code_cell(
            "import os, time\n"
            "os.environ['LABS_PROGRESS'] = '1'\n"
            "from labs_helpers.common import progress\n"
            "progress.AFTER = 0.0\n"
            "for keep in (True, False):\n"
            "    with progress.bar(3, 'work', keep=keep) as bar:\n"
            "        for _ in range(3):\n"
            "            time.sleep(0.2)\n"
            "            bar.update()\n"
            "print('done', progress.in_notebook())"
        ),
    )
    notebook = notebooks.read_notebook(path)
    assert not notebooks.execute(notebook, path, load_profile("smoke"), tmp_path)
    outputs = notebook.cells[0].outputs
    assert any(VIEW in output.get("data", {}) for output in outputs)
    assert not [x for x in outputs if x.get("name") == "stderr"]  # red in notebooks
    [left] = clean(notebook).cells[0].outputs
    assert left.text == "done True\n"


def test_clean_changes_no_original_and_is_stable():
    notebook = dirty()
    before = json.dumps(notebook)
    cleaned = clean(notebook)
    assert json.dumps(notebook) == before
    assert clean(cleaned) == cleaned
    nbformat.validate(cleaned)


def test_heading_of_a_cell_is_the_last_one_above():
    cells = [
        new_code_cell("0"),
        new_markdown_cell("# Title\ntext\n## Section"),
        new_code_cell("1"),
        new_markdown_cell("no heading"),
        new_code_cell("2"),
    ]
    assert headings(cells) == ["", "Section", "Section", "Section", "Section"]


def test_progress_without_a_terminal_is_one_line(capsys):
    cells = [new_markdown_cell("# A"), new_code_cell("1"), new_code_cell("2")]
    with CellProgress("1_lab", cells, {cells[1].id: 3.0}) as progress:
        for index in (1, 2):
            progress.cell_starts(index)
            progress.cell_ends(index)
    assert capsys.readouterr().err == "1_lab: 0 s\n"


def test_relative_paths_reach_the_kernel_absolute(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABS_MODEL", "model")
    monkeypatch.setenv("LABS_DATA", "someone/on-the-hub")
    environment = notebooks.kernel_environment(load_profile("tiny"), tmp_path)
    assert environment["LABS_MODEL"] == str(tmp_path / "model")
    assert environment["LABS_DATA"] == "someone/on-the-hub"
    assert "MPLBACKEND" not in environment
