"""A file of the user's own is imported as Python imports it, and says what is wrong."""

import pickle
import sys

import pytest

from labs_tools.reward_files import load_function

REWARD = "def f(prompts, answers):\n    return [1.0] * len(answers)\n"


@pytest.fixture(autouse=True)
def same_modules(monkeypatch):
    """What a test imports goes with it."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def loaded(folder, text, name="f", file="mine_reward.py"):
    (folder / file).write_text(text)
    return load_function(str(folder / file), name)


def test_dataclasses_with_postponed_annotations(tmp_path):
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass W:\n    x: float = 1.0\n"
        "def f(p, a):\n    return [W().x] * len(a)\n"
    )
    assert loaded(tmp_path, text)([], ["a", "b"]) == [1.0, 1.0]


@pytest.mark.parametrize(
    "text",
    [
        "from beside import x\ndef f(p, a):\n    return [x]\n",
        "from .beside import x\ndef f(p, a):\n    return [x]\n",
        "from . import beside\ndef f(p, a):\n    return [beside.x]\n",
        "def f(p, a):\n    from beside import x\n    return [x]\n",
        "def f(p, a):\n    from .beside import x\n    return [x]\n",
    ],
)
def test_finds_what_lies_beside_it(tmp_path, text):
    (tmp_path / "beside.py").write_text("x = 7.0\n")
    assert loaded(tmp_path, text)([], []) == [7.0]


def test_its_classes_can_be_pickled(tmp_path):
    f = loaded(tmp_path, "class W:\n    pass\ndef f(p, a):\n    return [W()]\n")
    assert type(pickle.loads(pickle.dumps(f([], [])[0]))).__name__ == "W"


@pytest.mark.parametrize("file", ["random.py", "torch.py", "json.py", "my reward.py"])
def test_may_be_called_like_a_known_module(tmp_path, file):
    known = {name: sys.modules.get(name) for name in ("random", "torch", "json")}
    assert loaded(tmp_path, REWARD, file=file)([], ["x"]) == [1.0]
    assert all(sys.modules.get(name) is module for name, module in known.items())


def test_is_read_anew_after_an_edit(tmp_path):
    assert loaded(tmp_path, REWARD)([], ["x"]) == [1.0]
    assert loaded(tmp_path, REWARD.replace("1.0", "2.0"))([], ["x"]) == [2.0]


def test_may_be_an_object(tmp_path):
    text = "class W:\n    def __call__(self, p, a):\n        return [3.0]\nf = W()\n"
    assert loaded(tmp_path, text)([], []) == [3.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "has no function f"),
        ("def ff(p, a):\n    pass\n", "no function f: did you mean ff?"),
        ("f = 5\n", "has no function f"),
        ("class f:\n    pass\n", "that is a class: name an object"),
        ("def f(:\n", "cannot be run: SyntaxError in line 1"),
        ("\n\n1 / 0\n", "cannot be run: ZeroDivisionError in line 3: division by zero"),
        ("import sys\nsys.exit(3)\n", r"in line 2 ends the program \(SystemExit\)"),
        ("import nothing_like_it\n", "ModuleNotFoundError in line 1"),
        ("def f(answers):\n    pass\n", r"takes \(answers\): a reward is called with"),
        ("async def f(p, a):\n    pass\n", "is async"),
        ("x = '\0'\n", "cannot be run"),
        ("(" * 1000, "cannot be run"),
    ],
)
def test_says_what_is_wrong(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        loaded(tmp_path, text)


def test_says_where_in_a_file_beside_it(tmp_path):
    (tmp_path / "beside.py").write_text("def x(:\n")
    with pytest.raises(ValueError, match=r"SyntaxError in line 1 of .*beside\.py"):
        loaded(tmp_path, "import beside\n")


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        load_function(str(tmp_path / "gone.py"), "f")
