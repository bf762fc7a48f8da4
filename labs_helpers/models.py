"""Tokenizers, policies, LoRA and reward models: load, build, score, save.

In go names or folders of Hugging Face models, prompts and answers; out come modules
and rewards. Knows nothing of losses, sampling or training.
"""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from labs_helpers.data import Message, as_messages

HEADS_FILE = "reward_heads.json"
HEAD_WEIGHTS_FILE = "reward_head.safetensors"


class Hardware(NamedTuple):
    """Where to compute, in which precision, and why."""

    device: torch.device
    dtype: torch.dtype
    reason: str


def default_device_and_dtype() -> Hardware:
    """Choose the device and its fastest safe precision: the one place that does.

    `torch.cuda.is_bf16_supported()` is no guide: it is true on a T4, by emulation.
    """
    if not torch.cuda.is_available():
        return Hardware(
            torch.device("cpu"), torch.float32, "no CUDA device, so CPU in float32"
        )
    capability = torch.cuda.get_device_capability()
    fast_bf16 = capability[0] >= 8
    return Hardware(
        torch.device("cuda"),
        torch.bfloat16 if fast_bf16 else torch.float16,
        f"{torch.cuda.get_device_name()}, compute capability "
        f"{capability[0]}.{capability[1]}: "
        + ("bfloat16 is native" if fast_bf16 else "no native bfloat16, so float16"),
    )


@contextmanager
def _named_origin(name_or_dir: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise OSError(
            f"Cannot load {str(name_or_dir)!r}. Expected a folder with a Hugging Face "
            "model (config.json, *.safetensors, tokenizer.json) or a name on the hub, "
            f"and the network to reach it.\n{error}"
        ) from error


def load_tokenizer(name_or_dir: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer; one without a padding token pads with its end token."""
    with _named_origin(name_or_dir):
        tokenizer = AutoTokenizer.from_pretrained(str(name_or_dir))
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"The tokenizer of {str(name_or_dir)!r} has no end-of-sequence token, so "
            "no answer could ever end. Set eos_token in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def encode_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool,
) -> list[int]:
    """Encode messages by the tokenizer's chat template.

    A tokenizer without a template reads the messages' bare text, one after another.
    """
    if tokenizer.chat_template is None:
        text = "".join(message["content"] for message in messages)
        return tokenizer(text)["input_ids"]
    return tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=add_generation_prompt, return_dict=False
    )


def load_policy(
    name_or_dir: str | Path,
    *,
    lora: int | LoraConfig | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> PreTrainedModel | PeftModel:
    """Load a causal language model with dropout off, in evaluation mode.

    Args:
        name_or_dir: A folder, or a name on the hub. A folder with a LoRA adapter loads
            with its base model, the adapter trainable.
        lora: Adds an adapter: its rank, for all linear layers, or a configuration.
        device: By default that of `default_device_and_dtype`.
        dtype: By default float32 if the weights are to be trained. Under LoRA they are
            not and take the dtype of `default_device_and_dtype`; adapters are float32.
    """
    hardware = default_device_and_dtype()
    is_adapter = (Path(name_or_dir) / "adapter_config.json").exists()
    base = name_or_dir
    if is_adapter:
        base = LoraConfig.from_pretrained(str(name_or_dir)).base_model_name_or_path
    if dtype is None:
        dtype = torch.float32 if lora is None and not is_adapter else hardware.dtype
    with _named_origin(base):
        config = _without_dropout(AutoConfig.from_pretrained(str(base)))
        policy = AutoModelForCausalLM.from_pretrained(
            str(base), config=config, dtype=dtype
        )
    if is_adapter:
        policy = PeftModel.from_pretrained(policy, str(name_or_dir), is_trainable=True)
    if lora is not None:
        policy = _with_lora(policy, lora, task="CAUSAL_LM")
    return policy.to(device or hardware.device).eval()


def _without_dropout(config: Any) -> Any:
    """Dropout makes log-probs random: ratios and references would then be noise."""
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def _with_lora(model: nn.Module, lora: int | LoraConfig, task: str) -> PeftModel:
    if isinstance(lora, int):
        lora = LoraConfig(
            r=lora, lora_alpha=2 * lora, target_modules="all-linear", task_type=task
        )
    return get_peft_model(model, lora)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode it was in comes back."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


class RewardModel(nn.Module):
    """A causal language model with linear heads in place of its vocabulary.

    Build it with `from_policy` or `from_pretrained`. It reads the hidden state of the
    last token, so padding belongs on the right, where no earlier token can see it.
    """

    def __init__(
        self,
        trunk: PreTrainedModel | PeftModel,
        heads: tuple[str, ...],
        tokenizer: PreTrainedTokenizerBase,
    ):
        super().__init__()
        if isinstance(heads, str) or not heads or len(set(heads)) < len(heads):
            raise ValueError(f"heads is a tuple of different names, got {heads!r}")
        self.trunk = trunk
        self.heads = tuple(heads)
        self.tokenizer = tokenizer
        self.head = nn.Linear(trunk.config.hidden_size, len(heads), bias=False)
        nn.init.zeros_(self.head.weight)
        self.head.to(trunk.device)

    @classmethod
    def from_policy(
        cls,
        policy: PreTrainedModel | PeftModel,
        heads: tuple[str, ...] = ("reward",),
        tokenizer: PreTrainedTokenizerBase | None = None,
        lora: int | LoraConfig | None = None,
    ) -> "RewardModel":
        """Start from a copy of a policy's weights, with all rewards 0.

        Args:
            policy: Is not changed and shares nothing. Its LoRA is merged in the copy.
            heads: One reward each.
            tokenizer: By default that of the folder that the policy came from.
            lora: Train an adapter and the heads, not the trunk's own weights.
        """
        if tokenizer is None:
            tokenizer = load_tokenizer(policy.config.name_or_path)
        inner = policy.get_base_model() if isinstance(policy, PeftModel) else policy
        trunk = _merged_copy(inner.base_model)
        if lora is not None:
            trunk = _with_lora(trunk, lora, task="FEATURE_EXTRACTION")
        return cls(trunk, heads, tokenizer).eval()

    def encode(self, prompt: Any, response: str) -> list[int]:
        """Prompt and answer in the chat template, to the end token of the answer."""
        messages = [
            *as_messages(prompt),
            {"role": "assistant", "content": response},
        ]
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
            trunk = _merged_copy(trunk.get_base_model())
        trunk.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        save_file(
            {"weight": self.head.weight.detach().cpu()}, folder / HEAD_WEIGHTS_FILE
        )
        (folder / HEADS_FILE).write_text(json.dumps({"heads": self.heads}) + "\n")

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
        with _named_origin(folder):
            config = _without_dropout(AutoConfig.from_pretrained(folder))
            trunk = AutoModel.from_pretrained(folder, config=config, dtype=dtype)
        if lora is not None:
            trunk = _with_lora(trunk, lora, task="FEATURE_EXTRACTION")
        heads = json.loads((folder / HEADS_FILE).read_text())["heads"]
        model = cls(trunk, tuple(heads), load_tokenizer(folder))
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


def _merged_copy(trunk: PreTrainedModel) -> PreTrainedModel:
    """Copy a trunk into a fresh instance, its LoRA merged, the original unchanged.

    Not `copy.deepcopy`: a trainer may have put its own `forward` on the instance,
    and the copy would then compute with the original's weights.
    """
    state = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in trunk.state_dict().items()
        if ".lora_" not in name
    }
    for name, module in trunk.named_modules():
        if isinstance(module, LoraLayer):
            for adapter in module.active_adapters:
                weight = state[f"{name}.weight"]
                delta = module.get_delta_weight(adapter).detach()
                state[f"{name}.weight"] = weight + delta.to(weight.dtype)
    fresh = AutoModel.from_config(copy.deepcopy(trunk.config), dtype=trunk.dtype)
    fresh.load_state_dict(state)
    return fresh.to(trunk.device)
