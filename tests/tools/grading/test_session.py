"""A function of a submission, observed from here, and ours, called from there."""

import platform

import numpy as np
import pytest
import torch

from labs_helpers.common.files import ROOT
from labs_helpers.course.exercises.observe import observe
from labs_tools.grading import sandbox
from labs_tools.grading.session import Limits, Session, Stopped

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(sandbox.wall().reason), reason=sandbox.wall().reason),
]
CODE = """
import torch
from labs_helpers.losses import entropy as library

def loss(x, y, scale=2.0):
    return scale * (x.exp() * y.detach()).sum(), x.argmax(), y * 3

def scalar(x, y):
    return (x * x * y).sum()

def in_place(x, rows):
    rows.append(x.add_(1).tolist())

def asks(product, x):
    return product(x) + product(x)

def uses_twice(x):
    return twice(x).sum() * 3

def uses_library(x, mask):
    return library(x, mask=mask)

def talks(x):
    print("x" * 3_000_000)

def half(x):
    return x.to(torch.bfloat16) / 3
"""


@pytest.fixture(scope="module")
def session():
    found = Session(Limits())
    found.allow(60)
    assert found.define("code", CODE) == []
    yield found
    found.close()


@pytest.fixture
def find(session):
    session.allow(60)
    return session.find


def test_signature_crosses(find):
    answer = find("loss")
    assert list(answer.__signature__.parameters) == ["x", "y", "scale"]
    answer.__signature__.bind(x=1, y=2)


@pytest.mark.parametrize("name", ["loss", "scalar", "in_place", "half"])
def test_observation_is_the_same_as_here(find, name):
    space = {}
    exec(CODE, space)
    x = torch.tensor([0.5, 0.1, 0.7])
    inputs, wanted = {"x": x, "y": torch.tensor([1.0, 2.0, 3.0])}, ("x", "y")
    if name == "in_place":
        inputs, wanted = {"x": x, "rows": [1, [2]]}, ()
    if name == "half":
        inputs, wanted = {"x": x}, ("x",)
    here, there = (observe(f, inputs, wanted) for f in (space[name], find(name)))
    for field in ("kind", "dtypes", "changed", "error", "gradient_error"):
        assert getattr(here, field) == getattr(there, field), field
    for ours, theirs in zip(here.values, there.values, strict=True):
        assert np.array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    assert (here.gradients is None) == (there.gradients is None)
    for key, gradient in (here.gradients or {}).items():
        assert np.array_equal(gradient, there.gradients[key])


def test_errors_cross_with_their_line(find):
    error = observe(find("scalar"), {"x": None, "y": 1}).error
    assert isinstance(error, TypeError)
    assert error.quoted_line == "return (x * x * y).sum()"


def test_what_is_printed_is_counted(find, session):
    before = session.printed
    seen = observe(find("talks"), {"x": 1})
    assert 0 < len(seen.printed) <= 1000
    assert session.printed - before >= 3_000_000


def test_answers_call_what_they_are_given(find):
    matrix = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    inputs = {"product": lambda v: matrix @ v, "x": torch.ones(2)}
    assert np.array_equal(observe(find("asks"), inputs).values[0], [4.0, 8.0])


def test_lent_reference_has_gradients(find, session):
    session.allow(60)
    session.lend({"twice": lambda x: 2 * x.square()}, {})
    seen = observe(find("uses_twice"), {"x": torch.tensor([1.0, 2.0])}, ("x",))
    assert seen.values[0] == 30
    assert np.array_equal(seen.gradients["x"], [12.0, 24.0])


def test_library_works_only_where_it_is_allowed(find, session):
    def ours(x, mask):
        return (x * mask).sum()

    answer = find("uses_library")
    inputs = {"x": torch.tensor([1.0, 5.0]), "mask": torch.tensor([1.0, 0.0])}
    assert "LentFunction" in repr(observe(answer, inputs).error)
    session.lend({}, {"entropy": ours})
    seen = observe(answer, inputs, ("x",))
    assert seen.values[0] == 1
    assert np.array_equal(seen.gradients["x"], [1, 0])
    session.lend({}, {})
    assert observe(answer, inputs).error is not None


WALLS = """
import ctypes, os, socket, subprocess, sys
libc = ctypes.CDLL(None)
call = libc.syscall

def escapes(hidden):
    def child(number, *args):
        pid = call(number, *args)
        if pid == 0:
            os._exit(0)
        assert pid > 0

    def written(folder):
        open(f"{folder}/x", "w")

    tried = {
        "fork": lambda: child(57 if os.uname().machine == "x86_64" else 220, 17),
        "clone": lambda: child(56 if os.uname().machine == "x86_64" else 220, 17, 0),
        "clone3": lambda: child(435, bytes(88), 88),
        "spawn": lambda: os.posix_spawn(sys.executable, ["python"], {}),
        "shell": lambda: subprocess.run(["true"], check=True),
        "socket": lambda: socket.socket(),
        "pair of sockets": lambda: socket.socketpair(),
        "memory file": lambda: os.memfd_create("x"),
        "signal": lambda: os.kill(os.getppid(), 0),
        "new namespace": lambda: 1 / (libc.unshare(0x10000000) + 1),
        "our files": lambda: [os.stat(path) for path in hidden],
        "written beside the worker": lambda: written(os.path.dirname(
            sys.modules["worker"].__file__)),
        "written to the library": lambda: written(os.path.dirname(os.__file__)),
        "written to devices": lambda: written("/dev"),
        "environment": lambda: 1 / ("SECRET" in os.environ),
        "other processes": lambda: 1 / (sum(map(str.isdigit, os.listdir("/proc"))) > 3),
    }
    out = []
    for name, attempt in tried.items():
        try:
            attempt()
            out.append(name)
        except Exception:
            pass
    raise ValueError(f"out: {out}")
"""


def test_walls_hold(session):
    session.allow(60)
    assert session.define("walls", WALLS) == []
    hidden = [str(ROOT / name) for name in ("labs_helpers", "data", "notebooks")]
    error = observe(session.find("escapes"), {"hidden": hidden}).error
    assert str(error) == "out: []"


def test_system_calls_of_another_abi_end_the_process():
    quick = Session(Limits())
    quick.allow(60)
    if platform.machine() == "x86_64":
        with pytest.raises(Stopped, match="ended its process"):
            quick.define("x32", "import ctypes; ctypes.CDLL(None).syscall(0x40000039)")
    quick.close()


def test_stopped_process_says_why():
    quick = Session(Limits(exercise_seconds=1.0))
    quick.allow(2.0)
    with pytest.raises(Stopped, match="time limit"):
        quick.define("loop", "while True: pass")
    quick.close()
