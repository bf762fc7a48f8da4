"""Reward models: a policy with heads that give numbers in place of its vocabulary.

In go prompts and answers, out come rewards, one for each head.
"""

import json
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Float, Int
from peft import PeftConfig, PeftModel
from pydantic import Field
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from labs_helpers.common.settings import Text, settings
from labs_helpers.data import as_messages
from labs_helpers.data.messages import as_exchanges
from labs_helpers.models import adapters, loading, policies
from labs_helpers.models.chat import encode_answer, encode_prompt
from labs_helpers.models.limits import check_fits, each_named
from labs_helpers.models.loading import cannot_load
from labs_helpers.models.policies import Policy, load_tokenizer, pad_right
from labs_helpers.models.together import together

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
        tokenizer: Tokenizer,
        request: str | None = None,
    ):
        super().__init__()
        if isinstance(heads, str) or not heads or len(set(heads)) < len(heads):
            raise ValueError(f"heads is a tuple of different names, got {heads!r}")
        self.trunk = trunk
        self.heads = tuple(heads)
        self.tokenizer = tokenizer
        self.request = request
        self.width = policies.hidden_width(trunk)
        self.head = self.new_head().to(trunk.device)

    def new_head(self) -> nn.Module:
        """What turns `features` into rewards, all 0 at first."""
        head = nn.Linear(self.width, len(self.heads), bias=False)
        nn.init.zeros_(head.weight)
        return head

    @classmethod
    def from_policy(
        cls,
        policy: Policy,
        heads: tuple[str, ...] = ("reward",),
        tokenizer: Tokenizer | None = None,
        lora: int | PeftConfig | None = None,
        request: str | None = None,
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
        trunk = adapters.merged_copy(policy)
        trunk = adapters.with_lora(trunk, lora, task="FEATURE_EXTRACTION")
        return cls(trunk, heads, tokenizer, request).eval()

    def encode(self, prompt: Any, response: Any) -> list[int]:
        """Prompt and answer in the chat template, to the token that is read.

        That is the end token of the answer, or the beginning of the reply to `request`.
        """
        if self.request is None:
            return encode_answer(self.tokenizer, prompt, response)[0]
        said = [*as_messages(prompt), *as_messages(response, "assistant")]
        asked = {"role": "user", "content": self.request}
        return encode_prompt(self.tokenizer, [*said, asked])

    def forward(
        self, input_ids: Int[Tensor, "B L"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B heads"]:
        """Rewards of sequences padded on the right, `lengths` tokens long."""
        return self.head(self._last_hidden(input_ids, lengths))

    def score(
        self, prompts: Sequence[Any], responses: Sequence[Any], batch_size: int = 64
    ) -> Float[Tensor, "B heads"]:
        """Rewards of answers, on the CPU and without gradients."""
        features = self.features(prompts, responses, batch_size)
        with policies.evaluating(self):
            return self.head(features.to(self.trunk.device)).cpu()

    def features(
        self, prompts: Sequence[Any], responses: Sequence[Any], batch_size: int = 64
    ) -> Float[Tensor, "B D"]:
        """What the heads read: hidden states of the last token; on the CPU."""
        rows = each_named("row", self.encode, as_exchanges(prompts, responses))
        check_fits(self.trunk, self.tokenizer, rows)
        if not rows:
            return torch.zeros(0, self.width)

        def last_hidden(batch: Sequence[list[int]]) -> Tensor:
            tokens, lengths = (part.to(self.trunk.device) for part in pad_right(batch))
            return self._last_hidden(tokens, lengths)

        # An answer that is compared with several others is read once.
        place = {row: i for i, row in enumerate(dict.fromkeys(map(tuple, rows)))}
        once = [list(row) for row in place]
        found = policies.in_batches(self, once, last_hidden, batch_size, "scores", list)
        return found[[place[tuple(row)] for row in rows]]

    def _last_hidden(
        self, input_ids: Int[Tensor, "B L"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B D"]:
        sequences = zip(input_ids.tolist(), lengths.tolist(), strict=True)
        read = together(self.trunk, [tokens[:length] for tokens, length in sequences])
        hidden = self.trunk(**read.inputs, use_cache=False).last_hidden_state
        last = (torch.arange(len(lengths), device=hidden.device), lengths - 1)
        return hidden[read.rows[last], read.columns[last]].float()

    def save_pretrained(self, folder: str | Path) -> None:
        """Save trunk, heads and tokenizer; a LoRA trunk is saved merged."""
        folder = Path(folder)
        adapters.save_trunk(self.trunk, folder)
        with loading.quiet_loading():
            self.tokenizer.save_pretrained(folder)
        loading.save_weights(self.head, folder / HEAD_WEIGHTS_FILE)
        saved = {"heads": self.heads, "request": self.request}
        kind = type(self)
        if kind is not RewardModel:
            saved["kind"] = f"{kind.__module__}:{kind.__name__}"
        (folder / HEADS_FILE).write_text(json.dumps(saved) + "\n")

    @classmethod
    def saved_parts(cls, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
        """What a subclass saved besides, as arguments of its `__init__`."""
        return {}

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
        saved, kind = _read_saved(folder, cls)
        if adapters.adapter_config(folder) is not None:
            raise cannot_load(folder, "it holds an adapter and no trunk")
        hardware = policies.default_device_and_dtype()
        if dtype is None:
            dtype = hardware.dtype if lora else torch.float32
        tokenizer = load_tokenizer(folder)
        trunk = loading.read_model(AutoModel, folder, dtype)
        trunk = adapters.with_lora(trunk, lora, task="FEATURE_EXTRACTION")
        parts = kind.saved_parts(folder, dtype)
        model = kind(trunk, saved.heads, tokenizer, saved.request, **parts)
        loading.read_weights(model.head, folder / HEAD_WEIGHTS_FILE)
        return model.to(device or hardware.device).eval()


@settings
class _Saved:
    """What `reward_heads.json` says."""

    heads: Annotated[tuple[Text, ...], Field(min_length=1)]
    request: str | None = None
    kind: str | None = None  # a subclass of this package, as module:name


def _read_saved(
    folder: Path, kind: type[RewardModel]
) -> tuple[_Saved, type[RewardModel]]:
    """The settings, and the class that they name where none was asked for."""
    table = loading.read_json(folder / HEADS_FILE)
    table.pop("witness", None)  # of older versions
    try:
        saved = _Saved(**table)
        if len(set(saved.heads)) < len(saved.heads):
            raise ValueError(f"heads are different names, got {saved.heads}")
        if saved.kind is not None and kind is RewardModel:
            module, _, name = saved.kind.partition(":")
            ours = module.startswith("labs_helpers.")  # no folder runs code of its own
            kind = ours and getattr(import_module(module), name)
            if not isinstance(kind, type) or not issubclass(kind, RewardModel):
                raise ValueError(f"kind is no reward model of ours: {saved.kind}")
    except (ValueError, ImportError, AttributeError) as error:
        raise cannot_load(
            folder,
            f'{HEADS_FILE}: {error}. It is expected as {{"heads": ["reward"], '
            '"request": null}',
        ) from error
    return saved, kind
