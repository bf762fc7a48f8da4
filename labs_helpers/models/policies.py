"""Tokenizers and policies: device, precision, adapters, and what a policy computes.

In go names or folders of Hugging Face models; out come ordinary Hugging Face objects,
which save with `save_pretrained`.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from labs_helpers.common import progress
from labs_helpers.models import adapters, loading
from labs_helpers.models.limits import positions
from labs_helpers.models.loading import CannotLoad
from labs_helpers.models.memory import forward_rows, in_parts, kin

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
    major, minor = torch.cuda.get_device_capability()
    if major >= 8:
        dtype, why = torch.bfloat16, "bfloat16 is native"
    else:
        dtype, why = torch.float16, "no native bfloat16, so float16"
    name = f"{torch.cuda.get_device_name()}, compute capability {major}.{minor}"
    return Hardware(torch.device("cuda"), dtype, f"{name}: {why}")


def load_tokenizer(name_or_dir: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer; one without a padding token pads with its end token.

    A folder with an adapter and no tokenizer gives that of its base model.

    Raises:
        OSError: there is none, or its files are broken.
        ValueError: it has no end token.
    """
    name = str(name_or_dir)
    try:
        tokenizer = loading.read_tokenizer(name)
    except CannotLoad:
        has_files = any(Path(name).glob("*token*"))
        if not name or has_files or not (adapter := adapters.adapter_config(name)):
            raise
        tokenizer = loading.read_tokenizer(adapter.base_model_name_or_path)
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"The tokenizer of {name!r} has no end-of-sequence token, so "
            "no answer could ever end. Set eos_token in its tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_policy(
    name_or_dir: str | Path,
    *,
    lora: int | PeftConfig | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Policy:
    """Load a causal language model with dropout off, in evaluation mode.

    Args:
        name_or_dir: A folder, or a name on the hub. One with an adapter loads with its
            base model, the adapter trainable.
        lora: Adds an adapter: its rank, for all linear layers, or a configuration. None
            and 0 add none.
        device: By default that of `default_device_and_dtype`.
        dtype: By default float32, and that of `default_device_and_dtype` for the frozen
            weights under an adapter, which is float32.

    Raises:
        OSError: It cannot be read, or not whole.
        ValueError: No causal language model, or an adapter that would not come back
            from disk as it was; `lora` for a folder that has an adapter.
    """
    hardware, name = default_device_and_dtype(), str(name_or_dir)
    adapter = adapters.adapter_config(name)
    if adapter is not None and lora:
        raise ValueError(
            f"{name!r} holds an adapter already, and lora={lora!r:.40} asks for a new "
            "one: leave lora out to go on training the one it has, or merge that "
            "(load_policy(...).merge_and_unload()), save it, and put lora on the result"
        )
    if dtype is None:
        dtype = hardware.dtype if lora or adapter else torch.float32
    if adapter is None:
        policy = loading.read_model(AutoModelForCausalLM, name, dtype)
    else:
        policy = _read_base(name, adapter.base_model_name_or_path, dtype)
    policy = policy.to(device or hardware.device).eval()
    require_causal(policy)
    if adapter is None:
        policy = adapters.with_lora(policy, lora, task="CAUSAL_LM")
    else:
        policy = adapters.load_adapter(policy, name, adapter)
    return policy.to(device or hardware.device).eval()


def branch(policy: Policy, lora: int | PeftConfig | None = None) -> Policy:
    """A policy that begins where another is, to be trained beside it.

    Under an adapter its frozen weights are those of the other, which must stay as they
    are: of a large model there is one copy, however many adapters.

    Args:
        policy: without an adapter of its own. Under `lora` it is frozen from here on.
        lora: as in `load_policy`; None and 0 train a copy of all weights.

    Raises:
        ValueError: `policy` has an adapter, or cannot hold the one asked for.
    """
    if isinstance(policy, PeftModel):
        raise ValueError(
            "expected a policy without an adapter to begin from, got one that has one: "
            "take what is under it (policy.get_base_model()), or load_policy"
        )
    if not lora:
        return adapters.fresh_copy(policy).requires_grad_().eval()
    held = {id(t): t for t in (*policy.parameters(), *policy.buffers())}
    adapted = adapters.with_lora(copy.deepcopy(policy, held), lora, task="CAUSAL_LM")
    return adapted.to(policy.device).eval()


def _read_base(name: str, base: str, dtype: torch.dtype) -> PreTrainedModel:
    """The model under an adapter."""
    try:
        if adapters.adapter_config(base) is not None:
            raise loading.cannot_load(base, "it is an adapter itself")
        return loading.read_model(AutoModelForCausalLM, base, dtype)
    except CannotLoad as error:
        raise CannotLoad(
            f"Cannot load {name!r}, an adapter, for want of the model under it. "
            f"{error}. Its adapter_config.json says where it is, as "
            "base_model_name_or_path"
        ) from error


def save_policy(policy: Policy, folder: str | Path) -> None:
    """Save a policy so that `load_policy` finds all of it.

    Raises:
        ValueError: It is an adapter on a base model that came from no folder.
    """
    if isinstance(policy, PeftModel) and (
        not policy.active_peft_config.base_model_name_or_path
    ):
        raise ValueError(
            "this adapter's base model was built in memory, so that nothing could load "
            "what is saved of it: expected a base model from load_policy. Save "
            "policy.merge_and_unload() instead"
        )
    with loading.quiet_loading():
        policy.save_pretrained(folder)


def require_causal(policy: Policy) -> None:
    """Refuse a model in which a later token changes what it says of an earlier one.

    Raises:
        ValueError: it is one, as BERT and other encoders are.
    """
    length = min(4, positions(policy) or 4)
    tokens = torch.ones(2, length, dtype=torch.long, device=policy.device)
    tokens[1, -1] = 0
    with evaluating(policy):
        logits = policy(input_ids=tokens, use_cache=False).logits
    first, second = logits[:, :-1].float()
    rounding = torch.finfo(policy.dtype).eps ** 0.75
    if (first - second).norm() > rounding * first.norm():
        raise ValueError(
            f"{type(policy).__name__} ({policy.config.name_or_path!r}) sees the tokens "
            "that it is to predict: expected a causal language model, not an encoder"
        )


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


def in_batches(
    model: nn.Module,
    rows: Sequence[Any],
    compute: Callable[[Sequence[Any]], Tensor],
    batch_size: int,
    what: str = "log-probs",
    tokens: Callable[[Any], Sequence[int]] = lambda row: row[0],
) -> Tensor:
    """Compute something of rows without gradient, in batches of similar length.

    Rows that begin alike stay side by side, so that what they share is read once.

    Args:
        model: Is put into evaluation mode meanwhile.
        rows: What `compute` takes several of, and gives a result for each.
        what: The progress bar's name.
        tokens: Of a row; by default they are its first part.

    Returns:
        The results in the order of the rows, on the CPU; (0,) for no rows.
    """
    sequences = [tokens(row) for row in rows]
    lengths = [*map(len, sequences)]
    order = in_parts(lengths, beside=kin(sequences))[0][::-1] if rows else []
    results = []
    with evaluating(model), progress.bar(len(rows), what) as bar:
        start = 0
        while start < len(rows):
            longest = max(lengths[i] for i in order[start : start + batch_size])
            size = min(batch_size, forward_rows(model, longest))
            batch = [rows[i] for i in order[start : start + size]]
            results.append(compute(batch).cpu())
            start += size
            bar.update(len(batch))
    return torch.cat(results)[torch.tensor(order).argsort()] if rows else torch.zeros(0)


def logits_and_hidden(
    policy: Policy, tokens: Int[Tensor, "B L"], keep: Bool[Tensor, "B L"] | None = None
) -> tuple[Float[Tensor, "*tokens V"], Float[Tensor, "*tokens D"]]:
    """Vocabulary scores where wanted, and the hidden states that they are read from.

    The model's own forward computes them, with whatever it does to its scores (scale,
    soft cap); only what enters its vocabulary head is cut to the tokens in question.
    """
    read = []

    def cut(head: nn.Module, inputs: tuple) -> tuple:
        read.append(inputs[0] if keep is None else inputs[0][keep])
        return (read[0], *inputs[1:])

    hook = vocabulary_head(policy).register_forward_pre_hook(cut)
    try:
        logits = policy(input_ids=tokens, use_cache=False).logits
    finally:
        hook.remove()
    return logits, read[0]


def vocabulary_head(policy: Policy) -> nn.Module:
    """What makes vocabulary scores of hidden states."""
    head = policy.get_output_embeddings()
    if head is None:
        raise ValueError(
            f"{type(policy).__name__} has no vocabulary head: expected a causal "
            "language model (load_policy)"
        )
    return head


def hidden_width(trunk: PreTrainedModel | PeftModel) -> int:
    """How many numbers a trunk gives for a token; its config may say another figure."""
    tokens = torch.zeros(1, 1, dtype=torch.long, device=trunk.device)
    with evaluating(trunk):
        output = trunk(input_ids=tokens, use_cache=False)
    return output.last_hidden_state.shape[-1]


def frozen_copy(policy: PreTrainedModel) -> PreTrainedModel:
    """A policy as it is now, frozen; a fresh instance."""
    return adapters.fresh_copy(policy).requires_grad_(False).eval()


def shares_parameters(trained: nn.Module, other: nn.Module) -> bool:
    """Whether training the first would move the second.

    By memory, not by object: a base model that holds an adapter moves with the policy
    that wraps it. Frozen weights may be shared.
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
    tokens = pad_sequence([torch.tensor(row) for row in rows], True, pad)
    return tokens, torch.tensor([len(row) for row in rows])
