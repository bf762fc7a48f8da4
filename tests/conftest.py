"""What every test runs under: smoke profile, no network, one thread, checked shapes."""

import os

# Before the imports that read them; kernels and commands under test inherit them.
os.environ.update(
    HF_HUB_OFFLINE="1",
    LABS_PROFILE="smoke",
    LABS_STRICT="1",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",
    OMP_WAIT_POLICY="passive",
)

import random

import hypothesis
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

for override in ("LABS_MODEL", "LABS_REWARD_MODEL", "LABS_DATA"):
    os.environ.pop(override, None)

# Before the package is first imported.
install_import_hook("labs_helpers", "beartype.beartype")

# The same examples on every machine, and no deadline on busy cores.
hypothesis.settings.register_profile("labs", deadline=None, derandomize=True)
hypothesis.settings.load_profile("labs")


@pytest.fixture(autouse=True)
def seed() -> int:
    """Start every test from the same random state."""
    value = 0
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002 - libraries draw from it
    torch.manual_seed(value)
    return value
