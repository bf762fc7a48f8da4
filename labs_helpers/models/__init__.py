"""What is loaded, run and saved: tokenizers, policies, values and reward models.

`chat` and `templates` turn messages into tokens as the model's template has them,
`adapters` and `loading` are what all kinds of model share.
"""

# fmt: off
from labs_helpers.models.policies import (
    Hardware, Policy, branch, default_device_and_dtype, evaluating, load_policy,
    load_tokenizer, logits_and_hidden, pad_right, save_policy,
)
from labs_helpers.models.averaging import averaged
from labs_helpers.models.chat import encode_chat
from labs_helpers.models.reward import RewardModel
from labs_helpers.models.value import PolicyWithValue
