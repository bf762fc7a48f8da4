"""Everything that is loaded and saved: tokenizers, policies, values, reward models.

The rooms behind this door are `policies`, `policy_value` and `reward_model`.
"""

from labs_helpers.policies import (
    Hardware,
    Policy,
    default_device_and_dtype,
    encode_chat,
    evaluating,
    load_policy,
    load_tokenizer,
    pad_right,
)
from labs_helpers.policy_value import PolicyWithValue
from labs_helpers.reward_model import RewardModel

__all__ = [
    "Hardware",
    "Policy",
    "PolicyWithValue",
    "RewardModel",
    "default_device_and_dtype",
    "encode_chat",
    "evaluating",
    "load_policy",
    "load_tokenizer",
    "pad_right",
]
