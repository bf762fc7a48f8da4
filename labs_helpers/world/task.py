"""The town as a `Task`: prompts, recorded preferences, truth, judge and probe.

What the labs ask for when no other data is given.
"""

from collections.abc import Mapping
from functools import cache

from labs_helpers.data import Preference, Probe, Prompt, Task
from labs_helpers.evaluation import TruthJudge
from labs_helpers.safety import Suite, load_suites
from labs_helpers.world import recorded
from labs_helpers.world.annotators import differing, label
from labs_helpers.world.gold import DIMENSIONS, Gold, score
from labs_helpers.world.knowledge import DATA, knowledge
from labs_helpers.world.prompts import capability_prompts, practice_prompts, prompts

HEADS = ("overall", *DIMENSIONS)


def town_task() -> Task:
    """The embedded world; preferences are those of one unbiased simulated annotator."""
    truth = Gold()
    return Task(
        name="the town",
        prompts=prompts,
        preferences=preferences,
        heads=HEADS,
        judge=TruthJudge(truth),
        truth=truth,
        capability=capability,
        suites=_suites(),
        self_check=knowledge().principles["self_check"]["request"],
        many_prompts=practice_prompts,
    )


@cache
def _preferences(split: str, goal: str) -> tuple[Preference, ...]:
    dimension, seed = ("gold" if goal == HEADS[0] else goal), HEADS.index(goal)
    pairs = differing(recorded.pairs(split), dimension)
    return tuple(label(pairs, seed=seed, dimension=goal))


def preferences(split: str, goal: str | None = None) -> list[Preference]:
    """Recorded pairs that differ in gold, compared by one unbiased annotator.

    Of a goal, a dimension of gold, those that differ there, compared in that alone.
    """
    goal = goal or HEADS[0]
    if goal not in HEADS:
        raise ValueError(f"no goal {goal!r}; the town has {', '.join(HEADS)}")
    return list(_preferences(split, goal))


@cache
def _suites() -> Mapping[str, Suite]:
    return load_suites(DATA / "safety")


def capability(split: str) -> Probe:
    """Sums, order and opposites in the split's wordings."""
    return Probe(capability_prompts(split), _is_right)


def _is_right(prompt: Prompt, response: str) -> bool:
    return score(prompt, response)["helpfulness"] == 1.0
