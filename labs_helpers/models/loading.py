"""Read model folders whole or not at all, quietly, and say in a sentence what is wrong.

In goes the name of a model on the hub or of a folder; out come Hugging Face models and
tokenizers whose every weight was in the files. Every function that reads raises
`CannotLoad` for what it cannot read whole.
"""

import json
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import utils as hub_utils
from huggingface_hub.errors import GatedRepoError
from jinja2 import TemplateSyntaxError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from labs_helpers.common import hub

# Masks and frequencies that older checkpoints hold and newer models compute.
NO_WEIGHTS = re.compile(
    r"\.(attn|attention)\.(bias|masked_bias|causal_mask)$|inv_freq$|position_ids$"
)


class CannotLoad(OSError):
    """A model that cannot be read, or not whole; the message says what to do."""


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Without what libraries report as they load or save; bars of downloads stay."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    downloads = not hub_utils.are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if downloads:  # they take minutes
        hub_utils.enable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def named_origin(name_or_dir: str | Path) -> Iterator[None]:
    """Load quietly; whatever a library raises becomes `CannotLoad`."""
    try:
        with quiet_loading():
            yield
    except CannotLoad:
        raise
    except Exception as error:  # each library has its own for a broken file
        gated = GatedRepoError in (type(error), type(error.__cause__))
        reason = hub.how_to_be_let_in(str(name_or_dir)) if gated else _reason(error)
        raise cannot_load(name_or_dir, reason) from error


def cannot_load(name_or_dir: str | Path, reason: str) -> CannotLoad:
    """The one sentence on a model that cannot be loaded."""
    name, path = str(name_or_dir), Path(name_or_dir)
    if not name:
        return CannotLoad(
            "The model was built in memory and came from no folder: expected the name "
            "of one. Save it first, or pass the tokenizer with it"
        )
    if path.is_file():
        reason = "this is a file"
    elif path.is_dir() and not any(path.glob("*config.json")):
        reason = "this folder has no config.json"
    elif not path.is_dir() and not hub.downloaded(name) and (why := hub.out_of_reach()):
        return CannotLoad(
            f"Cannot load {name!r}: it is not on this disk, and the hub cannot be "
            f"reached ({why}). Give the folder of a model; `labs fetch` lists what "
            "comes without the hub, and LABS_PROFILE=tiny needs none"
        )
    return CannotLoad(
        f"Cannot load {name!r}: {reason}. Expected a folder with a Hugging Face model "
        "(config.json, *.safetensors, tokenizer.json) or a name on the hub, and the "
        "network to reach it"
    )


def source(name_or_dir: str | Path) -> dict[str, Any]:
    """Arguments of every `from_pretrained`: code from the hub is never run.

    Without the answer False, transformers asks on standard input.

    Raises:
        CannotLoad: nothing of it is here, and the hub cannot be reached, which its
            client would try for half a minute.
    """
    offline = not Path(name_or_dir).exists() and bool(hub.out_of_reach())
    if offline and not hub.cache_of(str(name_or_dir)).exists():
        raise cannot_load(name_or_dir, "it is not on this disk")
    return {"trust_remote_code": False, "local_files_only": offline}


def read_model(
    kind: Any, name_or_dir: str | Path, dtype: torch.dtype
) -> PreTrainedModel:
    """Read a model of an auto class (`AutoModel`, ...), dropout off.

    No weight may be missing, strange, of another shape or no finite number.
    """
    name = str(name_or_dir)
    with named_origin(name):
        given = source(name)
        model, found = kind.from_pretrained(
            name,
            config=_without_dropout(AutoConfig.from_pretrained(name, **given)),
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with their names
            **given,
        )
        for what, keys in (
            ("its files have a shape that config.json does not say", "mismatched_keys"),
            ("its files lack", "missing_keys"),
            ("its files hold what this model does not have", "unexpected_keys"),
        ):
            # A weight of another shape comes with its shapes.
            names = [str(k[0] if isinstance(k, tuple) else k) for k in found[keys]]
            wrong = [name for name in names if not NO_WEIGHTS.search(name)]
            if wrong:
                raise cannot_load(name, f"{what}: {_few(wrong)}")
        require_finite(name, model.named_parameters())
    return model


def require_finite(
    name_or_dir: str | Path, weights: Iterable[tuple[str, Tensor]]
) -> None:
    """Refuse weights that are NaN or infinite, by their names."""
    broken = [f"{n} in {w.dtype}" for n, w in weights if not w.isfinite().all()]
    if broken:
        raise cannot_load(name_or_dir, f"weights are NaN or infinite in {_few(broken)}")


def read_tokenizer(name_or_dir: str | Path) -> PreTrainedTokenizerBase:
    """Read a tokenizer whose chat template, if any, is one."""
    name = str(name_or_dir)
    with named_origin(name):
        if not name:
            raise cannot_load(name, "")
        kind: Any = transformers.AutoTokenizer
        settings = Path(name) / "tokenizer_config.json"
        if settings.is_file() and read_json(settings).get("tokenizer_class") == (
            "TokenizersBackend"  # all is in tokenizer.json, whatever the model's family
        ):
            kind = transformers.PreTrainedTokenizerFast
        tokenizer = kind.from_pretrained(name, **source(name))
        if tokenizer.chat_template is not None:
            try:
                tokenizer.apply_chat_template([{"role": "user", "content": "Who?"}])
            except TemplateSyntaxError as error:
                said = f"its chat template is broken: {error.message}"
                raise cannot_load(name, said) from error
            except Exception:  # a template may ask for other messages than this
                pass
    return tokenizer


def read_weights(module: nn.Module, file: Path) -> None:
    """Fill a module from a safetensors file that holds all of it and nothing else."""
    if not file.is_file():
        raise cannot_load(file.parent, f"{file.name} is missing")
    with named_origin(file.parent):
        weights = load_file(file)
        require_finite(file.parent, weights.items())
        given, expected = (
            {name: tuple(weight.shape) for name, weight in found.items()}
            for found in (weights, module.state_dict())
        )
        if given != expected:
            raise cannot_load(
                file.parent, f"{file.name} holds {given}, expected {expected}"
            )
        module.load_state_dict(weights)


def save_weights(module: nn.Module, file: Path) -> None:
    """Save the weights of a module that `read_weights` is to fill."""
    save_file({n: w.detach().cpu() for n, w in module.state_dict().items()}, file)


def read_json(file: Path) -> dict[str, Any]:
    """Read a table of settings."""
    try:
        table = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise cannot_load(file.parent, f"{file.name} is no JSON") from error
    if not isinstance(table, dict):
        raise cannot_load(file.parent, f"{file.name} holds no table: {table!r:.80}")
    return table


def _without_dropout(config: Any) -> Any:
    """Dropout makes log-probs random: ratios and references would then be noise."""
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    for name in config.sub_configs:
        if getattr(config, name, None) is not None:
            _without_dropout(getattr(config, name))
    return config


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(sorted(names)[:3]) + more


def _reason(error: Exception) -> str:
    """The first sentence of what another library has to say."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    first = first.strip().split(". ")[0].rstrip(".:")
    if isinstance(error, OSError | ValueError) and first:
        return first
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
