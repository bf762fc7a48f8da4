"""How likely a model finds given answers, with gradient or without, and KL from that.

In go token ids with a mark at every token of the answer, or prompts and texts; out come
log-probs. The model's vocabulary scores are computed at the answer's tokens only: over
a large vocabulary they cost more than the model.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase as Tokenizer

from labs_helpers.models import Policy, evaluating, pad_right
from labs_helpers.models.chat import encode_answers
from labs_helpers.models.limits import check_fits
from labs_helpers.models.policies import in_batches, shares_parameters
from labs_helpers.models.vocabulary import States, states
from labs_helpers.sampling.rollouts import Rollout

Masked = tuple[Sequence[int], Sequence[int]]  # tokens, and 1 at those of the answer


class AnswerStates(NamedTuple):
    """What predicts the N answer tokens of a batch, row by row.

    Attributes:
        states: hidden states, from which the vocabulary can be scored.
        targets: the tokens themselves.
        predicted: where they are; column t belongs to token t + 1 of a sequence.
    """

    states: States
    targets: Int[Tensor, " N"]
    predicted: Bool[Tensor, "B T"]


def answer_states(model: nn.Module, rows: Sequence[Masked]) -> AnswerStates:
    """Read answers after their prompts, in one forward pass, a shared prompt once."""
    device = next(model.parameters()).device
    tokens = pad_right([tokens for tokens, _ in rows])[0].to(device)
    answer = pad_right([answer for _, answer in rows])[0].to(device)
    predicted = answer[:, 1:].bool()
    found = states(model, tokens[:, :-1], predicted)
    return AnswerStates(found, tokens[:, 1:][predicted], predicted)


def answer_logprobs(
    model: nn.Module, rows: Sequence[Masked]
) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Log-probs of the answers' tokens, with gradient.

    Args:
        rows: Of each sequence its L tokens, and 1 or 0 for each of them.

    Returns:
        Log-probs, (B, T = longest L - 1), 0 where nothing is to be predicted; and
        where something is. Column t belongs to token t + 1.
    """
    read, targets, predicted = answer_states(model, rows)
    found = -read.each(surprise, targets)
    return found.new_zeros(predicted.shape).masked_scatter(predicted, found), predicted


def surprise(
    scores: Float[Tensor, "n V"], targets: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """How unexpected each token is, in nats: minus its log-prob."""
    return F.cross_entropy(scores, targets, reduction="none")


def sequence_scores(
    model: nn.Module, rows: Sequence[Masked], batch_size: int = 64
) -> Float[Tensor, " B"]:
    """Log-prob of each answer, summed, on the CPU and without gradient."""

    def summed(batch: Sequence[Masked]) -> Tensor:
        return answer_logprobs(model, batch)[0].sum(dim=1)

    return in_batches(model, rows, summed, batch_size)


def response_logprobs(
    model: Policy,
    tokenizer: Tokenizer,
    prompts: Sequence[Any],
    responses: Sequence[Any],
    *,
    end: bool = True,
    batch_size: int = 64,
) -> Float[Tensor, " B"]:
    """Log-prob of each response as the assistant's next turn, on the CPU, no gradient.

    Args:
        prompts: Text (one user message), lists of messages, or objects with .messages.
        end: Whether the token that ends the turn counts.
    """
    rows = encode_answers(tokenizer, prompts, responses, end=end)
    check_fits(model, tokenizer, [tokens for tokens, _ in rows])
    return sequence_scores(model, rows, batch_size)


def rollout_logprobs(
    model: Policy, rollout: Rollout, batch_size: int = 64
) -> Float[Tensor, "B T"]:
    """Log-probs of sampled tokens under any model, to be compared with the rollout's.

    On the CPU, without gradient, 0 where masked, at temperature 1.
    """
    width = rollout.response_mask.shape[1]

    def aligned(batch: Sequence[Masked]) -> Tensor:
        logprobs, predicted = answer_logprobs(model, batch)
        lengths = predicted.sum(dim=1, keepdim=True)
        # Answers are one piece each, and begin where the row's first token counts.
        counts = torch.arange(width, device=logprobs.device) < lengths
        found = logprobs.new_zeros(counts.shape)
        return found.masked_scatter(counts, logprobs[predicted])

    return in_batches(model, _masked(rollout), aligned, batch_size)


def rollout_kl(
    policy: Policy, reference: Policy, rollout: Rollout, batch_size: int = 32
) -> Float[Tensor, " B"]:
    """KL of policy from reference, answer by answer, in nats, on the CPU.

    Over the full vocabulary at every state of the policy's own answers. Its mean is
    that of the log-prob differences of the sampled tokens, its variance far smaller.

    Raises:
        ValueError: the reference moved with the policy, with which it shares weights.
    """
    if reference is not policy and shares_parameters(policy, reference):
        raise ValueError(
            "the reference shares what the policy trains, so that it has moved with it "
            "and the KL would be 0: load the reference a second time (load_policy)"
        )

    def summed(batch: Sequence[Masked]) -> Tensor:
        ours, theirs = (answer_states(m, batch) for m in (policy, reference))

        def divergence(scores: Tensor, hidden: Tensor) -> Tensor:
            p, q = scores.log_softmax(1), theirs.states.scores(hidden).log_softmax(1)
            return (p.exp() * (p - q)).sum(dim=1)

        each = ours.states.each(divergence, theirs.states.hidden)
        kl = each.new_zeros(ours.predicted.shape)
        return kl.masked_scatter(ours.predicted, each).sum(dim=1)

    with evaluating(reference):
        return in_batches(policy, _masked(rollout), summed, batch_size)


def _masked(rollout: Rollout) -> list[Masked]:
    """The rollout's sequences without their padding."""
    answer = torch.cat([rollout.prompt_mask & False, rollout.response_mask], dim=1)
    kept = rollout.attention_mask.bool()
    rows = zip(rollout.tokens, answer.long(), kept, strict=True)
    return [(tokens[keep].tolist(), said[keep].tolist()) for tokens, said, keep in rows]
