"""From prompts to experience: sample answers, score them, say who deserves the reward.

In go a policy with values, its reference and a reward function; out comes what an
update learns from, and what was measured on the way. Knows no update rule.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from labs_helpers.advantages import gae, shape_rewards, whiten
from labs_helpers.common.settings import short
from labs_helpers.fit import TrainingStopped
from labs_helpers.fit.starts import AtStart
from labs_helpers.losses import entropy
from labs_helpers.models import Policy, PolicyWithValue, evaluating, logits_and_hidden
from labs_helpers.models.policies import frozen_copy
from labs_helpers.rl.config import RLConfig
from labs_helpers.rl.processes import (
    added,
    added_figures,
    everyones,
    gathered,
    seed_sampling,
    share,
)
from labs_helpers.sampling import Rollout, sample

# More rows at a time pad more and leave a CPU's caches: measured 1.5 times slower.
CPU_ROWS = 16
Reward = Callable[[Sequence[Any], Sequence[str]], Any]


@dataclass
class Experience:
    """Answers and what is to be learnt from them: B sequences, T answer tokens.

    Attributes:
        tokens: Prompt and answer, padded on the right only.
        predicts: True at the tokens that an answer token follows.
        responses: The answers' tokens.
        mask: True where one counts, the end token included.
        logprobs: Of the answers' tokens, by the policy that sampled them.
        values: What that policy expected at each of them.
        advantages: How much better each was than expected.
        returns: What the values are fitted to.
    """

    tokens: Int[Tensor, "B L"]
    predicts: Bool[Tensor, "B L"]
    responses: Int[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    logprobs: Float[Tensor, "B T"]
    values: Float[Tensor, "B T"]
    advantages: Float[Tensor, "B T"]
    returns: Float[Tensor, "B T"]

    def take(self, rows: Int[Tensor, " b"]) -> "Experience":
        """Some of the answers, without the padding that only the others need."""
        taken = {f.name: getattr(self, f.name)[rows] for f in fields(self)}
        length = int(taken["predicts"].any(dim=0).nonzero().max()) + 1
        width = int(taken["mask"].any(dim=0).nonzero().max()) + 1
        for name, tensor in taken.items():
            cut = length if name in ("tokens", "predicts") else width
            taken[name] = tensor[:, :cut]
        return Experience(**taken)

    def by_length(self, rows: Int[Tensor, " b"], number: int) -> list[Tensor]:
        """Split rows into parts of similar length, which need little padding."""
        if self.tokens.device.type == "cpu":
            number = max(number, -(-len(rows) // CPU_ROWS))
        lengths = self.predicts[rows].int().cumsum(dim=1).argmax(dim=1)
        parts = rows[lengths.argsort(stable=True)].tensor_split(number)
        return [part for part in parts if len(part)]

    def __len__(self) -> int:
        return len(self.tokens)


class Now(NamedTuple):
    """What a policy says of an experience's tokens; N of them count."""

    logprobs: Float[Tensor, "B T"]
    values: Float[Tensor, "B T"]
    logits: Float[Tensor, "N V"]


def read(model: PolicyWithValue, part: Experience, temperature: float) -> Now:
    """Log-probs, values and scores of the answers' tokens, with gradient."""
    output = model(part.tokens, part.predicts)
    logits = output.logits.float() / temperature
    return Now(
        _fill(part.mask, _logprobs(logits, part)),
        _fill(part.mask, output.values),
        logits,
    )


def collect(
    model: PolicyWithValue,
    reference: Policy | AtStart,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    reward: Reward,
    config: RLConfig,
    *,
    kl_weight: float,
    seed: int,
    with_values: bool,
) -> tuple[Experience, dict[str, float]]:
    """Answer prompts, score the answers, and measure both.

    Of several processes each answers its own prompts; the experience is of all.

    Args:
        reference: What KL is measured from (`reference_of`).
        with_values: False takes values for 0 and rewards for all there is to trust.

    Raises:
        TrainingStopped: the reward function failed, or all answers are empty.
    """
    started = time.perf_counter()
    rollout = sample(
        model.policy,
        tokenizer,
        prompts,
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature,
        seed=seed_sampling(seed, len(prompts), config.max_new_tokens),
    )
    torch.manual_seed(seed)
    sampled = time.perf_counter()
    device = model.policy.device
    with torch.autocast(device.type, enabled=False):  # a reward has its own precision
        scores = _agreed_scores(reward, prompts, rollout)
    scored = time.perf_counter()
    rollout, scores = gathered(rollout, scores)
    scores = scores.to(device)
    penalised = scores - config.missing_end_penalty * ~rollout.finished.to(device)
    experience = unscored(rollout, device)
    reference_logprobs, measured = _look(model, reference, experience, config)
    if not with_values:
        experience.values = torch.zeros_like(experience.values)
    rewards = shape_rewards(
        penalised, experience.logprobs, reference_logprobs, experience.mask, kl_weight
    )
    experience.advantages, experience.returns = gae(
        rewards,
        experience.values,
        experience.mask,
        config.gamma,
        config.lam if with_values else 1.0,
    )
    if with_values:
        measured["explained_variance"] = explained_variance(
            experience.values, experience.returns, experience.mask
        )
    if config.whiten:
        experience.advantages = whiten(experience.advantages, experience.mask)
    difference = experience.logprobs - reference_logprobs
    measured |= {
        "reward": scores.mean().item(),
        "reward_spread": scores.std(correction=0).item(),
        "kl": difference.sum(dim=1).mean().item(),
        "kl_weight": kl_weight,
        "length": experience.mask.sum(dim=1).float().mean().item(),
        "finished": rollout.finished.float().mean().item(),
        "repetition": repetition(rollout),
        "distinct": len(set(rollout.texts)) / len(rollout.texts),
        "sampling_seconds": sampled - started,
        "reward_seconds": scored - sampled,
    }
    return experience, measured


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


def repetition(rollout: Rollout) -> float:
    """Share of an answer's three-token sequences that it has already said; the mean."""
    shares = []
    rows = zip(rollout.responses, rollout.response_mask, strict=True)
    for tokens, mask in rows:
        ids = tokens[mask].tolist()
        triples = list(zip(ids, ids[1:], ids[2:], strict=False))
        shares.append(1 - len(set(triples)) / len(triples) if triples else 0.0)
    return sum(shares) / len(shares)


def unscored(rollout: Rollout, device: torch.device) -> Experience:
    """Move the padding to the right, where no attention mask is needed for it."""
    width = rollout.prompt_mask.shape[1]
    padding = width - rollout.prompt_mask.sum(dim=1)
    columns = torch.arange(rollout.tokens.shape[1]) + padding[:, None]
    inside = columns < rollout.tokens.shape[1]
    columns = columns.clamp(max=rollout.tokens.shape[1] - 1)
    tokens = rollout.tokens.gather(1, columns)
    is_answer = F.pad(rollout.response_mask, (width, 0)).gather(1, columns) & inside
    nothing = torch.zeros_like(rollout.logprobs)
    everything = Experience(
        tokens=tokens,
        predicts=F.pad(is_answer[:, 1:], (0, 1)),
        responses=rollout.responses,
        mask=rollout.response_mask,
        logprobs=nothing,
        values=nothing,
        advantages=nothing,
        returns=nothing,
    )
    moved = {f.name: getattr(everything, f.name).to(device) for f in fields(Experience)}
    return Experience(**moved)


def _look(
    model: PolicyWithValue,
    reference: Policy | AtStart,
    experience: Experience,
    config: RLConfig,
) -> tuple[Float[Tensor, "B T"], dict[str, float]]:
    """Fill in log-probs and values; return the reference's log-probs and the entropy.

    The sampler's own log-probs would do, but for rounding: these are of the forward
    that updates differentiate, so that the first ratio is 1.
    """
    seen = torch.zeros(3, *experience.mask.shape, device=experience.tokens.device)
    total_entropy = 0.0
    every = share(torch.arange(len(experience), device=experience.tokens.device))
    parts = experience.by_length(every, config.minibatches * config.accumulate)
    with evaluating(model):
        for rows in parts:
            part = experience.take(rows)
            width = part.mask.shape[1]
            now = read(model, part, config.temperature)
            mask = torch.ones(1, len(now.logits), device=now.logits.device)
            total_entropy += entropy(now.logits[None], mask).item() * len(now.logits)
            with _active(reference) as policy:
                logits, _ = logits_and_hidden(policy, part.tokens, part.predicts)
            logits = logits.float() / config.temperature
            theirs = _fill(part.mask, _logprobs(logits, part))
            seen[:, rows, :width] = torch.stack([now.logprobs, now.values, theirs])
    experience.logprobs, experience.values, reference_logprobs = added(seen)
    total_entropy = added_figures({"entropy": total_entropy})["entropy"]
    return reference_logprobs, {"entropy": total_entropy / int(experience.mask.sum())}


def _active(reference: Policy | AtStart) -> AbstractContextManager[Policy]:
    at_start = isinstance(reference, AtStart)
    return reference.active() if at_start else nullcontext(reference)


def _logprobs(logits: Float[Tensor, "N V"], part: Experience) -> Float[Tensor, " N"]:
    return -F.cross_entropy(logits, part.responses[part.mask], reduction="none")


def _fill(
    mask: Bool[Tensor, "B T"], counted: Float[Tensor, " N"]
) -> Float[Tensor, "B T"]:
    """Put what counts into its place, row by row; 0 elsewhere."""
    empty = torch.zeros(mask.shape, dtype=counted.dtype, device=mask.device)
    return empty.masked_scatter(mask, counted)


def _agreed_scores(reward: Reward, prompts: Sequence[Any], rollout: Rollout) -> Tensor:
    """Scores of this process's answers; what stops one process stops all of them."""
    problem, scores = None, torch.zeros(len(rollout.texts))
    everyone = [text for texts in everyones(rollout.texts) for text in texts]
    try:
        _require_answers(everyone)
        scores = _scores(reward, prompts, rollout)
    except TrainingStopped as error:
        problem = error
    others = [said for said in everyones(problem and str(problem)) if said]
    if problem or others:
        raise problem or TrainingStopped(others[0])
    return scores


def _require_answers(texts: Sequence[str]) -> None:
    if not any(texts):
        raise TrainingStopped(
            f"all {len(texts)} answers are empty: the policy ends every answer at "
            "once, and nothing can be learnt from that. Look at what an empty answer "
            "earns under this reward, and at the prompts' chat template; then start "
            "from an earlier checkpoint with a larger kl_weight or a smaller lr"
        )


def _scores(reward: Reward, prompts: Sequence[Any], rollout: Rollout) -> Tensor:
    """Ask the reward function and believe it only if it gives a number an answer."""
    texts = rollout.texts
    try:
        given = reward(prompts, texts)
    except Exception as error:
        raise TrainingStopped(
            f"the reward function failed on {len(texts)} answers with "
            f"{type(error).__name__}: {error}. The first answer was {texts[0]!r:.80}"
        ) from error
    try:
        scores = as_scores(given, len(texts))
    except ValueError as error:
        raise TrainingStopped(f"the reward function gave {error}") from error
    if not scores.isfinite().all():
        row = int((~scores.isfinite()).nonzero()[0])
        raise TrainingStopped(
            f"the reward of answer {row} is {scores[row].item()}: {texts[row]!r:.80} "
            f"to {prompts[row]!s:.80}. Let the reward function give a finite "
            "number for every text, the empty one too"
        )
    return scores


def as_scores(given: Any, answers: int) -> Float[Tensor, " B"]:
    """What a reward gave, on the CPU in float32.

    Raises:
        ValueError: it is not one number for each answer.
    """
    expected = f"expected {answers} numbers, one an answer"
    try:
        if isinstance(given, Tensor):
            scores = given.detach().to("cpu", torch.float32)
        elif hasattr(given, "__array__") or isinstance(given, int | float):
            scores = torch.as_tensor(np.asarray(given, dtype=np.float32))
        else:
            numbers = [x.item() if isinstance(x, Tensor) else x for x in given]
            scores = torch.as_tensor(numbers, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{short(given)}, {expected}") from error
    if scores.shape != (answers,):
        hint = ""
        if scores.ndim == 2 and len(scores) == answers:
            hint = "; of a reward model, choose one head: score(...)[:, 0]"
        raise ValueError(
            f"shape {tuple(scores.shape)} for {answers} answers, expected ({answers},):"
            f" one number an answer{hint}"
        )
    return scores
