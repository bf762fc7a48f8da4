"""Submissions that cheat or break, by kind: made from a solved notebook.

Each function takes a solved notebook and spoils it; what it returns, if anything, is
written in place of the notebook. CHEATS must earn nothing for exercise 1.2, in which
all of them try; BROKEN may.
"""

import copy
import json

from nbformat.v4 import new_code_cell

HEAD = (
    "def bradley_terry_loss(\n"
    "    chosen_rewards, rejected_rewards, margin=None, center_weight=0.0\n"
    "):\n"
)


def answer_cell(notebook):
    return next(c for c in notebook.cells if grade_id(c) == "bradley_terry_loss")


def check_cell(notebook):
    return next(c for c in notebook.cells if grade_id(c) == "check_bradley_terry_loss")


def grade_id(cell):
    return cell.metadata.get("nbgrader", {}).get("grade_id")


def answers(body, before=""):
    """Replace the answer by another body."""

    def spoil(notebook):
        lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
        answer_cell(notebook).source = f"{before}\n{HEAD}{lines}"

    return spoil


def test_edited(notebook):
    answers("return 0")(notebook)
    check_cell(notebook).source = "3.0"


def test_deleted(notebook):
    answers("return 0")(notebook)
    notebook.cells.remove(check_cell(notebook))


def points_edited(notebook):
    answers("return 0")(notebook)
    check_cell(notebook).metadata.nbgrader["points"] = 300


def test_made_a_solution(notebook):
    answers("return 0")(notebook)
    check_cell(notebook).metadata.nbgrader.update(solution=True, locked=False)
    check_cell(notebook).source = "3.0"


def check_in_an_own_cell(notebook):
    answers("return 0")(notebook)
    at = notebook.cells.index(check_cell(notebook))
    notebook.cells.insert(at, new_code_cell("class lab:\n    check = print"))


ANYTHING = """
class Equal(torch.Tensor):
    def __eq__(self, other):
        return True
    def __sub__(self, other):
        return torch.zeros(())
    def __float__(self):
        return 0.0
    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        return torch.zeros(())
"""

# The worker's own `observe`, replaced by one that claims what it likes.
FAKE = """
import sys, types
import numpy as np
def claims(**more):
    def observe(function, inputs, wanted=()):
        zeros = {name: np.zeros(tuple(inputs[name].shape)) for name in wanted}
        seen = {
            "kind": "tensor", "values": (np.zeros((), np.float32),),
            "dtypes": ("float32",), "gradients": zeros, "error": None,
            "gradient_error": None, "changed": (), "printed": "", "printed_count": 0,
        }
        return types.SimpleNamespace(**{**seen, **more})
    sys.modules["worker"].observe = observe
"""
RIGHT_VALUES = """
import torch
def right(chosen, rejected, margin, center_weight):
    gap = chosen - rejected - (0 if margin is None else margin)
    loss = -torch.nn.functional.logsigmoid(gap).mean()
    return loss + center_weight * ((chosen + rejected) ** 2).mean()
"""
ASKS = """
import gc, sys
def asks(**message):
    [own] = [x for x in gc.get_objects() if type(x).__name__ == "Worker"]
    return own.ask({"kwargs": {}, "wanted": [], "args": [], **message})["result"]
"""
CALL = "right(chosen_rewards, rejected_rewards, margin, center_weight)"


def claiming(claims, before=""):
    return answers("return 0", f"{FAKE}{before}\nclaims({claims})")


CHEATS = {
    "tolerance claimed": (claiming("atol=1e9"), ""),
    "NaN claimed": (claiming("values=(np.full((), np.nan),)"), ""),
    "errors claimed": (claiming("error='none', gradient_error=3"), ""),
    "gradients claimed": (claiming("gradients='right'"), ""),
    "nonsense claimed": (claiming("kind=[1], values={1: 2}, dtypes=5, changed=3"), ""),
    "odd shape claimed": (claiming("values=(np.zeros((0, 10**9)),)"), ""),
    "many values claimed": (claiming("values=(np.zeros(1),) * 5000"), ""),
    "right values, no gradient": (
        answers(f"return {CALL}.detach() + 0 * chosen_rewards.sum()", RIGHT_VALUES),
        "",
    ),
    "weights of gradients replaced": (
        answers(
            "torch.linspace = lambda *a, **k: torch.zeros(a[2])\n"
            f"return {CALL}.detach() + 0 * chosen_rewards.sum()",
            RIGHT_VALUES,
        ),
        "changes a module",
    ),
    "asks for the reference": (
        answers(
            "return asks(ask='bradley_terry_loss', args=[\n"
            "    chosen_rewards, rejected_rewards, margin, center_weight\n])",
            ASKS,
        ),
        "looks at the stack",
    ),
    "asks for a builtin": (
        answers("return asks(ask='__class__', args=[{}])", ASKS),
        "looks at the stack",
    ),
    "replies before it is asked": (
        answers(
            "import os, sys\n"
            "reply = sys.modules['protocol'].pack({'kind': 'tensor'})\n"
            "for fd in range(3, 20):\n"
            "    try:\n"
            "        os.write(fd, reply * 9)\n"
            "    except OSError:\n"
            "        pass\n"
            "return 0"
        ),
        "",
    ),
    "test edited": (test_edited, "test edited"),
    "test deleted": (test_deleted, "test deleted"),
    "points edited": (points_edited, "points edited"),
    "test made a solution": (test_made_a_solution, "metadata edited"),
    "lab replaced": (check_in_an_own_cell, ""),
    "endless loop": (answers("while True:\n    pass"), "time limit"),
    "endless loop at the top": (answers("return 0", "while True: pass"), "time limit"),
    "kernel killed": (
        answers("import os\nos._exit(0)"),
        "ended its process",
    ),
    "crash": (
        answers("import ctypes\nctypes.string_at(0)"),
        "ended its process",
    ),
    "memory hog": (answers("return torch.zeros(1 << 34).sum()"), "memory limit"),
    "fork bomb": (answers("import os\nwhile True:\n    os.fork()"), "starts processes"),
    "thread bomb": (
        answers(
            "import threading, time\nwhile True:\n"
            "    threading.Thread(target=time.sleep, args=(60,)).start()"
        ),
        "",
    ),
    "gigabytes of output": (
        answers("for _ in range(3000):\n    print('x' * 1_000_000)\nreturn 0"),
        "prints",
    ),
    "gigabytes of files": (
        answers(
            "for i in range(10000):\n"
            "    with open(f'/tmp/{i}', 'wb') as file:\n"
            "        file.write(bytes(1 << 20))"
        ),
        "reads files",
    ),
    "assert disabled": (
        answers(
            "return 0",
            "import builtins\n"
            "class Never(Exception): pass\n"
            "builtins.AssertionError = Never\n"
            "try:\n"
            "    get_ipython().ast_transformers.append(None)\n"
            "except NameError: pass",
        ),
        "switches assert off",
    ),
    "checks replaced": (
        answers(
            "return 0",
            "import labs_helpers.course.exercises as checks\n"
            "import labs_helpers.course.lab as its\n"
            "checks.check = lambda *a, **k: True\n"
            "its.check = checks.check",
        ),
        "changes a module",
    ),
    "losses replaced": (
        answers(
            "return chosen_rewards.sum() * 0",
            "import labs_helpers.losses\n"
            "labs_helpers.losses.bradley_terry_loss = lambda *a, **k: 0",
        ),
        "changes a module",
    ),
    "torch replaced": (
        answers(
            "return chosen_rewards.sum() * 0",
            "import torch\nimport numpy\n"
            "torch.allclose = lambda *a, **k: True\n"
            "torch.testing.assert_close = lambda *a, **k: None\n"
            "numpy.all = lambda *a, **k: True",
        ),
        "changes a module",
    ),
    "equality overloaded": (
        answers("return torch.zeros(()).as_subclass(Equal)", ANYTHING),
        "redefines operators",
    ),
    "stack inspected": (
        answers(
            "import gc, sys\n"
            "frame = sys._getframe()\n"
            "while frame is not None:\n"
            "    for value in list(frame.f_locals.values()):\n"
            "        for name in ('expected', 'reference', 'exercise'):\n"
            "            if hasattr(value, name):\n"
            "                return value.expected\n"
            "        if isinstance(value, dict) and 'expected' in value:\n"
            "            return value['expected']\n"
            "    frame = frame.f_back\n"
            "for value in gc.get_objects():\n"
            "    if type(value).__name__ in ('Exercise', 'Trial', 'Observation'):\n"
            "        return value\n"
            "return chosen_rewards.sum() * 0"
        ),
        "looks at the stack",
    ),
    "calls our function": (
        answers(
            "return losses.bradley_terry_loss(\n"
            "    chosen_rewards, rejected_rewards, margin, center_weight\n"
            ")",
            "from labs_helpers import losses",
        ),
        "calls the course's own function",
    ),
    "takes the reference": (
        answers(
            "return reference(\n"
            "    chosen_rewards, rejected_rewards, margin, center_weight\n"
            ")",
            "from labs_helpers.course.exercises import exercises_of\n"
            "reference = exercises_of(1)['1.2'].reference",
        ),
        "calls the course's own function",
    ),
    "network": (
        answers(
            "import urllib.request\n"
            "return float(urllib.request.urlopen('http://127.0.0.1:1/').read())"
        ),
        "uses the network",
    ),
    "network by hand": (
        answers(
            "import socket\n"
            "socket.create_connection(('127.0.0.1', 1), timeout=1)\nreturn 0"
        ),
        "uses the network",
    ),
    "pipe written to": (
        answers(
            "import os\n"
            "for fd in range(3, 20):\n"
            "    try:\n"
            "        os.write(fd, b'\\0\\0\\0\\2\\0\\0\\0\\0{}')\n"
            "    except OSError:\n"
            "        pass\n"
            "return 0"
        ),
        "",
    ),
    "worker replaced": (
        answers(
            "import sys\n"
            "protocol = sys.modules['protocol']\n"
            "protocol.pack = lambda message: b'\\0' * 8\n"
            "return 0"
        ),
        "broke the connection",
    ),
    "exception of no type": (
        answers("raise type('Stopped', (BaseException,), {})('correct')"),
        "",
    ),
    "result of odd size": (answers("return torch.zeros(1 << 24)"), ""),
    "result that lies": (
        answers(
            "class Lie(float):\n"
            "    __class__ = property(lambda self: torch.Tensor)\n"
            "return Lie(0.0)"
        ),
        "",
    ),
}


def duplicated(notebook):
    """Double every cell with the answer, and the check."""
    for cell in (answer_cell(notebook), check_cell(notebook)):
        notebook.cells.insert(notebook.cells.index(cell), copy.deepcopy(cell))


def metadata_lost(notebook):
    for cell in notebook.cells:
        cell.metadata = {}


def metadata_and_ids_lost(notebook):
    metadata_lost(notebook)
    for i, cell in enumerate(notebook.cells):
        cell["id"] = f"new-{i}"


def kernel_unknown(notebook):
    notebook.metadata["kernelspec"] = {"name": "ir", "display_name": "R"}
    notebook.metadata["language_info"] = {"name": "R"}


def kernel_missing(notebook):
    del notebook.metadata["kernelspec"]


def saved_by_colab(notebook):
    """Do what Colab does: ids in the metadata, lines as a list, its own keys."""
    notebook.metadata["colab"] = {"provenance": []}
    notebook.metadata["accelerator"] = "GPU"
    content = json.loads(json.dumps(notebook))
    for cell in content["cells"]:
        cell["metadata"] |= {"id": cell.pop("id"), "outputId": "abc"}
        cell["source"] = cell["source"].splitlines(keepends=True)
    content["nbformat_minor"] = 0
    return json.dumps(content).encode()


def old_format(notebook):
    content = json.loads(json.dumps(notebook))
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["input"] = cell.pop("source")
    return json.dumps({"worksheets": [{"cells": content["cells"]}]}).encode()


# Solved ones that got damaged: they keep their points.
DAMAGED = {
    "cells duplicated": (duplicated, "cell duplicated"),
    "metadata lost": (metadata_lost, "metadata lost"),
    "metadata and ids lost": (metadata_and_ids_lost, "metadata lost"),
    "kernel unknown": (kernel_unknown, "kernel unknown: ir"),
    "kernel missing": (kernel_missing, "kernel missing"),
    "saved by Colab": (saved_by_colab, ""),
    "old format": (old_format, ""),
}


def bad_json(notebook):
    return json.dumps(notebook).encode()[:-200]


REFUSED = {
    "bad JSON": (bad_json, "bad JSON"),
    "deep JSON": (lambda notebook: b'{"cells": ' + b"[" * 200_000, "bad JSON"),
    "empty file": (lambda notebook: b"", "empty file"),
    "a picture": (lambda notebook: b"%PDF-1.7 \xff\xfe", "not a notebook"),
    "other JSON": (lambda notebook: b'{"cells": 3}', "not a notebook"),
    "of another course": (
        lambda notebook: b'{"cells": [{"cell_type": "code", "source": "1"}]}',
        "not a lab",
    ),
}
