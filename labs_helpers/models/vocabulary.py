"""Log-probs of tokens without ever holding the vocabulary's scores of all of them.

A vocabulary of 150,000 takes 600 kB a token in float32, several times over in a step:
more than all layers below it. What is wanted is a number or two a token, so the hidden
states are read through the vocabulary head in chunks. Under a frozen head the gradient
is computed along with the numbers, and nothing is read twice.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from labs_helpers.models.memory import CHUNK_BYTES
from labs_helpers.models.policies import Policy, vocabulary_head
from labs_helpers.models.together import together

Head = Callable[[Tensor], Tensor]


class States(NamedTuple):
    """Hidden states, and how the model scores its vocabulary from some of them.

    Attributes:
        hidden: of the N tokens that were asked for, row by row.
        scores: of some rows of these, in float32.
        vocabulary: how many there are for a token.
        trains: whether training moves the head.
    """

    hidden: Float[Tensor, "N D"]
    scores: Head
    vocabulary: int
    trains: bool

    def each(self, compute: Callable[..., Tensor], *given: Tensor) -> Tensor:
        """Compute a number for each token from its scores, chunk by chunk.

        Args:
            compute: takes the scores of n tokens, and their part of what is given;
                returns (n,), of which each depends on its own scores alone; without
                gradients, several for each are fine: (n, k).
        """

        def read(hidden: Tensor, *some: Tensor) -> Tensor:
            return compute(self.scores(hidden), *some)

        size = max(1, CHUNK_BYTES // (4 * self.vocabulary))
        if len(self.hidden) <= size:
            return read(self.hidden, *given)
        rows = list(zip(*(x.split(size) for x in (self.hidden, *given)), strict=True))
        if not torch.is_grad_enabled():
            return torch.cat([read(*some) for some in rows])
        if self.trains:
            again = {"use_reentrant": False, "preserve_rng_state": False}
            return torch.cat([checkpoint(read, *some, **again) for some in rows])
        return _AtOnce.apply(self.hidden, read, rows)


class _AtOnce(torch.autograd.Function):
    """Numbers of rows, with the gradient of each by its own row kept beside them."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, read: Head, rows: list[Any]) -> Tensor:
        numbers, slopes = [], []
        for some, *given in rows:
            with torch.enable_grad():
                leaf = some.detach().requires_grad_()
                found = read(leaf, *given)
                slopes += torch.autograd.grad(found.sum(), leaf)
            numbers.append(found.detach())
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(numbers)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return (slope[:, None] * slopes).to(slopes.dtype), None, None


def states(
    policy: Policy,
    tokens: Int[Tensor, "B L"],
    keep: Bool[Tensor, "B L"],
) -> States:
    """Read tokens once; what enters the vocabulary head is kept, not what leaves it.

    Each row is read as far as its last token to keep, a prompt of several rows once.
    """
    ends = (keep * torch.arange(1, keep.shape[1] + 1, device=keep.device)).amax(dim=1)
    rows = zip(tokens.tolist(), ends.clamp(min=1).tolist(), strict=True)
    read = together(policy, [row[:end] for row, end in rows])
    counted = keep[:, : read.rows.shape[1]]
    asked = (read.rows[counted], read.columns[counted])
    kept: list[Tensor] = []

    def cut(head: nn.Module, inputs: tuple) -> tuple:
        kept.append(inputs[0][asked])
        return (kept[0][:1], *inputs[1:])

    def see(head: nn.Module, inputs: tuple, output: Tensor) -> None:
        kept.append(output)

    head = vocabulary_head(policy)
    hooks = [head.register_forward_pre_hook(cut), head.register_forward_hook(see)]
    try:
        logits = policy(**read.inputs, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    hidden, raw = kept
    # Some families scale or cap what their head says (Gemma 2, Cohere, Granite).
    plain = torch.equal(raw.float(), logits.float())

    def scores(some: Tensor) -> Tensor:
        return (head(some) if plain else _whole_way(policy, head, some)).float()

    trains = any(p.requires_grad for p in head.parameters())
    return States(hidden, scores, logits.shape[-1], trains)


def _whole_way(policy: Policy, head: nn.Module, hidden: Tensor) -> Tensor:
    """What a forward makes of hidden states, which takes one token's place in it."""
    hook = head.register_forward_pre_hook(lambda _, inputs: (hidden, *inputs[1:]))
    try:
        one = torch.zeros(1, 1, dtype=torch.long, device=hidden.device)
        return policy(input_ids=one, use_cache=False).logits
    finally:
        hook.remove()
