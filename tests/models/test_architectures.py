"""Families of language models: all that is done to them passes, or is refused in words.

`python -m tests.models.architectures` prints the whole table.
"""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location(
    "architectures", Path(__file__).with_name("architectures.py")
)
architectures = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(architectures)

WITHOUT_LORA = "is incompatible with Mamba-based models"
NO_MERGE = "does not merge exactly"
# Where not all passes; everything, or what is named.
REFUSED = {
    ("Mamba", "LoRA"): (architectures.TRIED, WITHOUT_LORA),
    ("Mamba 2", "LoRA"): (architectures.TRIED, WITHOUT_LORA),
    ("Falcon-H1", "LoRA"): (architectures.TRIED, WITHOUT_LORA),
    ("Jamba", "LoRA"): (("reward", "save and load"), NO_MERGE),
    ("BERT (an encoder)", "full"): (architectures.TRIED, "sees the tokens that it is"),
    ("BERT (an encoder)", "LoRA"): (architectures.TRIED, "sees the tokens that it is"),
}
QUICK = [
    "GPT-2",
    "GPT-Neo (local attention)",
    "GPT-NeoX",
    "OPT (narrow embeddings)",
    "BLOOM (ALiBi)",
    "Falcon",
    "MPT (ALiBi)",
    "Llama",
    "Mistral (sliding window)",
    "Mixtral (experts)",
    "Qwen2",
    "Qwen3",
    "Gemma 2 (soft cap)",
    "Gemma 3 (multimodal)",
    "Phi-3",
    "OLMo 2",
    "Cohere",
    "Granite",
    "StarCoder2",
    "Mamba",
    "Jamba",
    "BERT (an encoder)",
]


def require_the_table(family, found):
    for (tuning, what), said in found.items():
        refused, sentence = REFUSED.get((family, tuning), ((), ""))
        if what in refused:
            assert sentence in said, (family, tuning, what, said)
        else:
            assert said == "pass", (family, tuning, what, said)


@pytest.mark.timeout(300)  # half a minute on a core of its own
def test_some_twenty_families_are_trained_sampled_and_saved(tmp_path, tiny_tokenizer):
    """Everything with all weights; with LoRA what an adapter changes."""
    with_lora = ("sampling", "ppo", "save and load")
    for number, family in enumerate(QUICK):
        found = architectures.outcomes(
            family, tiny_tokenizer, tmp_path / str(number), with_lora
        )
        require_the_table(family, found)


@pytest.mark.slow
@pytest.mark.parametrize("family", architectures.FAMILIES)
def test_every_family_in_full(family, tmp_path, tiny_tokenizer):
    found = architectures.outcomes(family, tiny_tokenizer, tmp_path)
    assert len(found) == 2 * len(architectures.TRIED)
    require_the_table(family, found)
