"""Wrong answers to Lab 2, written from titles, signatures and docstrings.

Whoever wrote those to 2.2 and 2.6 had seen part of these two exercises' banks.
"""

import torch
import torch.nn.functional as F

from labs_helpers.losses import sequence_logprobs

from .answers import Wrong

# 2.3 and 2.4: both losses take the same four log-probs and beta.


def on_ratios(loss):
    """Answer with a loss of the log-ratios of both answers, and beta."""

    def answer(
        policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
    ):
        return loss(
            policy_chosen - reference_chosen, policy_rejected - reference_rejected, beta
        )

    return answer


def on_all(loss):
    """Answer with a loss of the four log-probs, and beta."""

    def answer(
        policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
    ):
        return loss(
            policy_chosen, policy_rejected, reference_chosen, reference_rejected, beta
        )

    return answer


def optimal_overflow(reference, rewards, beta):
    weights = reference * torch.exp(rewards / beta)
    return weights / weights.sum()


def optimal_one_answer(reference, rewards, beta):
    best = (reference.log() + rewards / beta).argmax()
    return F.one_hot(best, len(rewards)).to(rewards)


def optimal_advantage(reference, rewards, beta):
    advantages = rewards - (reference * rewards).sum()
    return reference * (1 + advantages / beta)


# 2.2


def answer_naive(logits, tokens, mask):
    logprobs = F.log_softmax(logits, dim=-1)
    picked = logprobs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return (picked * mask).sum(-1)


def answer_tokens_clamped(logits, tokens, mask):
    logprobs = F.log_softmax(logits, dim=-1)
    picked = logprobs.gather(-1, tokens.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return (picked * mask).sum(-1)


def answer_careful(logits, tokens, mask):
    logits = logits.masked_fill(~mask.bool()[..., None], 0.0)
    tokens = tokens.masked_fill(~mask.bool(), 0)
    return logits, tokens, mask.bool()


def answer_mean(logits, tokens, mask):
    logits, tokens, mask = answer_careful(logits, tokens, mask)
    return sequence_logprobs(logits, tokens, mask) / mask.sum(1)


def answer_all_positions(logits, tokens, mask):
    logits, tokens, mask = answer_careful(logits, tokens, mask)
    return sequence_logprobs(logits, tokens, torch.ones_like(mask))


def answer_cross_entropy(logits, tokens, mask):
    logits, tokens, mask = answer_careful(logits, tokens, mask)
    losses = F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")
    return (losses * mask).sum(1)


def answer_shifted(logits, tokens, mask):
    logits, tokens, mask = answer_careful(logits, tokens, mask)
    return sequence_logprobs(logits[:, :-1], tokens[:, 1:], mask[:, 1:])


def answer_logits(logits, tokens, mask):
    logits, tokens, mask = answer_careful(logits, tokens, mask)
    return (logits.gather(2, tokens[..., None])[..., 0] * mask).sum(1)


def answer_overflow(logits, tokens, mask):
    logits, tokens, mask = answer_careful(logits, tokens, mask)
    picked = logits.softmax(-1).gather(2, tokens[..., None])[..., 0].log()
    return picked.masked_fill(~mask, 0.0).sum(1)


def answer_probabilities(logits, tokens, mask):
    logits, tokens, mask = answer_careful(logits, tokens, mask)
    return (logits.softmax(-1).gather(2, tokens[..., None])[..., 0] * mask).sum(1)


def answer_product(logits, tokens, mask):
    logits, tokens, mask = answer_careful(logits, tokens, mask)
    picked = logits.softmax(-1).gather(2, tokens[..., None])[..., 0]
    return picked.masked_fill(~mask, 1.0).prod(1)


def answer_softmax_axis(logits, tokens, mask):
    logits, tokens, mask = answer_careful(logits, tokens, mask)
    picked = logits.log_softmax(1).gather(2, tokens[..., None])[..., 0]
    return (picked * mask).sum(1)


def answer_total(logits, tokens, mask):
    return sequence_logprobs(*answer_careful(logits, tokens, mask)).sum()


def answer_mean_of_batch(logits, tokens, mask):
    return sequence_logprobs(*answer_careful(logits, tokens, mask)).mean()


def answer_not_summed(logits, tokens, mask):
    logits, tokens, mask = answer_careful(logits, tokens, mask)
    return logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0] * mask


def answer_greedy(logits, tokens, mask):
    logits, tokens, mask = answer_careful(logits, tokens, mask)
    return (logits.log_softmax(-1).amax(-1) * mask).sum(1)


def answer_sum_of_axis(logits, tokens, mask):
    logits, tokens, mask = answer_careful(logits, tokens, mask)
    picked = logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0] * mask
    return picked.sum(0)


# 2.5


def kto(change):
    """Answer with a loss of log-ratios, the rest as given."""

    def answer(
        policy, reference, desirable, kl, beta, desirable_weight, undesirable_weight
    ):
        return change(
            policy - reference,
            desirable.bool(),
            kl,
            beta,
            desirable_weight,
            undesirable_weight,
        )

    return answer


def kto_value(ratio, good, kl, beta):
    return torch.sigmoid(torch.where(good, 1.0, -1.0).to(ratio) * beta * (ratio - kl))


def kto_by(value):
    """Answer with the right weights and another value."""
    return kto(
        lambda ratio, good, kl, beta, d, u: (
            torch.where(good, d, u).to(ratio) * (1 - value(ratio, good, kl, beta))
        ).mean()
    )


def kto_groups(ratio, good, kl, beta, d, u):
    losses = 1 - kto_value(ratio, good, kl.detach(), beta)
    total = losses.new_zeros(())
    if good.any():
        total = total + d * losses[good].mean()
    if (~good).any():
        total = total + u * losses[~good].mean()
    return total


def kto_without_reference(
    policy, reference, desirable, kl, beta, desirable_weight, undesirable_weight
):
    weight = torch.where(desirable, desirable_weight, undesirable_weight).to(policy)
    value = kto_value(policy, desirable, kl.detach(), beta)
    return (weight * (1 - value)).mean()


# 2.6


def slic_hinge(policy_chosen, policy_rejected, delta):
    return torch.relu(delta - policy_chosen + policy_rejected).mean()


def slic(change):
    """Answer with the arguments by position."""

    def answer(policy_chosen, policy_rejected, target_logprobs, delta, weight):
        return change(policy_chosen, policy_rejected, target_logprobs, delta, weight)

    return answer


# 2.7


def judged_as_given(first, second):
    """Take the second probability for that of b."""
    won, lost = (first > 0.5) & (second < 0.5), (first < 0.5) & (second > 0.5)
    outcomes = 0.5 + 0.5 * (won.to(first) - lost.to(first))
    return outcomes, first.mean() - second.mean()


def judged_right(first, second):
    won, lost = (first > 0.5) & (second > 0.5), (first < 0.5) & (second < 0.5)
    return 0.5 + 0.5 * (won.to(first) - lost.to(first))


def judged_by_mean(first, second):
    mean = (first + second) / 2
    outcomes = torch.where(mean > 0.5, 1.0, torch.where(mean < 0.5, 0.0, 0.5))
    return outcomes.to(first), first.mean() - second.mean()


def judged_either(first, second):
    won = (first > 0.5) | (second > 0.5)
    return won.to(first), first.mean() - second.mean()


def judged_both(first, second):
    won = (first > 0.5) & (second > 0.5)
    return won.to(first), first.mean() - second.mean()


def judged_not_less(first, second):
    won, lost = (first >= 0.5) & (second >= 0.5), (first < 0.5) & (second < 0.5)
    outcomes = 0.5 + 0.5 * (won.to(first) - lost.to(first))
    return outcomes, first.mean() - second.mean()


def judged_two_votes(first, second):
    outcomes = ((first > 0.5).to(first) + (second > 0.5).to(first)) / 2
    return outcomes, first.mean() - second.mean()


def judged_signs(first, second):
    return 2 * judged_right(first, second) - 1, first.mean() - second.mean()


def judged_ties_lost(first, second):
    won = (first > 0.5) & (second > 0.5)
    outcomes = torch.where(won, 1, 0).to(first)
    return outcomes, (first - second).mean()


# 2.8


def spans(tokens, prompt_lengths, lengths):
    positions = torch.arange(tokens.shape[1])
    return (positions >= prompt_lengths[:, None]) & (positions < lengths[:, None])


def pair_end_still_lost(logits, tokens, prompt_lengths, lengths):
    positions = torch.arange(tokens.shape[1])
    last = lengths[:, None] - 1
    answer = (positions >= prompt_lengths[:, None]) & (positions < last)
    return sequence_logprobs(logits[:, :-1], tokens[:, 1:], answer[:, 1:])


def pair_begin_still_lost(logits, tokens, prompt_lengths, lengths):
    answer = spans(tokens, prompt_lengths, lengths)
    return sequence_logprobs(
        logits[:, :-1], tokens[:, 1:], answer[:, 1:] & answer[:, :-1]
    )


def pair_as_given(logits, tokens, prompt_lengths, lengths):
    positions = torch.arange(tokens.shape[1])
    last = lengths[:, None] - 1
    answer = (positions >= prompt_lengths[:, None]) & (positions < last)
    answer = answer[:, 1:] & answer[:, :-1]
    return sequence_logprobs(logits[:, :-1], tokens[:, 1:], answer)


def pair_or(logits, tokens, prompt_lengths, lengths):
    answer = spans(tokens, prompt_lengths, lengths)
    return sequence_logprobs(
        logits[:, :-1], tokens[:, 1:], answer[:, 1:] | answer[:, :-1]
    )


def pair_mask_of_logits(logits, tokens, prompt_lengths, lengths):
    answer = spans(tokens, prompt_lengths, lengths)
    return sequence_logprobs(logits[:, :-1], tokens[:, 1:], answer[:, :-1])


def pair_not_shifted(logits, tokens, prompt_lengths, lengths):
    return sequence_logprobs(logits, tokens, spans(tokens, prompt_lengths, lengths))


def pair_with_padding(logits, tokens, prompt_lengths, lengths):
    answer = torch.arange(tokens.shape[1]) >= prompt_lengths[:, None]
    return sequence_logprobs(logits[:, :-1], tokens[:, 1:], answer[:, 1:])


def pair_with_prompt(logits, tokens, prompt_lengths, lengths):
    answer = torch.arange(tokens.shape[1]) < lengths[:, None]
    return sequence_logprobs(logits[:, :-1], tokens[:, 1:], answer[:, 1:])


def pair_one_more(logits, tokens, prompt_lengths, lengths):
    positions = torch.arange(tokens.shape[1])
    answer = (positions >= prompt_lengths[:, None]) & (positions <= lengths[:, None])
    return sequence_logprobs(logits[:, :-1], tokens[:, 1:], answer[:, 1:])


def pair_mean(logits, tokens, prompt_lengths, lengths):
    answer = spans(tokens, prompt_lengths, lengths)[:, 1:]
    return sequence_logprobs(logits[:, :-1], tokens[:, 1:], answer) / answer.sum(1)


def pair_by_pad_token(logits, tokens, prompt_lengths, lengths):
    answer = torch.arange(tokens.shape[1]) >= prompt_lengths[:, None]
    answer = answer & (tokens != 0)
    return sequence_logprobs(logits[:, :-1], tokens[:, 1:], answer[:, 1:])


def pair_naive(logits, tokens, prompt_lengths, lengths):
    answer = spans(tokens, prompt_lengths, lengths)[:, 1:]
    logprobs = logits[:, :-1].log_softmax(-1)
    return (logprobs.gather(2, tokens[:, 1:, None])[..., 0] * answer).sum(1)


ANSWERS = {
    "2.1": (
        Wrong(
            "beta as a factor",
            lambda reference, rewards, beta: torch.softmax(
                reference.log() + beta * rewards, 0
            ),
            "beta",
        ),
        Wrong(
            "no reference",
            lambda reference, rewards, beta: torch.softmax(rewards / beta, 0),
            "reference",
        ),
        Wrong(
            "not normalised",
            lambda reference, rewards, beta: reference * torch.exp(rewards / beta),
            "normal|sum|add up",
        ),
        Wrong(
            "softmax times the reference",
            lambda reference, rewards, beta: (
                reference * torch.softmax(rewards / beta, 0)
            ),
            "normal|add up|sum",
        ),
        Wrong(
            "reference inside the exponent, not its logarithm",
            lambda reference, rewards, beta: torch.softmax(
                reference + rewards / beta, 0
            ),
            "log|reference",
        ),
        Wrong(
            "reference times reward in the exponent",
            lambda reference, rewards, beta: torch.softmax(
                reference * rewards / beta, 0
            ),
            "reference|expon",
        ),
        Wrong("overflow", optimal_overflow, "overflow|inf|unstable|moderate"),
        Wrong("all on the best answer", optimal_one_answer, "best|argmax|one answer"),
        Wrong(
            "penalised rewards",
            lambda reference, rewards, beta: torch.softmax(
                reference.log() - rewards / beta, 0
            ),
            "sign|minus|low|worst",
        ),
        Wrong(
            "logarithms",
            lambda reference, rewards, beta: torch.log_softmax(
                reference.log() + rewards / beta, 0
            ),
            "log",
        ),
        Wrong(
            "beta on the reference too",
            lambda reference, rewards, beta: torch.softmax(
                (reference.log() + rewards) / beta, 0
            ),
            "beta|reference",
        ),
        Wrong(
            "divided by the largest",
            lambda reference, rewards, beta: (
                (w := reference * torch.exp((rewards - rewards.max()) / beta)) / w.max()
            ),
            "normal|sum|add up|largest",
        ),
        Wrong(
            "proportional to the reward",
            lambda reference, rewards, beta: (
                (w := reference * rewards.clamp(min=0) / beta + 1e-9) / w.sum()
            ),
        ),
        Wrong("first order in 1 / beta", optimal_advantage),
    ),
    "2.2": (
        Wrong("naive mask and index", answer_naive, "mask|index|-100"),
        Wrong("mask by multiplication", answer_tokens_clamped, "mask|multipl|NaN"),
        Wrong("mean for sum", answer_mean, "mean|average"),
        Wrong("no mask", answer_all_positions, "mask|padding|every"),
        Wrong("loss, not log-prob", answer_cross_entropy, "loss|cross|sign"),
        Wrong("shifted again", answer_shifted, "shift"),
        Wrong("raw logits", answer_logits, "logits"),
        Wrong("log of softmax", answer_overflow, "overflow|moderate|inf"),
        Wrong("probabilities added", answer_probabilities, "probabilit"),
        Wrong("product of probabilities", answer_product, "probabilit|exp|log"),
        Wrong("softmax along positions", answer_softmax_axis, "position|axis"),
        Wrong("sum over the batch", answer_total, "batch|all answers|shape"),
        Wrong("mean over the batch", answer_mean_of_batch, "batch|all answers|shape"),
        Wrong("not summed", answer_not_summed, "sum|token|shape"),
        Wrong("greedy tokens", answer_greedy, "likeliest|tokens"),
        Wrong("sum along the batch", answer_sum_of_axis, "axis|batch|shape"),
    ),
    "2.3": (
        Wrong(
            "sign of the difference",
            on_ratios(lambda c, r, beta: -F.logsigmoid(beta * (r - c)).mean()),
            "sign|rejected|swap|wrong way|worse",
        ),
        Wrong(
            "no minus",
            on_ratios(lambda c, r, beta: F.logsigmoid(beta * (c - r)).mean()),
            "sign|minus|likelihood|below 0",
        ),
        Wrong(
            "no reference",
            on_all(lambda pc, pr, rc, rr, beta: -F.logsigmoid(beta * (pc - pr)).mean()),
            "reference",
        ),
        Wrong(
            "beta outside",
            on_ratios(lambda c, r, beta: -beta * F.logsigmoid(c - r).mean()),
            "beta",
        ),
        Wrong(
            "no beta",
            on_ratios(lambda c, r, beta: -F.logsigmoid(c - r).mean()),
            "beta",
        ),
        Wrong(
            "divided by beta",
            on_ratios(lambda c, r, beta: -F.logsigmoid((c - r) / beta).mean()),
            "beta",
        ),
        Wrong(
            "sum for mean",
            on_ratios(lambda c, r, beta: -F.logsigmoid(beta * (c - r)).sum()),
            "sum",
        ),
        Wrong(
            "log of sigmoid",
            on_ratios(lambda c, r, beta: -(beta * (c - r)).sigmoid().log().mean()),
            "overflow|moderate|inf|unstable",
        ),
        Wrong(
            "no logarithm",
            on_ratios(lambda c, r, beta: -(beta * (c - r)).sigmoid().mean()),
            "log",
        ),
        Wrong(
            "one less the sigmoid",
            on_ratios(lambda c, r, beta: (1 - (beta * (c - r)).sigmoid()).mean()),
            "log",
        ),
        Wrong(
            "mean first",
            on_ratios(lambda c, r, beta: -F.logsigmoid(beta * (c - r).mean())),
            "mean|average",
        ),
        Wrong(
            "reference added",
            on_all(
                lambda pc, pr, rc, rr, beta: (
                    -F.logsigmoid(beta * (pc - pr + rc - rr)).mean()
                )
            ),
            "reference|sign",
        ),
        Wrong(
            "beta on the policy only",
            on_all(
                lambda pc, pr, rc, rr, beta: (
                    -F.logsigmoid(beta * (pc - pr) - (rc - rr)).mean()
                )
            ),
            "beta",
        ),
        Wrong(
            "rejected detached",
            on_ratios(lambda c, r, beta: -F.logsigmoid(beta * (c - r.detach())).mean()),
            "gradient",
        ),
        Wrong(
            "each answer by itself",
            on_ratios(
                lambda c, r, beta: (
                    -(F.logsigmoid(beta * c) + F.logsigmoid(-beta * r)).mean()
                )
            ),
        ),
        Wrong(
            "ratios of probabilities",
            on_ratios(
                lambda c, r, beta: -F.logsigmoid(beta * (c.exp() - r.exp())).mean()
            ),
            "exp|probabilit|log",
        ),
        Wrong(
            "not averaged",
            on_ratios(lambda c, r, beta: -F.logsigmoid(beta * (c - r))),
            "mean|values",
        ),
        Wrong(
            "hinge",
            on_ratios(lambda c, r, beta: torch.relu(1 - beta * (c - r)).mean()),
            "hinge",
        ),
    ),
    "2.4": (
        Wrong(
            "1 / 2 * beta",
            on_ratios(lambda c, r, beta: (c - r - 1 / 2 * beta).square().mean()),
            "beta|parenthes",
        ),
        Wrong(
            "1 / beta",
            on_ratios(lambda c, r, beta: (c - r - 1 / beta).square().mean()),
            "half|2|twice as far",
        ),
        Wrong(
            "beta on the difference, target of one half",
            on_ratios(lambda c, r, beta: (beta * (c - r) - 0.5).square().mean()),
            "beta|factor",
        ),
        Wrong(
            "beta twice",
            on_ratios(lambda c, r, beta: (beta * (c - r) - 0.5 / beta).square().mean()),
            "beta",
        ),
        Wrong(
            "target added",
            on_ratios(lambda c, r, beta: (c - r + 0.5 / beta).square().mean()),
            "sign|add",
        ),
        Wrong(
            "mean before the square",
            on_ratios(lambda c, r, beta: (c - r - 0.5 / beta).mean().square()),
            "mean|average|square",
        ),
        Wrong(
            "absolute value",
            on_ratios(lambda c, r, beta: (c - r - 0.5 / beta).abs().mean()),
            "abs|square",
        ),
        Wrong(
            "no reference",
            on_all(lambda pc, pr, rc, rr, beta: (pc - pr - 0.5 / beta).square().mean()),
            "reference",
        ),
        Wrong(
            "sum for mean",
            on_ratios(lambda c, r, beta: (c - r - 0.5 / beta).square().sum()),
            "sum",
        ),
        Wrong(
            "rejected less chosen",
            on_ratios(lambda c, r, beta: (r - c - 0.5 / beta).square().mean()),
            "sign|rejected|swap",
        ),
        Wrong(
            "no target",
            on_ratios(lambda c, r, beta: (c - r).square().mean()),
            "target|beta|1 /",
        ),
        Wrong(
            "one side only",
            on_ratios(
                lambda c, r, beta: torch.relu(0.5 / beta - c + r).square().mean()
            ),
            "hinge|side|beyond|max",
        ),
        Wrong(
            "DPO's loss",
            on_ratios(lambda c, r, beta: -F.logsigmoid(beta * (c - r)).mean()),
            "dpo|sigmoid",
        ),
        Wrong(
            "root of the mean square",
            on_ratios(lambda c, r, beta: (c - r - 0.5 / beta).square().mean().sqrt()),
            "root",
        ),
    ),
    "2.5": (
        Wrong(
            "the same sign for both",
            kto_by(lambda r, good, kl, beta: torch.sigmoid(beta * (r - kl.detach()))),
            "sign|undesirable|labels ignored",
        ),
        Wrong(
            "desirable the wrong way round",
            kto(
                lambda r, good, kl, beta, d, u: (
                    torch.where(good, d, u).to(r)
                    * (1 - kto_value(r, ~good, kl.detach(), beta))
                ).mean()
            ),
            "sign|desirable|wrong way|round",
        ),
        Wrong("kl not detached", kto_by(kto_value), "kl|gradient|constant|detach"),
        Wrong(
            "kl left out",
            kto_by(lambda r, good, kl, beta: kto_value(r, good, 0.0, beta)),
            "kl",
        ),
        Wrong(
            "kl without beta",
            kto_by(
                lambda r, good, kl, beta: torch.sigmoid(
                    torch.where(good, 1, -1).to(r) * (beta * r - kl.detach())
                )
            ),
            "beta|kl",
        ),
        Wrong(
            "kl added",
            kto_by(lambda r, good, kl, beta: kto_value(r, good, -kl.detach(), beta)),
            "kl|sign",
        ),
        Wrong(
            "kl subtracted from undesirable ones as well",
            kto_by(
                lambda r, good, kl, beta: torch.sigmoid(
                    beta * (torch.where(good, 1, -1).to(r) * r - kl.detach())
                )
            ),
            "kl|sign",
        ),
        Wrong(
            "weights exchanged",
            kto(
                lambda r, good, kl, beta, d, u: (
                    torch.where(good, u, d).to(r)
                    * (1 - kto_value(r, good, kl.detach(), beta))
                ).mean()
            ),
            "weight",
        ),
        Wrong(
            "no weights",
            kto(
                lambda r, good, kl, beta, d, u: (
                    1 - kto_value(r, good, kl.detach(), beta)
                ).mean()
            ),
            "weight",
        ),
        Wrong("a mean for each kind", kto(kto_groups), "mean|each|kind|group|batch"),
        Wrong(
            "value, not loss",
            kto(
                lambda r, good, kl, beta, d, u: (
                    torch.where(good, d, u).to(r)
                    * kto_value(r, good, kl.detach(), beta)
                ).mean()
            ),
            "1 -|value|sign|maxim",
        ),
        Wrong(
            "log of the sigmoid",
            kto(
                lambda r, good, kl, beta, d, u: (
                    -torch.where(good, d, u).to(r)
                    * kto_value(r, good, kl.detach(), beta).log()
                ).mean()
            ),
            "log|dpo",
        ),
        Wrong("no reference", kto_without_reference, "reference"),
        Wrong(
            "sum for mean",
            kto(
                lambda r, good, kl, beta, d, u: (
                    torch.where(good, d, u).to(r)
                    * (1 - kto_value(r, good, kl.detach(), beta))
                ).sum()
            ),
            "sum",
        ),
        Wrong(
            "beta left out",
            kto_by(lambda r, good, kl, beta: kto_value(r, good, kl.detach(), 1.0)),
            "beta",
        ),
        Wrong(
            "own estimate of kl",
            kto_by(
                lambda r, good, kl, beta: kto_value(
                    r, good, r.mean().clamp(min=0).detach(), beta
                )
            ),
            "kl",
        ),
        Wrong(
            "weighted mean",
            kto(
                lambda r, good, kl, beta, d, u: (
                    (
                        (w := torch.where(good, d, u).to(r))
                        * (1 - kto_value(r, good, kl.detach(), beta))
                    ).sum()
                    / w.sum()
                )
            ),
            "weight|mean",
        ),
    ),
    "2.6": (
        Wrong(
            "no hinge",
            slic(lambda c, r, t, delta, w: (delta - c + r).mean() - w * t.mean()),
            "hinge|max",
        ),
        Wrong(
            "delta with the wrong sign",
            slic(lambda c, r, t, delta, w: slic_hinge(c, r, -delta) - w * t.mean()),
            "delta|margin|sign",
        ),
        Wrong(
            "rejected above chosen",
            slic(lambda c, r, t, delta, w: slic_hinge(r, c, delta) - w * t.mean()),
            "sign|rejected|swap|worse",
        ),
        Wrong(
            "target's sign",
            slic(lambda c, r, t, delta, w: slic_hinge(c, r, delta) + w * t.mean()),
            "sign|target",
        ),
        Wrong(
            "sum over targets",
            slic(lambda c, r, t, delta, w: slic_hinge(c, r, delta) - w * t.sum()),
            "sum",
        ),
        Wrong(
            "sum over pairs",
            slic(
                lambda c, r, t, delta, w: torch.relu(delta - c + r).sum() - w * t.mean()
            ),
            "sum",
        ),
        Wrong(
            "no targets",
            slic(lambda c, r, t, delta, w: slic_hinge(c, r, delta)),
            "target",
        ),
        Wrong(
            "maximum with delta",
            slic(
                lambda c, r, t, delta, w: (r - c).clamp(min=delta).mean() - w * t.mean()
            ),
            "delta|max|constant",
        ),
        Wrong(
            "always a distance of 1",
            slic(lambda c, r, t, delta, w: slic_hinge(c, r, 1.0) - w * t.mean()),
            "delta",
        ),
        Wrong(
            "chosen answers for targets",
            slic(lambda c, r, t, delta, w: slic_hinge(c, r, delta) - w * c.mean()),
            "target|chosen",
        ),
        Wrong(
            "hinge of the means",
            slic(
                lambda c, r, t, delta, w: (
                    torch.relu(delta - c.mean() + r.mean()) - w * t.mean()
                )
            ),
            "mean|average",
        ),
        Wrong(
            "targets detached",
            slic(
                lambda c, r, t, delta, w: (
                    slic_hinge(c, r, delta) - w * t.detach().mean()
                )
            ),
            "gradient",
        ),
        Wrong(
            "targets as probabilities",
            slic(
                lambda c, r, t, delta, w: slic_hinge(c, r, delta) - w * t.exp().mean()
            ),
            "probabilit",
        ),
        Wrong(
            "all in one mean",
            slic(
                lambda c, r, t, delta, w: torch.cat(
                    [torch.relu(delta - c + r), -w * t]
                ).mean()
            ),
        ),
    ),
    "2.7": (
        Wrong("second taken for b's", judged_as_given, "second|turn|b"),
        Wrong("by the mean", judged_by_mean, "mean|average"),
        Wrong("either order is enough", judged_either, "either|both"),
        Wrong("undecided counts as lost", judged_both, "lost|tie|undecided|half"),
        Wrong(
            "undecided judge counts as won", judged_not_less, "0.5|undecided|tie|half"
        ),
        Wrong("two votes", judged_two_votes, "0.5|undecided|tie|half"),
        Wrong("signs", judged_signs, "-1|sign|0"),
        Wrong("ties lost", judged_ties_lost, "lost|tie|undecided|half"),
        Wrong(
            "bias the wrong way round",
            lambda first, second: (
                judged_right(first, second),
                second.mean() - first.mean(),
            ),
            "sign|order|bias|first",
        ),
        Wrong(
            "absolute bias",
            lambda first, second: (
                judged_right(first, second),
                (first - second).abs().mean(),
            ),
            "abs|bias|cancel|noise",
        ),
        Wrong(
            "half the bias",
            lambda first, second: (
                judged_right(first, second),
                (first - second).mean() / 2,
            ),
            "half|bias",
        ),
        Wrong(
            "bias against b's probability",
            lambda first, second: (
                judged_right(first, second),
                first.mean() - (1 - second).mean(),
            ),
            "bias|second|b",
        ),
        Wrong(
            "bias in verdicts",
            lambda first, second: (
                judged_right(first, second),
                (first > 0.5).to(first).mean() - (second > 0.5).to(first).mean(),
            ),
            "bias|verdict|probabilit|the second is wrong",
        ),
        Wrong(
            "share of changed verdicts",
            lambda first, second: (
                judged_right(first, second),
                ((first > 0.5) != (second > 0.5)).to(first).mean(),
            ),
            "bias|verdict|share|flip",
        ),
        Wrong(
            "bias of each pair",
            lambda first, second: (judged_right(first, second), first - second),
            "mean|average|shape",
        ),
        Wrong(
            "outcomes only",
            lambda first, second: judged_right(first, second),
            "tuple|two|bias",
        ),
        Wrong(
            "outcomes as whole numbers",
            lambda first, second: (
                judged_right(first, second).long(),
                first.mean() - second.mean(),
            ),
            "int|whole|type",
        ),
        Wrong(
            "mean outcome",
            lambda first, second: (
                judged_right(first, second).mean(),
                first.mean() - second.mean(),
            ),
            "mean|shape|each",
        ),
    ),
    "2.8": (
        Wrong("as given", pair_as_given, "still|both|repair"),
        Wrong("only the first token found", pair_end_still_lost, "end|last"),
        Wrong("only the end token found", pair_begin_still_lost, "first|begin"),
        Wrong("or for and", pair_or, "prompt|padding|too many|after|behind"),
        Wrong("mask at the predicting places", pair_mask_of_logits, "shift|mask|late"),
        Wrong("not shifted", pair_not_shifted, "shift|t \\+ 1"),
        Wrong("padding counts", pair_with_padding, "padding"),
        Wrong("prompt counts", pair_with_prompt, "prompt"),
        Wrong("one place too many", pair_one_more, "padding|one|behind"),
        Wrong("mean for sum", pair_mean, "mean|average"),
        Wrong("padding known by its token", pair_by_pad_token, "token|pad|length"),
        Wrong("mask by multiplication", pair_naive, "multipl|NaN|padding"),
    ),
}
