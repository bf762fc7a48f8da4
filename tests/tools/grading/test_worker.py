"""What a worker gives in place of the course's package, and what it may claim."""

import importlib

import numpy as np
import pytest
import torch

from labs_helpers.course.exercises.observe import Observation
from labs_tools.grading import protocol, sandbox
from labs_tools.grading.session import Answer, Session


def test_lent_functions_stand_in_annotations_alone(monkeypatch):
    for path in sandbox.FILES:
        monkeypatch.syspath_prepend(path.parent)
    worker = importlib.import_module("worker")
    lent = worker.Lent("labs_helpers.losses.dpo_loss")

    def annotated(x: lent | None) -> lent[int]:
        return x

    with pytest.raises(worker.LentFunction, match=r"losses\.dpo_loss\.other"):
        lent.other(annotated(3))


class Claims:
    """A session whose worker says what it likes."""

    def __init__(self, **said):
        self.said = said

    def ask(self, message, functions):
        return self.said

    error = Session.error
    seen_errors = property(lambda self: set())


CLAIMS = {
    "its own tolerance": {"values": (np.ones(2),), "atol": 1e9},
    "lists for tuples": {"values": [np.ones(2)], "dtypes": ["float32"]},
    "values of no kind": {"values": (protocol.stand_in("Yes"), 1.0, "x")},
    "gradients of others": {"gradients": {"z": np.ones(2)}},
    "gradients of no kind": {"gradients": {"x": 3.0}},
    "gradients that are none": {"gradients": "all right"},
    "errors of no kind": {"error": 7, "gradient_error": "x"},
    "an error that is a check's": {"error": {"type": "Stopped", "builtin": "exit"}},
    "nothing": {},
}


@pytest.mark.parametrize("said", CLAIMS.values(), ids=CLAIMS)
def test_claims_are_read_as_an_observation_or_not_at_all(said):
    seen = Answer(Claims(**said), "f", None)({"x": torch.ones(2)}, ("x",))
    assert seen.atol == Observation().atol
    assert all(isinstance(value, np.ndarray) for value in seen.values)
    assert seen.gradients is None or list(seen.gradients.values()) == [None]
    assert seen.error is None or isinstance(seen.error, Exception)
