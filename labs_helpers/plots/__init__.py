"""Every figure of the labs. Numbers come in; nothing is computed here."""

# fmt: off
from labs_helpers.plots.general import (
    against_size, agreement_heatmap, bars_with_intervals, best_of_n_curves, histograms,
    overoptimisation, reliability_diagram, scatter_against_truth, training_curve,
)
from labs_helpers.plots.rl import (
    bias_and_variance, by_seed, clipped_surrogate, hacking, runs_with_alarms, trials,
    trust_region_step, variance_by_baseline,
)
from labs_helpers.plots.policies import (
    answer_probabilities, comparisons_for_proof, gain_and_tax, gold_against_kl,
    gold_against_kl_by_method, preference_logprobs, ratings, win_rates,
)
from labs_helpers.plots.safety import (
    attack_heatmaps, helpful_and_harmless, label_agreement, rates_by_policy,
)
from labs_helpers.plots.diagrams import (
    diagram_constitutional, diagram_course, diagram_dpo, diagram_four_models,
    diagram_rlhf,
)
from labs_helpers.plots.number_rows import (
    diagram_bradley_terry, diagram_gae, diagram_mask,
)
