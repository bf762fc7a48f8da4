"""Between two policies: weights averaged with those that training began from."""

import copy

import torch
from peft import PeftModel
from torch import nn

from labs_helpers.models.adapters import fresh_copy
from labs_helpers.models.policies import Policy

UP = ".lora_B."  # of an adapter's two matrices, the one that begins as 0


def averaged(start: Policy, trained: Policy, share: float) -> Policy:
    """A policy with this share of what training changed, the rest as at the start.

    Weights are (1 - share) start + share trained (WiSE-FT, arXiv 2109.01903). Of LoRA
    the product of its two matrices is scaled, and the frozen weights are shared.

    Args:
        start: the policy that `trained` began from.
        trained: is left as it is; all its weights are trained, or an adapter of LoRA.
        share: 0 gives the start, 1 the trained policy.

    Raises:
        ValueError: `share` is not within 0 and 1, the models differ, or the adapter is
            not LoRA.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is between 0 (the start) and 1, got {share}")
    if isinstance(trained, PeftModel):
        held = {id(p): p for p in trained.parameters() if not p.requires_grad}
        found = copy.deepcopy(trained, held)
        scaled = [p for name, p in found.named_parameters() if UP in name]
        if not scaled or trained.active_peft_config.use_dora:
            raise ValueError(
                "the adapter is not plain LoRA: merge it first, then average"
            )
        with torch.no_grad():
            for parameter in scaled:
                parameter.mul_(share)
        return found.eval()
    found, before = fresh_copy(trained), dict(start.named_parameters())
    own = dict(found.named_parameters())
    if {n: p.shape for n, p in own.items()} != {n: p.shape for n, p in before.items()}:
        raise ValueError(
            "start and trained are not the same model: their weights differ"
        )
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.lerp_(before[name].to(parameter), 1 - share)
    return found.eval()


def _shapes(weights: dict[str, nn.Parameter]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in weights.items()}
