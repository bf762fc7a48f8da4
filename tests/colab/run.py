"""Do what a student does on Colab, at Colab's versions: `make colab`.

Builds an environment of what `colab.txt` lists (several GB, once), runs a lab's first
cell twice in one kernel and uses the package there without a restart, says what pip
moved, and runs every notebook from that cell on, on the profile smoke. Colab itself is
stood in for by an empty module `google.colab`; its folder /content and the repository's
address lead into build/colab/ and to the commit that is checked out.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError

ROOT = Path(__file__).resolve().parents[2]
WANTED = Path(__file__).with_name("colab.txt")
FOLDER = ROOT / "build/colab"
ENVIRONMENT = FOLDER / "environment"
CONTENT = FOLDER / "content"
CLONE = CONTENT / "alignment-labs"
PYTHON = ENVIRONMENT / "bin/python"
LIST = ENVIRONMENT / "colab.txt"  # what it was built from
BUILT = ENVIRONMENT / "freeze.txt"  # written last: without it, it is built anew

USE = f"""
import labs_helpers, sys
from labs_helpers.course import lab
assert labs_helpers.__file__.startswith({str(CLONE)!r}), labs_helpers.__file__
loaded = [m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", 0)]
print(len(loaded), "modules loaded")"""


def main() -> int:
    """Build, run and report; 0 if nothing failed and nothing moved."""
    if not BUILT.exists() or LIST.read_bytes() != WANTED.read_bytes():
        build()
    shutil.rmtree(CONTENT, ignore_errors=True)
    CONTENT.mkdir(parents=True)
    stand_in()
    labs = sorted((ROOT / "notebooks").glob("[0-9]_*.ipynb"))
    first = next(c for c in opened(labs[0]).cells if c.cell_type == "code")
    session = [first.source, first.source, USE]
    cells = [nbformat.v4.new_code_cell(source) for source in session]
    problem, seconds = run(nbformat.v4.new_notebook(cells=cells), "twice")
    rows = [("first cell twice, then import", seconds, problem)]
    moved = what_moved()
    others = (
        p
        for x in ("further", "student")
        for p in (ROOT / "notebooks" / x).glob("[0-9]_*.ipynb")
    )
    for path in [*labs, *sorted(others)]:
        os.environ["LABS_STRICT"] = str(int(path.parent.name != "student"))
        name = str(path.relative_to(ROOT))
        problem, seconds = run(opened(path), path.parent.name + "_" + path.stem)
        rows.append((name, seconds, problem))
        print(f"{name}: {seconds:.0f} s, {problem or 'passed'}", flush=True)
    print(*(f"{n:45} {s:5.0f} s  {p or 'passed'}" for n, s, p in rows), sep="\n")
    put_back()
    return int(moved or any(problem for _, _, problem in rows))


def build() -> None:
    """Install what Colab has, with Python 3.13."""
    python = os.environ.get("PYTHON313") or "python3.13"
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    try:
        subprocess.run([python, "-m", "venv", ENVIRONMENT], check=True)
    except (OSError, subprocess.CalledProcessError):
        sys.exit(
            f"Colab runs Python 3.13, and {python} makes no environment here. Install "
            "it, or name yours: make colab PYTHON313=/path/to/python3.13"
        )
    pip("install", "-r", str(WANTED))
    shutil.copy(WANTED, LIST)
    BUILT.write_text(pip("freeze"), encoding="utf-8")


def pip(*arguments: str) -> str:
    """Run pip in the environment; its output."""
    command = [PYTHON, "-m", "pip", *arguments]
    return subprocess.run(command, check=True, text=True, stdout=-1).stdout


def stand_in() -> None:
    """Let kernels find Colab's Python and module, and the checkout for the address."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    address = project["project"]["urls"]["Repository"]
    google = FOLDER / "stand_in/google/colab"
    google.mkdir(parents=True, exist_ok=True)
    (google / "__init__.py").touch()
    kernel = FOLDER / "share/kernels/colab/kernel.json"
    kernel.parent.mkdir(parents=True, exist_ok=True)
    argv = [str(PYTHON), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Colab", "language": "python"}
    kernel.write_text(json.dumps(spec), encoding="utf-8")
    os.environ |= {
        "JUPYTER_PATH": str(FOLDER / "share"),
        "PATH": f"{PYTHON.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(FOLDER / "stand_in"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{ROOT.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
        "LABS_PROFILE": "smoke",
        "HF_HUB_OFFLINE": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else each kernel prints a warning
        "OMP_NUM_THREADS": "1",
    }


def opened(path: Path) -> nbformat.NotebookNode:
    """Read a notebook and put our folder in place of Colab's."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = cell.source.replace("/content", str(CONTENT))
    return notebook


def run(notebook: nbformat.NotebookNode, name: str) -> tuple[str | None, float]:
    """Execute a notebook in a kernel of its own, as Colab would.

    Returns:
        The end of the error's text, if there was one, and seconds.
    """
    stand_in_cell = nbformat.v4.new_code_cell("import google.colab")
    notebook.cells.insert(0, stand_in_cell)
    notebook.metadata.kernelspec = {"name": "colab", "display_name": "Colab"}
    client = NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(CONTENT)}}
    )
    started, problem = time.perf_counter(), None
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError) as error:
        problem = str(error).strip().splitlines()[-1]
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")
    return problem, time.perf_counter() - started


def what_moved() -> bool:
    """Print how the environment differs from what Colab has; whether anything moved."""
    before, after = versions(BUILT.read_text(encoding="utf-8")), versions(pip("freeze"))
    moved = {n: (v, after.get(n)) for n, v in before.items() if after.get(n) != v}
    added = {n: v for n, v in after.items() if n not in before}
    print("pip moved:", moved or "nothing")
    print("pip added:", added, flush=True)
    return bool(moved)


def versions(freeze: str) -> dict[str, str]:
    """Read name and version from the lines of `pip freeze`, editable ones left out."""
    lines = [line.split("==") for line in freeze.splitlines() if "==" in line]
    return {name: version for name, version in lines}


def put_back() -> None:
    """Take out what the first cell added; build anew next time if that is not all."""
    added = versions(pip("freeze")).keys() - versions(BUILT.read_text()).keys()
    pip("uninstall", "-q", "-y", "alignment-labs", *added)
    if pip("freeze") != BUILT.read_text(encoding="utf-8"):
        BUILT.unlink()


if __name__ == "__main__":
    sys.exit(main())
