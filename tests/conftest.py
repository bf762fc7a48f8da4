"""What every test runs under: smoke profile, no network, one thread, checked shapes."""

import os

# Before the imports that read them; kernels and commands under test inherit them.
os.environ.update(
    HF_HUB_OFFLINE="1",
    LABS_PROFILE="smoke",
    LABS_PROGRESS="0",
    LABS_STRICT="1",
    MPLBACKEND="Agg",
    OMP_NUM_THREADS="1",
    OMP_WAIT_POLICY="passive",
)

import copy
import random

import hypothesis
import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook

OVERRIDES = ("MODEL", "REWARD_MODEL", "DATA", "JUDGE", "SUITES", "CAPABILITY")
for override in OVERRIDES:
    os.environ.pop(f"LABS_{override}", None)

# Before the package is first imported.
INT_IS_FLOAT = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
install_import_hook("labs_helpers", INT_IS_FLOAT)

# The same examples on every machine, and no deadline on busy cores.
hypothesis.settings.register_profile("labs", deadline=None, derandomize=True)
hypothesis.settings.load_profile("labs")


def pytest_collection_modifyitems(config, items):
    """Leave out what is exhaustive unless it is asked for."""
    if "exhaustive" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def seed() -> int:
    """Start every test from the same random state."""
    value = 0
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002 - libraries draw from it
    torch.manual_seed(value)
    return value


CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|assistant|>"
    "{% generation %}{{ message.content }}<|end|>{% endgeneration %}"
    "{% else %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_tokenizer():
    """A byte-level tokenizer of 300 tokens with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["Who cleans the town hall of stone?"], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
    )


@pytest.fixture
def tokenizer(tiny_tokenizer):
    """A copy that a test may change."""
    return copy.deepcopy(tiny_tokenizer)


@pytest.fixture
def tiny_policy(tiny_tokenizer):
    """A random Llama of two layers; call it for more, with other sizes or seeds."""
    from transformers import LlamaConfig, LlamaForCausalLM

    def build(seed: int = 0, spread: float = 0.3, **sizes):
        torch.manual_seed(seed)
        config = LlamaConfig(
            **{
                "vocab_size": len(tiny_tokenizer),
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "max_position_embeddings": 512,
                "tie_word_embeddings": True,
                "initializer_range": spread,
                "bos_token_id": None,
                "eos_token_id": tiny_tokenizer.eos_token_id,
                "pad_token_id": tiny_tokenizer.pad_token_id,
                **sizes,
            }
        )
        return LlamaForCausalLM(config).eval()

    return build
