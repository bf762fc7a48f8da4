"""Sample answers in batches, with the log-probs of what was sampled.

In go a causal language model and prompts, out comes a `Rollout`. Works for every
causal Hugging Face model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase as Tokenizer

from labs_helpers.common import progress as waiting
from labs_helpers.common.settings import Count, NotNegative, settings
from labs_helpers.models import Policy, evaluating
from labs_helpers.models.chat import encode_prompts, end_tokens
from labs_helpers.models.limits import check_fits, pad_token, vocabulary
from labs_helpers.sampling.decoding import reading

# What keys, values and logits of one chunk may take on a CPU, where small chunks that
# fit its caches are no slower; on a GPU a quarter of what is free.
CPU_CHUNK_BYTES = 2**28
# Rows that have ended leave the batch when no more than this share is still running.
KEEP_BELOW = 0.75


@settings
class _Asked:
    """How to sample, as numbers of the right kind."""

    max_new_tokens: Count
    temperature: NotNegative
    n: Count
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None


@dataclass
class Rollout:
    """Sampled answers: B rows, prompts of P tokens padded on the left, T new tokens.

    Attributes:
        tokens: Prompt and answer, padded on both sides.
        prompt_mask: True at a prompt's tokens.
        response_mask: True at an answer's tokens, its end token included.
        logprobs: Of the answer's tokens under the distribution that they were sampled
            from, temperature applied; 0 where masked, and 0 = log 1 for greedy answers.
        texts: Answers without special tokens and outer white space.
        finished: True where the answer ended by itself.
    """

    tokens: Int[Tensor, "B L"]
    prompt_mask: Bool[Tensor, "B P"]
    response_mask: Bool[Tensor, "B T"]
    logprobs: Float[Tensor, "B T"]
    texts: list[str]
    finished: Bool[Tensor, " B"]

    @property
    def responses(self) -> Int[Tensor, "B T"]:
        """The answers' tokens."""
        return self.tokens[:, self.prompt_mask.shape[1] :]

    @property
    def attention_mask(self) -> Int[Tensor, "B L"]:
        """1 at every token that is no padding, for a forward over `tokens`."""
        return torch.cat([self.prompt_mask, self.response_mask], dim=1).long()


def sample(
    model: Policy,
    tokenizer: Tokenizer,
    prompts: Sequence[Any],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    n: int = 1,
    seed: int | None = None,
) -> Rollout:
    """Sample `n` answers to each prompt: those to prompt i are rows i*n to i*n + n - 1.

    Every row has its own random numbers, drawn at the start: how rows are batched
    changes no answer.

    Args:
        prompts: Text (one user message), lists of messages, or objects with .messages.
        max_new_tokens: The end token counts as one.
        temperature: 0 takes the most likely token.
        n: Answers to each prompt.
        seed: The same seed gives the same answers; None continues torch's own state.

    Raises:
        ValueError: A setting or prompt cannot be used, or the model cannot read it.
    """
    try:
        asked = _Asked(max_new_tokens, temperature, n, seed)
    except ValueError as error:
        raise ValueError(f"sample needs other settings: {error}") from None
    room, n = asked.max_new_tokens, asked.n
    encoded = encode_prompts(tokenizer, prompts)
    if not encoded:
        raise ValueError("sample needs at least one prompt, got none")
    check_fits(model, tokenizer, encoded, room=room)
    encoded = [ids for ids in encoded for _ in range(n)]
    generator = None if seed is None else torch.Generator().manual_seed(asked.seed)
    uniforms = torch.rand(len(encoded), room, generator=generator)
    uniforms.clamp_(max=1 - 2**-23)  # times a sum of probabilities, less than the sum
    pad = pad_token(tokenizer, model)
    ends = torch.tensor(sorted(end_tokens(tokenizer, model)), dtype=torch.long)
    with evaluating(model):
        found = _in_chunks(model, encoded, uniforms, asked.temperature, ends, pad)
    return _rollout(tokenizer, encoded, *found, ends, pad)


def _in_chunks(
    model: Policy,
    prompts: list[list[int]],
    uniforms: Float[Tensor, "B max_new"],
    temperature: float,
    ends: Int[Tensor, " E"],
    pad: int,
) -> tuple[Int[Tensor, "B max_new"], Float[Tensor, "B max_new"]]:
    """Sample one answer to each prompt, as many at once as memory holds."""
    rows, room = uniforms.shape
    answers, logprobs = torch.full((rows, room), pad), torch.zeros(rows, room)
    # Rows of similar length share a chunk: less padding.
    order = sorted(range(rows), key=lambda row: len(prompts[row]))
    size = _rows_per_chunk(model, len(prompts[order[-1]]) + room)
    with waiting.bar(rows * room, "sampling") as bar:
        for start in range(0, rows, size):
            chunk = order[start : start + size]
            found, found_logprobs = _sample_chunk(
                model,
                [prompts[row] for row in chunk],
                uniforms[chunk].to(model.device),
                temperature,
                ends.to(model.device),
                pad,
                partial(bar.update, len(chunk)),
            )
            bar.update((start + len(chunk)) * room - bar.n)  # ended early
            answers[chunk, : found.shape[1]] = found.cpu()
            logprobs[chunk, : found.shape[1]] = found_logprobs.cpu()
    return answers, logprobs


def _sample_chunk(
    model: Policy,
    prompts: list[list[int]],
    uniforms: Float[Tensor, "B max_new"],
    temperature: float,
    ends: Int[Tensor, " E"],
    pad: int,
    advance: Callable[[], Any],
) -> tuple[Int[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Sample one answer a row, for prompts in ascending length.

    What follows an end token is meaningless there.
    """
    room = uniforms.shape[1]
    # Each different prompt is read once, then copied to all the rows that answer it.
    different = {ids: i for i, ids in enumerate(dict.fromkeys(map(tuple, prompts)))}
    decoder = reading(model).decoder(model, list(different), room, pad)
    logits = decoder.read_prompts()
    if len(different) < len(prompts):
        copies = [different[tuple(ids)] for ids in prompts]
        copies = torch.tensor(copies, device=model.device)
        decoder.keep(copies)
        logits = logits[copies]

    answers = torch.full(uniforms.shape, pad, device=model.device)
    logprobs = torch.zeros_like(uniforms)
    rows = torch.arange(len(prompts), device=model.device)
    running = torch.ones_like(rows, dtype=torch.bool)
    for step in range(room):
        token, logprob = _draw(logits, uniforms[rows, step], temperature)
        answers[rows, step], logprobs[rows, step] = token, logprob
        advance()
        running &= (token[:, None] != ends).all(dim=1)
        left = int(running.sum())
        if left == 0 or step == room - 1:
            break
        if left <= KEEP_BELOW * len(rows):  # drop the rows that have ended
            decoder.keep(running.nonzero()[:, 0])
            rows, token = rows[running], token[running]
            running = running[running]
        logits = decoder.read(token)
    return answers[:, : step + 1], logprobs[:, : step + 1]


def _draw(
    logits: Float[Tensor, "B V"], uniforms: Float[Tensor, " B"], temperature: float
) -> tuple[Int[Tensor, " B"], Float[Tensor, " B"]]:
    """Invert the cumulative distribution: far faster than torch.multinomial."""
    if temperature == 0:
        return logits.argmax(dim=1), torch.zeros_like(uniforms)
    probabilities = (logits.float() / temperature).softmax(dim=1)
    cumulative = probabilities.cumsum(dim=1)
    target = (uniforms * cumulative[:, -1])[:, None]
    token = torch.searchsorted(cumulative, target, right=True)
    token.clamp_(max=logits.shape[1] - 1)
    return token[:, 0], probabilities.gather(1, token)[:, 0].log()


def _rollout(
    tokenizer: Tokenizer,
    prompts: list[list[int]],
    answers: Int[Tensor, "B max_new"],
    logprobs: Float[Tensor, "B max_new"],
    ends: Int[Tensor, " E"],
    pad: int,
) -> Rollout:
    """Mask what follows an end token and cut to the longest answer."""
    prompt = pad_sequence([torch.tensor(ids) for ids in prompts], True, pad, "left")
    lengths = torch.tensor([len(ids) for ids in prompts])
    width = prompt.shape[1]
    prompt_mask = torch.arange(width) >= width - lengths[:, None]
    is_end = torch.isin(answers, ends)
    response_mask = is_end.cumsum(dim=1) - is_end.long() == 0
    width = int(response_mask.sum(dim=1).max())
    is_end, response_mask = is_end[:, :width], response_mask[:, :width]
    answers = answers[:, :width].where(response_mask, pad)
    logprobs = logprobs[:, :width].where(response_mask, 0.0)
    if not logprobs.isfinite().all():
        row = int((~logprobs.isfinite()).any(dim=1).nonzero()[0])
        raise FloatingPointError(
            f"The model gave NaN or infinite logits while it answered row {row}. "
            "Expected numbers: its weights have diverged (load the last good ones, "
            "lower the learning rate) or float16 overflows (use float32 or bfloat16)."
        )
    said = response_mask & ~is_end  # not every end is a special token
    texts = tokenizer.batch_decode(
        [ids[mask] for ids, mask in zip(answers, said, strict=True)],
        skip_special_tokens=True,
    )
    return Rollout(
        tokens=torch.cat([prompt, answers], dim=1),
        prompt_mask=prompt_mask,
        response_mask=response_mask,
        logprobs=logprobs,
        texts=[text.strip() for text in texts],
        finished=is_end.any(dim=1),
    )


def _rows_per_chunk(model: Policy, length: int) -> int:
    """How many rows of this length fit the memory that a chunk may take."""
    row_bytes = length * reading(model).token_bytes + 4 * vocabulary(model) * 4
    limit = CPU_CHUNK_BYTES
    if model.device.type == "cuda":
        limit = torch.cuda.mem_get_info(model.device)[0] // 4
    return max(1, limit // row_bytes)
