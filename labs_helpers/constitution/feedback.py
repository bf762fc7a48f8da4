"""AI feedback: a model says which answer keeps a principle better, or whether one does.

Verdicts are read from log-probs of the two possible replies, never sampled: that makes
them soft labels. Pairs are shown in both orders, for a model prefers what comes first
(or second) whatever it is; averaged in log-odds, that preference cancels. This is the
feedback of RLAIF in Constitutional AI (arXiv 2212.08073, section 4). In go a policy,
its tokenizer, prompts and answers; out come labels, and preferences to train on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import expit
from transformers import PreTrainedTokenizerBase

from labs_helpers.constitution.principles import Constitution, Principle
from labs_helpers.constitution.revision import asked, said, until_critique
from labs_helpers.data import Message, Preference, as_messages
from labs_helpers.evaluation import BothOrders, Estimate, rate
from labs_helpers.evaluation.judges import question, reply_logprobs, require_pairs
from labs_helpers.evaluation.win_rates import outcomes_of
from labs_helpers.models import Policy
from labs_helpers.sampling import sample


@dataclass(frozen=True)
class Comparisons:
    """What a model said of pairs of answers, by every principle, in both orders.

    Log-probs of the replies "the first is better" (column 0) and "the second is": with
    b shown first, column 0 speaks for b.
    """

    ids: tuple[str, ...]
    a_shown_first: Float[np.ndarray, "principles pairs 2"]
    b_shown_first: Float[np.ndarray, "principles pairs 2"]

    @property
    def log_odds(self) -> Float[np.ndarray, "principles pairs"]:
        """Log-odds that a is better, the mean of both orders."""
        first, second = self._second_is_better
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
        first, second = (odds[self.ids.index(id)] for odds in self._second_is_better)
        return BothOrders(expit(-first), expit(second))

    @property
    def _second_is_better(self) -> list[Float[np.ndarray, "principles pairs"]]:
        """In log-odds, with a shown first and with b shown first."""
        return [np.diff(x)[..., 0] for x in (self.a_shown_first, self.b_shown_first)]


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

    With `critiques_first` the judge thinks aloud: before it compares, it writes a
    critique of each answer, the one shown first in front. Does not help every model.
    """
    require_pairs(prompts, a, b)
    questions = [question(prompt) for prompt in prompts]
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
                [*talk, *more, asked(principle.compare(question, one, other))]
                for question, one, talk, other, more in zip(
                    questions, *first, *second, strict=True
                )
            ]
    replies = (constitution.first, constitution.second)
    found = reply_logprobs(policy, tokenizer, requests, replies)
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
        until_critique(prompt, answer, principle)
        for principle in constitution
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    replies = (constitution.kept, constitution.broken)
    found = reply_logprobs(policy, tokenizer, requests, replies)
    return expit(found[:, 0] - found[:, 1]).reshape(len(constitution), len(answers))


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

    Its principles weigh alike.
    """

    policy: Policy
    tokenizer: PreTrainedTokenizerBase
    constitution: Constitution

    def compare(
        self, prompts: Sequence[Any], a: Sequence[str], b: Sequence[str]
    ) -> np.ndarray:
        """Compare answers: 1 where `a` wins, 0.5 for a tie, 0 where `b` wins."""
        compared = compare_by_principles(
            self.policy, self.tokenizer, prompts, a, b, self.constitution
        )
        return outcomes_of(compared.log_odds.sum(axis=0))


def preferences_from(
    prompts: Sequence[Any],
    a: Sequence[str],
    b: Sequence[str],
    probabilities: Sequence[float] | np.ndarray,
) -> list[Preference]:
    """Pairs with soft labels as preferences: the likelier answer is the chosen one.

    The label stands in `meta["probability"]`, at least 1/2; a file of these rows is a
    preference file like any other. Pairs of one and the same answer are left out.
    """
    rows = []
    for prompt, *pair, p in zip(prompts, a, b, probabilities, strict=True):
        if pair[0] != pair[1]:
            answers = pair if p >= 0.5 else pair[::-1]
            meta = {**getattr(prompt, "meta", {}), "probability": float(max(p, 1 - p))}
            said_by = {"annotator": "AI feedback", "meta": meta}
            rows.append(Preference(as_messages(prompt), *answers, **said_by))
    return rows


def _critiques(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    answers: Sequence[str],
    principle: Principle,
) -> list[list[Message]]:
    """Each answer with the likeliest critique of it: the conversations."""
    pairs = zip(prompts, answers, strict=True)
    talks = [until_critique(*pair, principle) for pair in pairs]
    texts = sample(policy, tokenizer, talks, max_new_tokens=64, temperature=0).texts
    return [[*talk, said(text)] for talk, text in zip(talks, texts, strict=True)]
