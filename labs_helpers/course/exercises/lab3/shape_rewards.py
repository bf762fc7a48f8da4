"""Exercise 3.6: the reward of every token, the KL penalty in it."""

import numpy as np
import torch
from torch import Tensor

from labs_helpers.advantages import shape_rewards
from labs_helpers.course.exercises.draw import dtype_of, normal
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake
from labs_helpers.course.exercises.lab3.tokens import (
    answer_mask,
    is_last,
    spoil_padding,
    with_leaks,
)


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """What a reward model says of whole answers, and the log-probs of their tokens."""
    mask, dtype = answer_mask(rng, size, flavour), dtype_of(flavour)
    logprobs = -normal(rng, *mask.shape, dtype=dtype).abs() - 0.1
    reference_logprobs = logprobs + normal(rng, *mask.shape, dtype=dtype)
    spoil_padding(flavour, mask, logprobs, reference_logprobs)
    return {
        "scores": normal(rng, size, dtype=dtype) + 2,
        "logprobs": logprobs,
        "reference_logprobs": reference_logprobs,
        "mask": mask,
        "kl_weight": float(rng.choice([0.03, 0.1, 0.5])),
    }


def _paid(penalty: Function, place: Function) -> Function:
    """Answer with a penalty for each token, and scores at certain places.

    Args:
        penalty: of log-probs, the reference's, the mask and the weight; (B, T).
        place: of the mask, the share of its score that each token gets; (B, T).
    """

    def answer(scores, logprobs, reference_logprobs, mask, kl_weight):
        paid = penalty(logprobs, reference_logprobs, mask, kl_weight)
        return paid + place(mask) * scores[:, None]

    return answer


def _right_penalty(logprobs, reference_logprobs, mask, kl_weight):
    return -kl_weight * (logprobs - reference_logprobs) * mask


def _right_place(mask: Tensor) -> Tensor:
    return is_last(mask)


def _at(place: Function) -> Function:
    return _paid(_right_penalty, place)


def _with(penalty: Function) -> Function:
    return _paid(penalty, _right_place)


def _column(mask: Tensor, which: Tensor) -> Tensor:
    """True in one column of each row."""
    return torch.arange(mask.shape[1]) == which[:, None]


def _all_at_the_end(scores, logprobs, reference_logprobs, mask, kl_weight):
    kl = ((logprobs - reference_logprobs) * mask).sum(1)
    return is_last(mask) * (scores - kl_weight * kl)[:, None]


def _penalty_not_at_the_last(logprobs, reference_logprobs, mask, kl_weight):
    before = mask & ~is_last(mask)
    return -kl_weight * (logprobs - reference_logprobs) * before


def _k3(logprobs, reference_logprobs, mask, kl_weight):
    d = (logprobs - reference_logprobs) * mask
    return -kl_weight * ((-d).exp() - 1 + d)


def _everything_weighted(scores, logprobs, reference_logprobs, mask, kl_weight):
    d = (logprobs - reference_logprobs) * mask
    return kl_weight * (is_last(mask) * scores[:, None] - d)


def _an_answer(scores, logprobs, reference_logprobs, mask, kl_weight):
    kl = ((logprobs - reference_logprobs) * mask).sum(1)
    return scores - kl_weight * kl


OTHER_RESULTS = (
    (
        "score at the last column",
        _at(lambda mask: _column(mask, torch.full((len(mask),), mask.shape[1] - 1))),
        "the score stands in the last column, which is padding for all but the longest "
        "answers: nobody is paid there. Which is each answer's own last token?",
    ),
    (
        "score after the end",
        _at(lambda mask: _column(mask, mask.sum(1))),
        "the score stands one place after the end token, in the padding. Counting "
        "begins at 0.",
    ),
    (
        "score before the end",
        _at(lambda mask: _column(mask, mask.sum(1) - 2)),
        "the score stands one place before the end token, so that ending is not paid "
        "for. Counting begins at 0.",
    ),
    (
        "score at the first token",
        _at(lambda mask: _column(mask, torch.zeros(len(mask)))),
        "the score is paid at the first token. It is known only when the answer is "
        "complete.",
    ),
    (
        "score at every token",
        _at(lambda mask: mask),
        "every token is paid the whole score, so that a long answer earns more. The "
        "sum over an answer is to be its score less the weighted KL.",
    ),
    (
        "score shared out",
        _at(lambda mask: mask / mask.sum(1, keepdim=True)),
        "every token is paid an equal part of the score. Its sum is right; who "
        "deserves what is for the advantages to find out: pay it at the end.",
    ),
    (
        "score left out",
        _at(lambda mask: 0.0),
        "only the penalty is there: nothing says what a good answer is.",
    ),
    (
        "score everywhere, padding too",
        _at(lambda mask: 1.0),
        "every place is paid the whole score, padding too.",
    ),
    (
        "KL as a bonus",
        _with(lambda new, ref, mask, w: w * (new - ref) * mask),
        "drifting from the reference is paid for. Give it a token that the policy "
        "likes better than the reference does: what should that cost?",
    ),
    (
        "penalty left out",
        _with(lambda new, ref, mask, w: 0.0 * w),
        "only the score is there: nothing keeps the policy near its reference.",
    ),
    (
        "weight left out",
        _with(lambda new, ref, mask, w: -(new - ref) * mask),
        "the penalty does not know its weight, as if it were 1.",
    ),
    (
        "reference left out",
        _with(lambda new, ref, mask, w: -w * new * mask),
        "the reference changes nothing: this pays for unlikely tokens, which is an "
        "entropy bonus.",
    ),
    (
        "ratio, not its logarithm",
        _with(lambda new, ref, mask, w: -w * (new - ref).exp() * mask),
        "the penalty is the ratio of the probabilities, which costs 1 where nothing "
        "has changed. The log-ratio is the one whose mean is the KL.",
    ),
    (
        "log-probs divided",
        _with(lambda new, ref, mask, w: -w * (new / (ref + ~mask)) * mask),
        "you divide log-probs by log-probs. What is the logarithm of a quotient?",
    ),
    (
        "size of the log-ratio",
        _with(lambda new, ref, mask, w: -w * (new - ref).abs() * mask),
        "the penalty is the size of the log-ratio. A token that the reference likes "
        "better gets something back: only then is the mean the KL.",
    ),
    (
        "k3 as the penalty",
        _with(_k3),
        "this is k3. A fine estimate; but as a reward, token by token, the plain "
        "log-ratio is asked for: its sum over an answer is the log-ratio of the whole "
        "answer.",
    ),
    (
        "penalty at the end only",
        _all_at_the_end,
        "the whole KL is paid for at the last token. Its sum is right; but each token "
        "can pay for its own share at once, which makes credit easier.",
    ),
    (
        "no penalty at the last token",
        _with(_penalty_not_at_the_last),
        "the last token has the score in place of its penalty. It gets both.",
    ),
    (
        "score weighted too",
        _everything_weighted,
        "the score is multiplied by the KL's weight. The weight is the price of a nat "
        "in units of the score.",
    ),
    (
        "one number for an answer",
        _an_answer,
        "the result has shape (B,): the sum over each answer. A reward for every token "
        "is asked for, (B, T).",
    ),
)

MISTAKES = (
    *with_leaks(OTHER_RESULTS, never=("penalty left out",)),
    Mistake(
        "mask by multiplication",
        _paid(_right_penalty, _right_place),
        "it is right as long as the padding holds ordinary numbers. A NaN stays NaN, "
        "for 0 times NaN is NaN. Select, do not multiply.",
    ),
    Mistake(
        "penalty in the padding",
        _with(lambda new, ref, mask, w: -w * (new - ref)),
        "the padding pays a penalty, too. What is masked reads 0.",
    ),
)

EXERCISE = Exercise(
    id="3.6",
    title="A reward for every token",
    reference=shape_rewards,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=("plain", "float64", "no padding", "padding is NaN"),
    difficulty=3,
    minutes=15,
    points=3,
)
