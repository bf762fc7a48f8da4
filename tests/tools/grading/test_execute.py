"""A function of a submission, called from here, and ours, called from there."""

import numpy as np
import pytest
import torch

from labs_helpers.course.exercises.observe import observe
from labs_tools.grading import sandbox
from labs_tools.grading.execute import Limits, Session, Stopped

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
"""


@pytest.fixture(scope="module")
def session():
    found = Session(Limits())
    found.allow(60)
    assert found.define("code", CODE) == []
    yield found
    found.close()


@pytest.fixture(autouse=True)
def time(session):
    session.allow(60)


def test_signature_crosses(session):
    answer = session.find("loss")
    assert list(answer.__signature__.parameters) == ["x", "y", "scale"]
    answer.__signature__.bind(x=1, y=2)


def test_gradients_cross(session):
    x, y = (torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    session.find("scalar")(x, y=y).backward()
    assert torch.allclose(x.grad, 2 * x * y)
    assert torch.allclose(y.grad, x * x)


def test_results_know_whether_gradients_arrive(session):
    x, y = (torch.randn(3, requires_grad=True) for _ in range(2))
    total, index, tripled = session.find("loss")(x=x, y=y)
    assert (total.requires_grad, index.requires_grad) == (True, False)
    grads = torch.autograd.grad(total, [x, y], allow_unused=True, retain_graph=True)
    assert torch.allclose(grads[0], 2 * x.exp() * y)
    assert grads[1] is None
    assert torch.equal(torch.autograd.grad(tripled.sum(), y)[0], torch.full((3,), 3.0))


def test_changes_to_inputs_cross(session):
    x, rows = torch.zeros(2), []
    session.find("in_place")(x=x, rows=rows)
    assert torch.equal(x, torch.ones(2))
    assert rows == [[1.0, 1.0]]


def test_errors_cross_with_their_line(session):
    with pytest.raises(TypeError) as caught:
        session.find("scalar")(x=None, y=1)
    assert caught.value.quoted_line == "return (x * x * y).sum()"


def test_answers_call_what_they_are_given(session):
    matrix = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    result = session.find("asks")(product=lambda v: matrix @ v, x=torch.ones(2))
    assert torch.equal(result, torch.tensor([4.0, 8.0]))


def test_lent_reference_has_gradients(session):
    session.lend("twice", lambda x: 2 * x.square())
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    result = session.find("uses_twice")(x=x)
    assert result.item() == 30
    assert torch.equal(torch.autograd.grad(result, x)[0], torch.tensor([12.0, 24.0]))


def test_library_works_only_where_it_is_allowed(session):
    def ours(x, mask):
        return (x * mask).sum()

    answer = session.find("uses_library")
    inputs = {"x": torch.tensor([1.0, 5.0]), "mask": torch.tensor([1.0, 0.0])}
    assert "LentFunction" in repr(observe(answer, inputs).error)
    session.allow_calls({"entropy": ours})
    seen = observe(answer, inputs, ("x",))
    assert seen.values[0] == 1
    assert np.array_equal(seen.gradients["x"], [1, 0])
    session.allow_calls({})
    assert observe(answer, inputs).error is not None


def test_stopped_process_says_why():
    quick = Session(Limits(exercise_seconds=1.0))
    quick.allow(2.0)
    with pytest.raises(Stopped, match="time limit"):
        quick.define("loop", "while True: pass")
    quick.close()
