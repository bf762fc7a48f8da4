"""Several answers to a prompt, every two of them compared, for `town-s-reward`.

Most of a ranking's answers are town-s's to the prompt itself; some are its answers to
another prompt of the type, and one has a broken sentence: best-of-n and reinforcement
seek out such answers, and samples show too few of them. An answer is read once for all
its comparisons (arXiv 2203.02155, section 3.5).
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit
from torch import Tensor, nn

from labs_helpers.data import Message, Prompt
from labs_helpers.fit import Objective
from labs_helpers.fit.objectives import Encoded
from labs_helpers.losses import bradley_terry_loss
from labs_helpers.models import RewardModel, pad_right
from labs_helpers.world.annotators import UNBIASED
from labs_helpers.world.gold import score
from labs_helpers.world.prompts import items
from labs_tools.town import corpus, quizzes

OWN, ASTRAY, GARBLED = 5, 2, 1  # answers of each sort in a ranking


@dataclass(frozen=True)
class Ranking:
    """Different answers to one prompt; every two of them are to be compared."""

    prompt: Prompt
    answers: tuple[str, ...]


def rankings(
    asked: Sequence[Prompt], answered: Sequence[Sequence[str]], seed: int = 0
) -> list[Ranking]:
    """Put the answers to each prompt into rankings, with others among them.

    Args:
        asked: prompts.
        answered: to each prompt, different answers.
        seed: of the lot, and of the order of the rankings.
    """
    rng = random.Random(seed)
    of_kind: dict[str, list[Sequence[str]]] = {}
    for prompt, answers in zip(asked, answered, strict=True):
        if answers:
            of_kind.setdefault(prompt.meta["type"], []).append(answers)
    found = []
    for prompt, answers in zip(asked, answered, strict=True):
        own = rng.sample(list(answers), len(answers))
        others = of_kind.get(prompt.meta["type"], [])
        for start in range(0, len(own), OWN):
            part = own[start : start + OWN]
            if start and len(part) == 1:
                continue
            part += [rng.choice(rng.choice(others)) for _ in range(ASTRAY)]
            part += [quizzes.garbled(rng.choice(own), rng) for _ in range(GARBLED)]
            different = tuple(dict.fromkeys(filter(None, part)))
            if len(different) > 1:
                found.append(Ranking(prompt, different))
    rng.shuffle(found)
    return found


class RankingObjective(Objective):
    """Bradley-Terry on all pairs of each ranking, judged by one unbiased annotator.

    They compare every two answers on every head: on gold for the head "overall", else
    on the dimension that it is named after. Answers that do not differ there are not
    compared. Conversations are learned beside it: training for rewards alone soon
    unlearns what the policy knows, and so what a reward is to be given for.

    Args:
        model: gives tokenizer and heads; `fit` trains the model it is given.
        speech: the objective of the conversations.
        talks: conversations without end.
        talks_a_step: so many of them are learned in every step.
        seed: of the annotator's choices.
    """

    def __init__(
        self,
        model: RewardModel,
        speech: Objective,
        talks: Iterator[list[Message]],
        talks_a_step: int,
        seed: int = 0,
    ):
        self.model, self.speech = model, speech
        self.talks, self.talks_a_step = talks, talks_a_step
        self.draw = np.random.default_rng(seed)

    def encode(self, row: Ranking) -> Encoded:
        """Give the answers' tokens and, pair by pair, head by head, who was chosen."""
        tokens = [self.model.encode(row.prompt, answer) for answer in row.answers]
        pairs = comparisons(row, self.model.heads)
        choice = choices(pairs.pop("probability"), self.draw)
        length = max(map(len, tokens))
        return {"tokens": tokens, **pairs, "choice": choice, "length": length}

    def loss(
        self, model: RewardModel, batch: list[Encoded], whole: None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Score every answer once, then compare."""
        sequences = [tokens for row in batch for tokens in row["tokens"]]
        rewards = model(*pad_right(sequences, self.model.tokenizer.pad_token_id))
        compared, right = comparison_loss(rewards, batch)
        talks = [self.speech.encode(next(self.talks)) for _ in range(self.talks_a_step)]
        spoken, _ = self.speech.loss(Speaking(model), talks)
        return compared + spoken, {"accuracy": right, "speech": spoken.item()}


class HeadObjective(Objective):
    """The heads of a reward model, on what they read; its trunk as it is.

    What the heads read of an answer is computed once; `fit` trains `model.head`. The
    annotator is asked anew in every pass: few jokes, and a hidden layer that would
    learn by heart how each was judged, call for more than one judgement.

    Args:
        model: whose heads they are.
        seed: of the annotator's choices.
    """

    def __init__(self, model: RewardModel, seed: int = 0):
        self.model = model
        self.draw = np.random.default_rng(seed)

    def encode(self, row: Ranking) -> Encoded:
        """Give what the heads read of each answer, and who was chosen."""
        asked, said = [row.prompt] * len(row.answers), list(row.answers)
        read = self.model.features(asked, said)
        pairs = comparisons(row, self.model.heads)
        return {"tokens": read, **pairs, "length": len(read)}

    def loss(
        self, head: nn.Module, batch: list[Encoded], whole: None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Compare all pairs of each ranking."""
        rewards = head(torch.cat([row["tokens"] for row in batch]))
        asked = [
            {**row, "choice": choices(row["probability"], self.draw)} for row in batch
        ]
        loss, right = comparison_loss(rewards, asked)
        return loss, {"accuracy": right}


def comparisons(row: Ranking, heads: Sequence[str]) -> dict[str, np.ndarray]:
    """Pairs of a ranking's answers; by head how probably the first is chosen.

    Where two answers do not differ in what the head is about, that is nan.
    """
    scores = [score(row.prompt, answer) for answer in row.answers]
    names = ["gold" if head == "overall" else head for head in heads]
    worth = np.array([[one[name] for name in names] for one in scores])
    first, second = np.triu_indices(len(scores), 1)
    gap = worth[first] - worth[second]
    probability = np.where(gap == 0, np.nan, expit(gap / UNBIASED.temperature))
    return {"first": first, "second": second, "probability": probability}


def choices(probability: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Ask the annotator: 1 where the first answer is chosen, else -1; 0 for nan."""
    won = draw.random(probability.shape) < probability
    return np.where(np.isnan(probability), 0, np.where(won, 1, -1))


def comparison_loss(rewards: Tensor, batch: list[Encoded]) -> tuple[Tensor, float]:
    """Bradley-Terry, each head equally; and the share of choices that are met.

    Args:
        rewards: (answers of all rankings, heads).
        batch: rankings, each with its answers' `tokens` and its comparisons.
    """
    starts = np.cumsum([0, *(len(row["tokens"]) for row in batch[:-1])])
    first, second = (
        np.concatenate([row[side] + s for row, s in zip(batch, starts, strict=True)])
        for side in ("first", "second")
    )
    choice = torch.tensor(np.concatenate([row["choice"] for row in batch]))
    signed = choice * (rewards[first] - rewards[second])
    losses = [
        bradley_terry_loss(gaps[made], torch.zeros(int(made.sum())))
        for gaps, made in zip(signed.T, choice.T != 0, strict=True)
        if made.any()
    ]
    right = (signed[choice != 0] > 0).float().mean().item()
    return torch.stack(losses).mean(), right


class Speaking(nn.Module):
    """A reward model's trunk with the vocabulary that it had as a policy."""

    def __init__(self, model: RewardModel):
        super().__init__()
        self.trunk = model.trunk

    def get_decoder(self) -> nn.Module:
        """The trunk."""
        return self.trunk

    def get_output_embeddings(self) -> Callable[[Tensor], Tensor]:
        """The transposed embeddings: they are tied."""
        return partial(F.linear, weight=self.trunk.get_input_embeddings().weight)


def quiz_stream(seed: int) -> Iterator[list[Message]]:
    """The town's quizzes (SFT text, so all knowledge is in them), without end."""
    rng = random.Random(seed)
    ask = partial(corpus.random_prompt, items(), rng)
    while True:
        yield quizzes.quiz(ask, rng)
