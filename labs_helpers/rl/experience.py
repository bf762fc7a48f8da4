"""From prompts to experience: sample answers, score them, say who deserves the reward.

In go a policy with values, its reference and a reward function; out comes what an
update learns from, and what was measured on the way. Of several processes each answers
its own prompts, and the experience is of all: N processes with S samples learn what one
with N x S does, but for rounding. Knows no update rule.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from accelerate.utils import gather, pad_across_processes
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from labs_helpers.advantages import gae, shape_rewards, whiten
from labs_helpers.fit import TrainingStopped
from labs_helpers.fit.references import AtStart
from labs_helpers.fit.run import added, everyones, processes, share
from labs_helpers.losses import token_entropy
from labs_helpers.models import Policy, PolicyWithValue, evaluating
from labs_helpers.models.memory import in_parts
from labs_helpers.models.policies import frozen_copy
from labs_helpers.models.vocabulary import States, states
from labs_helpers.rl.config import RLConfig
from labs_helpers.rl.rewards import Reward, scores_in_training
from labs_helpers.sampling import Rollout, sample
from labs_helpers.sampling.logprobs import surprise

# More rows at a time pad more and leave a CPU's caches: measured 1.5 times slower.
CPU_ROWS = 16
Cut = Callable[[Sequence[int], int], list[list[int]]]


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
    logprobs: Float[Tensor, "B T"] | None = None
    values: Float[Tensor, "B T"] | None = None
    advantages: Float[Tensor, "B T"] | None = None
    returns: Float[Tensor, "B T"] | None = None

    def take(self, rows: Int[Tensor, " b"]) -> "Experience":
        """Some of the answers, without the padding that only the others need."""
        length = int(self.predicts[rows].any(dim=0).nonzero().max()) + 1
        width = int(self.mask[rows].any(dim=0).nonzero().max()) + 1
        taken = {}
        for field in fields(self):
            tensor = getattr(self, field.name)
            cut = length if field.name in ("tokens", "predicts") else width
            taken[field.name] = None if tensor is None else tensor[rows][:, :cut]
        return Experience(**taken)

    def by_length(
        self, rows: Int[Tensor, " b"], number: int, cut: Cut = in_parts
    ) -> list[Tensor]:
        """Split rows into parts of similar length, so many or as memory asks for."""
        if self.tokens.device.type == "cpu":
            number = max(number, -(-len(rows) // CPU_ROWS))
        lengths = self.predicts[rows].int().cumsum(dim=1).argmax(dim=1) + 1
        return [rows[part] for part in cut(lengths.tolist(), number)]

    @property
    def answer_tokens(self) -> Int[Tensor, " N"]:
        """The tokens that count, row by row."""
        return self.responses[self.mask]

    def __len__(self) -> int:
        return len(self.tokens)


class Outputs(NamedTuple):
    """What a policy says of an experience's tokens; N of them count."""

    logprobs: Float[Tensor, "B T"]
    values: Float[Tensor, "B T"]
    states: States
    temperature: float

    @property
    def logits(self) -> Float[Tensor, "N V"]:
        """Scores of the vocabulary, of all tokens at once."""
        return self.states.scores(self.states.hidden) / self.temperature

    @property
    def entropies(self) -> Float[Tensor, " N"]:
        """Of the distributions that the tokens are drawn from, in nats."""
        return self.states.each(lambda x: token_entropy(x / self.temperature))


def read(model: PolicyWithValue, part: Experience, temperature: float) -> Outputs:
    """Log-probs, values and scores of the answers' tokens, with gradient."""
    found, values = model.states(part.tokens, part.predicts)
    return Outputs(
        _logprobs(found, part, temperature),
        _fill(part.mask, values),
        found,
        temperature,
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
) -> tuple[Experience, dict[str, float]]:
    """Answer prompts, score the answers, and measure both.

    Args:
        reference: What KL is measured from (`reference_of`).
        config: Of an algorithm without values, they are 0, and rewards are all there is
            to trust.
        cut: Makes parts of rows by their lengths, at least so many.

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
        seed=_seed_sampling(seed, len(prompts), config.max_new_tokens),
    )
    torch.manual_seed(seed)
    sampled = time.perf_counter()
    device = model.policy.device
    with torch.autocast(device.type, enabled=False):  # a reward has its own precision
        mine = _agreed_scores(reward, prompts, rollout.texts)
    scored = time.perf_counter()
    answers = vars(unscored(rollout, device)).items()
    experience = Experience(**{n: _gathered(x) for n, x in answers if x is not None})
    scores, finished = (_gathered(x.to(device)) for x in (mine, rollout.finished))
    reference_logprobs, mean_entropy = _fill_in(
        model, reference, experience, config, cut
    )
    penalised = scores - config.missing_end_penalty * ~finished
    measured = _assign_credit(experience, penalised, reference_logprobs, config)
    texts = [text for some in everyones(rollout.texts) for text in some]
    measured |= {
        "entropy": mean_entropy,
        "reward": scores.mean().item(),
        "reward_spread": scores.std(correction=0).item(),
        "kl": (experience.logprobs - reference_logprobs).sum(dim=1).mean().item(),
        "kl_weight": config.kl_weight,
        "length": experience.mask.sum(dim=1).float().mean().item(),
        "finished": finished.float().mean().item(),
        "repetition": repetition(experience.responses, experience.mask),
        "distinct": len(set(texts)) / len(texts),
        "sampling_seconds": sampled - started,
        "reward_seconds": scored - sampled,
    }
    return experience, measured


def _assign_credit(
    experience: Experience,
    scores: Float[Tensor, " B"],
    reference_logprobs: Float[Tensor, "B T"],
    config: RLConfig,
) -> dict[str, float]:
    """Fill in advantages and returns; say how well the values foresaw these."""
    values, mask = experience.values, experience.mask
    if not config.learns_values:
        values = experience.values = torch.zeros_like(values)
    rewards = shape_rewards(
        scores, experience.logprobs, reference_logprobs, mask, config.kl_weight
    )
    lam = config.lam if config.learns_values else 1.0
    advantages, returns = gae(rewards, values, mask, config.gamma, lam)
    experience.returns = returns
    experience.advantages = whiten(advantages, mask) if config.whiten else advantages
    if not config.learns_values:
        return {}
    return {"explained_variance": explained_variance(values, returns, mask)}


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


def unscored(rollout: Rollout, device: torch.device) -> Experience:
    """Move the padding to the right, where no attention mask is needed for it."""
    width = rollout.prompt_mask.shape[1]
    padding = width - rollout.prompt_mask.sum(dim=1)
    columns = torch.arange(rollout.tokens.shape[1]) + padding[:, None]
    inside = columns < rollout.tokens.shape[1]
    columns = columns.clamp(max=rollout.tokens.shape[1] - 1)
    is_answer = F.pad(rollout.response_mask, (width, 0)).gather(1, columns) & inside
    return Experience(
        tokens=rollout.tokens.gather(1, columns).to(device),
        predicts=F.pad(is_answer[:, 1:], (0, 1)).to(device),
        responses=rollout.responses.to(device),
        mask=rollout.response_mask.to(device),
        logprobs=rollout.logprobs.to(device),
    )


def _fill_in(
    model: PolicyWithValue,
    reference: Policy | AtStart,
    experience: Experience,
    config: RLConfig,
    cut: Cut,
) -> tuple[Float[Tensor, "B T"], float]:
    """Fill in log-probs and values; return the reference's log-probs and the entropy.

    Where values are learnt, log-probs are of the forward that gives these and that
    updates differentiate, so that the first ratio is 1. Else nothing is divided by
    them, and those of the sampler do: one forward less. Their mean estimates the
    entropy then.
    """
    device = experience.tokens.device
    seen = torch.zeros(3, *experience.mask.shape, device=device)
    total_entropy = torch.zeros(1, dtype=torch.float64)
    sampled = None if config.learns_values else experience.logprobs
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
                seen[0, rows, :width] = _fill(part.mask, both[:, 0])
                seen[1, rows, :width] = _fill(part.mask, values)
            with reference.active() if at_start else nullcontext(reference) as policy:
                found = states(policy, part.tokens, part.predicts)
                seen[2, rows, :width] = _logprobs(found, part, config.temperature)
    experience.logprobs, experience.values, reference_logprobs = added(seen)
    total = added(total_entropy.to(device)).item()
    if sampled is not None:
        experience.logprobs, total = sampled, -sampled.sum().item()
    return reference_logprobs, total / int(experience.mask.sum())


def _logprobs(
    found: States, part: Experience, temperature: float
) -> Float[Tensor, "B T"]:
    def logprobs(scores: Tensor, targets: Tensor) -> Tensor:
        return -surprise(scores / temperature, targets)

    return _fill(part.mask, found.each(logprobs, part.answer_tokens))


def _logprob_and_entropy(config: RLConfig) -> Callable[[Tensor, Tensor], Tensor]:
    def both(scores: Tensor, targets: Tensor) -> Tensor:
        scores = scores / config.temperature
        return torch.stack([-surprise(scores, targets), token_entropy(scores)], dim=1)

    return both


def _fill(
    mask: Bool[Tensor, "B T"], counted: Float[Tensor, " N"]
) -> Float[Tensor, "B T"]:
    """Put what counts into its place, row by row; 0 elsewhere."""
    empty = torch.zeros(mask.shape, dtype=counted.dtype, device=mask.device)
    return empty.masked_scatter(mask, counted)


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
    everyone = [text for some in everyones(texts) for text in some]
    try:
        if not any(everyone):
            raise TrainingStopped(
                f"all {len(everyone)} answers are empty: the policy ends every answer "
                "at once, and nothing can be learnt from that. Look at what an empty "
                "answer earns under this reward, and at the prompts' chat template; "
                "then start from an earlier checkpoint with a larger kl_weight or a "
                "smaller lr"
            )
        scores = scores_in_training(reward, prompts, texts)
    except TrainingStopped as error:
        problem = error
    others = [said for said in everyones(problem and str(problem)) if said]
    if others:
        raise problem or TrainingStopped(others[0])
    return scores
