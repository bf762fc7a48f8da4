"""Win rates and accuracies against what is attainable, and judges that give them."""

# fmt: off
from labs_helpers.data import Judge
from labs_helpers.evaluation.judges import (
    BothOrders, LanguageModelJudge, RecordedJudge, RewardJudge, TruthJudge,
)
from labs_helpers.evaluation.remote import JudgeFails, RemoteJudge
from labs_helpers.evaluation.named import ClassifierJudge, load_judge
from labs_helpers.evaluation.win_rates import (
    WinRate, bayes_ceiling, expected_right, pair_accuracy, pairs_right, toward_ceiling,
    win_rate,
)
from labs_helpers.evaluation.estimates import Estimate, across_seeds, bootstrap
from labs_helpers.evaluation.estimates import difference, mean, paired_difference
from labs_helpers.evaluation.estimates import proportion, rate
from labs_helpers.evaluation.annotators import annotator_sharpness
from labs_helpers.evaluation.comparisons import (
    bradley_terry_ratings, cohen_kappa, comparisons_needed, krippendorff_alpha,
    length_controlled_win_rate, win_rate_power,
)
from labs_helpers.evaluation.calibration import (
    ReliabilityBin, brier, brier_floor, fit_temperature, probability_gap, reliability,
)
from labs_helpers.evaluation.optimum import (
    Optimum, OveroptimisationFit, best_of_n, best_of_n_kl, distance_covered,
    kl_per_answer, optimal_frontier, optimal_policy, optimum_from_samples,
    overoptimisation_fit,
)
from labs_helpers.evaluation.fitted import drop_upper_layers, fit_head
from labs_helpers.evaluation.worth import Worth, worth_of_answers
