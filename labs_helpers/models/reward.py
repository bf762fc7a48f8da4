"""Reward models: a policy with heads that give numbers in place of its vocabulary.

In go prompts and answers, out come rewards, one for each head. Knows nothing of losses
and of where the answers come from.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PeftConfig, PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from labs_helpers.common import progress as waiting
from labs_helpers.data import as_messages
from labs_helpers.data.messages import as_exchanges
from labs_helpers.models.adapters import adapter_config, merged_copy, with_lora
from labs_helpers.models.chat import encode_answer, encode_prompt
from labs_helpers.models.limits import check_fits, naming_row
from labs_helpers.models.loading import (
    cannot_load,
    quiet_loading,
    read_json,
    read_model,
    read_weights,
)
from labs_helpers.models.policies import (
    Policy,
    default_device_and_dtype,
    evaluating,
    frozen_copy,
    hidden_width,
    load_policy,
    load_tokenizer,
    pad_right,
)

HEADS_FILE = "reward_heads.json"
HEAD_WEIGHTS_FILE = "reward_head.safetensors"
WITNESS_FOLDER = "witness"
WITNESS_UNITS = 64  # of the hidden layer that weighs its testimony


class RewardModel(nn.Module):
    """A causal language model with linear heads in place of its vocabulary.

    Build it with `from_policy` or `from_pretrained`. It reads the hidden state of the
    last token, so padding belongs on the right, where no earlier token can see it.

    With a `request`, a question such as "Is that right?" is put to the model after the
    answer, and the rewards are read where its reply would begin. A model that can judge
    its own answers (arXiv 2207.05221) then judges before it scores.

    With a `witness`, the heads also read how likely that policy, which is not trained,
    finds the answer's tokens (`logprobs.surprise`), through a hidden layer. A trunk
    that learns rewards from some questions soon forgets what answers the others; the
    policy has not, and gives little probability to what does not belong there.
    """

    def __init__(
        self,
        trunk: PreTrainedModel | PeftModel,
        heads: tuple[str, ...],
        tokenizer: PreTrainedTokenizerBase,
        request: str | None = None,
        witness: Policy | None = None,
    ):
        super().__init__()
        if isinstance(heads, str) or not heads or len(set(heads)) < len(heads):
            raise ValueError(f"heads is a tuple of different names, got {heads!r}")
        self.trunk = trunk
        self.heads = tuple(heads)
        self.tokenizer = tokenizer
        self.request = request
        self.witness = witness
        self.width = hidden_width(trunk)
        units = self.width if witness is None else WITNESS_UNITS
        last = nn.Linear(units, len(heads), bias=False)
        nn.init.zeros_(last.weight)
        self.head: nn.Module = last
        if witness is not None:
            from labs_helpers.sampling.logprobs import SURPRISES

            read = self.width + len(SURPRISES)
            self.head = nn.Sequential(nn.Linear(read, units), nn.GELU(), last)
        self.head.to(trunk.device)

    @classmethod
    def from_policy(
        cls,
        policy: Policy,
        heads: tuple[str, ...] = ("reward",),
        tokenizer: PreTrainedTokenizerBase | None = None,
        lora: int | PeftConfig | None = None,
        request: str | None = None,
        witness: bool = False,
    ) -> "RewardModel":
        """Start from a copy of a policy's weights, with all rewards 0.

        Args:
            policy: Is not changed and shares nothing. Its LoRA is merged in the copy.
            heads: One reward each.
            tokenizer: By default that of the folder that the policy came from.
            lora: Train an adapter and the heads, not the trunk's own weights. None and
                0 train these.
            request: Asked after the answer, before the rewards are read.
            witness: Keep a second copy, as it is, to say how likely answers are.
        """
        if tokenizer is None:
            tokenizer = load_tokenizer(policy.config.name_or_path)
        trunk = merged_copy(policy)
        if lora:
            trunk = with_lora(trunk, lora, task="FEATURE_EXTRACTION")
        if witness and isinstance(policy, PeftModel):
            raise ValueError(
                "a witness is a policy without an adapter: merge it first, with "
                "policy.merge_and_unload()"
            )
        kept = frozen_copy(policy) if witness else None
        return cls(trunk, heads, tokenizer, request, kept).eval()

    def encode(self, prompt: Any, response: Any) -> list[int]:
        """Prompt and answer in the chat template, to the token that is read.

        That is the end token of the answer, or the beginning of the reply to `request`.
        """
        if self.request is None:
            return encode_answer(self.tokenizer, prompt, response)[0]
        messages = [
            *as_messages(prompt),
            *as_messages(response, "assistant"),
            {"role": "user", "content": self.request},
        ]
        return encode_prompt(self.tokenizer, messages)

    def forward(
        self,
        input_ids: Int[Tensor, "B L"],
        lengths: Int[Tensor, " B"],
        testimony: Float[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B heads"]:
        """Rewards of sequences padded on the right, `lengths` tokens long.

        Args:
            testimony: What `testimony` gives for them, if there is a witness.
        """
        hidden = self.trunk(input_ids=input_ids, use_cache=False).last_hidden_state
        return self.read(_at_last_token(hidden, lengths), testimony)

    def read(
        self, hidden: Float[Tensor, "B D"], testimony: Float[Tensor, "B S"] | None
    ) -> Float[Tensor, "B heads"]:
        """Rewards from the hidden states of last tokens."""
        if (testimony is None) is not (self.witness is None):
            raise ValueError(
                "a reward model reads testimony if and only if it has a witness: give "
                "forward what RewardModel.testimony gives, or call score"
            )
        read = hidden.float()
        if testimony is not None:
            read = torch.cat([read, testimony.to(read)], dim=1)
        return self.head(read)

    def testimony(
        self, prompts: Sequence[Any], responses: Sequence[Any], batch_size: int = 64
    ) -> Float[Tensor, "B S"] | None:
        """How likely the witness finds answers; None where there is no witness."""
        if self.witness is None:
            return None
        from labs_helpers.sampling.logprobs import surprise

        return surprise(self.witness, self.tokenizer, prompts, responses, batch_size)

    def score(
        self, prompts: Sequence[Any], responses: Sequence[Any], batch_size: int = 64
    ) -> Float[Tensor, "B heads"]:
        """Rewards of answers, on the CPU and without gradients."""
        hidden = self.features(prompts, responses, batch_size=batch_size)
        testimony = self.testimony(prompts, responses, batch_size)
        device = self.trunk.device
        with evaluating(self):
            return self.read(hidden.to(device), testimony).cpu()

    def features(
        self,
        prompts: Sequence[Any],
        responses: Sequence[Any],
        layer: int = -1,
        batch_size: int = 64,
    ) -> Float[Tensor, "B D"]:
        """Hidden states of the last token after a layer (-1: what the heads read)."""
        rows = []
        for i, pair in enumerate(as_exchanges(prompts, responses)):
            with naming_row(f"row {i}"):
                rows.append(self.encode(*pair))
        check_fits(self.trunk, self.tokenizer, rows)
        if not rows:
            return torch.zeros(0, self.width)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        results = []
        device, every = self.trunk.device, layer != -1
        with evaluating(self), waiting.bar(len(rows), "scores") as bar:
            for start in range(0, len(rows), batch_size):
                batch = [rows[i] for i in order[start : start + batch_size]]
                input_ids, lengths = pad_right(batch)
                output = self.trunk(
                    input_ids=input_ids.to(device),
                    use_cache=False,
                    output_hidden_states=every,
                )
                states = output.hidden_states[layer] if every else output[0]
                results.append(_at_last_token(states, lengths.to(device)).float().cpu())
                bar.update(len(batch))
        return torch.cat(results)[torch.tensor(order).argsort()]

    def save_pretrained(self, folder: str | Path) -> None:
        """Save trunk, heads, tokenizer, witness; a LoRA trunk is saved merged."""
        folder = Path(folder)
        trunk = self.trunk
        if isinstance(trunk, PeftModel):
            trunk = merged_copy(trunk)
        with quiet_loading():
            trunk.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            if self.witness is not None:
                self.witness.save_pretrained(folder / WITNESS_FOLDER)
        weights = {n: w.detach().cpu() for n, w in self.head.state_dict().items()}
        save_file(weights, folder / HEAD_WEIGHTS_FILE)
        settings = {
            "heads": self.heads,
            "request": self.request,
            "witness": self.witness is not None,
        }
        (folder / HEADS_FILE).write_text(json.dumps(settings) + "\n")

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | Path,
        *,
        lora: int | PeftConfig | None = None,
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
        heads, request, witnessed = _read_settings(folder)
        if adapter_config(folder) is not None:
            raise cannot_load(folder, "it holds an adapter and no trunk")
        hardware = default_device_and_dtype()
        if dtype is None:
            dtype = hardware.dtype if lora else torch.float32
        tokenizer = load_tokenizer(folder)
        trunk = read_model(AutoModel, folder, dtype)
        if lora:
            trunk = with_lora(trunk, lora, task="FEATURE_EXTRACTION")
        witness = None
        if witnessed:
            witness = load_policy(folder / WITNESS_FOLDER, device="cpu", dtype=dtype)
            witness.requires_grad_(False)
        model = cls(trunk, heads, tokenizer, request, witness)
        read_weights(model.head, folder / HEAD_WEIGHTS_FILE)
        return model.to(device or hardware.device).eval()


def _read_settings(folder: Path) -> tuple[tuple[str, ...], str | None, bool]:
    """Names of the heads, the request, and whether there is a witness."""
    settings = read_json(folder / HEADS_FILE)
    heads, request = settings.get("heads"), settings.get("request")
    witnessed = settings.get("witness", False)
    if (
        not isinstance(heads, list)
        or not heads
        or not all(isinstance(head, str) for head in heads)
        or len(set(heads)) < len(heads)
        or not isinstance(request, str | None)
        or not isinstance(witnessed, bool)
    ):
        raise cannot_load(
            folder,
            f'{HEADS_FILE} holds {settings!r:.120}, expected {{"heads": ["reward"], '
            '"request": null, "witness": false}} with different names of heads',
        )
    return tuple(heads), request, witnessed


def _at_last_token(
    hidden: Float[Tensor, "B L D"], lengths: Int[Tensor, " B"]
) -> Float[Tensor, "B D"]:
    return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
