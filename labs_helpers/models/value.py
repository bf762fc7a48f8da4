"""A policy that also says what it expects: a value for every token.

In go token ids, out come vocabulary scores and values where they are wanted. The value
is read from the policy's own hidden states or from a model of its own.
"""

import shutil
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from labs_helpers.models import adapters, loading, policies
from labs_helpers.models.policies import Policy, load_policy, logits_and_hidden
from labs_helpers.models.vocabulary import States, states

HEAD_FILE = "value_head.safetensors"
TRUNK_FOLDER = "value_trunk"


class TokenOutput(NamedTuple):
    """What follows each token, and what it is worth to be there."""

    logits: Float[Tensor, "*tokens V"]
    values: Float[Tensor, "*tokens"]


class PolicyWithValue(nn.Module):
    """A causal language model and a value of every state, 0 at first.

    Build it with `from_policy` or `from_pretrained`, or from a trunk of your own (that
    of a reward model, say). Sequences are padded on the right, where no earlier token
    can see it, and read without an attention mask.

    Args:
        policy: Is trained in place, with or without LoRA.
        value_trunk: Reads the sequence for the values; None reads the policy's trunk.
    """

    def __init__(
        self, policy: Policy, value_trunk: PreTrainedModel | PeftModel | None = None
    ):
        super().__init__()
        self.policy = policy
        self.value_trunk = value_trunk
        if value_trunk is None:  # as wide as what the vocabulary scores are read from
            width = policy.get_output_embeddings().weight.shape[1]
        else:
            width = policies.hidden_width(value_trunk)
        self.value_head = nn.Linear(width, 1).to(policy.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)

    @classmethod
    def from_policy(
        cls,
        policy: Policy,
        separate: bool = False,
        lora: int | PeftConfig | None = None,
    ) -> "PolicyWithValue":
        """Start with all values 0, on a policy that is trained in place.

        Args:
            separate: Values come from a copy of the policy's trunk, trained apart. It
                costs a second model and leaves the policy's features alone.
            lora: Train an adapter of that copy, not its own weights.
        """
        if lora and not separate:
            raise ValueError(
                "lora is for a value model of its own: give separate=True too. A "
                "shared trunk has the policy's adapter (load_policy(..., lora=...))"
            )
        trunk = None
        if separate:
            trunk = adapters.merged_copy(policy).eval()
            trunk = adapters.with_lora(trunk, lora, task="FEATURE_EXTRACTION")
        return cls(policy, trunk).eval()

    def forward(
        self, tokens: Int[Tensor, "B L"], keep: Bool[Tensor, "B L"] | None = None
    ) -> TokenOutput:
        """Logits of what follows each token, and the value of having come there.

        Args:
            tokens: Sequences padded on the right.
            keep: The N tokens whose outputs are wanted, row by row; the others cost no
                vocabulary scores. None keeps the shape (B, L).
        """
        logits, hidden = logits_and_hidden(self.policy, tokens, keep)
        return TokenOutput(logits, self._values(hidden, tokens, keep))

    def states(
        self, tokens: Int[Tensor, "B L"], keep: Bool[Tensor, "B L"]
    ) -> tuple[States, Float[Tensor, " N"]]:
        """As `forward`, with states of which vocabulary scores can be read by parts."""
        found = states(self.policy, tokens, keep)
        return found, self._values(found.hidden, tokens, keep)

    def _values(
        self,
        hidden: Float[Tensor, "*tokens D"],
        tokens: Int[Tensor, "B L"],
        keep: Bool[Tensor, "B L"] | None,
    ) -> Float[Tensor, "*tokens"]:
        """Values of the policy's hidden states, or of the value model's own."""
        if self.value_trunk is not None:
            output = self.value_trunk(input_ids=tokens, use_cache=False)
            hidden = output.last_hidden_state
            hidden = hidden if keep is None else hidden[keep]
        with torch.autocast(hidden.device.type, enabled=False):
            # Of one size in every model, so that one learning rate suits all heads.
            features = F.rms_norm(hidden.float(), hidden.shape[-1:])
            return self.value_head(features)[..., 0]

    def policy_parameters(self) -> list[nn.Parameter]:
        """What of the policy is trained."""
        return [p for p in self.policy.parameters() if p.requires_grad]

    def value_parameters(self) -> list[nn.Parameter]:
        """What is trained for the values alone: the head, and a trunk of its own."""
        trunk = [] if self.value_trunk is None else self.value_trunk.parameters()
        return [p for p in (*self.value_head.parameters(), *trunk) if p.requires_grad]

    def save_pretrained(self, folder: str | Path) -> None:
        """Save the policy as it is, the value's parts beside it, its LoRA merged.

        Raises:
            ValueError: The policy is an adapter on a model that came from no folder.
        """
        folder = Path(folder)
        policies.save_policy(self.policy, folder)
        if self.value_trunk is not None:
            adapters.save_trunk(self.value_trunk, folder / TRUNK_FOLDER)
        elif (folder / TRUNK_FOLDER).exists():  # of values saved here before
            shutil.rmtree(folder / TRUNK_FOLDER)
        loading.save_weights(self.value_head, folder / HEAD_FILE)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> "PolicyWithValue":
        """Load what `save_pretrained` wrote; device and dtype as for load_policy."""
        folder = Path(folder)
        if not (folder / HEAD_FILE).exists():
            raise FileNotFoundError(
                f"{folder} holds no value head: {HEAD_FILE} is missing. Give a folder "
                "that PolicyWithValue.save_pretrained wrote, or start one with "
                "PolicyWithValue.from_policy(load_policy(...))."
            )
        policy, trunk = load_policy(folder, device=device, dtype=dtype), None
        if (folder / TRUNK_FOLDER).exists():
            dtype = dtype or torch.float32
            trunk = loading.read_model(AutoModel, folder / TRUNK_FOLDER, dtype)
            trunk = trunk.to(policy.device)
        model = cls(policy, trunk)
        loading.read_weights(model.value_head, folder / HEAD_FILE)
        return model.eval()
