"""Code of notebooks: what is kept of it, and what in it deserves a look."""

import ast

import pytest

from labs_tools.grading.assignment import read_assignment
from labs_tools.grading.code import definitions, suspicions, without_magics

from .conftest import SOURCES


def test_only_definitions_are_kept():
    source = "x = 3\ny = f()\nfor i in x:\n    pass\nclass A: ...\nz = y = [1, (2,)]"
    assert definitions(source).splitlines() == [
        "x = 3",
        "class A:",
        "    ...",
        "z = y = [1, (2,)]",
    ]


def test_lines_of_ipython_are_left_out():
    source = "%timeit f()\ndef f(x):\n    !ls\n    return x % 2"
    assert definitions(source) == "def f(x):\n    pass\n    return x % 2"
    assert without_magics("x = 5 % 3") == "x = 5 % 3"


def test_what_is_nested_deeply_is_kept_as_it_stands():
    deep = f"def f(x):\n    return {'-' * 900}x  # as it is"
    with pytest.raises(RecursionError):
        ast.unparse(ast.parse(deep))
    assert definitions(f"y = 1\n@cache\n{deep}\nprint(y)") == f"y = 1\n@cache\n{deep}"


ODD = {
    "import sys\nsys._getframe().f_back": "looks at the stack",
    "import subprocess": "starts processes",
    "from urllib.request import urlopen": "uses the network",
    "open('gradebook.db')": "reads files",
    "import torch\ntorch.allclose = print": "changes a module",
    "class A:\n    def __eq__(self, other): return True": "redefines operators",
    "import builtins\nbuiltins.AssertionError = int": "switches assert off",
    "from labs_helpers.losses import dpo_loss": "uses labs_helpers",
    "import os\nos._exit(0)": "ends its process",
    "exec('x = 1')": "runs text as code",
}


@pytest.mark.parametrize(("source", "name"), ODD.items())
def test_odd_code_is_named(source, name):
    assert name in suspicions(source)


@pytest.mark.parametrize("source", ["model.eval()", "x.grad = None", "x = ("])
def test_ordinary_code_is_not_suspicious(source):
    assert suspicions(source) == []


@SOURCES
def test_right_answers_are_not_suspicious(path):
    for cell in read_assignment(path, int(path.stem[0])).cells:
        if cell.kind == "solution":
            assert suspicions(cell.source) == [], cell.grade_id
