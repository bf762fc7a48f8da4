"""Gradient checkpointing where training keeps dropout off. Knows no algorithm."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def recomputing(model: nn.Module) -> Iterator[None]:
    """Let layers compute again what the backward pass needs, if they are asked to.

    After `model.gradient_checkpointing_enable()` Hugging Face's layers do so only in
    training mode, in which dropout is on, and ratios would compare two random policies.
    Here those layers alone are in it, and their own dropout is 0.
    """
    layers = [
        module
        for module in model.modules()
        if getattr(module, "gradient_checkpointing", False) and not module.training
    ]
    rates = [
        (layer, name, rate)
        for layer in layers
        for name, rate in vars(layer).items()
        if "dropout" in name and isinstance(rate, float)
    ]
    try:
        for layer in layers:
            layer.training = True
        for layer, name, _ in rates:
            setattr(layer, name, 0.0)
        yield
    finally:
        for layer in layers:
            layer.training = False
        for layer, name, rate in rates:
            setattr(layer, name, rate)
