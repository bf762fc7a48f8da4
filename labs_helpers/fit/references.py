"""The policy that a training is measured from: frozen, and asked while another moves.

A reference may be a model of its own, or the policy in training as it was at the start:
under an adapter that needs no copy of the base, only of the few weights that train.
"""

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from peft import PeftModel
from torch import nn

from labs_helpers.models import Policy
from labs_helpers.models.policies import shares_parameters
from labs_helpers.sampling.logprobs import Masked, sequence_scores


class AtStart:
    """A policy with an adapter as it is now, to be asked while it is trained."""

    def __init__(self, policy: PeftModel):
        self.policy = policy
        trained = [p for p in policy.parameters() if p.requires_grad]
        self._kept = [(p, p.detach().clone()) for p in trained]

    @contextmanager
    def active(self) -> Iterator[PeftModel]:
        """The policy computes as it did; it is itself again afterwards."""
        now = [parameter.data for parameter, _ in self._kept]
        try:
            for parameter, start in self._kept:
                parameter.data = start
            yield self.policy
        finally:
            for (parameter, _), data in zip(self._kept, now, strict=True):
                parameter.data = data


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


class Reference:
    """A frozen policy, and what it said of every answer that it was asked about.

    Objectives that are given one and the same `Reference` share what it knows: a second
    run on the same pairs begins at once.

    Args:
        policy: is never trained. None is the policy in training as it was at the
            start, which under LoRA needs no second model: the adapter's weights of then
            are put back while it is asked.
    """

    def __init__(self, policy: Policy | None):
        self.policy = policy
        self._known: dict[bytes, float] = {}
        self._start: AtStart | None = None

    def scores(self, model: nn.Module, rows: Sequence[Masked]) -> list[float]:
        """Log-prob of each answer, from memory where it has been asked before."""
        if self._start is not None and self._start.policy is not model:
            self._start, self._known = None, {}  # another policy's
        keys = [array("i", [*tokens, *answer]).tobytes() for tokens, answer in rows]
        new = {
            key: row
            for key, row in zip(keys, rows, strict=True)
            if key not in self._known
        }
        if new:
            with self.active(model) as policy:
                found = sequence_scores(policy, list(new.values()))
            self._known.update(zip(new, found.tolist(), strict=True))
        return [self._known[key] for key in keys]

    def readers(self, model: nn.Module) -> list[nn.Module]:
        """The models that read the rows: the one in training and the frozen one."""
        return [model] if self.policy is None else [model, self.policy]

    @contextmanager
    def active(self, model: nn.Module) -> Iterator[nn.Module]:
        """Give the frozen policy, to the policy in training.

        Raises:
            ValueError: training the policy would move it.
        """
        if self.policy is not None:
            require_apart(model, self.policy)
            yield self.policy
        elif isinstance(model, PeftModel):
            if self._start is None or self._start.policy is not model:
                self._start = AtStart(model)
            with self._start.active() as policy:
                yield policy
        else:
            raise ValueError(
                "reference=None needs a policy with LoRA (load_policy(..., lora=8)), "
                f"whose adapter can be switched off; this is a {type(model).__name__}. "
                "Give a frozen copy of the policy as reference"
            )
