"""Exercise 2.8, the silent bug: a mask that loses both ends of every answer.

The notebook gives `pair_logprobs` as a colleague wrote it. Two thoughts in it sound
right and are not: that the last token of a row predicts nothing and so does not count,
and that a token counts only if the position that predicts it lies in the answer as
well. The first takes away the end token, the second the first token of the answer. The
loss of DPO falls all the same, for the middle of the answers differs enough; but the
policy never learns with which word to begin, where refusing and complying part, nor
when to stop.

What a known answer reveals: where all V tokens are equally likely, an answer of n
tokens has the log-prob -n ln V, and this gives -(n - 2) ln V; an answer that is its end
token alone costs nothing. And over all single tokens that can follow a prompt, the
probabilities add up to V, not to 1.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of, integers, normal
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake
from labs_helpers.losses import sequence_logprobs


def pair_logprobs(
    logits: Float[Tensor, "B T V"],
    tokens: Int[Tensor, "B T"],
    prompt_lengths: Int[Tensor, " B"],
    lengths: Int[Tensor, " B"],
) -> Float[Tensor, " B"]:
    """Log-prob of each answer, from the model's output over prompt and answer.

    Args:
        logits: Straight from the model: those at t predict the token at t + 1.
        tokens: Prompt, answer, end token, and padding on the right.
        prompt_lengths: How many of a row's tokens are its prompt.
        lengths: How many are prompt, answer and end token.
    """
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    answer = (positions >= prompt_lengths[:, None]) & (positions < lengths[:, None])
    return sequence_logprobs(logits[:, :-1], tokens[:, 1:], answer[:, 1:])


def buggy_pair_logprobs(
    logits: Tensor, tokens: Tensor, prompt_lengths: Tensor, lengths: Tensor
) -> Tensor:
    """Log-prob of each answer as the notebook gives it."""
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    # the last token predicts nothing
    last = lengths[:, None] - 1
    answer = (positions >= prompt_lengths[:, None]) & (positions < last)
    # a token counts if it and the position that predicts it are in the answer
    answer = answer[:, 1:] & answer[:, :-1]
    return sequence_logprobs(logits[:, :-1], tokens[:, 1:], answer)


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """A model's output over padded rows of prompt and answer."""
    prompt_lengths = integers(rng, size, 1, 4)
    answers = integers(rng, size, 3, 6)
    if flavour == "nothing but the end token":
        answers = torch.ones_like(answers)
    if flavour == "no padding":
        answers = 9 - prompt_lengths
    lengths = prompt_lengths + answers
    width = int(lengths.max()) + (0 if flavour == "no padding" else 3)
    vocabulary = 11
    tokens = torch.tensor(rng.integers(2, vocabulary, size=(size, width)))
    rows, pad = torch.arange(size), 1 if flavour == "padding is the end token" else 0
    tokens[torch.arange(width) >= lengths[:, None]] = pad
    tokens[rows, lengths - 1] = 1
    logits = normal(rng, size, width, vocabulary, dtype=dtype_of(flavour))
    if flavour == "padding is NaN":
        logits[torch.arange(width) >= lengths[:, None]] = float("nan")
    return {
        "logits": logits,
        "tokens": tokens,
        "prompt_lengths": prompt_lengths,
        "lengths": lengths,
    }


def _scored(begin, end, total=sequence_logprobs) -> Function:
    """Answer with the tokens from position `begin` to before position `end`.

    Both take prompt_lengths, lengths and the width; the first token of the answer
    stands at prompt_lengths.
    """

    def answer(logits, tokens, prompt_lengths, lengths):
        width = tokens.shape[1]
        positions = torch.arange(1, width)
        first = _column(begin(prompt_lengths, lengths, width), lengths)
        after = _column(end(prompt_lengths, lengths, width), lengths)
        mask = (positions >= first) & (positions < after)
        return total(logits[:, :-1], tokens[:, 1:], mask)

    return answer


def _column(bound: Tensor | int, lengths: Tensor) -> Tensor:
    return torch.zeros_like(lengths)[:, None] + torch.as_tensor(bound).reshape(-1, 1)


def _prompt(prompt_lengths: Tensor, lengths: Tensor, width: int) -> Tensor:
    return prompt_lengths


def _end(prompt_lengths: Tensor, lengths: Tensor, width: int) -> Tensor:
    return lengths


def _total_by(change) -> Function:
    """Score the right tokens, and make something else of the result."""
    return _scored(_prompt, _end, total=change)


def _multiplied(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    chosen = logits.log_softmax(2).gather(2, tokens[:, :, None])[:, :, 0]
    return (chosen * mask).sum(1)


def _masked_late(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    chosen = logits.log_softmax(2).gather(2, tokens[:, :, None])[:, :, 0]
    return chosen.masked_fill(~mask, 0.0).sum(1)


def _answer_mask(tokens: Tensor, prompt_lengths: Tensor, lengths: Tensor) -> Tensor:
    positions = torch.arange(tokens.shape[1])
    return (positions >= prompt_lengths[:, None]) & (positions < lengths[:, None])


def _not_shifted(logits, tokens, prompt_lengths, lengths):
    mask = _answer_mask(tokens, prompt_lengths, lengths)
    return sequence_logprobs(logits, tokens, mask)


def _shifted_backwards(logits, tokens, prompt_lengths, lengths):
    mask = _answer_mask(tokens, prompt_lengths, lengths)
    return sequence_logprobs(logits[:, 1:], tokens[:, :-1], mask[:, :-1])


def _shifted_twice(logits, tokens, prompt_lengths, lengths):
    mask = _answer_mask(tokens, prompt_lengths, lengths)
    return sequence_logprobs(logits[:, :-2], tokens[:, 2:], mask[:, 2:])


MISTAKES = (
    Mistake(
        "both ends lost",
        buggy_pair_logprobs,
        "the bug is still there. Give it logits of 0, so that every token costs ln V, "
        "and count how many tokens of an answer are scored. Which ones are missing?",
    ),
    Mistake(
        "first token still lost",
        _scored(lambda p, n, w: p + 1, _end),
        "the end token counts now, and the first token of the answer still does not. "
        "Which position predicts it, and does that lie in the answer?",
    ),
    Mistake(
        "end token still lost",
        _scored(_prompt, lambda p, n, w: n - 1),
        "the first token of the answer counts now, and the end token still does not. "
        "It predicts nothing, that is true: but is it predicted?",
    ),
    Mistake(
        "mask not shifted",
        _scored(lambda p, n, w: p + 1, lambda p, n, w: n + 1),
        "as many tokens are scored as the answer has, one place too late: the first "
        "one is lost and a padding token is in. Logits and tokens are cut: which "
        "columns of the mask go with the tokens that are left?",
    ),
    Mistake(
        "mask shifted twice",
        _scored(lambda p, n, w: p - 1, lambda p, n, w: n - 1),
        "as many tokens are scored as the answer has, one place too early: the last "
        "one of the prompt is in and the end token is lost. Does your mask count "
        "tokens, or the positions that predict them?",
    ),
    Mistake(
        "a token of the prompt in",
        _scored(lambda p, n, w: p - 1, _end),
        "the last token of the prompt is scored too. Where does the mask begin once "
        "the first token of the row is cut off?",
    ),
    Mistake(
        "a token of the padding in",
        _scored(_prompt, lambda p, n, w: n + 1),
        "the token after the end is scored too. The model was never taught what "
        "follows an end token.",
    ),
    Mistake(
        "one token too many at both ends",
        _scored(lambda p, n, w: p - 1, lambda p, n, w: n + 1),
        "the mask is too wide now: the last token of the prompt and the one after the "
        "end are scored too.",
    ),
    Mistake(
        "first two tokens lost",
        _scored(lambda p, n, w: p + 2, _end),
        "the end token counts now, and the first two tokens of the answer do not.",
    ),
    Mistake(
        "prompt left in",
        _scored(lambda p, n, w: 0, _end),
        "the prompt is scored along with the answer. The policy did not choose it, "
        "and in a pair it is the same for both.",
    ),
    Mistake(
        "padding left in",
        _scored(_prompt, lambda p, n, w: w),
        "everything after the prompt is scored, padding included: shorter answers pay "
        "for more of it.",
    ),
    Mistake(
        "everything scored",
        _scored(lambda p, n, w: 0, lambda p, n, w: w),
        "the mask selects everything: prompt and padding are scored along with the "
        "answer.",
    ),
    Mistake(
        "lengths taken for those of the answers",
        _scored(_prompt, lambda p, n, w: p + n),
        "`lengths` counts prompt, answer and end token. Adding the prompt once more "
        "lets padding in.",
    ),
    Mistake(
        "answers cut at their own length",
        _scored(_prompt, lambda p, n, w: n - p),
        "`lengths` counts from the start of the row. Taking the prompt off gives the "
        "number of answer tokens, which is not the place where they end.",
    ),
    Mistake(
        "one prompt length for all",
        _scored(lambda p, n, w: p.max(), _end),
        "every answer is scored from where the longest prompt ends. Each row has its "
        "own prompt length.",
    ),
    Mistake(
        "one length for all",
        _scored(_prompt, lambda p, n, w: n.max()),
        "every row is scored up to the end of the longest one. Each row has its own "
        "length.",
    ),
    Mistake(
        "the prompt, not the answer",
        _scored(lambda p, n, w: 0, lambda p, n, w: p),
        "it scores the prompt and leaves out the answer: look at the comparison with "
        "prompt_lengths.",
    ),
    Mistake(
        "logits not shifted",
        _not_shifted,
        "the logits at t are read for the token at t, which the model has seen "
        "already. They predict the next one.",
    ),
    Mistake(
        "shifted the other way",
        _shifted_backwards,
        "the logits at t are read for the token at t - 1. They predict the next one.",
    ),
    Mistake(
        "shifted by two",
        _shifted_twice,
        "the logits at t are read for the token at t + 2. They predict the next one; "
        "look for a second shift.",
    ),
    Mistake(
        "mean for sum",
        _total_by(lambda *given: sequence_logprobs(*given) / given[2].sum(1)),
        "the right tokens count, and then you average. The colleague's sum was no "
        "mistake: the probability of an answer is a product over its tokens.",
    ),
    Mistake(
        "loss, not log-prob",
        _total_by(lambda *given: -sequence_logprobs(*given)),
        "the right tokens count, with the opposite sign: this is their cross-entropy. "
        "A log-prob is at most 0.",
    ),
    Mistake(
        "sum over the batch too",
        _total_by(lambda *given: sequence_logprobs(*given).sum()),
        "the right tokens count, and then all answers end up in one number. Each "
        "keeps its own.",
    ),
    Mistake(
        "not summed",
        _total_by(
            lambda logits, tokens, mask: (
                logits.log_softmax(2)
                .gather(2, tokens[:, :, None])[:, :, 0]
                .masked_fill(~mask, 0.0)
            )
        ),
        "the result has one number for each token, and the losses of this lab take "
        "one for each answer.",
    ),
    Mistake(
        "mask by multiplication",
        _total_by(_multiplied),
        "the right tokens count, as long as the padding holds ordinary numbers: 0 "
        "times NaN is NaN. sequence_logprobs selects, it does not multiply.",
    ),
    Mistake(
        "masked too late",
        _total_by(_masked_late),
        "the value is right, but the gradient is NaN where the padding is: on the way "
        "back 0 meets the NaN inside the softmax. sequence_logprobs avoids that.",
    ),
)

EXERCISE = Exercise(
    id="2.8",
    title="A silent bug in the mask",
    reference=pair_logprobs,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "no padding",
        "nothing but the end token",
        "padding is the end token",
        "padding is NaN",
    ),
    gradients=("logits",),
    difficulty=3,
    minutes=20,
    points=3,
)
