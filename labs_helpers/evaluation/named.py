"""Judges by name: a reward model, a language model, or an address.

What LABS_JUDGE says comes in, a judge goes out.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from labs_helpers.data import Judge
from labs_helpers.data.messages import as_exchanges
from labs_helpers.evaluation.judges import (
    LanguageModelJudge,
    Prompts,
    RewardJudge,
    Texts,
    require_pairs,
)
from labs_helpers.evaluation.remote import RemoteJudge, is_address
from labs_helpers.evaluation.win_rates import outcomes_of
from labs_helpers.models import (
    RewardModel,
    default_device_and_dtype,
    load_policy,
    load_tokenizer,
)
from labs_helpers.models.adapters import adapter_config
from labs_helpers.models.chat import encode_chat
from labs_helpers.models.limits import check_fits, each_named
from labs_helpers.models.loading import cannot_load, named_origin, read_model, source
from labs_helpers.models.policies import in_batches
from labs_helpers.models.reward import HEADS_FILE


@dataclass(frozen=True)
class ClassifierJudge:
    """Prefers the answer with the higher score of a classifier with one label.

    So reward models are published. It reads the whole chat, to the template's end.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def load(cls, name: str) -> "ClassifierJudge":
        """Load a folder or a name on the hub."""
        hardware = default_device_and_dtype()
        model = read_model(AutoModelForSequenceClassification, name, hardware.dtype)
        if model.config.num_labels != 1:
            labels = f"it has {model.config.num_labels} labels, a reward model has one"
            raise cannot_load(name, labels)
        # Conversations are read one by one: an end token that also pads would be taken
        # for padding.
        model.config.pad_token_id = None
        return cls(model.to(hardware.device).eval(), load_tokenizer(name))

    def compare(self, prompts: Prompts, a: Texts, b: Texts) -> np.ndarray:
        """Compare answers: 1 where `a` wins, 0.5 for a tie, 0 where `b` wins."""
        require_pairs(prompts, a, b)
        talks = as_exchanges([*prompts, *prompts], [*a, *b])
        rows = each_named("row", self._encode, talks)
        check_fits(self.model, self.tokenizer, rows)

        def scores(batch: list[list[int]]) -> Tensor:
            tokens = torch.tensor(batch, device=self.model.device)
            return self.model(input_ids=tokens).logits[:, 0].float()

        found = in_batches(self.model, rows, scores, 1, "judging", list)
        of_a, of_b = found.double().numpy().reshape(2, -1)
        return outcomes_of(of_a - of_b)

    def _encode(self, asked: list[dict], said: list[dict]) -> list[int]:
        return encode_chat(self.tokenizer, [*asked, *said], add_generation_prompt=False)


def load_judge(name: str) -> Judge:
    """Load the judge that a name stands for.

    Args:
        name: An address, "http://host/v1#model" (`RemoteJudge`); a folder of a
            `RewardModel`; a folder or a name on the hub of a sequence classifier with
            one label, or of a language model, which is asked in both orders.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no judge.
    """
    if is_address(name):
        return RemoteJudge.at(name)
    if (Path(name) / HEADS_FILE).exists():
        return RewardJudge(RewardModel.from_pretrained(name))
    if _is_classifier(name):
        return ClassifierJudge.load(name)
    policy = load_policy(name, dtype=default_device_and_dtype().dtype)
    return LanguageModelJudge(policy, load_tokenizer(name))


def _is_classifier(name: str) -> bool:
    if adapter_config(name) is not None:
        return False
    with named_origin(name):
        config = AutoConfig.from_pretrained(name, **source(name))
    kinds = config.architectures or []
    return any(kind.endswith("ForSequenceClassification") for kind in kinds)
