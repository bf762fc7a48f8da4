"""A person's path through a real browser: annotate, run all below, read the report.

JupyterLab runs on copies of the notebooks with everything it keeps in a temporary
folder. Needs chromium and playwright (the extra `browser`); without them the tests are
skipped.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import nbformat
import pytest

from labs_helpers.course.profile import ROOT

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is missing: pip install -e '.[browser]'"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is missing: apt-get install"),
]

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# What the browser's console may complain of, by its beginning, and why.
ALLOWED = {
    # The badge in a notebook's first cell is a picture from the network.
    "Failed to load resource: net::ERR_NAME_NOT_RESOLVED (https://colab.research.",
    "Failed to load resource: net::ERR_INTERNET_DISCONNECTED (https://colab.research.",
}

NOTEBOOK = "window.jupyterapp?.shell?.currentWidget"
CELLS = f"{NOTEBOOK}.content.widgets.map(w => w.model.toJSON())"
STATUS = f"{NOTEBOOK}?.sessionContext?.session?.kernel?.status"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project of its own: notebooks, data, build."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "data").symlink_to(ROOT / "data")
    (folder / "notebooks").mkdir()
    return folder


@pytest.fixture(scope="module")
def jupyter(folder):
    """The address of a JupyterLab on the folder's notebooks."""
    settings = folder / "jupyter" / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )
    kept = {
        name: str(folder / "jupyter" / place)
        for name, place in {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
        }.items()
    }
    port = free_port()
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    command += ["--IdentityProvider.token=", "--ServerApp.ip=127.0.0.1"]
    command += ["--LabApp.expose_app_in_browser=True"]
    command += [f"--ServerApp.root_dir={folder / 'notebooks'}"]
    out = {"LABS_OUT": str(folder / "build" / "labs")}
    environment = {**os.environ, **kept, **out}
    environment.pop("MPLBACKEND", None)
    with (folder / "jupyter" / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for_server(server, address, folder / "jupyter" / "log")
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for_server(server, address, log, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{address}/api", timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")


@contextmanager
def browser_page():
    """A page, and what its console complains of."""
    complaints = []
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("pageerror", lambda error: complaints.append(f"page error: {error}"))
        page.on(
            "console",
            lambda said: (
                said.type == "error"
                and complaints.append(f"{said.text} ({said.location.get('url')})")
            ),
        )
        yield page, complaints
        browser.close()


def copy_unexecuted(source, copy):
    notebook = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    nbformat.write(notebook, copy)


def open_notebook(page, address, name):
    # In a workspace of its own: JupyterLab would open what was open before.
    page.goto(f"{address}/lab/workspaces/{name.partition('.')[0]}/tree/{name}")
    page.wait_for_function(
        f"{NOTEBOOK}?.context?.path === '{name}' && {STATUS} === 'idle'",
        timeout=150_000,
    )


def code_cells(page):
    return [cell for cell in page.evaluate(CELLS) if cell["cell_type"] == "code"]


def place(page, words):
    """The number of the cell whose source holds the words."""
    sources = [cell["source"] for cell in page.evaluate(CELLS)]
    sources = ["".join(source) for source in sources]
    return next(i for i, source in enumerate(sources) if words in source)


def run(page, command, cell):
    """Run cells by a command of JupyterLab, beginning from a selected cell."""
    page.evaluate(
        f"([cell, command]) => {{ const book = {NOTEBOOK}.content;"
        "book.activeCellIndex = cell; book.deselectAll();"
        "window.jupyterapp.commands.execute(command); }",
        [cell, command],
    )


def wait_for_cell(page, cell, seconds):
    """Wait until a cell has run and nothing else does."""
    model = f"{NOTEBOOK}.content.widgets[{cell}].model"
    page.wait_for_function(
        f"{model}.executionCount > 0 && {model}.executionState === 'idle'"
        f" && {STATUS} === 'idle'",
        timeout=seconds * 1000,
    )


def annotate(page, choices):
    """Click for pairs, and wait for each choice to be counted."""
    for done, choice in enumerate(choices, 1):
        page.locator(f".labs-choose-{choice}").click()
        page.locator(".labs-progress", has_text=f"{done} of").wait_for(timeout=10_000)


def said(cell):
    """All text that a cell has put out."""
    texts = [
        output.get("text") or output.get("data", {}).get("text/plain", "")
        for output in cell["outputs"]
    ]
    return "\n".join("".join(text) for text in texts)


def failures(page):
    """The cells that failed, and how."""
    return [
        f"{cell['source']}\n{output['ename']}: {output['evalue']}"
        for cell in code_cells(page)
        for output in cell["outputs"]
        if output["output_type"] == "error"
    ]


@pytest.mark.parametrize(
    ("lab", "name", "file"),
    [
        (1, "1_reward_model.ipynb", "my_preferences"),
        (2, "2_dpo.ipynb", "my_judgements"),
    ],
)
def test_a_person_annotates_and_reaches_the_report(folder, jupyter, lab, name, file):
    copy_unexecuted(ROOT / "notebooks" / name, folder / "notebooks" / name)
    results = folder / "build" / "labs"
    with browser_page() as (page, complaints):
        open_notebook(page, jupyter, name)
        annotator, end = place(page, "import Annotator"), place(page, "lab.report()")
        run(page, "notebook:run-all-above", annotator + 1)
        wait_for_cell(page, annotator, 150)
        annotate(page, ("a", "b", "tie"))
        run(page, "notebook:run-all-below", annotator + 1)
        wait_for_cell(page, end, 150)
        assert failures(page) == []
        assert said(page.evaluate(CELLS)[end])
        assert [x for x in complaints if not x.startswith(tuple(ALLOWED))] == []
        restart(page)
        assert all("run this cell again" in words for words in what_is_left(page))
        buttons = page.locator(".labs-choose-a").all()
        assert buttons
        assert not any(button.is_visible() for button in buttons)
        page.wait_for_function(f"{STATUS} === 'idle'", timeout=150_000)
        page.evaluate(f"void {NOTEBOOK}.sessionContext.shutdown()")
        page.wait_for_function(f"!{NOTEBOOK}.sessionContext.session", timeout=60_000)
    found = json.loads((results / "results.json").read_text(encoding="utf-8"))
    assert str(lab) in found["labs"]
    assert len((results / f"{file}.jsonl").read_text().splitlines()) == 2
    assert len((results / f"{file}.undecided.jsonl").read_text().splitlines()) == 1


def restart(page):
    page.evaluate(f"void {NOTEBOOK}.sessionContext.session.kernel.restart()")
    page.wait_for_selector(
        ".labs-annotator.jupyter-widgets-disconnected", state="attached", timeout=60_000
    )


def what_is_left(page):
    """What each annotator says whose kernel has gone."""
    return page.locator(".labs-annotator").evaluate_all(
        "boxes => boxes.map(box => getComputedStyle(box, '::after').content)"
    )
