"""Experience: sampled answers and what is to be learnt from them, and a policy's view.

In goes a rollout, out comes what updates take parts of and read again with gradient.
Knows no update rule, and nothing of rewards.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from labs_helpers.losses import token_entropy
from labs_helpers.models import PolicyWithValue
from labs_helpers.models.memory import in_parts, kin
from labs_helpers.models.vocabulary import States
from labs_helpers.sampling import Rollout
from labs_helpers.sampling.logprobs import surprise

# More rows at a time pad more and leave a CPU's caches: measured 1.5 times slower.
CPU_ROWS = 16
Cut = Callable[..., list[list[int]]]


@dataclass
class Experience:
    """Answers and what is to be learnt from them: B sequences, T answer tokens.

    Attributes:
        tokens: Prompt and answer, padded on the right only.
        predicts: True at the tokens that an answer token follows.
        responses: The answers' tokens.
        mask: True where one counts, the end token included.
        logprobs: Of the answers' tokens, by the policy that sampled them.
        values: What that policy expected at each of them.
        advantages: How much better each was than expected.
        returns: What the values are fitted to.
        reference_logprobs: Of the answers' tokens, by the reference.
    """

    tokens: Int[Tensor, "B L"]
    predicts: Bool[Tensor, "B L"]
    responses: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    logprobs: Float[Tensor, "B T"] | None = None
    values: Float[Tensor, "B T"] | None = None
    advantages: Float[Tensor, "B T"] | None = None
    returns: Float[Tensor, "B T"] | None = None
    reference_logprobs: Float[Tensor, "B T"] | None = None

    def take(self, rows: Int[Tensor, " b"]) -> "Experience":
        """Some of the answers, without the padding that only the others need."""
        length = int(self.predicts[rows].any(dim=0).nonzero().max()) + 1
        width = int(self.mask[rows].any(dim=0).nonzero().max()) + 1
        taken = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            cut = length if field.name in ("tokens", "predicts") else width
            taken[field.name] = None if tensor is None else tensor[rows][:, :cut]
        return Experience(**taken)

    def joined(self, other: "Experience") -> "Experience":
        """These answers and then the other ones, which know as much of themselves."""
        both = {}
        for field in fields(self):
            pair = [getattr(x, field.name) for x in (self, other)]
            if pair[0] is not None:
                width = max(x.shape[1] for x in pair)
                padded = [F.pad(x, (0, width - x.shape[1])) for x in pair]
                both[field.name] = torch.cat(padded)
        return Experience(**both)

    def by_length(
        self, rows: Int[Tensor, " b"], number: int, cut: Cut = in_parts
    ) -> list[Tensor]:
        """Split rows into parts of similar length, so many or as memory asks for.

        Answers to one prompt stay side by side, so that it is read once.
        """
        if self.tokens.device.type == "cpu":
            number = max(number, -(-len(rows) // CPU_ROWS))
        ends = self.predicts[rows].int().cumsum(dim=1).argmax(dim=1) + 1
        lengths, tokens = ends.tolist(), self.tokens[rows].tolist()
        beside = kin([t[:length] for t, length in zip(tokens, lengths, strict=True)])
        return [rows[part] for part in cut(lengths, number, beside=beside)]

    @property
    def answer_tokens(self) -> Int[Tensor, " N"]:
        """The tokens that count, row by row."""
        return self.responses[self.mask]

    def __len__(self) -> int:
        return len(self.tokens)


class Outputs(NamedTuple):
    """What a policy says of an experience's tokens; N of them count."""

    logprobs: Float[Tensor, "B T"]
    values: Float[Tensor, "B T"]
    states: States
    temperature: float

    @property
    def logits(self) -> Float[Tensor, "N V"]:
        """Scores of the vocabulary, of all tokens at once."""
        return self.states.scores(self.states.hidden) / self.temperature

    @property
    def entropies(self) -> Float[Tensor, " N"]:
        """Of the distributions that the tokens are drawn from, in nats."""
        return self.states.each(lambda x: token_entropy(x / self.temperature))


def read(model: PolicyWithValue, part: Experience, temperature: float) -> Outputs:
    """Log-probs, values and scores of the answers' tokens, with gradient."""
    found, values = model.states(part.tokens, part.predicts)
    return Outputs(
        logprobs_of(found, part, temperature),
        filled(part.mask, values),
        found,
        temperature,
    )


def unscored(rollout: Rollout, device: torch.device) -> Experience:
    """Move the padding to the right, where no attention mask is needed for it."""
    width = rollout.prompt_mask.shape[1]
    padding = width - rollout.prompt_mask.sum(dim=1)
    columns = torch.arange(rollout.tokens.shape[1]) + padding[:, None]
    inside = columns < rollout.tokens.shape[1]
    columns = columns.clamp(max=rollout.tokens.shape[1] - 1)
    is_answer = F.pad(rollout.response_mask, (width, 0)).gather(1, columns) & inside
    return Experience(
        tokens=rollout.tokens.gather(1, columns).to(device),
        predicts=F.pad(is_answer[:, 1:], (0, 1)).to(device),
        responses=rollout.responses.to(device),
        mask=rollout.response_mask.to(device),
        logprobs=rollout.logprobs.to(device),
    )


def logprobs_of(
    found: States, part: Experience, temperature: float
) -> Float[Tensor, "B T"]:
    """Of the answers' tokens, by the states that predict them; 0 where masked."""

    def logprobs(scores: Tensor, targets: Tensor) -> Tensor:
        return -surprise(scores / temperature, targets)

    return filled(part.mask, found.each(logprobs, part.answer_tokens))


def filled(
    mask: Bool[Tensor, "B T"], counted: Float[Tensor, " N"]
) -> Float[Tensor, "B T"]:
    """Put what counts into its place, row by row; 0 elsewhere."""
    empty = torch.zeros(mask.shape, dtype=counted.dtype, device=mask.device)
    return empty.masked_scatter(mask, counted)
