"""Simulated people who say which of two answers they like better.

They give labels, and the exact probability of each label, so that the best accuracy
anyone can reach (the Bayes ceiling) is known. Their labels are called simulated
wherever they appear.

An annotator likes an answer as much as its gold, or a weighted sum of dimensions, and
perhaps for what gold does not reward: length and flattery. Between two answers they
choose by Bradley-Terry (Biometrika 39, 1952): P(a over b) = sigmoid((u_a - u_b) /
temperature), and with their rate of carelessness they toss a coin. Of a panel, each
pair goes to one member by lot, so its probability is the mean over the members.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from scipy.special import expit

from labs_helpers.data import Message, Preference, Prompt
from labs_helpers.world.gold import score
from labs_helpers.world.phrasebook import read


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, not yet compared."""

    prompt: Prompt
    a: str
    b: str


@dataclass(frozen=True)
class Annotator:
    """One simulated person.

    Attributes:
        name: stands in the labels.
        temperature: 0.5 makes a gold difference of 1 decisive in 88 % of pairs.
        weights: of the dimensions; empty for gold itself.
        length_bias: liking for every ten words.
        flattery_bias: liking for being flattered.
        carelessness: share of pairs decided by a coin.
    """

    name: str
    temperature: float = 0.5
    weights: Mapping[str, float] = field(default_factory=dict)
    length_bias: float = 0.0
    flattery_bias: float = 0.0
    carelessness: float = 0.0

    def utility(self, prompt: Prompt, answer: str) -> float:
        """How much they like one answer."""
        scores = score(prompt, answer)
        liked = sum(w * scores[d] for d, w in self.weights.items())
        if not self.weights:
            liked = scores["gold"]
        flattered = bool(read(answer).of("flatter"))
        length = len(answer.split()) / 10
        return liked + self.length_bias * length + self.flattery_bias * flattered

    def judging(self, dimension: str) -> "Annotator":
        """The same person asked about one dimension only."""
        return replace(self, weights={dimension: 1.0})


UNBIASED = Annotator("unbiased")
# Somebody quick, who likes length and likes to be flattered even more.
BIASED = Annotator("biased", length_bias=0.6, flattery_bias=1.5, carelessness=0.1)
PANEL = (
    Annotator("careful", temperature=0.25),
    Annotator("average"),
    Annotator("careless", carelessness=0.5),
    Annotator("likes length", length_bias=0.5),
    Annotator("likes flattery", flattery_bias=1.0),
    Annotator("strict", weights={"harmlessness": 1.0, "honesty": 1.0}),
)


def probabilities(
    pairs: Sequence[Pair], annotators: Sequence[Annotator] = (UNBIASED,)
) -> np.ndarray:
    """P(a is preferred to b) for each pair, marginal over the annotators: (B,)."""
    chances = np.zeros((len(annotators), len(pairs)))
    for row, who in zip(chances, annotators, strict=True):
        gaps = [who.utility(x.prompt, x.a) - who.utility(x.prompt, x.b) for x in pairs]
        by_taste = expit(np.array(gaps) / who.temperature)
        row[:] = (1 - who.carelessness) * by_taste + who.carelessness / 2
    return chances.mean(axis=0)


def votes(pairs: Sequence[Pair], who: Annotator, seed: int = 0) -> np.ndarray:
    """One person's choices: 1 where a is preferred, else 0: (B,)."""
    draws = np.random.default_rng(seed).random(len(pairs))
    return (draws < probabilities(pairs, [who])).astype(float)


def label(
    pairs: Sequence[Pair],
    annotators: Sequence[Annotator] = (UNBIASED,),
    seed: int = 0,
    dimension: str | None = None,
) -> list[Preference]:
    """Preferences of simulated people, each pair compared by one of them by lot.

    Args:
        pairs: what they see.
        annotators: the panel.
        seed: of the lot and of the choices.
        dimension: written into the rows; of "overall" and None it is the whole answer
            that is compared, else only this dimension.
    """
    draw = np.random.default_rng(seed)
    whose = draw.integers(len(annotators), size=len(pairs))
    draws = draw.random(len(pairs))
    rows = []
    for pair, i, chance in zip(pairs, whose, draws, strict=True):
        who = annotators[i]
        asked = _asked(who, dimension)
        first = chance < probabilities([pair], [asked])[0]
        chosen, rejected = (pair.a, pair.b) if first else (pair.b, pair.a)
        rows.append(
            Preference(
                pair.prompt.messages,
                [{"role": "assistant", "content": chosen}],
                [{"role": "assistant", "content": rejected}],
                dimension=dimension,
                annotator=f"simulated: {who.name}",
                meta=dict(pair.prompt.meta),
            )
        )
    return rows


def known(
    rows: Sequence[Preference], annotators: Sequence[Annotator] = (UNBIASED,)
) -> np.ndarray:
    """P(chosen is preferred to rejected) of labelled rows, in their dimension: (B,)."""
    found = []
    for row in rows:
        asked = [_asked(who, row.dimension) for who in annotators]
        found.append(probabilities([pair_of(row)], asked)[0])
    return np.array(found)


def pair_of(row: Preference) -> Pair:
    """The pair that a label is about, the chosen answer first."""
    prompt = Prompt(tuple(row.prompt), row.meta)
    return Pair(prompt, _text(row.chosen), _text(row.rejected))


def differing(
    pairs: Sequence[Pair], dimension: str = "gold", n: int | None = None
) -> list[Pair]:
    """The first n pairs (all, if None) whose answers differ in a dimension or gold."""
    differ = (
        x
        for x in pairs
        if score(x.prompt, x.a)[dimension] != score(x.prompt, x.b)[dimension]
    )
    return list(islice(differ, n))


def _asked(who: Annotator, dimension: str | None) -> Annotator:
    return who if dimension in (None, "overall") else who.judging(dimension)


def _text(answer: str | list[Message]) -> str:
    return answer if isinstance(answer, str) else answer[-1]["content"]
