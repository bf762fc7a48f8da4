"""Exercise 3.4: the clipped surrogate of PPO."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from labs_helpers import losses
from labs_helpers.course.exercises.draw import dtype_of, normal
from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake
from labs_helpers.course.exercises.lab3.tokens import (
    OTHER_MEANS,
    answer_mask,
    spoil_padding,
    token_mean,
    with_leaks,
    without_padding,
)


def ppo_loss(
    logprobs: Float[Tensor, "B T"],
    old_logprobs: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
    clip: float,
) -> Float[Tensor, ""]:
    """Mean of -min(ratio * advantage, clipped ratio * advantage) over the tokens."""
    return losses.ppo_loss(logprobs, old_logprobs, advantages, mask, clip).loss


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Log-probs now and when the answers were sampled."""
    mask, dtype = answer_mask(rng, size, flavour), dtype_of(flavour)
    old_logprobs = -normal(rng, *mask.shape, dtype=dtype).abs() - 0.1
    spread = 2.0 if flavour == "far from the old policy" else 0.3
    if flavour == "first minibatch":
        spread = 0.0
    logprobs = old_logprobs + normal(rng, *mask.shape, scale=spread, dtype=dtype)
    advantages = normal(rng, *mask.shape, dtype=dtype)
    spoil_padding(flavour, mask, logprobs, old_logprobs, advantages)
    return {
        "logprobs": logprobs,
        "old_logprobs": old_logprobs,
        "advantages": advantages,
        "mask": mask,
        "clip": float(rng.choice([0.1, 0.2, 0.3])),
    }


def _on_ratio(term: Function, reduce=token_mean) -> Function:
    """Answer with the mean of a term of ratio, advantages and clip."""

    def answer(logprobs, old_logprobs, advantages, mask, clip):
        ratio = (logprobs - old_logprobs).exp()
        return reduce(term(ratio, advantages, clip), mask)

    return answer


def _on_logs(term: Function) -> Function:
    """Answer with the clipped surrogate of some other ratio."""

    def answer(logprobs, old_logprobs, advantages, mask, clip):
        ratio = term(logprobs, old_logprobs)
        return token_mean(_surrogate(ratio, advantages, clip), mask)

    return answer


def _surrogate(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    clipped = ratio.clamp(1 - clip, 1 + clip)
    return -torch.min(ratio * advantages, clipped * advantages)


def _one_ratio_an_answer(logprobs, old_logprobs, advantages, mask, clip):
    ratio = ((logprobs - old_logprobs) * mask).sum(1, keepdim=True).exp()
    return token_mean(_surrogate(ratio, advantages, clip), mask)


def _clipped_log_ratio(logprobs, old_logprobs, advantages, mask, clip):
    log_ratio = logprobs - old_logprobs
    ratio, clipped = log_ratio.exp(), log_ratio.clamp(-clip, clip).exp()
    return token_mean(-torch.min(ratio * advantages, clipped * advantages), mask)


def _policy_gradient(logprobs, old_logprobs, advantages, mask, clip):
    return token_mean(-advantages * logprobs, mask)


def _through_the_old(logprobs, old_logprobs, advantages, mask, clip):
    ratio = (logprobs.detach() - old_logprobs).exp()
    return token_mean(_surrogate(ratio, advantages, clip), mask)


def _masked_late(logprobs, old_logprobs, advantages, mask, clip):
    terms = _surrogate((logprobs - old_logprobs).exp(), advantages, clip)
    return torch.where(mask, terms, 0.0).sum() / mask.sum()


OTHER_RESULTS = (
    (
        "no clip",
        _on_ratio(lambda ratio, a, clip: -ratio * a),
        "nothing is clipped: after a few passes over the same answers the ratio runs "
        "away, and with it the policy. What does clip bound?",
    ),
    (
        "clipped only",
        _on_ratio(lambda ratio, a, clip: -ratio.clamp(1 - clip, 1 + clip) * a),
        "only the clipped term is there. A token that has gone the wrong way beyond "
        "the clip then gets no gradient to come back. Of which two do you take the "
        "smaller?",
    ),
    (
        "larger of the two",
        _on_ratio(
            lambda ratio, a, clip: (
                -torch.max(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a)
            )
        ),
        "you take the larger of the two surrogates, so it clips where the policy went "
        "the wrong way and lets it run where it is paid. Pessimism means the smaller. "
        "(If you negated first: smaller and larger change places.)",
    ),
    (
        "uphill for downhill",
        _on_ratio(lambda ratio, a, clip: -_surrogate(ratio, a, clip)),
        "an optimiser walks downhill, and this makes good tokens less likely. The "
        "surrogate is to be made large.",
    ),
    (
        "ratio upside down",
        _on_logs(lambda new, old: (old - new).exp()),
        "the ratio is old over new: its gradient makes good tokens less likely. Which "
        "policy is being trained?",
    ),
    (
        "logarithm of the ratio",
        _on_logs(lambda new, old: new - old),
        "you clip the difference of the log-probs. At the start it is 0 where the "
        "ratio is 1: something is missing between log and ratio.",
    ),
    (
        "log-probs divided",
        _on_logs(lambda new, old: new / old),
        "you divide log-probs by log-probs. The ratio is that of the probabilities; "
        "what is the logarithm of a quotient?",
    ),
    (
        "probability, not ratio",
        _on_logs(lambda new, old: new.exp()),
        "the old policy changes nothing: this is the new one's probability. On the "
        "first minibatch every ratio must be 1.",
    ),
    (
        "policy gradient, not surrogate",
        _policy_gradient,
        "this is REINFORCE's loss. It is right for one step; PPO makes several on the "
        "same answers and needs the ratio to the policy that sampled them.",
    ),
    (
        "one ratio for an answer",
        _one_ratio_an_answer,
        "the log-ratios of an answer are added up before exp, so a long answer leaves "
        "the clip at once. Here each token has its own ratio.",
    ),
    (
        "log-ratio clipped",
        _clipped_log_ratio,
        "it bounds the logarithm of the ratio by clip. For small clips that is nearly "
        "the same; the formula bounds the ratio itself.",
    ),
    (
        "clip around 0",
        _on_ratio(
            lambda ratio, a, clip: -torch.min(ratio * a, ratio.clamp(-clip, clip) * a)
        ),
        "the ratio is kept between -clip and clip. It begins at 1: around what should "
        "it stay?",
    ),
    (
        "clipped from above only",
        _on_ratio(
            lambda ratio, a, clip: -torch.min(ratio * a, ratio.clamp(max=1 + clip) * a)
        ),
        "the ratio has an upper end and no lower one: tokens that did badly are driven "
        "down without a limit.",
    ),
    (
        "clipped from below only",
        _on_ratio(
            lambda ratio, a, clip: -torch.min(ratio * a, ratio.clamp(min=1 - clip) * a)
        ),
        "the ratio has a lower end and no upper one: tokens that did well are driven "
        "up without a limit.",
    ),
    (
        "clip fixed at 0.2",
        _on_ratio(lambda ratio, a, clip: _surrogate(ratio, a, 0.2)),
        "it computes with a clip of 0.2 whatever it is given. Is there a number left "
        "where the argument belongs?",
    ),
    (
        "product clipped",
        _on_ratio(
            lambda ratio, a, clip: (
                -torch.min(ratio * a, (ratio * a).clamp(1 - clip, 1 + clip))
            )
        ),
        "it clips ratio times advantage. The limit is on how far the policy moves, "
        "whatever the advantage: clip the ratio, then multiply.",
    ),
    (
        "advantage left out of the clipped term",
        _on_ratio(
            lambda ratio, a, clip: (
                -torch.min(ratio * a, ratio.clamp(1 - clip, 1 + clip))
            )
        ),
        "the second term has no advantage: a product is compared with a bare ratio.",
    ),
    (
        "ratio less 1",
        _on_ratio(lambda ratio, a, clip: _surrogate(ratio, a, clip) + a),
        "the advantage is taken off, so the value is 0 at the start. The gradient is "
        "the same; the known value of PPO's loss at the start is -mean(advantage).",
    ),
    *(
        (name, _on_ratio(_surrogate, reduce), text)
        for name, reduce, text in OTHER_MEANS
    ),
)

MISTAKES = (
    *with_leaks(OTHER_RESULTS),
    Mistake(
        "mask by multiplication",
        _on_ratio(_surrogate),
        "it is right as long as the padding holds ordinary numbers. A NaN stays NaN, "
        "for 0 times NaN is NaN. Select, do not multiply.",
    ),
    Mistake(
        "masked too late",
        _masked_late,
        "the value is right, but the gradient is NaN where the padding is: on the way "
        "back 0 meets the NaN inside exp. Make log-probs and advantages harmless "
        "before you compute with them, or pick what counts by an index.",
    ),
    Mistake(
        "no gradient to the policy",
        without_padding(_through_the_old),
        "the value is right, and nothing gets back to the new log-probs. Old "
        "log-probs and advantages are constants; the new log-probs are what is "
        "trained.",
    ),
)

EXERCISE = Exercise(
    id="3.4",
    title="PPO's clipped surrogate",
    reference=ppo_loss,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float64",
        "first minibatch",
        "far from the old policy",
        "no padding",
        "padding is NaN",
    ),
    gradients=("logprobs",),
    difficulty=3,
    minutes=20,
    points=4,
)
