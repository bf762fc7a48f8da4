"""Random tensors for the inputs of exercises."""

import numpy as np
import torch
from torch import Tensor


def normal(
    rng: np.random.Generator,
    *shape: int,
    scale: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw normal numbers."""
    return torch.tensor(rng.normal(scale=scale, size=shape), dtype=dtype)


def uniform(
    rng: np.random.Generator,
    *shape: int,
    low: float = 0.0,
    high: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw uniform numbers."""
    return torch.tensor(rng.uniform(low, high, size=shape), dtype=dtype)


def integers(rng: np.random.Generator, count: int, low: int, high: int) -> Tensor:
    """Draw whole numbers from low to high, both included."""
    return torch.tensor(rng.integers(low, high, size=count, endpoint=True))


def dtype_of(flavour: str) -> torch.dtype:
    """Return the float type that a flavour asks for."""
    return torch.float64 if "float64" in flavour else torch.float32
