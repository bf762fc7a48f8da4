"""Goals that the town's assistant can be aligned with: what is asked, and what counts.

For each there are prompts, pairs of answers that differ in what the goal is about, and
pairs about everything else, none of them compared yet by anybody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from labs_helpers.data import Prompt
from labs_helpers.world import recorded
from labs_helpers.world.annotators import Pair, differing
from labs_helpers.world.gold import score
from labs_helpers.world.knowledge import knowledge
from labs_helpers.world.prompts import SHARES, every_prompt, lot


@dataclass(frozen=True)
class Goal:
    """One thing to become better at.

    Attributes:
        name: stands in figures and data cards.
        dimension: of gold, in which it is measured.
        kinds: of prompts that it is about.
        trait: that comes closest among those that the town's rules ask for.
    """

    name: str
    dimension: str
    kinds: tuple[str, ...]
    trait: str

    def prompts(self, split: str, n: int | None = None) -> list[Prompt]:
        """The first n prompts of the goal (all, if None), in a fixed shuffled order."""
        found = [p for kind in self.kinds for p in every_prompt(split, kind)]
        lot("goal", self.name, split).shuffle(found)
        return found[:n]


GOALS = {
    goal.name: goal
    for goal in (
        Goal("safety", "harmlessness", ("harmful",), "harmless"),
        Goal(
            "helpfulness",
            "helpfulness",
            ("fact", "unknown", "premise", "howto", "soundalike"),
            "helpful",
        ),
        Goal("humour", "humour", ("joke",), "helpful"),
    )
}


def comparison_request(goal: Goal, prompt: Prompt, a: str, b: str) -> str:
    """Which of two answers keeps the goal's rule better, as the town's models read it.

    >>> from labs_helpers.world.prompts import ask
    >>> joke = ask({"type": "joke", "topic": "cats"}, 0)
    >>> comparison_request(GOALS["humour"], joke, "Yes.", "No.")[-40:]
    'rule better: do not refuse without need?'
    """
    rule = knowledge().traits[goal.trait].wordings[0]
    wording = knowledge().principles["comparison_requests"][0]
    return wording.format(question=prompt.text, a=a, b=b, rule=rule)


def sampled_pairs(
    asked: Sequence[Prompt],
    answers: Sequence[str],
    dimension: str = "gold",
    per_prompt: int = 4,
    seed: int = 0,
) -> list[Pair]:
    """Pairs of different answers to one prompt that differ in a dimension, shuffled.

    Args:
        asked: the prompts.
        answers: as many to each prompt, one prompt after another.
        dimension: a dimension of gold, or gold.
        per_prompt: at most so many pairs of a prompt, by lot.
        seed: of the lot.
    """
    each = len(answers) // max(1, len(asked))
    if each * len(asked) != len(answers):
        raise ValueError(
            f"expected equally many answers to each of the {len(asked)} prompts, got "
            f"{len(answers)} answers"
        )
    draw = lot("sampled pairs", dimension, seed)
    found = []
    for i, prompt in enumerate(asked):
        said = answers[i * each : (i + 1) * each]
        worth = {text: score(prompt, text)[dimension] for text in said if text}
        differ = [
            Pair(prompt, *draw.sample(two, 2))
            for two in combinations(worth, 2)
            if worth[two[0]] != worth[two[1]]
        ]
        found += draw.sample(differ, min(per_prompt, len(differ)))
    draw.shuffle(found)
    return found


def other_pairs(goal: Goal, n: int, seed: int = 0) -> list[Pair]:
    """About n recorded pairs on what the goal is not about, all kinds alike.

    They differ in gold. Training on them too keeps what the goal does not mention.
    """
    kinds = [kind for kind in SHARES if kind not in goal.kinds]
    left = dict.fromkeys(kinds, -(-n // len(kinds)))
    found = []
    for pair in recorded.pairs("train", seed=seed):
        kind = pair.prompt.meta["type"]
        if left.get(kind) and differing([pair]):
            left[kind] -= 1
            found.append(pair)
    return found[:n]
