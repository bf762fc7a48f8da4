"""Objectives as pure functions of tensors: no model, no optimiser.

`preferences` has those of rewards and of whole answers, `policies` those of tokens.
"""

# fmt: off
from labs_helpers.losses.policies import (
    Normaliser, PolicyLoss, entropy, kl_estimate, length_weights, ppo_loss,
    reinforce_loss, rloo_loss, sequence_logprobs, token_entropy, value_loss,
)
from labs_helpers.losses.preferences import (
    PreferenceLoss, bradley_terry_loss, dpo_loss, ipo_loss, kto_loss, mismatched_kl,
    slic_loss, soft_dpo_loss,
)
