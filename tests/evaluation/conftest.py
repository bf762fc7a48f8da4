"""What the tests of evaluation share."""

import numpy as np
import pytest


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def coverage():
    """The share of intervals that hold the truth."""
    return lambda found, truth: np.mean([e.low <= truth <= e.high for e in found])
