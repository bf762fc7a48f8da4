"""AI feedback: a model says which answer keeps a principle better, or whether one does.

Verdicts are read from log-probs of the two possible replies, never sampled: that makes
them soft labels. Pairs are shown in both orders, for a model prefers what comes first
(or second) whatever it is; averaged in log-odds, that preference cancels. This is the
feedback of RLAIF in Constitutional AI (arXiv 2212.08073, section 4). In go a policy,
its tokenizer, prompts and answers; out come labels. Trains nothing (see `soft_labels`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import expit
from transformers import PreTrainedTokenizerBase

from labs_helpers.common import progress as waiting
from labs_helpers.constitution.principles import Constitution, Principle
from labs_helpers.data import Message, as_messages
from labs_helpers.evaluation import BothOrders, Estimate, rate
from labs_helpers.models import Policy, evaluating, logits_and_hidden, pad_right
from labs_helpers.models.chat import encode_answers
from labs_helpers.models.limits import check_fits
from labs_helpers.sampling import sample
from labs_helpers.sampling.logprobs import sequence_scores

BATCH = 64


@dataclass(frozen=True)
class Comparisons:
    """What a model said of pairs of answers, by every principle, in both orders.

    Attributes:
        ids: the principles.
        a_shown_first: log-probs of the replies "the first is better" (column 0) and
            "the second is", with answer a shown first.
        b_shown_first: the same with b shown first: there column 0 speaks for b.
    """

    ids: tuple[str, ...]
    a_shown_first: Float[np.ndarray, "principles pairs 2"]
    b_shown_first: Float[np.ndarray, "principles pairs 2"]

    @property
    def log_odds(self) -> Float[np.ndarray, "principles pairs"]:
        """Log-odds that a is better, the mean of both orders."""
        first, second = (np.diff(x)[..., 0] for x in self._both)
        return (second - first) / 2

    @property
    def probability(self) -> Float[np.ndarray, " pairs"]:
        """The soft label: that a is better, by the principles' log-odds added up.

        A principle that an answer breaks and the other keeps is decisive; one that has
        nothing to say adds next to nothing.
        """
        return expit(self.log_odds.sum(axis=0))

    def orders(self, id: str) -> BothOrders:
        """What was said in either order by one principle: bias, disagreement."""
        row = self.ids.index(id)
        first, second = (np.diff(x)[row, :, 0] for x in self._both)
        return BothOrders(expit(-first), expit(second))

    @property
    def _both(self) -> tuple[np.ndarray, np.ndarray]:
        return self.a_shown_first, self.b_shown_first


def compare_by_principles(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    a: Sequence[str],
    b: Sequence[str],
    constitution: Constitution,
    *,
    critiques_first: bool = False,
) -> Comparisons:
    """Ask which of two answers keeps each principle better, in both orders.

    Args:
        policy: the judge.
        tokenizer: its tokenizer.
        prompts: what was asked.
        a: one answer to each.
        b: another one.
        constitution: its comparison questions are put, one conversation each.
        critiques_first: let the judge think aloud: before it compares, it writes a
            critique of each answer, the one shown first in front. Does not help every
            model.
    """
    if not len(prompts) == len(a) == len(b):
        raise ValueError(
            "a comparison needs one answer of each side for each prompt; there are "
            f"{len(prompts)} prompts, {len(a)} answers a and {len(b)} answers b"
        )
    asked = [_question(prompt) for prompt in prompts]
    requests = []
    for principle in constitution:
        sides = [(answers, [[]] * len(answers)) for answers in (a, b)]
        if critiques_first:
            sides = [
                (answers, _critiques(policy, tokenizer, prompts, answers, principle))
                for answers in (a, b)
            ]
        for first, second in (sides, sides[::-1]):
            requests += [
                [*talk, *more, _turn("user", principle.compare(question, one, other))]
                for question, one, talk, other, more in zip(
                    asked, *first, *second, strict=True
                )
            ]
    replies = (constitution.first, constitution.second)
    found = _replies(policy, tokenizer, requests, replies)
    shaped = found.reshape(len(constitution), 2, len(a), 2)
    return Comparisons(tuple(constitution.ids), shaped[:, 0], shaped[:, 1])


def judge_by_principles(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    answers: Sequence[str],
    constitution: Constitution,
) -> Float[np.ndarray, "principles answers"]:
    """The probability that each answer keeps each principle, says the policy.

    The critique's question, answered by the log-probs of its two beginnings.
    """
    requests = [
        _until_critique(prompt, answer, principle)
        for principle in constitution
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    replies = (constitution.kept, constitution.broken)
    found = _replies(policy, tokenizer, requests, replies)
    odds = found[:, 0] - found[:, 1]
    return expit(odds).reshape(len(constitution), len(answers))


def principle_scores(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    answers: Sequence[str],
    constitution: Constitution,
) -> dict[str, Estimate]:
    """By principle, the share of answers that keep it: the mean of the judge's labels.

    To compare policies, let one and the same judge read the answers of all.
    """
    kept = judge_by_principles(policy, tokenizer, prompts, answers, constitution)
    return {id: rate(row) for id, row in zip(constitution.ids, kept, strict=True)}


@dataclass(frozen=True)
class ConstitutionJudge:
    """Prefers the answer that keeps a constitution better, says a language model.

    Attributes:
        policy: any causal language model.
        tokenizer: its tokenizer.
        constitution: its principles weigh alike.
        tie_margin: log-odds that differ from 0 by no more than this are a tie.
    """

    policy: Policy
    tokenizer: PreTrainedTokenizerBase
    constitution: Constitution
    tie_margin: float = 0.0

    def compare(
        self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]
    ) -> np.ndarray:
        """Compare answers: 1 where `a` wins, 0.5 for a tie, 0 where `b` wins."""
        said = compare_by_principles(
            self.policy, self.tokenizer, prompts, a, b, self.constitution
        )
        odds = said.log_odds.sum(axis=0)
        wins, losses = odds > self.tie_margin, odds < -self.tie_margin
        return 0.5 + 0.5 * (wins.astype(float) - losses.astype(float))


def _critiques(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    answers: Sequence[str],
    principle: Principle,
) -> list[list[Message]]:
    """Each answer with the likeliest critique of it: the conversations."""
    talks = [
        _until_critique(*pair, principle) for pair in zip(prompts, answers, strict=True)
    ]
    said = sample(policy, tokenizer, talks, max_new_tokens=64, temperature=0).texts
    return [[*t, _turn("assistant", s)] for t, s in zip(talks, said, strict=True)]


def _until_critique(prompt: Any, answer: str, principle: Principle) -> list[Message]:
    said = _turn("assistant", answer)
    return [*as_messages(prompt), said, _turn("user", principle.critique)]


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _question(prompt: Any) -> str:
    """The last question; earlier turns before it, where there are any."""
    turns = as_messages(prompt)
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _replies(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Any],
    replies: tuple[str, str],
) -> Float[np.ndarray, "requests 2"]:
    """Log-probs of both replies to every request.

    Where they differ in their last token alone ("Answer A", "Answer B"), one pass
    through the model tells both.

    Raises:
        ValueError: a request does not fit the model or its template.
    """
    answered = [
        encode_answers(tokenizer, requests, [reply] * len(requests), end=False)
        for reply in replies
    ]
    for rows in answered:
        check_fits(policy, tokenizer, [tokens for tokens, _ in rows])
    asked = [list(compress(t, (not m for m in marks))) for t, marks in answered[0]]
    said = [[list(compress(*row)) for row in rows] for rows in answered]
    shared = said[0][0][:-1] if requests else []
    if not all(reply and reply[:-1] == shared for rows in said for reply in rows):
        logprobs = [sequence_scores(policy, rows) for rows in answered]
        return torch.stack(logprobs, dim=1).double().numpy()
    last = torch.tensor([[r[-1] for r in pair] for pair in zip(*said, strict=True)])
    last = last.to(policy.device)
    found = np.zeros((len(asked), 2))
    order = sorted(range(len(asked)), key=lambda i: -len(asked[i]))
    with evaluating(policy), waiting.bar(len(order), "judging") as bar:
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            rows = [[*asked[i], *shared] for i in batch]
            tokens = pad_right(rows)[0].to(policy.device)
            ends = torch.tensor([len(asked[i]) for i in batch], device=policy.device)
            at = torch.arange(tokens.shape[1], device=policy.device) - ends[:, None]
            read = (at >= -1) & (at < len(shared))  # what follows the question
            logits, _ = logits_and_hidden(policy, tokens, read)
            scores = logits.float().log_softmax(1)
            scores = scores.reshape(len(batch), len(shared) + 1, -1)
            total = scores[:, -1].gather(1, last[batch])
            for k, token in enumerate(shared):
                total += scores[:, k, [token]]
            found[batch] = total.double().cpu().numpy()
            bar.update(len(batch))
    return found
