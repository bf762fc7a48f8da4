"""Load tokenizers and policies: device, precision, dropout off, LoRA.

In go names or folders of Hugging Face models; out come ordinary Hugging Face objects,
which save with `save_pretrained`. Knows nothing of rewards, sampling or training.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from labs_helpers.chat import encode_prompt, encode_turns
from labs_helpers.data import Message

Policy = PreTrainedModel | PeftModel


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
def named_origin(name_or_dir: str | Path) -> Iterator[None]:
    """Say what could not be loaded, and what can."""
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
    with named_origin(name_or_dir):
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

    With a generation prompt that is `chat.encode_prompt`, what is read before an
    answer. A tokenizer without a template reads the messages' bare text.
    """
    if add_generation_prompt:
        return encode_prompt(tokenizer, messages)
    return encode_turns(tokenizer, messages)


def load_policy(
    name_or_dir: str | Path,
    *,
    lora: int | LoraConfig | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Policy:
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
    with named_origin(base):
        config = without_dropout(AutoConfig.from_pretrained(str(base)))
        policy = AutoModelForCausalLM.from_pretrained(
            str(base), config=config, dtype=dtype
        )
    if is_adapter:
        policy = PeftModel.from_pretrained(policy, str(name_or_dir), is_trainable=True)
    if lora is not None:
        policy = with_lora(policy, lora, task="CAUSAL_LM")
    return policy.to(device or hardware.device).eval()


def without_dropout(config: Any) -> Any:
    """Dropout makes log-probs random: ratios and references would then be noise."""
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    return config


def with_lora(model: nn.Module, lora: int | LoraConfig, task: str) -> PeftModel:
    """Add an adapter of this rank to all linear layers, or the one configured."""
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


def logits_and_hidden(
    policy: Policy,
    tokens: Int[Tensor, "B L"],
    keep: Bool[Tensor, "B L"] | None = None,
) -> tuple[Float[Tensor, "*tokens V"], Float[Tensor, "*tokens D"]]:
    """Vocabulary scores where wanted, and the hidden states that they are read from.

    The model's own forward computes them, with whatever it does to its scores (scale,
    soft cap); only what enters its vocabulary head is cut to the tokens in question.
    """
    read = []

    def cut(head: nn.Module, inputs: tuple) -> tuple:
        read.append(inputs[0] if keep is None else inputs[0][keep])
        return (read[0], *inputs[1:])

    hook = policy.get_output_embeddings().register_forward_pre_hook(cut)
    try:
        logits = policy(input_ids=tokens, use_cache=False).logits
    finally:
        hook.remove()
    return logits, read[0]


def merged_copy(trunk: PreTrainedModel) -> PreTrainedModel:
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


def frozen_copy(policy: PreTrainedModel) -> PreTrainedModel:
    """A policy as it is now, frozen; a fresh instance, as in `merged_copy`."""
    config = type(policy.config).from_dict(policy.config.to_dict())
    config._attn_implementation = policy.config._attn_implementation
    copied = AutoModelForCausalLM.from_config(config, dtype=policy.dtype)
    copied.load_state_dict(policy.state_dict())
    return copied.to(policy.device).requires_grad_(False).eval()


def shares_parameters(trained: nn.Module, other: nn.Module) -> bool:
    """Whether training the first would move the second.

    By the memory of what is trained, not by object: a base model that holds an adapter
    moves with the policy that wraps it. Frozen weights may be shared.
    """
    moved = {
        p.untyped_storage().data_ptr() for p in trained.parameters() if p.requires_grad
    } - {0}
    return any(p.untyped_storage().data_ptr() in moved for p in other.parameters())


def pad_right(
    rows: Sequence[Sequence[int]], pad: int = 0
) -> tuple[Int[Tensor, "B L"], Int[Tensor, " B"]]:
    """Stack token lists of several lengths; returns tokens and lengths.

    A causal model's tokens never see what stands to their right: any pad will do.
    """
    longest = max(map(len, rows))
    tokens = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows])
    return tokens, torch.tensor([len(row) for row in rows])
