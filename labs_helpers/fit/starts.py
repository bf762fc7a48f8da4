"""What a model is before it is trained: its identity, and itself, to be asked later.

Under an adapter the model of the start needs no copy: the adapter is switched off, or,
where that gives something else (one trained before, one that changes the base's own
weights), the trained weights of then are put back while it is asked. Knows nothing of
losses and rewards.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from labs_helpers.fit.identity import Identity, describe, tensors_digest
from labs_helpers.models import Policy
from labs_helpers.models.adapters import probe, require_switch
from labs_helpers.models.policies import shares_parameters

# Of an adapter's configuration: where it came from, and what only inference reads.
_ELSEWHERE = ("base_model_name_or_path", "inference_mode", "revision", "peft_version")


def describe_start(model: nn.Module) -> Identity:
    """What the result of a training depends on in the model that it is given."""
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    places = {p.data_ptr() for p in trained.values()}  # tied weights have two names
    state = {n: t for n, t in model.state_dict().items() if isinstance(t, Tensor)}
    frozen = {n: t for n, t in state.items() if t.data_ptr() not in places}
    nothing = _without_effect(model)
    acting = {n: p for n, p in trained.items() if id(p) not in nothing}
    found: Identity = {
        "trained parameters": sum(p.numel() for p in trained.values()),
        "the model's weights at the start": tensors_digest(acting),
        "the model's frozen weights": tensors_digest(frozen),
    }
    for module in model.modules():
        if isinstance(module, PeftModel):
            for name, config in module.peft_config.items():
                table = {k: v for k, v in config.to_dict().items() if v is not None}
                for key in _ELSEWHERE:
                    table.pop(key, None)
                for key, value in table.items():
                    found |= describe(f"the adapter {name}'s {key}", value)
    return found


# What a training left of a model: its folder, what it made of it, and out of what.
_LEFT: WeakKeyDictionary[nn.Module, tuple[Path, Identity, Identity]]
_LEFT = WeakKeyDictionary()


def start_for(model: nn.Module, folder: Path) -> Identity:
    """Describe the start of a training in a folder.

    A model that a broken-off training in this folder has left, and nobody moved since,
    may go on there: its start is that training's. With an adapter it has to be loaded
    again, for what it was at the start is then asked as a reference.
    """
    now = describe_start(model)
    place, left, start = _LEFT.get(model, (folder, now, now))
    return start if (place, left) == (folder, now) else now


def leave(model: nn.Module, folder: Path, start: Identity) -> None:
    """Remember what a training in this folder began with, and what it left."""
    if not any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        _LEFT[model] = (folder, describe_start(model), start)


def _without_effect(model: nn.Module) -> set[int]:
    """Weights that are drawn at random at the start, and multiplied by zeros there.

    Those of new adapters and of heads: another draw is no other start.
    """
    found: set[int] = set()
    for module in model.modules():
        groups: list[list[Tensor]] = []
        if isinstance(module, BaseTunerLayer):
            groups = list(_by_adapter(module).values())
        elif isinstance(module, nn.Sequential) and len(module):
            last = list(module[-1].parameters())
            if last and not any(p.any() for p in last):
                groups = [list(module.parameters())]
        for group in groups:
            if any(p.is_floating_point() and not p.any() for p in group):
                found |= {id(p) for p in group}
    return found


def _by_adapter(layer: BaseTunerLayer) -> dict[str, list[Tensor]]:
    groups: dict[str, list[Tensor]] = {}
    for name in layer.adapter_layer_names:
        parts = getattr(layer, name, None)
        if not isinstance(parts, nn.ModuleDict | nn.ParameterDict):
            continue
        for adapter, part in parts.items():
            tensors = part.parameters() if isinstance(part, nn.Module) else [part]
            groups.setdefault(adapter, []).extend(tensors)
    return groups


class AtStart:
    """A policy with an adapter as it is now, to be asked while it is trained.

    `scores` are what it says now of a few tokens: equal for equal starts.
    """

    def __init__(self, policy: PeftModel):
        self.policy = policy
        self._kept: dict[str, Tensor] | None = None
        self.scores = probe(policy)
        with policy.disable_adapter():
            off_is_start = torch.equal(probe(policy), self.scores)
        if not off_is_start or not _has_switch(policy):
            self._kept = {
                n: p.detach().clone()
                for n, p in policy.named_parameters()
                if p.requires_grad
            }

    @contextmanager
    def active(self) -> Iterator[PeftModel]:
        """The policy computes as it did; it is itself again afterwards."""
        if self._kept is None:
            with self.policy.disable_adapter():
                yield self.policy
            return
        parameters = dict(self.policy.named_parameters())
        now = {name: parameters[name].data for name in self._kept}
        try:
            for name, tensor in self._kept.items():
                parameters[name].data = tensor
            yield self.policy
        finally:
            for name, tensor in now.items():
                parameters[name].data = tensor


def _has_switch(policy: PeftModel) -> bool:
    """Whether nothing that is trained acts while the adapter is off."""
    try:
        require_switch(policy)
    except ValueError:
        return False
    return True


def require_apart(model: nn.Module, reference: Policy) -> None:
    """Refuse a reference that training the model would move.

    Raises:
        ValueError: with what to give instead.
    """
    if shares_parameters(model, reference):
        raise ValueError(
            "the reference is the very model in training, or shares parameters with "
            "it, so it would move with it. Load it a second time (load_policy), or "
            "give reference=None: with LoRA, and in rl.train always, that is the "
            "policy as it is at the start"
        )
