"""The embedded world: a small made-up town whose truth is known.

Knowledge, prompts and answers of a closed language; gold scores of any answer; and
simulated annotators, whose labels are known to be right with a known probability.
"""

# fmt: off
from labs_helpers.world import annotators, checks, recorded
from labs_helpers.world.annotators import Annotator, Pair
from labs_helpers.world.goals import (
    GOALS, Goal, comparison_request, other_pairs, sampled_pairs,
)
from labs_helpers.world.gold import DIMENSIONS, Gold, kept_traits, score
from labs_helpers.world.perturb import PERTURBATIONS, perturbed
from labs_helpers.world.reward import SurprisalRewardModel, surprisal
from labs_helpers.world.task import town_task
