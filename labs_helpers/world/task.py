"""The town as a `Task`: prompts, recorded preferences, truth, judge and probe.

What the labs ask for when no other data is given.
"""

from functools import cache

from labs_helpers.data import Preference, Probe, Prompt, Task
from labs_helpers.evaluation import TruthJudge
from labs_helpers.world import recorded
from labs_helpers.world.annotators import differing, label
from labs_helpers.world.gold import Gold, score
from labs_helpers.world.knowledge import knowledge
from labs_helpers.world.prompts import capability_prompts, practice_prompts, prompts


def town_task() -> Task:
    """The embedded world; preferences are those of one unbiased simulated annotator."""
    truth = Gold()
    return Task(
        name="the town",
        prompts=prompts,
        preferences=preferences,
        judge=TruthJudge(truth),
        truth=truth,
        capability=capability,
        self_check=knowledge().principles["self_check"]["request"],
        many_prompts=practice_prompts,
    )


@cache
def _preferences(split: str) -> tuple[Preference, ...]:
    return tuple(label(differing(recorded.pairs(split)), dimension="overall"))


def preferences(split: str) -> list[Preference]:
    """Recorded pairs that differ in gold, compared by one unbiased annotator."""
    return list(_preferences(split))


def capability(split: str) -> Probe:
    """Sums, order and opposites in the split's wordings."""
    return Probe(capability_prompts(split), _is_right)


def _is_right(prompt: Prompt, response: str) -> bool:
    return score(prompt, response)["helpfulness"] == 1.0
