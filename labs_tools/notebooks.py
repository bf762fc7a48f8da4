"""Execute lab notebooks, clean them for committing, write HTML.

Each notebook gets a fresh kernel in its own folder, with the profile in its
environment. What came of it stands in the executed notebook and in results.json, which
the notebook's last cell writes.
"""

import asyncio
import contextlib
import copy
import os
import re
import signal
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import NoSuchKernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode

from labs_helpers.common.files import write_atomically
from labs_helpers.common.printable import one_line, printable, text_table
from labs_helpers.course.profile import MEASURES, Profile
from labs_helpers.course.results import (
    Claim,
    claims_table,
    forget_results,
    read_results,
    require_writable,
)
from labs_tools.colab import below_notebooks
from labs_tools.endings import Interrupted, install
from labs_tools.pages import to_html
from labs_tools.progress import CellProgress

KERNEL_FAULTS = {
    DeadKernelError: "the kernel died. Was there enough memory? See `labs doctor`.",
    NoSuchKernel: f"there is no kernel for Python: {install('lab')}",
}
PROGRESS_BAR = re.compile(r"\d+%\||\d+it \[|[\d?.]+(it/s|s/it)")
VIEW = "application/vnd.jupyter.widget-view+json"
NOTEBOOK_METADATA = ("widgets", "colab", "accelerator")
CELL_METADATA = ("colab", "outputId", "collapsed", "ExecuteTime")


def run(
    notebooks: Mapping[str, Path], profile: Profile, out: Path, in_place: bool = False
) -> int:
    """Execute labs one after another; print their claims; return the exit code.

    Args:
        notebooks: by what `start` calls them: "1", "further/1".
        profile: that they run with.
        out: for executed notebooks, HTML and results.json.
        in_place: also write each executed notebook back, cleaned.

    Returns:
        1 if a cell raised, a lab left no results or a judged claim does not hold.

    Raises:
        Interrupted: by Ctrl-C; what ran until then is in `out` like the rest.
    """
    out = Path(os.path.abspath(out))
    require_writable(out)
    failures: list[str] = []
    begun: list[str] = []  # what stands of others is of an earlier run
    for lab, path in notebooks.items():
        begun.append(lab)
        notebook = read_notebook(path)  # before what it left earlier is forgotten
        forget_results(out, lab)
        try:
            failure, stopped = execute(notebook, path, profile, out), ""
        except Interrupted as interruption:
            failure, stopped = "", str(interruption)
        notebook = clean(notebook)
        done = out / below_notebooks(path)
        write_atomically(done, nbformat.writes(notebook) + "\n")
        write_atomically(done.with_suffix(".html"), to_html(notebook, path.stem))
        if stopped:
            _print_claims(out, begun)
            kept = f"what ran until then is in {os.path.relpath(out)}"
            raise Interrupted(f"{stopped}; {kept}")
        if failure:
            failures.append(failure)
        elif lab not in read_results(out).get("labs", {}):
            failures.append(
                f"{path.name} left no results:\n  its last cell is to be lab.report()"
            )
        elif in_place:
            write_atomically(path, nbformat.writes(without_times(notebook)) + "\n")
    failures += _print_claims(out, begun)
    if failures:
        print("\nFailed:", *map(printable, failures), sep="\n")
    print(f"\nExecuted notebooks, HTML and results.json are in {os.path.relpath(out)}.")
    return 1 if failures else 0


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook.

    Raises:
        ValueError: the file is none; the message names it.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except OSError:
        raise
    except Exception as error:  # nbformat raises whatever it stumbles over
        reason = one_line(str(error), 120)
        raise ValueError(f"{path} is no notebook: {reason}. Get it anew") from None
    return notebook


def execute(notebook: NotebookNode, path: Path, profile: Profile, out: Path) -> str:
    """Execute a notebook, which then holds its outputs, and say what went wrong.

    Raises:
        Interrupted: by Ctrl-C; the message says where.
    """
    client = NotebookClient(
        notebook,
        timeout=None,
        kernel_name="python3",
        extra_arguments=["--log-level=ERROR"],
        coalesce_streams=True,
        resources={"metadata": {"path": str(path.parent)}},
        on_notebook_start=lambda notebook: interruption.listen(),
        on_cell_start=lambda cell, cell_index: progress.cell_starts(cell_index),
        on_cell_executed=lambda cell_index, **_: progress.cell_ends(cell_index),
    )
    interruption = Interruption(client)
    cells = notebook.cells
    with CellProgress(
        path.stem, cells, _seconds(out / below_notebooks(path))
    ) as progress:
        try:
            client.execute(env=kernel_environment(profile, out))
        except KeyboardInterrupt:
            interruption.asked = True
        except CellExecutionError as error:
            reason = f"{error.ename}: {one_line(error.evalue)}"
        except (DeadKernelError, NoSuchKernel) as error:
            reason = KERNEL_FAULTS[type(error)]
        else:
            return ""
    number = sum(cell.cell_type == "code" for cell in cells[: progress.running + 1])
    heading = f" ({progress.heading})" if progress.heading else ""
    place = f"{path.name}, code cell {number}{heading}"
    if interruption.asked:
        raise Interrupted(f"interrupted in {place}")
    return f"{place}:\n  {reason}"


class Interruption:
    """Ctrl-C while a notebook runs: the first stops the cell, the second the kernel.

    nbclient would end the kernel at once, and its outputs would be lost on the way.
    """

    def __init__(self, client: NotebookClient):
        self.asked = False
        self._client = client

    def listen(self) -> None:
        """Take over the signals that end a program, inside nbclient's own loop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            # Windows has no such handlers, and other threads may not set them.
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
                loop.add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        manager = self._client.km
        stop = manager.shutdown_kernel(now=True) if self.asked else None
        self.asked = True
        self._stopping = asyncio.ensure_future(stop or manager.interrupt_kernel())


def kernel_environment(profile: Profile, out: Path) -> dict[str, str]:
    """Return what the kernel's environment holds."""
    environment = {
        **os.environ,
        "LABS_PROFILE": profile.name,
        "LABS_STRICT": "1",
        "LABS_OUT": str(out),
        "LABS_PROGRESS": "0",  # the bar of the command itself shows the time left
        # How many rounds a thread spins for another before it sleeps. With none, models
        # this small take twice as long on quiet cores; with many, ten times as long
        # beside a busy program.
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "2000"),
        "TOKENIZERS_PARALLELISM": "false",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    # Figures belong into the notebook, whatever draws them outside.
    environment.pop("MPLBACKEND", None)
    # The kernel works in another folder.
    for key in ("model", "reward_model", "data", *MEASURES):
        name = f"LABS_{key.upper()}"
        if name in environment and Path(environment[name]).exists():
            environment[name] = str(Path(environment[name]).resolve())
    return environment


def clean(notebook: NotebookNode) -> NotebookNode:
    """Copy a notebook without widget state, progress bars and viewers' own metadata.

    Ids, counts, outputs and the cells' times stay.
    """
    notebook = copy.deepcopy(notebook)
    for key in NOTEBOOK_METADATA:
        notebook.metadata.pop(key, None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    for cell in notebook.cells:
        for key in CELL_METADATA:
            cell.metadata.pop(key, None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in map(_clean_output, cell.outputs) if out]
    return notebook


def without_times(notebook: NotebookNode) -> NotebookNode:
    """Copy a notebook without the times of its cells, which differ in every run."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    return notebook


def _clean_output(output: NotebookNode) -> NotebookNode | None:
    if output.output_type == "stream":
        is_bar = output.name == "stderr" and PROGRESS_BAR.search(output.text)
        return None if is_bar else output
    data: Mapping[str, Any] = output.get("data", {})
    if VIEW in data:
        # Without its state a view draws nothing; the text is what remains.
        del output.data[VIEW]
        text = output.data.get("text/plain", "")
        if not text or PROGRESS_BAR.search(text) or re.match(r"\w+\(", text):
            return None
    return output


def _seconds(executed: Path) -> dict[str, float]:
    """Read off an executed notebook how long each cell took."""
    try:
        cells = read_notebook(executed).cells
    except (OSError, ValueError):
        return {}
    found = {}
    for cell in cells:
        times = cell.metadata.get("execution", {})
        begin, end = times.get("iopub.execute_input"), times.get("iopub.status.idle")
        with contextlib.suppress(TypeError, ValueError):  # not all have times
            spent = datetime.fromisoformat(end) - datetime.fromisoformat(begin)
            found[cell.id] = max(spent.total_seconds(), 0.01)
    return found


def _print_claims(out: Path, labs: Sequence[str]) -> list[str]:
    """Print the tables of claims; return those that do not hold."""
    results = read_results(out)
    failed = []
    for lab in labs:
        entry = results.get("labs", {}).get(lab)
        if entry is None:
            continue
        claims = [Claim.from_json(row) for row in entry["claims"]]
        points = [
            sum(x[k] for x in entry["exercises"]) for k in ("points", "max_points")
        ]
        memory = entry.get("peak_memory_gb")
        held = "" if memory is None else f"at most {memory:.1f} GB · "
        print(
            f"\nLab {lab} · profile {results['profile']} · {entry['seconds']:.0f} s · "
            f"{held}{points[0]:g} of {points[1]:g} points"
        )
        if claims:
            print(text_table(*claims_table(claims)))
        failed += [
            f"Lab {lab}, claim {claim.id}:\n  {claim.text}: {claim.measured}, wanted "
            f"{claim.bound}"
            for claim in claims
            if claim.fails
        ]
    return failed
