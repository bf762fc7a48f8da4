"""Wrong answers to Lab 3, written from titles, signatures and docstrings."""

import torch

from labs_helpers.advantages import gae, shape_rewards, whiten

from .answers import Wrong


def mean_of(x, mask):
    """Mean of what counts, safe against NaN elsewhere."""
    counts = mask.bool()
    return torch.where(counts, x, 0.0).sum() / counts.sum()


# 3.1


def reinforce_by(change):
    """Answer with the masked mean of something else than -advantage * log-prob."""
    return lambda logprobs, advantages, mask: mean_of(
        change(
            logprobs.masked_fill(~mask.bool(), 0.0),
            advantages.masked_fill(~mask.bool(), 0.0),
        ),
        mask,
    )


def reinforce_multiplied(logprobs, advantages, mask):
    return -(logprobs * advantages * mask).sum() / mask.sum()


def reinforce_all_places(logprobs, advantages, mask):
    return -torch.where(mask.bool(), logprobs * advantages, 0.0).mean()


def reinforce_summed(logprobs, advantages, mask):
    return -torch.where(mask.bool(), logprobs * advantages, 0.0).sum()


def reinforce_by_answer(logprobs, advantages, mask):
    total = torch.where(mask.bool(), logprobs * advantages, 0.0).sum(1)
    return -(total / mask.sum(1)).mean()


def reinforce_mean_of_sums(logprobs, advantages, mask):
    return -torch.where(mask.bool(), logprobs * advantages, 0.0).sum(1).mean()


def reinforce_no_mask(logprobs, advantages, mask):
    return -(logprobs * advantages).mean()


def reinforce_product_of_means(logprobs, advantages, mask):
    return -mean_of(logprobs, mask) * mean_of(advantages, mask)


def reinforce_product_of_sums(logprobs, advantages, mask):
    counts = mask.bool()
    logs = torch.where(counts, logprobs, 0.0).sum(1)
    return -(logs * torch.where(counts, advantages, 0.0).sum(1)).mean()


def reinforce_whitened(logprobs, advantages, mask):
    return -mean_of(logprobs * whiten(advantages, mask), mask)


def reinforce_detached(logprobs, advantages, mask):
    return -mean_of(logprobs.detach() * advantages, mask)


def reinforce_upside_down(logprobs, advantages, mask):
    return -mean_of(logprobs * advantages, ~mask.bool())


# 3.2


def gae_by(step):
    """Answer with a backward loop; a step gives delta, decay and what stands next."""

    def answer(rewards, values, mask, gamma=1.0, lam=0.95):
        counts = mask.bool()
        rewards = torch.where(counts, rewards, 0.0)
        values = torch.where(counts, values, 0.0)
        advantages = torch.zeros_like(values)
        advantage = next_value = torch.zeros_like(values[:, 0])
        for t in reversed(range(values.shape[1])):
            here = counts[:, t]
            delta, decay = step(rewards[:, t], values[:, t], next_value, gamma, lam)
            advantage = torch.where(here, delta + decay * advantage, advantage)
            next_value = torch.where(here, values[:, t], next_value)
            advantages[:, t] = torch.where(here, advantage, 0.0)
        return advantages, advantages + values

    return answer


def gae_returns(returns):
    """Answer with the right advantages and other returns."""

    def answer(rewards, values, mask, gamma=1.0, lam=0.95):
        counts = mask.bool()
        rewards = torch.where(counts, rewards, 0.0)
        values = torch.where(counts, values, 0.0)
        advantages, _ = gae(rewards, values, mask, gamma, lam)
        return advantages, returns(rewards, values, advantages, counts, gamma)

    return answer


def gae_naive(rewards, values, mask, gamma=1.0, lam=0.95):
    advantages = torch.zeros_like(values)
    advantage = torch.zeros_like(values[:, 0])
    steps = values.shape[1]
    for t in reversed(range(steps)):
        following = values[:, t + 1] if t + 1 < steps else 0.0
        delta = rewards[:, t] + gamma * following - values[:, t]
        advantage = delta + gamma * lam * advantage
        advantages[:, t] = advantage
    return advantages * mask, (advantages + values) * mask


def gae_no_mask(rewards, values, mask, gamma=1.0, lam=0.95):
    return gae(rewards, values, torch.ones_like(mask), gamma, lam)


def gae_forward(rewards, values, mask, gamma=1.0, lam=0.95):
    counts = mask.bool()
    rewards, values = (torch.where(counts, x, 0.0) for x in (rewards, values))
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    deltas = torch.where(counts, rewards + gamma * following - values, 0.0)
    advantages, advantage = torch.zeros_like(values), 0.0
    for t in range(values.shape[1]):
        advantage = deltas[:, t] + gamma * lam * advantage
        advantages[:, t] = advantage
    advantages = torch.where(counts, advantages, 0.0)
    return advantages, advantages + values


def gae_whitened(rewards, values, mask, gamma=1.0, lam=0.95):
    advantages, returns = gae(rewards, values, mask, gamma, lam)
    return whiten(advantages, mask), returns


def gae_whitened_first(rewards, values, mask, gamma=1.0, lam=0.95):
    advantages = whiten(gae(rewards, values, mask, gamma, lam)[0], mask)
    return advantages, advantages + torch.where(mask.bool(), values, 0.0)


def gae_previous_value(rewards, values, mask, gamma=1.0, lam=0.95):
    counts = mask.bool()
    rewards, values = (torch.where(counts, x, 0.0) for x in (rewards, values))
    before = torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], 1)
    deltas = torch.where(counts, rewards + gamma * values - before, 0.0)
    advantages = torch.zeros_like(values)
    advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        advantage = torch.where(
            counts[:, t], deltas[:, t] + gamma * lam * advantage, advantage
        )
        advantages[:, t] = torch.where(counts[:, t], advantage, 0.0)
    return advantages, advantages + values


def discounted(rewards, gamma):
    total, returns = 0.0, torch.zeros_like(rewards)
    for t in reversed(range(rewards.shape[1])):
        total = rewards[:, t] + gamma * total
        returns[:, t] = total
    return returns


# 3.3


def solver(
    start=lambda b: (torch.zeros_like(b), b.clone()),
    step=lambda r, p, Fp: (r @ r) / (p @ Fp),
    less=lambda r, a, Fp: r - a * Fp,
    turn=lambda new, old, p: new + (new @ new) / (old @ old) * p,
    moved=lambda x, a, p: x + a * p,
    rounds=lambda n: n,
    result=lambda x, r, p: x,
):
    """Conjugate gradients with one of their lines written otherwise."""

    def answer(product, b, iterations):
        x, r = start(b)
        p = r.clone()
        for _ in range(rounds(iterations)):
            if r @ r < 1e-20:
                break
            Fp = product(p)
            a = step(r, p, Fp)
            x = moved(x, a, p)
            new = less(r, a, Fp)
            p = turn(new, r, p)
            r = new
        return result(x, r, p)

    return answer


def solver_of_the_residual(product, b, iterations):
    x, r = torch.zeros_like(b), b.clone()
    for _ in range(iterations):
        if r @ r < 1e-20:
            break
        x = x + (r @ r) / (r @ product(r)) * r
        r = b - product(x)
    return x


def solver_small_steps(product, b, iterations):
    x = torch.zeros_like(b)
    for _ in range(iterations):
        x = x + 0.1 * (b - product(x))
    return x


# 3.4


def ppo_by(change):
    """Answer with the masked mean of something else."""

    def answer(logprobs, old_logprobs, advantages, mask, clip):
        counts = mask.bool()
        given = (
            torch.where(counts, x, 0.0) for x in (logprobs, old_logprobs, advantages)
        )
        return mean_of(change(*given, clip), mask)

    return answer


def ppo_surrogates(new, old, advantages, clip):
    ratio = torch.exp(new - old)
    return ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages


def ppo_naive(logprobs, old_logprobs, advantages, mask, clip):
    pair = ppo_surrogates(logprobs, old_logprobs, advantages, clip)
    return -(torch.minimum(*pair) * mask).sum() / mask.sum()


def ppo_all_places(logprobs, old_logprobs, advantages, mask, clip):
    counts = mask.bool()
    given = [torch.where(counts, x, 0.0) for x in (logprobs, old_logprobs, advantages)]
    return -torch.minimum(*ppo_surrogates(*given, clip)).mean()


def ppo_no_mask(logprobs, old_logprobs, advantages, mask, clip):
    return -torch.minimum(
        *ppo_surrogates(logprobs, old_logprobs, advantages, clip)
    ).mean()


def ppo_summed(logprobs, old_logprobs, advantages, mask, clip):
    counts = mask.bool()
    given = [torch.where(counts, x, 0.0) for x in (logprobs, old_logprobs, advantages)]
    return -torch.minimum(*ppo_surrogates(*given, clip)).sum()


def ppo_by_answer(logprobs, old_logprobs, advantages, mask, clip):
    counts = mask.bool()
    given = [torch.where(counts, x, 0.0) for x in (logprobs, old_logprobs, advantages)]
    total = torch.minimum(*ppo_surrogates(*given, clip)).sum(1)
    return -(total / counts.sum(1)).mean()


def ppo_ratio_of_answers(logprobs, old_logprobs, advantages, mask, clip):
    counts = mask.bool()
    new, old, adv = (
        torch.where(counts, x, 0.0) for x in (logprobs, old_logprobs, advantages)
    )
    ratio = torch.exp((new - old).sum(1, keepdim=True))
    pair = ratio * adv, ratio.clamp(1 - clip, 1 + clip) * adv
    return -mean_of(torch.minimum(*pair), mask)


# 3.6


def shaped_by(change):
    """Answer from the scores, the masked log-ratio, the mask and kl_weight."""

    def answer(scores, logprobs, reference_logprobs, mask, kl_weight):
        counts = mask.bool()
        ratio = torch.where(counts, logprobs - reference_logprobs, 0.0)
        return change(scores, ratio, counts, kl_weight)

    return answer


def last_of(counts):
    return counts & (counts.flip(1).cumsum(1).flip(1) == 1)


def shaped_in_last_column(scores, ratio, counts, kl_weight):
    rewards = -kl_weight * ratio
    rewards[:, -1] += scores
    return rewards


def shaped_one_before(scores, ratio, counts, kl_weight):
    rewards = -kl_weight * ratio
    rewards[torch.arange(len(scores)), (counts.sum(1) - 2).clamp(min=0)] += scores
    return rewards


def shaped_naive(scores, logprobs, reference_logprobs, mask, kl_weight):
    rewards = -kl_weight * (logprobs - reference_logprobs) * mask
    rewards[torch.arange(len(scores)), mask.long().sum(1) - 1] += scores
    return rewards


def shaped_not_masked(scores, logprobs, reference_logprobs, mask, kl_weight):
    rewards = -kl_weight * (logprobs - reference_logprobs)
    return rewards + torch.where(last_of(mask.bool()), scores[:, None], 0.0)


def score_at_the_end(scores, counts):
    return torch.where(last_of(counts), scores[:, None], 0.0)


# 3.7


def targets_whitened_first(rewards, values, mask, lam):
    advantages = whiten(gae(rewards, values, mask, 1.0, lam)[0], mask)
    return advantages, torch.where(mask.bool(), advantages + values, 0.0)


def targets_not_whitened(rewards, values, mask, lam):
    return gae(rewards, values, mask, 1.0, lam)


def targets_both_whitened(rewards, values, mask, lam):
    advantages, returns = gae(rewards, values, mask, 1.0, lam)
    return whiten(advantages, mask), whiten(returns, mask)


def targets_returns_whitened(rewards, values, mask, lam):
    advantages, returns = gae(rewards, values, mask, 1.0, lam)
    return advantages, whiten(returns, mask)


def targets_with_padding(rewards, values, mask, lam):
    advantages, returns = gae(rewards, values, mask, 1.0, lam)
    return whiten(advantages, torch.ones_like(mask)), returns


def targets_by_answer(rewards, values, mask, lam):
    advantages, returns = gae(rewards, values, mask, 1.0, lam)
    rows = [whiten(a[None], m[None])[0] for a, m in zip(advantages, mask, strict=True)]
    return torch.stack(rows), returns


def targets_not_centred(rewards, values, mask, lam):
    advantages, returns = gae(rewards, values, mask, 1.0, lam)
    return whiten(advantages, mask, shift_mean=False), returns


def targets_centred_only(rewards, values, mask, lam):
    advantages, returns = gae(rewards, values, mask, 1.0, lam)
    centred = advantages - mean_of(advantages, mask)
    return torch.where(mask.bool(), centred, 0.0), returns


def targets_whitened_rewards(rewards, values, mask, lam):
    return gae(whiten(rewards, mask), values, mask, 1.0, lam)


def targets_discounted_rewards(rewards, values, mask, lam):
    advantages, _ = gae(rewards, values, mask, 1.0, lam)
    counts = mask.bool()
    returns = discounted(torch.where(counts, rewards, 0.0), 1.0)
    return whiten(advantages, mask), torch.where(counts, returns, 0.0)


def targets_minus(rewards, values, mask, lam):
    advantages, returns = gae(rewards, values, mask, 1.0, lam)
    kept = torch.where(mask.bool(), values, 0.0)
    return whiten(advantages, mask), returns - 2 * kept


def targets_exchanged(rewards, values, mask, lam):
    advantages, returns = gae(rewards, values, mask, 1.0, lam)
    return returns, whiten(advantages, mask)


def ratio_of(logprobs, reference_logprobs):
    return logprobs - reference_logprobs


def estimates(logprobs, reference_logprobs):
    d = logprobs - reference_logprobs
    return d, d**2 / 2, (-d).exp() - 1 + d


ANSWERS = {
    "3.1": (
        Wrong("no minus", reinforce_by(lambda logs, a: logs * a), "sign|minus"),
        Wrong("mask by multiplication", reinforce_multiplied, "multipl|NaN|padding"),
        Wrong("mean over all places", reinforce_all_places, "mean|padding|count"),
        Wrong("sum for mean", reinforce_summed, "sum"),
        Wrong("mean of each answer first", reinforce_by_answer, "answer|token|mean"),
        Wrong("sum of each answer, then mean", reinforce_mean_of_sums, "sum|answer"),
        Wrong("no mask", reinforce_no_mask, "mask|padding|NaN"),
        Wrong(
            "product of the means",
            reinforce_product_of_means,
            "mean|product|advantages is 1",
        ),
        Wrong("product of the sums", reinforce_product_of_sums, "sum|answer|token"),
        Wrong(
            "probabilities",
            reinforce_by(lambda logs, a: -logs.exp() * a),
            "probabilit|exp|log",
        ),
        Wrong("advantages whitened", reinforce_whitened, "whiten|advantage|mean"),
        Wrong("log-probs detached", reinforce_detached, "gradient|detach"),
        Wrong("mask upside down", reinforce_upside_down, "mask|upside|what counts"),
        Wrong(
            "sign of the advantage only",
            reinforce_by(lambda logs, a: -logs * a.sign()),
            "sign|advantage",
        ),
        Wrong(
            "advantage added",
            reinforce_by(lambda logs, a: -(logs + a)),
            "add|product|times",
        ),
    ),
    "3.2": (
        Wrong(
            "lambda forgotten",
            gae_by(lambda r, v, n, g, lam: (r + g * n - v, g)),
            "lam",
        ),
        Wrong(
            "gamma forgotten in the decay",
            gae_by(lambda r, v, n, g, lam: (r + g * n - v, lam)),
            "gamma|discount",
        ),
        Wrong(
            "gamma forgotten in delta",
            gae_by(lambda r, v, n, g, lam: (r + n - v, g * lam)),
            "gamma|discount",
        ),
        Wrong(
            "value not subtracted",
            gae_by(lambda r, v, n, g, lam: (r + g * n, g * lam)),
            "value|baseline|subtract",
        ),
        Wrong(
            "next value forgotten",
            gae_by(lambda r, v, n, g, lam: (r - v, g * lam)),
            "next|value|bootstrap",
        ),
        Wrong(
            "next value subtracted",
            gae_by(lambda r, v, n, g, lam: (r - g * n - v, g * lam)),
            "sign|next",
        ),
        Wrong(
            "value and next value exchanged",
            gae_by(lambda r, v, n, g, lam: (r + g * v - n, g * lam)),
            "sign|next|swap|exchange|values is 0",
        ),
        Wrong(
            "previous value for the next",
            gae_previous_value,
            "previous|next|shift|before|values is 0",
        ),
        Wrong(
            "one-step errors only",
            gae_by(lambda r, v, n, g, lam: (r + g * n - v, 0.0)),
            "one step|delta|lam|error",
        ),
        Wrong("mask at the end only", gae_naive, "mask|padding|NaN|behind"),
        Wrong("no mask", gae_no_mask, "mask|padding|NaN"),
        Wrong("forwards in time", gae_forward, "forward|back|past|future|first token"),
        Wrong("advantages whitened", gae_whitened, "whiten"),
        Wrong("whitened before returns", gae_whitened_first, "whiten"),
        Wrong(
            "discounted rewards for returns",
            gae_returns(lambda r, v, a, m, g: torch.where(m, discounted(r, g), 0.0)),
            "return|discount",
        ),
        Wrong(
            "advantages for returns",
            gae_returns(lambda r, v, a, m, g: a.clone()),
            "return|value",
        ),
        Wrong(
            "advantage and reward",
            gae_returns(lambda r, v, a, m, g: a + r),
            "return|value|reward",
        ),
        Wrong(
            "value less advantage",
            gae_returns(lambda r, v, a, m, g: v - a),
            "return|sign|add|the second is wrong",
        ),
    ),
    "3.3": (
        Wrong(
            "descent along the residual",
            solver_of_the_residual,
            "residual|steepest|direction|descent",
        ),
        Wrong("small steps", solver_small_steps, "step|gradient descent|fixed"),
        Wrong(
            "step from the direction's length",
            solver(step=lambda r, p, Fp: (r @ r) / (p @ p)),
            "step|curvature|F",
        ),
        Wrong(
            "step upside down",
            solver(step=lambda r, p, Fp: (p @ Fp) / (r @ r)),
            "step|upside|inver",
        ),
        Wrong(
            "residual grows",
            solver(less=lambda r, a, Fp: r + a * Fp),
            "sign|residual",
        ),
        Wrong(
            "residual less the direction",
            solver(less=lambda r, a, Fp: r - a * Fp / a),
            "residual|step",
        ),
        Wrong(
            "beta upside down",
            solver(turn=lambda new, old, p: new + (old @ old) / (new @ new) * p),
            "beta|upside|ratio|old|new|inver",
        ),
        Wrong(
            "directions added without beta",
            solver(turn=lambda new, old, p: new + p),
            "beta|direction|factor",
        ),
        Wrong(
            "old residual in the direction",
            solver(turn=lambda new, old, p: old + (new @ new) / (old @ old) * p),
            "old|new|direction|residual|after the first",
        ),
        Wrong(
            "beta without squares",
            solver(
                turn=lambda new, old, p: new + ((new @ new) / (old @ old)).sqrt() * p
            ),
            "square|root|norm|beta|after the first",
        ),
        Wrong(
            "one iteration too few",
            solver(rounds=lambda n: n - 1),
            "iteration|one|few",
        ),
        Wrong(
            "one iteration too many",
            solver(rounds=lambda n: n + 1),
            "iteration|one|many",
        ),
        Wrong(
            "starts at b",
            solver(start=lambda b: (b.clone(), b.clone())),
            "start|b|0",
        ),
        Wrong("returns the residual", solver(result=lambda x, r, p: r), "residual"),
        Wrong("returns the direction", solver(result=lambda x, r, p: p), "direction"),
        Wrong(
            "goes backwards",
            solver(moved=lambda x, a, p: x - a * p),
            "sign|minus|opposite|away",
        ),
        Wrong(
            "applies F instead of solving",
            lambda product, b, iterations: product(b),
            "F b|product|solve|multipl",
        ),
    ),
    "3.4": (
        Wrong(
            "maximum for minimum",
            ppo_by(lambda *given: -torch.maximum(*ppo_surrogates(*given))),
            "max|min|larger",
        ),
        Wrong(
            "no clipping",
            ppo_by(lambda *given: -ppo_surrogates(*given)[0]),
            "clip",
        ),
        Wrong(
            "clipped always",
            ppo_by(lambda *given: -ppo_surrogates(*given)[1]),
            "min|clip|always",
        ),
        Wrong(
            "no minus",
            ppo_by(lambda *given: torch.minimum(*ppo_surrogates(*given))),
            "sign|minus|downhill",
        ),
        Wrong(
            "ratio upside down",
            ppo_by(
                lambda new, old, adv, clip: (
                    -torch.minimum(*ppo_surrogates(old, new, adv, clip))
                )
            ),
            "ratio|upside|old",
        ),
        Wrong(
            "difference for ratio",
            ppo_by(
                lambda new, old, adv, clip: (
                    -torch.minimum(
                        (new - old) * adv, (new - old).clamp(-clip, clip) * adv
                    )
                )
            ),
            "ratio|exp|log",
        ),
        Wrong(
            "ratio of log-probs",
            ppo_by(
                lambda new, old, adv, clip: (
                    -torch.minimum(
                        new / (old - 1e-9) * adv,
                        (new / (old - 1e-9)).clamp(1 - clip, 1 + clip) * adv,
                    )
                )
            ),
            "ratio|exp|log",
        ),
        Wrong(
            "clipped to plus and minus clip",
            ppo_by(
                lambda new, old, adv, clip: (
                    -torch.minimum(
                        (new - old).exp() * adv,
                        (new - old).exp().clamp(-clip, clip) * adv,
                    )
                )
            ),
            "clip|around 1|1",
        ),
        Wrong(
            "clipped above only",
            ppo_by(
                lambda new, old, adv, clip: (
                    -torch.minimum(
                        (new - old).exp() * adv,
                        (new - old).exp().clamp(max=1 + clip) * adv,
                    )
                )
            ),
            "clip|below|lower|side",
        ),
        Wrong(
            "log-ratio clipped",
            ppo_by(
                lambda new, old, adv, clip: (
                    -torch.minimum(
                        (new - old).exp() * adv,
                        (new - old).clamp(-clip, clip).exp() * adv,
                    )
                )
            ),
            "clip|log",
        ),
        Wrong(
            "product clipped",
            ppo_by(
                lambda new, old, adv, clip: (
                    -torch.minimum(
                        (new - old).exp() * adv,
                        ((new - old).exp() * adv).clamp(1 - clip, 1 + clip),
                    )
                )
            ),
            "clip|product|advantage",
        ),
        Wrong("mask by multiplication", ppo_naive, "multipl|NaN|padding"),
        Wrong("mean over all places", ppo_all_places, "mean|padding|count"),
        Wrong("no mask", ppo_no_mask, "mask|padding|NaN"),
        Wrong("sum for mean", ppo_summed, "sum"),
        Wrong("mean of each answer first", ppo_by_answer, "answer|token|mean"),
        Wrong("one ratio for an answer", ppo_ratio_of_answers, "token|answer|ratio"),
        Wrong(
            "advantage's sign ignored",
            ppo_by(
                lambda new, old, adv, clip: (
                    -torch.minimum(
                        (new - old).exp(), (new - old).exp().clamp(1 - clip, 1 + clip)
                    )
                    * adv
                )
            ),
            "min|advantage|sign",
        ),
        Wrong(
            "always clip at 0.2",
            ppo_by(
                lambda new, old, adv, clip: (
                    -torch.minimum(*ppo_surrogates(new, old, adv, 0.2))
                )
            ),
            "clip|0.2",
        ),
    ),
    "3.5": (
        Wrong(
            "upside down",
            lambda logprobs, reference_logprobs: (
                (d := reference_logprobs - logprobs),
                d**2 / 2,
                (-d).exp() - 1 + d,
            ),
            "upside|sign|ratio|other way",
        ),
        Wrong(
            "k1 upside down",
            lambda logprobs, reference_logprobs: (
                -(d := ratio_of(logprobs, reference_logprobs)),
                d**2 / 2,
                (-d).exp() - 1 + d,
            ),
            "k1|sign|upside",
        ),
        Wrong(
            "k2 without half",
            lambda logprobs, reference_logprobs: (
                (d := ratio_of(logprobs, reference_logprobs)),
                d**2,
                (-d).exp() - 1 + d,
            ),
            "k2|half",
        ),
        Wrong(
            "k2 an absolute value",
            lambda logprobs, reference_logprobs: (
                (d := ratio_of(logprobs, reference_logprobs)),
                d.abs(),
                (-d).exp() - 1 + d,
            ),
            "k2|abs|square|the second is wrong",
        ),
        Wrong(
            "k3 upside down",
            lambda logprobs, reference_logprobs: (
                (d := ratio_of(logprobs, reference_logprobs)),
                d**2 / 2,
                d.exp() - 1 - d,
            ),
            "k3|upside|ratio",
        ),
        Wrong(
            "k3 without 1",
            lambda logprobs, reference_logprobs: (
                (d := ratio_of(logprobs, reference_logprobs)),
                d**2 / 2,
                (-d).exp() + d,
            ),
            "k3|1",
        ),
        Wrong(
            "k3 with the wrong logarithm",
            lambda logprobs, reference_logprobs: (
                (d := ratio_of(logprobs, reference_logprobs)),
                d**2 / 2,
                (-d).exp() - 1 - d,
            ),
            "k3|sign",
        ),
        Wrong(
            "k3 with ratio of the policy",
            lambda logprobs, reference_logprobs: (
                (d := ratio_of(logprobs, reference_logprobs)),
                d**2 / 2,
                d.exp() - 1 + d,
            ),
            "k3|ratio|upside|the third is wrong",
        ),
        Wrong(
            "weighted by the probability",
            lambda logprobs, reference_logprobs: tuple(
                logprobs.exp() * k for k in estimates(logprobs, reference_logprobs)
            ),
            "weight|probabilit|sampl",
        ),
        Wrong(
            "means",
            lambda logprobs, reference_logprobs: tuple(
                k.mean() for k in estimates(logprobs, reference_logprobs)
            ),
            "mean|shape|token",
        ),
        Wrong(
            "difference of probabilities",
            lambda logprobs, reference_logprobs: (
                (d := logprobs.exp() - reference_logprobs.exp()),
                d**2 / 2,
                (-d).exp() - 1 + d,
            ),
            "probabilit|exp|log",
        ),
        Wrong(
            "k1 cut off at 0",
            lambda logprobs, reference_logprobs: (
                (d := ratio_of(logprobs, reference_logprobs)).clamp(min=0),
                d**2 / 2,
                (-d).exp() - 1 + d,
            ),
            "k1|negative|below 0|clamp|cut",
        ),
        Wrong(
            "k2 and k3 exchanged",
            lambda logprobs, reference_logprobs: (
                (d := ratio_of(logprobs, reference_logprobs)),
                (-d).exp() - 1 + d,
                d**2 / 2,
            ),
            "order|exchange|k2|k3",
        ),
        Wrong(
            "only k3",
            lambda logprobs, reference_logprobs: (
                (d := ratio_of(logprobs, reference_logprobs)).neg().exp() - 1 + d
            ),
            "tuple|three",
        ),
    ),
    "3.6": (
        Wrong(
            "score in the last column",
            shaped_by(shaped_in_last_column),
            "column|padding|last",
        ),
        Wrong(
            "score one token too early",
            shaped_by(shaped_one_before),
            "one|last|early|before",
        ),
        Wrong(
            "score at every token",
            shaped_by(
                lambda s, d, m, w: torch.where(m, s[:, None] - w * d, 0.0),
            ),
            "every|each|all",
        ),
        Wrong(
            "score spread over the tokens",
            shaped_by(
                lambda s, d, m, w: torch.where(
                    m, s[:, None] / m.sum(1, keepdim=True) - w * d, 0.0
                ),
            ),
            "spread|share|every|divid",
        ),
        Wrong(
            "score at the first token",
            shaped_by(
                lambda s, d, m, w: (
                    torch.where(m & (m.cumsum(1) == 1), s[:, None], 0.0) - w * d
                ),
            ),
            "first",
        ),
        Wrong(
            "penalty rewarded",
            shaped_by(lambda s, d, m, w: score_at_the_end(s, m) + w * d),
            "sign|reward|away|bonus",
        ),
        Wrong(
            "no weight",
            shaped_by(lambda s, d, m, w: score_at_the_end(s, m) - d),
            "kl_weight|weight",
        ),
        Wrong(
            "no penalty",
            shaped_by(lambda s, d, m, w: score_at_the_end(s, m)),
            "kl|penalty",
        ),
        Wrong("no score", shaped_by(lambda s, d, m, w: -w * d), "score"),
        Wrong(
            "score weighted too",
            shaped_by(lambda s, d, m, w: w * (score_at_the_end(s, m) - d)),
            "weight|score",
        ),
        Wrong(
            "whole penalty at the end",
            shaped_by(
                lambda s, d, m, w: score_at_the_end(s - w * d.sum(1), m),
            ),
            "last|each token|end|every",
        ),
        Wrong(
            "absolute penalty",
            shaped_by(lambda s, d, m, w: score_at_the_end(s, m) - w * d.abs()),
            "abs|sign|size",
        ),
        Wrong(
            "penalty by k3",
            shaped_by(
                lambda s, d, m, w: score_at_the_end(s, m) - w * ((-d).exp() - 1 + d)
            ),
            "k3|estimate|log",
        ),
        Wrong(
            "penalty of the ratio",
            shaped_by(
                lambda s, d, m, w: torch.where(
                    m, score_at_the_end(s, m) - w * d.exp(), 0.0
                )
            ),
            "exp|log|ratio",
        ),
        Wrong(
            "no penalty on the last token",
            shaped_by(lambda s, d, m, w: torch.where(last_of(m), s[:, None], -w * d)),
            "last|overwrit|replac|penalty",
        ),
        Wrong("mask by multiplication", shaped_naive, "multipl|NaN|padding|count|left"),
        Wrong("not masked", shaped_not_masked, "mask|padding|NaN"),
        Wrong(
            "score subtracted",
            shaped_by(lambda s, d, m, w: -score_at_the_end(s, m) - w * d),
            "sign|score",
        ),
        Wrong(
            "reference as the log-prob",
            lambda scores, logprobs, reference_logprobs, mask, kl_weight: shape_rewards(
                scores, reference_logprobs, logprobs, mask, kl_weight
            ),
            "sign|policy|reference",
        ),
    ),
    "3.7": (
        Wrong("whitened before the returns", targets_whitened_first, "whiten|return"),
        Wrong("not whitened", targets_not_whitened, "whiten|scaled"),
        Wrong("both whitened", targets_both_whitened, "whiten|return"),
        Wrong("returns whitened", targets_returns_whitened, "whiten|return|advantage"),
        Wrong(
            "whitened with the padding",
            targets_with_padding,
            "padding|mask|the first is wrong",
        ),
        Wrong("whitened in each answer", targets_by_answer, "answer|row|batch|each"),
        Wrong("not centred", targets_not_centred, "mean|cent"),
        Wrong("only centred", targets_centred_only, "variance|scale|cent|deviation"),
        Wrong("rewards whitened", targets_whitened_rewards, "reward|whiten"),
        Wrong(
            "sums of rewards for returns",
            targets_discounted_rewards,
            "return|reward|lam|the second is wrong",
        ),
        Wrong(
            "values subtracted", targets_minus, "return|sign|value|the second is wrong"
        ),
        Wrong("results exchanged", targets_exchanged, "order|exchange|first"),
    ),
}
