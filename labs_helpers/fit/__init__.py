"""Training on rows: preferences, ratings, examples. One loop, an objective a method."""

# fmt: off
from labs_helpers.fit.loop import FitConfig, TrainingStopped, fit
from labs_helpers.fit.objectives import Objective, RewardObjective, SFTObjective
from labs_helpers.fit.preferences import (
    KTOObjective, PairObjective, Reference, SLiCObjective,
)
from labs_helpers.fit.soft_labels import SoftPairObjective, SoftRewardObjective
from labs_helpers.fit.history import History
