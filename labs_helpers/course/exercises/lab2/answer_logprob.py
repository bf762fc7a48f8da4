"""Exercise 2.2: the log-probability of an answer, summed over its tokens."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from labs_helpers.course.exercises.draw import dtype_of, normal
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake
from labs_helpers.losses import sequence_logprobs


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Aligned logits, the tokens that they predict, and which tokens count."""
    width = int(rng.integers(size, size + 3)) + 3
    vocabulary = width + 3  # more than tokens, or a wrong axis goes unnoticed
    large = flavour.startswith("large logits")
    shape = (size, width, vocabulary)
    logits = normal(rng, *shape, scale=800.0 if large else 1.5, dtype=dtype_of(flavour))
    tokens = torch.tensor(rng.integers(0, vocabulary, size=shape[:2]))
    if flavour == "everything counts":
        mask = torch.ones(shape[:2], dtype=torch.bool)
    else:
        begin = rng.integers(0, width - 1, size=(size, 1))
        end = rng.integers(begin + 2, width + 1)
        if size == 1:
            begin, end = np.array([[1]]), np.array([[width - 1]])
        columns = np.arange(width)
        mask = torch.tensor((columns >= begin) & (columns < end))
    if flavour == "masked logits are NaN":
        logits[~mask] = float("nan")
    if flavour == "masked tokens are -100":
        tokens[~mask] = -100
    return {"logits": logits, "tokens": tokens, "mask": mask}


def answer_logprob(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """The library's function, under the exercise's name."""
    return sequence_logprobs(logits, tokens, mask)


def _picked(values: Tensor, tokens: Tensor) -> Tensor:
    return values.gather(2, tokens[:, :, None])[:, :, 0]


def _logprobs(logits: Tensor) -> Tensor:
    return logits.log_softmax(2)


def _selected(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0.0)


def _harmless_logits(function: Function) -> Function:
    """Answer with masked logits made harmless."""

    def answer(logits, tokens, mask):
        return function(logits.masked_fill(~mask[:, :, None], 0.0), tokens, mask)

    return answer


def _harmless(function: Function) -> Function:
    """Answer with masked logits and tokens made harmless."""

    def answer(logits, tokens, mask):
        return _harmless_logits(function)(logits, tokens * mask, mask)

    return answer


def _total(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    return (_picked(_logprobs(logits), tokens) * mask).sum(1)


def _per_token(change) -> Function:
    """Answer with the masked sum of something else than log-probs of tokens."""
    return lambda logits, tokens, mask: (change(logits, tokens) * mask).sum(1)


def _at_other_tokens(change) -> Function:
    """Answer with the right sum, over tokens that a changed mask selects."""
    return lambda logits, tokens, mask: _total(logits, tokens, change(mask))


def _from_the_right(mask: Tensor) -> Tensor:
    """How many tokens count from here on."""
    return mask.flip(1).cumsum(1).flip(1)


def _up_to(lengths: Tensor, width: int) -> Tensor:
    return torch.arange(width) < lengths[:, None]


# What is computed is wrong.
OTHER_RESULTS: tuple[tuple[str, Function, str], ...] = (
    (
        "mean for sum",
        lambda logits, tokens, mask: _total(logits, tokens, mask) / mask.sum(1),
        "it averages over the tokens. The probability of an answer is the product of "
        "its tokens' probabilities: with a mean, DPO no longer has the optimum that "
        "it is derived from.",
    ),
    (
        "mean over the whole row",
        lambda logits, tokens, mask: _total(logits, tokens, mask) / mask.shape[1],
        "it divides by the number of columns, padding included. No mean is asked "
        "for: the probability of an answer is a product over its tokens.",
    ),
    (
        "logits, not log-probs",
        _per_token(lambda logits, tokens: _picked(logits, tokens)),
        "it adds up raw logits. They have no common level: adding 5 to all logits of "
        "a position changes your result and no probability.",
    ),
    (
        "probabilities, not their logarithms",
        _per_token(lambda logits, tokens: _picked(logits.softmax(2), tokens)),
        "it adds up probabilities, so a longer answer looks likelier. Where "
        "probabilities multiply, logarithms add.",
    ),
    (
        "probability of the answer",
        lambda logits, tokens, mask: _total(logits, tokens, mask).exp(),
        "this is the probability of the answer, which rounds to 0 for a long one. "
        "Stay with logarithms.",
    ),
    (
        "loss, not log-prob",
        lambda logits, tokens, mask: -_total(logits, tokens, mask),
        "every value is above 0: this is the cross-entropy, which training makes "
        "small. A log-prob is at most 0.",
    ),
    (
        "softmax over the positions",
        _per_token(lambda logits, tokens: _picked(logits.log_softmax(1), tokens)),
        "the softmax runs along the positions, not along the vocabulary. At each "
        "position the probabilities of all tokens add up to 1: along which axis?",
    ),
    (
        "softmax over the batch",
        _per_token(lambda logits, tokens: _picked(logits.log_softmax(0), tokens)),
        "the softmax runs along the batch, so an answer's probability depends on "
        "which others are in it. Along which axis do the probabilities of all tokens "
        "add up to 1?",
    ),
    (
        "the likeliest token",
        _per_token(lambda logits, tokens: _logprobs(logits).amax(2)),
        "it takes the token that the model finds likeliest at each position. "
        "`tokens` says which one was in the answer.",
    ),
    (
        "the whole vocabulary",
        _per_token(lambda logits, tokens: _logprobs(logits).sum(2)),
        "it adds up the log-probs of every token in the vocabulary. `tokens` says "
        "which one was in the answer.",
    ),
    (
        "sum over the batch too",
        lambda logits, tokens, mask: _total(logits, tokens, mask).sum(),
        "all answers end up in one number. Sum along one axis: each answer keeps its "
        "own.",
    ),
    (
        "mean loss of the batch",
        lambda logits, tokens, mask: -_total(logits, tokens, mask).sum() / mask.sum(),
        "this is what a model is trained with: one cross-entropy, averaged over all "
        "tokens of all answers. Here each answer keeps its own log-prob, summed.",
    ),
    (
        "not summed",
        lambda logits, tokens, mask: _picked(_logprobs(logits), tokens) * mask,
        "the result has shape (B, T), one number for each token. The losses of this "
        "lab take one for each answer.",
    ),
    (
        "shifted again",
        lambda logits, tokens, mask: _total(logits[:, :-1], tokens[:, 1:], mask[:, 1:]),
        "you shift logits against tokens. That is right for the output of a model; "
        "these logits are aligned already: those at t predict the token at t.",
    ),
    (
        "shifted again, the mask not",
        lambda logits, tokens, mask: _total(
            logits[:, :-1], tokens[:, 1:], mask[:, :-1]
        ),
        "you shift logits against tokens, and these logits are aligned already: "
        "those at t predict the token at t. Besides, the mask was left behind.",
    ),
    (
        "shifted the other way",
        lambda logits, tokens, mask: _total(
            logits[:, 1:], tokens[:, :-1], mask[:, :-1]
        ),
        "the logits at t + 1 are read for the token at t. A model that did this would "
        "have seen the token that it predicts.",
    ),
    (
        "mask upside down",
        _at_other_tokens(lambda mask: ~mask),
        "it scores what is masked and leaves out what counts. The mask is true where "
        "a token counts.",
    ),
    (
        "end token left out",
        _at_other_tokens(lambda mask: mask & (_from_the_right(mask) > 1)),
        "the last token that counts is left out. It is the end of sequence: without "
        "it nobody teaches the policy when to stop.",
    ),
    (
        "first token left out",
        _at_other_tokens(lambda mask: mask & (mask.cumsum(1) > 1)),
        "the first token that counts is left out. It often decides between an answer "
        "and a refusal.",
    ),
    (
        "prompt left in",
        _at_other_tokens(lambda mask: _from_the_right(mask) > 0),
        "it scores everything up to the end of the answer, what stands before it "
        "included. The prompt is given: the policy did not choose it.",
    ),
    (
        "padding left in",
        _at_other_tokens(lambda mask: mask.cumsum(1) > 0),
        "it scores everything from the first token that counts, the padding behind "
        "the answer included.",
    ),
    (
        "the mask read as a length",
        _at_other_tokens(lambda mask: _up_to(mask.sum(1), mask.shape[1])),
        "it counts how many tokens the mask selects and takes as many from the left. "
        "The answer does not begin there: the mask says where it stands.",
    ),
    (
        "masked before the softmax only",
        lambda logits, tokens, mask: _total(
            logits * mask[:, :, None], tokens, torch.ones_like(mask)
        ),
        "logits of 0 are not a log-prob of 0: they make all tokens equally likely, "
        "and each masked position adds -ln V. Mask the log-probs.",
    ),
    (
        "overflow",
        _per_token(lambda logits, tokens: _picked(logits.softmax(2), tokens).log()),
        "it is right for moderate logits and -inf where the softmax rounds to 0. "
        "torch has one function for the logarithm of the softmax.",
    ),
)

# Right, were it not for what is masked.
PADDING_GETS_IN = (
    Mistake(
        "mask ignored",
        lambda logits, tokens, mask: _total(logits, tokens, torch.ones_like(mask)),
        "every position counts, prompt and padding included: the mask changes nothing.",
    ),
    Mistake(
        "mask by multiplication, after an index of -100",
        _total,
        "it is right as long as masked places hold ordinary tokens and numbers. "
        "Labels of -100, which mark what does not count, are no index, and 0 times "
        "NaN is NaN: make tokens and logits harmless before you compute with them.",
    ),
    Mistake(
        "mask by multiplication",
        lambda logits, tokens, mask: _total(logits, tokens * mask, mask),
        "it is right as long as masked logits are ordinary numbers. A NaN among them "
        "stays NaN, for 0 times NaN is NaN. Select, do not multiply.",
    ),
    Mistake(
        "masked tokens used as an index",
        _harmless_logits(_total),
        "it fails where masked tokens are -100, as labels often are: that is no place "
        "in the vocabulary. What is masked must not matter, not even as an index.",
    ),
    Mistake(
        "masked too late",
        lambda logits, tokens, mask: _selected(
            _picked(_logprobs(logits), tokens * mask), mask
        ).sum(1),
        "the value is right, but the gradient is NaN where masked logits are: on the "
        "way back 0 meets the NaN inside the softmax. Let no masked logit get as far "
        "as that.",
    ),
)

LOOK_NOTHING_UP = ("the likeliest token", "the whole vocabulary")

# How masked places get in beside a wrong result: suffixes of name and message.
LEAKS: tuple[tuple[Callable[[Function], Function], str, str], ...] = (
    (_harmless, "", ""),
    (
        _harmless_logits,
        "; -100 as an index",
        " Besides, it fails where masked tokens are -100, which is no index.",
    ),
    (
        lambda function: function,
        "; what is masked gets in",
        " Besides, a NaN or a label of -100 in a masked place gets into the result.",
    ),
)

MISTAKES = PADDING_GETS_IN + tuple(
    Mistake(name + more_name, leak(function), message + more_message)
    for leak, more_name, more_message in LEAKS
    for name, function, message in OTHER_RESULTS
    if not (leak is _harmless_logits and name in LOOK_NOTHING_UP)
)

EXERCISE = Exercise(
    id="2.2",
    title="The log-probability of an answer",
    reference=answer_logprob,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "everything counts",
        "large logits, float64",  # float32 would leave four digits of a gradient
        "masked logits are NaN",
        "masked tokens are -100",
    ),
    gradients=("logits",),
    difficulty=3,
    minutes=20,
    points=3,
)
