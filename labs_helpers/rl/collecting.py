"""From prompts to experience: sample answers, score them, say who deserves the reward.

In go a policy with values, its reference and a reward function; out comes what an
update learns from, and what was measured on the way. Of several processes each answers
its own prompts, and the experience is of all: N processes with S samples learn what one
with N x S does, but for rounding. Knows no update rule.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather, pad_across_processes
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from labs_helpers.advantages import gae, group_advantages, shape_rewards, whiten
from labs_helpers.fit import TrainingStopped
from labs_helpers.fit.references import AtStart
from labs_helpers.fit.run import added, everyones, processes, share
from labs_helpers.losses import token_entropy
from labs_helpers.models import Policy, PolicyWithValue, evaluating
from labs_helpers.models.memory import in_parts
from labs_helpers.models.policies import frozen_copy
from labs_helpers.models.vocabulary import states
from labs_helpers.rl.config import GROUPED, RLConfig
from labs_helpers.rl.experience import Cut, Experience, filled, logprobs_of, unscored
from labs_helpers.rl.rewards import Reward, scores_in_training
from labs_helpers.sampling import sample
from labs_helpers.sampling.logprobs import surprise

SAME = 1e-6  # rewards that differ by less


class Answers(NamedTuple):
    """Answers of all processes, and what they earn: B of them."""

    experience: Experience
    scores: Float[Tensor, " B"]
    finished: Bool[Tensor, " B"]
    texts: list[str]
    sampling_seconds: float
    reward_seconds: float

    def penalised(self, config: RLConfig) -> Float[Tensor, " B"]:
        """The scores, those of answers that had to be cut lowered."""
        return self.scores - config.missing_end_penalty * ~self.finished

    def without_spread(self, config: RLConfig) -> Bool[Tensor, " groups"]:
        """Of each prompt, whether all answers to it earn the same."""
        groups = self.penalised(config).view(-1, config.group)
        return groups.amax(dim=1) - groups.amin(dim=1) < SAME

    def replaced(
        self, groups: Int[Tensor, " G"], fresh: "Answers", size: int
    ) -> "Answers":
        """The first of the fresh groups in the place of these, `size` answers each."""
        rows = torch.arange(len(self.texts), device=groups.device)
        put = len(rows) + torch.arange(len(groups) * size, device=groups.device)
        rows.view(-1, size)[groups] = put.view(-1, size)
        texts = self.texts + fresh.texts
        return Answers(
            self.experience.joined(fresh.experience).take(rows),
            torch.cat([self.scores, fresh.scores])[rows],
            torch.cat([self.finished, fresh.finished])[rows],
            [texts[row] for row in rows.tolist()],
            self.sampling_seconds + fresh.sampling_seconds,
            self.reward_seconds + fresh.reward_seconds,
        )


def collect(
    model: PolicyWithValue,
    reference: Policy | AtStart,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    reward: Reward,
    config: RLConfig,
    *,
    seed: int,
    cut: Cut = in_parts,
    others: Sequence[Any] = (),
) -> tuple[Experience, dict[str, float]]:
    """Answer prompts, score the answers, and measure both.

    Args:
        reference: What KL is measured from (`reference_of`).
        prompts: Of this process, each once.
        config: Of an algorithm without values, they are 0, and rewards are all there is
            to trust.
        cut: Makes parts of rows by their lengths, at least so many.
        others: What `config.redraw` takes prompts from; the same in all processes.

    Raises:
        TrainingStopped: the reward function failed, or all answers are empty.
    """

    def ask(asked: Sequence[Any], seed: int) -> Answers:
        return _answers(model.policy, tokenizer, asked, reward, config, seed)

    first = ask(prompts, seed)
    _require_words(first.texts)
    answers, redrawn = _redrawn(first, ask, others, config, seed)
    experience = answers.experience
    mean_entropy = _fill_in(model, reference, experience, config, cut)
    measured = _assign_credit(experience, answers.penalised(config), config)
    kl = experience.logprobs - experience.reference_logprobs
    if config.group > 1:
        measured["no_spread"] = first.without_spread(config).float().mean().item()
        measured["redrawn"] = float(redrawn)
    mask = first.experience.mask
    return experience, measured | {
        "entropy": mean_entropy,
        "reward": first.scores.mean().item(),
        "reward_spread": first.scores.std(correction=0).item(),
        "kl": kl.sum(dim=1).mean().item(),
        "kl_weight": config.kl_weight,
        "length": mask.sum(dim=1).float().mean().item(),
        "finished": first.finished.float().mean().item(),
        "repetition": repetition(first.experience.responses, mask),
        "distinct": len(set(first.texts)) / len(first.texts),
        "sampling_seconds": answers.sampling_seconds,
        "reward_seconds": answers.reward_seconds,
    }


def _answers(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    reward: Reward,
    config: RLConfig,
    seed: int,
) -> Answers:
    """Sample the answers of all processes, and score them."""
    started, size = time.perf_counter(), config.group
    rollout = sample(
        policy,
        tokenizer,
        prompts,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        n=size,
        seed=_seed_sampling(seed, len(prompts) * size, config.max_new_tokens),
    )
    torch.manual_seed(seed)
    sampled = time.perf_counter()
    device = policy.device
    asked = [prompt for prompt in prompts for _ in range(size)]
    with torch.autocast(device.type, enabled=False):  # a reward has its own precision
        scores = _agreed_scores(reward, asked, rollout.texts)
    scored = time.perf_counter()
    known = vars(unscored(rollout, device)).items()
    return Answers(
        Experience(**{n: _gathered(x) for n, x in known if x is not None}),
        _gathered(scores.to(device)),
        _gathered(rollout.finished.to(device)),
        [text for some in everyones(rollout.texts) for text in some],
        sampled - started,
        scored - sampled,
    )


def _redrawn(
    answers: Answers,
    ask: Callable[[Sequence[Any], int], Answers],
    others: Sequence[Any],
    config: RLConfig,
    seed: int,
) -> tuple[Answers, int]:
    """Put other prompts where all answers earn the same; say how many answers more."""
    state, drawn = processes(), 0
    for attempt in range(config.redraw):
        groups = answers.without_spread(config).nonzero()[:, 0]
        each = -(-len(groups) // state.num_processes)
        if not each or each * state.num_processes > len(others):
            break
        first = each * state.process_index
        fresh = ask(others[first : first + each], seed + attempt + 1)
        answers = answers.replaced(groups, fresh, config.group)
        others = others[len(groups) :]
        drawn += len(groups) * config.group
    return answers, drawn


def _assign_credit(
    experience: Experience, scores: Float[Tensor, " B"], config: RLConfig
) -> dict[str, float]:
    """Fill in advantages and returns; say how well the values foresaw these."""
    mask, kl_weight = experience.mask, 0.0 if config.kl_in_loss else config.kl_weight
    if not config.learns_values:
        experience.values = torch.zeros_like(experience.values)
    rewards = shape_rewards(
        scores, experience.logprobs, experience.reference_logprobs, mask, kl_weight
    )
    lam = config.lam if config.learns_values else 1.0
    advantages, experience.returns = gae(
        rewards, experience.values, mask, config.gamma, lam
    )
    if config.algorithm in GROUPED:
        experience.advantages = _compared(experience, config)
        return {}
    experience.advantages = whiten(advantages, mask) if config.whiten else advantages
    if not config.learns_values:
        return {}
    foreseen = explained_variance(experience.values, experience.returns, mask)
    return {"explained_variance": foreseen}


def _compared(experience: Experience, config: RLConfig) -> Float[Tensor, "B T"]:
    """At each token how much more its answer returns than others to its prompt."""
    returns, is_grpo = experience.returns[:, 0], config.algorithm == "grpo"
    baseline = "mean" if is_grpo else "leave_one_out"
    scale = is_grpo and config.whiten
    advantages = group_advantages(returns, config.group, baseline, scale)[:, None]
    if config.whiten and not is_grpo:
        advantages = whiten(advantages, torch.ones_like(advantages))
    return torch.where(experience.mask, advantages, 0.0)


def reference_of(policy: Policy) -> Policy | AtStart:
    """What a policy that is about to be trained is now."""
    return AtStart(policy) if isinstance(policy, PeftModel) else frozen_copy(policy)


def explained_variance(
    values: Float[Tensor, "B T"],
    returns: Float[Tensor, "B T"],
    mask: Bool[Tensor, "B T"],
) -> float:
    """Share of the returns' variance that the values foresaw: 1 all, 0 none.

    Below 0 the values add noise; -1 stands for that and anything worse.
    """
    values, returns = values[mask], returns[mask]
    variance = returns.var(correction=0)
    if variance < 1e-12:
        return 0.0
    left = (returns - values).var(correction=0) / variance
    return max(1 - left.item(), -1.0)


def repetition(responses: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> float:
    """Share of an answer's three-token sequences that it has already said; the mean."""
    shares = []
    for tokens, counts in zip(responses, mask, strict=True):
        ids = tokens[counts].tolist()
        triples = list(zip(ids, ids[1:], ids[2:], strict=False))
        shares.append(1 - len(set(triples)) / len(triples) if triples else 0.0)
    return sum(shares) / len(shares)


def _fill_in(
    model: PolicyWithValue,
    reference: Policy | AtStart,
    experience: Experience,
    config: RLConfig,
    cut: Cut,
) -> float:
    """Fill in values and log-probs, the reference's too; return the entropy.

    Where steps take ratios, log-probs are of the forward that these differentiate, so
    that the first ratio is 1. Else nothing is divided by them, and those of the sampler
    do: one forward less. Their mean estimates the entropy then.
    """
    device = experience.tokens.device
    seen = torch.zeros(3, *experience.mask.shape, device=device)
    total_entropy = torch.zeros(1, dtype=torch.float64)
    sampled = None if config.takes_ratios else experience.logprobs
    mine = share(torch.arange(len(experience), device=device))
    at_start = isinstance(reference, AtStart)
    with evaluating(model):
        number = config.minibatches * config.accumulate
        for rows in experience.by_length(mine, number, cut):
            part = experience.take(rows)
            width = part.mask.shape[1]
            if sampled is None:
                found, values = model.states(part.tokens, part.predicts)
                both = found.each(_logprob_and_entropy(config), part.answer_tokens)
                total_entropy += both[:, 1].sum().item()
                seen[0, rows, :width] = filled(part.mask, both[:, 0])
                seen[1, rows, :width] = filled(part.mask, values)
            with reference.active() if at_start else nullcontext(reference) as policy:
                found = states(policy, part.tokens, part.predicts)
                seen[2, rows, :width] = logprobs_of(found, part, config.temperature)
    experience.logprobs, experience.values, experience.reference_logprobs = added(seen)
    total = added(total_entropy.to(device)).item()
    if sampled is not None:
        experience.logprobs, total = sampled, -sampled.sum().item()
    return total / int(experience.mask.sum())


def _logprob_and_entropy(config: RLConfig) -> Callable[[Tensor, Tensor], Tensor]:
    def both(scores: Tensor, targets: Tensor) -> Tensor:
        scores = scores / config.temperature
        return torch.stack([-surprise(scores, targets), token_entropy(scores)], dim=1)

    return both


def _gathered(rows: Tensor) -> Tensor:
    """The rows of all processes, in their order."""
    if processes().num_processes == 1:
        return rows
    numbers = rows.long() if rows.dtype == torch.bool else rows  # padding adds to it
    return gather(pad_across_processes(numbers, dim=1)).to(rows.dtype)


def _seed_sampling(seed: int, samples: int, max_new_tokens: int) -> int | None:
    """Give the seed for `sample`; None is torch's own state, set by this.

    A token is drawn by a number of its row and place. This skips those of the rows that
    processes before this one sample, so that all draw as one would.
    """
    state = processes()
    if state.num_processes == 1:
        return seed
    torch.manual_seed(seed)
    torch.rand(state.process_index * samples, max_new_tokens)
    return None


def _agreed_scores(
    reward: Reward, prompts: Sequence[Any], texts: Sequence[str]
) -> Tensor:
    """Scores of this process's answers; what stops one process stops all of them."""
    problem, scores = None, torch.zeros(len(texts))
    try:
        scores = scores_in_training(reward, prompts, texts)
    except TrainingStopped as error:
        problem = error
    others = [said for said in everyones(problem and str(problem)) if said]
    if others:
        raise problem or TrainingStopped(others[0])
    return scores


def _require_words(texts: Sequence[str]) -> None:
    if not any(texts):
        raise TrainingStopped(
            f"all {len(texts)} answers are empty: the policy ends every answer at "
            "once, and nothing can be learnt from that. Look at what an empty answer "
            "earns under this reward, and at the prompts' chat template; then start "
            "from an earlier checkpoint with a larger kl_weight or a smaller lr"
        )
