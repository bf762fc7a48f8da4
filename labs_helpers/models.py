"""Models and how they are saved: tokenizers, policies, LoRA, reward models.

In go names or folders of Hugging Face models, prompts and answers; out come modules
and rewards. Knows nothing of losses, sampling or training.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from labs_helpers.data import as_messages
from labs_helpers.policies import (
    Hardware,
    Policy,
    default_device_and_dtype,
    encode_chat,
    evaluating,
    load_policy,
    load_tokenizer,
    merged_copy,
    named_origin,
    with_lora,
    without_dropout,
)
from labs_helpers.policy_value import PolicyWithValue

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

HEADS_FILE = "reward_heads.json"
HEAD_WEIGHTS_FILE = "reward_head.safetensors"


class RewardModel(nn.Module):
    """A causal language model with linear heads in place of its vocabulary.

    Build it with `from_policy` or `from_pretrained`. It reads the hidden state of the
    last token, so padding belongs on the right, where no earlier token can see it.

    With a `request`, a question such as "Is that right?" is put to the model after the
    answer, and the rewards are read where its reply would begin. A model that can judge
    its own answers (arXiv 2207.05221) then judges before it scores.
    """

    def __init__(
        self,
        trunk: PreTrainedModel | PeftModel,
        heads: tuple[str, ...],
        tokenizer: PreTrainedTokenizerBase,
        request: str | None = None,
    ):
        super().__init__()
        if isinstance(heads, str) or not heads or len(set(heads)) < len(heads):
            raise ValueError(f"heads is a tuple of different names, got {heads!r}")
        self.trunk = trunk
        self.heads = tuple(heads)
        self.tokenizer = tokenizer
        self.request = request
        self.head = nn.Linear(trunk.config.hidden_size, len(heads), bias=False)
        nn.init.zeros_(self.head.weight)
        self.head.to(trunk.device)

    @classmethod
    def from_policy(
        cls,
        policy: Policy,
        heads: tuple[str, ...] = ("reward",),
        tokenizer: PreTrainedTokenizerBase | None = None,
        lora: int | LoraConfig | None = None,
        request: str | None = None,
    ) -> "RewardModel":
        """Start from a copy of a policy's weights, with all rewards 0.

        Args:
            policy: Is not changed and shares nothing. Its LoRA is merged in the copy.
            heads: One reward each.
            tokenizer: By default that of the folder that the policy came from.
            lora: Train an adapter and the heads, not the trunk's own weights.
            request: Asked after the answer, before the rewards are read.
        """
        if tokenizer is None:
            tokenizer = load_tokenizer(policy.config.name_or_path)
        inner = policy.get_base_model() if isinstance(policy, PeftModel) else policy
        trunk = merged_copy(inner.base_model)
        if lora is not None:
            trunk = with_lora(trunk, lora, task="FEATURE_EXTRACTION")
        return cls(trunk, heads, tokenizer, request).eval()

    def encode(self, prompt: Any, response: str) -> list[int]:
        """Prompt and answer in the chat template, to the token that is read.

        That is the end token of the answer, or the beginning of the reply to `request`.
        """
        messages = [
            *as_messages(prompt),
            {"role": "assistant", "content": response},
        ]
        if self.request is not None:
            messages.append({"role": "user", "content": self.request})
            return encode_chat(self.tokenizer, messages, add_generation_prompt=True)
        tokens = encode_chat(self.tokenizer, messages, add_generation_prompt=False)
        end = self.tokenizer.eos_token_id
        for stop in range(len(tokens), max(len(tokens) - 3, 0), -1):
            if tokens[stop - 1] == end:  # what follows is the template's line break
                return tokens[:stop]
        return [*tokens, end]

    def forward(
        self, input_ids: Int[Tensor, "B L"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B heads"]:
        """Rewards of sequences padded on the right, `lengths` tokens long."""
        hidden = self.trunk(input_ids=input_ids, use_cache=False).last_hidden_state
        return self.head(_at_last_token(hidden, lengths).float())

    def score(
        self, prompts: Sequence[Any], responses: Sequence[str], batch_size: int = 64
    ) -> Float[Tensor, "B heads"]:
        """Rewards of answers, on the CPU and without gradients."""
        return self._each(self, prompts, responses, batch_size)

    def features(
        self,
        prompts: Sequence[Any],
        responses: Sequence[str],
        layer: int = -1,
        batch_size: int = 64,
    ) -> Float[Tensor, "B D"]:
        """Hidden states of the last token after a layer (-1: what the heads read)."""

        def hidden(
            input_ids: Int[Tensor, "B L"], lengths: Int[Tensor, " B"]
        ) -> Float[Tensor, "B D"]:
            states = self.trunk(
                input_ids=input_ids, use_cache=False, output_hidden_states=True
            ).hidden_states
            return _at_last_token(states[layer], lengths).float()

        return self._each(hidden, prompts, responses, batch_size)

    def _each(
        self,
        compute: Callable[[Tensor, Tensor], Tensor],
        prompts: Sequence[Any],
        responses: Sequence[str],
        batch_size: int,
    ) -> Tensor:
        """Compute in batches of similar length; results in the order of the prompts."""
        rows = [
            self.encode(prompt, response)
            for prompt, response in zip(prompts, responses, strict=True)
        ]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        results = []
        with evaluating(self):
            for start in range(0, len(rows), batch_size):
                batch = [rows[i] for i in order[start : start + batch_size]]
                input_ids, lengths = pad_right(batch, self.tokenizer.pad_token_id)
                device = self.trunk.device
                results.append(compute(input_ids.to(device), lengths.to(device)).cpu())
        if not results:
            return torch.zeros(0, len(self.heads))
        return torch.cat(results)[torch.tensor(order).argsort()]

    def save_pretrained(self, folder: str | Path) -> None:
        """Save trunk, heads and tokenizer; a LoRA trunk is saved merged."""
        folder = Path(folder)
        trunk = self.trunk
        if isinstance(trunk, PeftModel):
            trunk = merged_copy(trunk.get_base_model())
        trunk.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        save_file(
            {"weight": self.head.weight.detach().cpu()}, folder / HEAD_WEIGHTS_FILE
        )
        settings = {"heads": self.heads, "request": self.request}
        (folder / HEADS_FILE).write_text(json.dumps(settings) + "\n")

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | Path,
        *,
        lora: int | LoraConfig | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> "RewardModel":
        """Load what `save_pretrained` wrote; the arguments are those of load_policy."""
        folder = Path(name_or_dir)
        if not (folder / HEADS_FILE).exists():
            raise FileNotFoundError(
                f"{folder} holds no reward model: {HEADS_FILE} is missing. Give a "
                "folder that RewardModel.save_pretrained wrote, or start one with "
                "RewardModel.from_policy(load_policy(...))."
            )
        hardware = default_device_and_dtype()
        if dtype is None:
            dtype = torch.float32 if lora is None else hardware.dtype
        with named_origin(folder):
            config = without_dropout(AutoConfig.from_pretrained(folder))
            trunk = AutoModel.from_pretrained(folder, config=config, dtype=dtype)
        if lora is not None:
            trunk = with_lora(trunk, lora, task="FEATURE_EXTRACTION")
        settings = json.loads((folder / HEADS_FILE).read_text())
        heads, request = tuple(settings["heads"]), settings.get("request")
        model = cls(trunk, heads, load_tokenizer(folder), request)
        model.head.load_state_dict(load_file(folder / HEAD_WEIGHTS_FILE))
        return model.to(device or hardware.device).eval()


def pad_right(
    rows: Sequence[Sequence[int]], pad: int
) -> tuple[Int[Tensor, "B L"], Int[Tensor, " B"]]:
    """Stack token lists of several lengths; returns tokens and lengths."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    return tokens, torch.tensor([len(row) for row in rows])


def _at_last_token(
    hidden: Float[Tensor, "B L D"], lengths: Int[Tensor, " B"]
) -> Float[Tensor, "B D"]:
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
