"""Adapters of peft: add one, load one, merge one into a copy, and prove it exact.

In go Hugging Face models and what `load_policy(lora=...)` may be; out come peft's
models, and plain copies that compute the same. What peft's many kinds of adapter do is
measured on a few tokens and not known by name: one that would not come back from disk
as it was, or not merge, is refused before anything is trained: a ValueError, or
`CannotLoad` for one that was saved.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from peft.utils.save_and_load import load_peft_weights
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import find_adapter_config_file

from labs_helpers.models import loading
from labs_helpers.models.limits import positions, vocabulary
from labs_helpers.models.loading import CannotLoad, cannot_load, quiet_loading

ADAPTER_FILE = "adapter_config.json"
PROBE_TOKENS = 12
NO_WEIGHTS = ("ADAPTION_PROMPT", "XLORA", "POLY")  # beside those of prompts
REMEDY = "Take other target_modules, another adapter, or train all weights (lora=None)"
NOISE = 0.05  # stands for a training, where a merge is tried before it


def adapter_config(name_or_dir: str | Path) -> PeftConfig | None:
    """What a folder or a repository on the hub says of its adapter, if it has one."""
    name = str(name_or_dir)
    with loading.named_origin(name):
        offline = loading.source(name)["local_files_only"]
        if find_adapter_config_file(name, local_files_only=offline) is None:
            return None
        config = PeftConfig.from_pretrained(name, local_files_only=offline)
    if (Path(name) / "config.json").exists():
        said = f"it holds a whole model (config.json) and an adapter ({ADAPTER_FILE})"
        raise cannot_load(name, f"{said}. Move one of them to a folder of its own")
    if not config.base_model_name_or_path:
        said = f"{ADAPTER_FILE} names no base model, for it was built in memory"
        remedy = "Write the folder of the model under it as base_model_name_or_path"
        raise cannot_load(name, f"{said}. {remedy}")
    return config


def load_adapter(
    policy: PreTrainedModel, name_or_dir: str | Path, config: PeftConfig
) -> PeftModel:
    """Put a saved adapter on its base model, trainable."""
    name = str(name_or_dir)
    try:
        _require_known(config)
        before = probe(policy)
        with loading.named_origin(name):
            how = {"local_files_only": loading.source(name)["local_files_only"]}
            weights = load_peft_weights(name, device="cpu", **how)
            loading.require_finite(name, weights.items())
            how["is_trainable"] = True
            adapted = PeftModel.from_pretrained(policy, name, config=config, **how)
            found = adapted.load_adapter(name, "default", **how)
            own = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
            wrong = sorted({*found.unexpected_keys} - own | own - {*weights})
            if wrong:
                said = f"its weights are not those that {ADAPTER_FILE} asks for"
                raise cannot_load(name, f"{said}: {wrong[:3]}")
        _require_start(adapted, before)
    except CannotLoad:
        raise
    except ValueError as error:
        raise cannot_load(name, str(error)) from error
    return adapted


def with_lora(
    model: PreTrainedModel, lora: int | PeftConfig | None, task: str
) -> PreTrainedModel | PeftModel:
    """Add an adapter of this rank to all linear layers, or the one configured.

    Args:
        model: Is changed: it holds the adapter then.
        lora: A rank, or a configuration of any adapter that changes weights. None and 0
            add none.
        task: CAUSAL_LM is saved as an adapter; any other is saved merged.
    """
    if not lora:
        return model
    if isinstance(lora, int) and lora > 0:
        lora = LoraConfig(r=lora, lora_alpha=2 * lora, target_modules="all-linear")
    if not isinstance(lora, PeftConfig):
        raise ValueError(
            "lora is the rank of an adapter, at least 1, or a configuration of peft, "
            f"got {lora!r}. None trains all weights"
        )
    lora = copy.deepcopy(lora)  # peft writes into it what it finds in this model
    lora.task_type = task
    _require_known(lora)
    before = probe(model)
    with _refused(lora, "cannot be added to this model"):
        adapted = get_peft_model(model, lora)
    if task == "CAUSAL_LM":
        with _refused(lora, "does not compute on this model, or could not be saved"):
            probe(adapted)
            get_peft_model_state_dict(adapted, save_embedding_layers=False)
        _require_start(adapted, before)
    else:
        _try_merge(adapted)
    return adapted


def merged_copy(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Copy a trunk, or a policy's, into a fresh instance, adapters merged by peft."""
    if isinstance(model, PeftModel):
        return _merge(_independent(model))
    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise ValueError(
            f"this {type(model).__name__} holds an adapter without the PeftModel "
            "around it: give the PeftModel that get_peft_model or load_policy "
            "returned, or merge the adapter first"
        )
    return fresh_copy(model.base_model)


def save_trunk(trunk: PreTrainedModel | PeftModel, folder: Path) -> None:
    """Save a trunk, its adapter merged."""
    if isinstance(trunk, PeftModel):
        trunk = merged_copy(trunk)
    with quiet_loading():
        trunk.save_pretrained(folder)


def fresh_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Another instance of a plain model with the same weights, sharing nothing.

    No deep copy: a trainer may have put its own `forward` on the instance, and that
    would compute with the original's weights.
    """
    fresh = type(model)._from_config(
        copy.deepcopy(model.config),
        dtype=model.dtype,
        attn_implementation=model.config._attn_implementation,
    )
    refused = f"{type(model).__name__} cannot be copied: "
    try:
        lost = fresh.load_state_dict(model.state_dict(), strict=False)
    except RuntimeError as error:
        raise ValueError(
            f"{refused}its weights have shapes that its config does not say. "
            f"{str(error).splitlines()[-1].strip()}"
        ) from error
    fresh = fresh.to(model.device)
    # A part that the original was built without, and nothing is read from, may differ.
    missing, strange = lost.missing_keys, lost.unexpected_keys
    if strange or (missing and not _same(probe(fresh), probe(model))):
        raise ValueError(
            f"{refused}built anew from its config it has other weights "
            f"({[*missing, *strange][:3]})"
        )
    return fresh


def probe(model: nn.Module) -> Float[Tensor, "B L width"]:
    """What a model computes of a few tokens: vocabulary scores, or hidden states."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    length = min(PROBE_TOKENS, positions(inner) or PROBE_TOKENS)
    tokens = torch.arange(1, length + 1, device=inner.device)[None] % vocabulary(inner)
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            output = model(input_ids=tokens, use_cache=False)
    finally:
        for module in training:
            module.training = True
    return output.logits if "logits" in output else output.last_hidden_state


def require_switch(policy: PeftModel) -> None:
    """Refuse an adapter of which something trained stays when it is switched off.

    Biases of the base model do, say: the reference would move with the policy.
    """
    tokens = torch.ones(1, 2, dtype=torch.long, device=policy.device)
    with quiet_loading(), torch.enable_grad(), policy.disable_adapter():
        moves = policy(input_ids=tokens, use_cache=False).logits.requires_grad
    if moves:
        raise _error(
            policy.active_peft_config,
            "does not end when it is switched off: the policy still depends on weights "
            "that are trained, so that its start would move with it",
            "Take bias='none'",
        )


def _require_known(config: PeftConfig) -> None:
    """Refuse what works on other things than weights."""
    if config.is_prompt_learning or _kind(config) in NO_WEIGHTS:
        raise _error(
            config,
            "works on prompts or whole texts and not on weights, so that answers "
            "cannot be sampled token by token as they are scored",
            "Take LoRA, or another adapter of weights",
        )
    if getattr(config, "alora_invocation_tokens", None):
        raise _error(
            config,
            "is activated LoRA, on for a part of a text only, which sampling token by "
            "token cannot see, and cannot be merged",
            "Leave alora_invocation_tokens out",
        )


def _require_start(adapted: PeftModel, before: Tensor) -> None:
    """Switched off, an adapter must leave the model that it was put on, for good."""
    config = adapted.active_peft_config
    with _refused(config, "cannot be switched off"), adapted.disable_adapter():
        off = probe(adapted)
    if not _same(off, before):
        raise _error(
            config,
            "changes the base model's own weights when it is put on: it would not load "
            "as it was saved, nor be its start when switched off",
            "Take init_lora_weights=True, 'gaussian', 'orthogonal' or 'eva', "
            "bias='none' and no layer_replication",
        )
    require_switch(adapted)


def _try_merge(adapted: PeftModel) -> None:
    """Merge a copy whose adapter does something, so that saving cannot fail later."""
    trial = _independent(adapted)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trial.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                noise = torch.randn(parameter.shape, generator=random)
                parameter += NOISE * noise.to(parameter)
    with _refused(adapted.active_peft_config, "does not compute on this model"):
        probe(trial)
    _merge(trial)


def _merge(copied: PeftModel) -> PreTrainedModel:
    """Merge by peft what is ours alone; prove it; a fresh instance of the trunk."""
    config = copied.active_peft_config
    before = probe(copied.get_base_model().base_model)
    with _refused(config, "cannot be merged"):
        fresh = fresh_copy(copied.merge_and_unload(safe_merge=True).base_model)
    if not _same(probe(fresh), before):
        said = "does not merge exactly: the merged copy computes something else"
        raise _error(config, said)
    return fresh


def _independent(model: PeftModel) -> PeftModel:
    """A deep copy that computes with its own weights, each of them its own.

    Weights that were shared are not: peft would merge the adapter of a vocabulary
    head into embeddings that are tied to it.
    """
    # What a forward left behind has a history, and Python's copy refuses that.
    left = [
        tensor
        for module in model.modules()
        for tensor in (*vars(module).values(), *module._buffers.values())
        if isinstance(tensor, Tensor) and not tensor.is_leaf
    ]
    with _refused(model.active_peft_config, "cannot be copied"):
        copied = copy.deepcopy(model, {id(t): t.detach().clone() for t in left})
    seen = set()
    for module in copied.modules():
        module.__dict__.pop("forward", None)  # a trainer's, bound to the original
        for name, parameter in module._parameters.items():
            if parameter is not None and id(parameter) in seen:
                own = nn.Parameter(parameter.detach().clone(), parameter.requires_grad)
                module._parameters[name] = parameter = own
            seen.add(id(parameter))
    return copied.eval()


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal but for rounding in the model's precision."""
    near = torch.finfo(b.dtype).eps ** 0.5
    a, b = a.float(), b.float()
    return a.shape == b.shape and bool((a - b).norm() <= near * b.norm())


def _kind(config: PeftConfig) -> str:
    return str(getattr(config.peft_type, "value", config.peft_type))


def _error(config: PeftConfig, said: str, remedy: str = REMEDY) -> ValueError:
    """What is wrong with an adapter, with its settings that are not the usual ones."""
    given = [(f, getattr(config, f.name)) for f in fields(config)]
    settings = [
        f"{field.name}={value!r}"
        for field, value in given
        if isinstance(value, str | int | float | bool | list)
        and value != field.default
        and field.name not in ("task_type", "base_model_name_or_path", "peft_version")
        and field.name != "peft_type"
    ]
    described = ", ".join([_kind(config), *settings])
    return ValueError(f"this adapter ({described}) {said}. {remedy}")


@contextmanager
def _refused(config: Any, what: str) -> Iterator[None]:
    """Say in a sentence what peft says in an exception of its own; no warnings."""
    try:
        with quiet_loading():
            yield
    except Exception as error:  # KeyError, RuntimeError, NotImplementedError, ...
        said = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise _error(config, f"{what}: {said}") from error
