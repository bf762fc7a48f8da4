"""How likely a model finds given answers, with gradient or without, and KL from that.

In go token ids with a mark at every token of the answer, or prompts and texts; out come
log-probs. The model's vocabulary scores are computed at the answer's tokens only: over
a large vocabulary they cost more than the model. Knows nothing of losses and data sets.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from labs_helpers.common import progress as waiting
from labs_helpers.models import Policy, evaluating, logits_and_hidden, pad_right
from labs_helpers.models.chat import encode_answers
from labs_helpers.models.limits import check_fits
from labs_helpers.models.policies import shares_parameters
from labs_helpers.sampling.rollouts import Rollout

Marked = tuple[Sequence[int], Sequence[int]]  # tokens, and 1 at those of the answer


def answer_logprobs(
    model: nn.Module, rows: Sequence[Marked]
) -> tuple[Float[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Log-probs of the answers' tokens, with gradient, in one forward pass.

    Sequences are padded on the right and no attention mask is passed: a causal model's
    real tokens never see what stands to their right, and without a mask the attention
    takes its fast path.

    Args:
        model: A causal language model, with or without LoRA.
        rows: Of each sequence its L tokens, and 1 or 0 for each of them.

    Returns:
        Log-probs, (B, T = longest L - 1), 0 where nothing is to be predicted; and
        where something is. Column t belongs to token t + 1.
    """
    device = next(model.parameters()).device
    tokens = pad_right([tokens for tokens, _ in rows])[0].to(device)
    answer = pad_right([answer for _, answer in rows])[0].to(device)
    predicted = answer[:, 1:].bool()
    scores, _ = logits_and_hidden(model, tokens[:, :-1], predicted)
    found = -F.cross_entropy(scores.float(), tokens[:, 1:][predicted], reduction="none")
    logprobs = torch.zeros(predicted.shape, device=device)
    return logprobs.masked_scatter(predicted, found), predicted


def sequence_scores(
    model: nn.Module, rows: Sequence[Marked], batch_size: int = 64
) -> Float[Tensor, " B"]:
    """Log-prob of each answer, summed, on the CPU and without gradient."""

    def summed(batch: Sequence[Marked]) -> Tensor:
        return answer_logprobs(model, batch)[0].sum(dim=1)

    return _each(model, rows, summed, batch_size)


def response_logprobs(
    model: Policy,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    responses: Sequence[Any],
    *,
    end: bool = True,
    batch_size: int = 64,
) -> Float[Tensor, " B"]:
    """Log-prob of each response as the assistant's next turn, on the CPU, no gradient.

    Args:
        model: A causal language model, with or without LoRA.
        tokenizer: Its tokenizer.
        prompts: Text (one user message), lists of messages, or objects with .messages.
        responses: One to each prompt.
        end: Whether the token that ends the turn counts.
        batch_size: Sequences in one forward pass.
    """
    rows = _answered(tokenizer, prompts, responses, end)
    check_fits(model, tokenizer, [tokens for tokens, _ in rows])
    return sequence_scores(model, rows, batch_size)


SURPRISES = (
    "all tokens",
    "mean token",
    "rarest token",
    "three rarest",
    "first token",
    "first four",
    "end token",
    "number of tokens",
    "log of the mean",
    "log of the rarest",
)
# What makes each of order one for answers of some dozen words.
SURPRISE_UNITS = (20.0, 1.0, 5.0, 10.0, 3.0, 6.0, 3.0, 20.0, 1.0, 1.0)


def surprise(
    model: Policy,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    responses: Sequence[Any],
    batch_size: int = 64,
) -> Float[Tensor, "B S"]:
    """How likely a model finds each response's tokens, in ten figures of order one.

    On the CPU, without gradient; named by `SURPRISES`, in `SURPRISE_UNITS` of a nat.
    An answer to another question, or a wrong word in a right one, is some improbable
    token among probable ones, which a sum of log-probs alone does not show.
    """
    rows = _answered(tokenizer, prompts, responses, end=True)
    check_fits(model, tokenizer, [tokens for tokens, _ in rows])
    if not rows:
        return torch.zeros(0, len(SURPRISES))

    def figures(batch: Sequence[Marked]) -> Tensor:
        logprobs, counts = answer_logprobs(model, batch)
        place = counts.cumsum(dim=1) * counts  # 1 at an answer's first token
        number = counts.sum(dim=1)
        total = logprobs.sum(dim=1)
        lowest = logprobs.topk(min(3, logprobs.shape[1]), dim=1, largest=False).values
        beginning = logprobs * (place <= 4)
        found = (
            total,
            total / number,
            lowest[:, 0],
            lowest.sum(dim=1),
            (logprobs * (place == 1)).sum(dim=1),
            beginning.sum(dim=1),
            (logprobs * (place == number[:, None])).sum(dim=1),
            number,
            (0.02 - total / number).log(),
            (0.05 - lowest[:, 0]).log(),
        )
        units = torch.tensor(SURPRISE_UNITS, device=logprobs.device)
        return torch.stack(found, dim=1) / units

    return _each(model, rows, figures, batch_size)


def rollout_logprobs(
    model: Policy, rollout: Rollout, batch_size: int = 64
) -> Float[Tensor, "B T"]:
    """Log-probs of sampled tokens under any model, to be compared with the rollout's.

    On the CPU, without gradient, 0 where masked, at temperature 1.
    """

    def each(batch: Sequence[Marked]) -> Tensor:
        logprobs, predicted = answer_logprobs(model, batch)
        width = rollout.response_mask.shape[1]
        aligned = torch.zeros(len(batch), width, device=logprobs.device)
        # Answers are one piece each, and begin where the row's first token counts.
        counts = torch.arange(width, device=logprobs.device) < predicted.sum(
            dim=1, keepdim=True
        )
        return aligned.masked_scatter(counts, logprobs[predicted])

    return _each(model, _marked(rollout), each, batch_size)


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

    def each(batch: Sequence[Marked]) -> Tensor:
        tokens = pad_right([tokens for tokens, _ in batch])[0].to(policy.device)
        answer = pad_right([answer for _, answer in batch])[0].to(policy.device)
        predicted = answer[:, 1:].bool()
        p, q = (
            logits_and_hidden(model, tokens[:, :-1], predicted)[0]
            .float()
            .log_softmax(1)
            for model in (policy, reference)
        )
        kl = torch.zeros(predicted.shape, device=p.device)
        return kl.masked_scatter(predicted, (p.exp() * (p - q)).sum(dim=1)).sum(dim=1)

    with evaluating(reference):
        return _each(policy, _marked(rollout), each, batch_size)


def _answered(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    responses: Sequence[Any],
    end: bool,
) -> list[Marked]:
    """Prompts and responses as training reads them."""
    return [*encode_answers(tokenizer, prompts, responses, end=end)]


def _marked(rollout: Rollout) -> list[Marked]:
    """The rollout's sequences without their padding."""
    prompts = rollout.tokens[:, : rollout.prompt_mask.shape[1]]
    parts = zip(
        prompts,
        rollout.prompt_mask,
        rollout.responses,
        rollout.response_mask,
        strict=True,
    )
    rows = []
    for prompt, prompt_mask, response, response_mask in parts:
        before, said = prompt[prompt_mask].tolist(), response[response_mask].tolist()
        rows.append(([*before, *said], [0] * len(before) + [1] * len(said)))
    return rows


def _each(
    model: nn.Module,
    rows: Sequence[Marked],
    compute: Callable[[Sequence[Marked]], Tensor],
    batch_size: int,
) -> Tensor:
    """Compute in batches of similar length; results in the order of the rows."""
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]))
    results = []
    with evaluating(model), waiting.bar(len(rows), "log-probs") as bar:
        for batch in _batches(order, batch_size):
            results.append(compute([rows[i] for i in batch]).cpu())
            bar.update(len(batch))
    if not results:
        return torch.zeros(0)
    return torch.cat(results)[torch.tensor(order).argsort()]


def _batches(order: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]
