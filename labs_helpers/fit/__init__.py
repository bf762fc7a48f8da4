"""Training on rows: preferences, ratings, examples. One loop, an objective a method."""

# fmt: off
from labs_helpers.fit.history import History
from labs_helpers.fit.loop import FitConfig, fit
from labs_helpers.fit.objectives import (
    Objective, PretrainingObjective, RankingObjective, RewardObjective, SFTObjective,
    SoftRewardObjective,
)
from labs_helpers.fit.preferences import (
    KTOObjective, PairObjective, SLiCObjective, SoftPairObjective,
)
from labs_helpers.fit.references import Reference
from labs_helpers.fit.run import TrainingStopped
