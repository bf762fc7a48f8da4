"""Families of language models with small random weights, and all that is done to them.

`python -m tests.architectures` prints the table: what was tried of each family, with
all weights and with LoRA, and the sentences of those that are refused.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from labs_helpers.constitution.soft_labels import SoftPairObjective
from labs_helpers.data import Preference, Unpaired
from labs_helpers.fit import (
    FitConfig,
    KTOObjective,
    PairObjective,
    RewardObjective,
    SFTObjective,
    SLiCObjective,
    fit,
)
from labs_helpers.logprobs import rollout_logprobs
from labs_helpers.losses import dpo_loss, ipo_loss
from labs_helpers.models import (
    PolicyWithValue,
    RewardModel,
    load_policy,
    load_tokenizer,
)
from labs_helpers.policies import save_policy
from labs_helpers.rl import RLConfig, train
from labs_helpers.sampling import sample

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
IMAGES = {"image_size": 28, "patch_size": 14}
# Name of a transformers class without "ForCausalLM", or the class; sizes.
FAMILIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "GPT-2": ("GPT2Config", "GPT2LMHeadModel", OLD),
    "GPT-Neo (local attention)": (
        "GPTNeoConfig",
        "GPTNeoForCausalLM",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "window_size": 4,
            "attention_types": [[["global", "local"], 1]],
        },
    ),
    "GPT-NeoX": ("GPTNeoXConfig", "GPTNeoXForCausalLM", SMALL),
    "GPT-J": ("GPTJConfig", "GPTJForCausalLM", {**OLD, "rotary_dim": 4}),
    "GPT-BigCode": ("GPTBigCodeConfig", "GPTBigCodeForCausalLM", OLD),
    "CodeGen": ("CodeGenConfig", "CodeGenForCausalLM", {**OLD, "rotary_dim": 4}),
    "OPT": (
        "OPTConfig",
        "OPTForCausalLM",
        {
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 32,
        },
    ),
    "OPT (narrow embeddings)": (
        "OPTConfig",
        "OPTForCausalLM",
        {
            "hidden_size": 32,
            "ffn_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 16,
            "do_layer_norm_before": False,
        },
    ),
    "BLOOM (ALiBi)": (
        "BloomConfig",
        "BloomForCausalLM",
        {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    ),
    "Falcon": (
        "FalconConfig",
        "FalconForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    ),
    "Falcon (ALiBi)": (
        "FalconConfig",
        "FalconForCausalLM",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "alibi": True,
        },
    ),
    "MPT (ALiBi)": (
        "MptConfig",
        "MptForCausalLM",
        {"d_model": 32, "n_layers": 2, "n_heads": 4, "expansion_ratio": 2},
    ),
    "Llama": ("LlamaConfig", "LlamaForCausalLM", GROUPED),
    "Mistral (sliding window)": (
        "MistralConfig",
        "MistralForCausalLM",
        {**GROUPED, "sliding_window": 4},
    ),
    "Mixtral (experts)": (
        "MixtralConfig",
        "MixtralForCausalLM",
        {**GROUPED, "num_local_experts": 4},
    ),
    "Qwen2": ("Qwen2Config", "Qwen2ForCausalLM", GROUPED),
    "Qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**GROUPED, "head_dim": 16}),
    "Qwen2-MoE (experts)": (
        "Qwen2MoeConfig",
        "Qwen2MoeForCausalLM",
        {**GROUPED, **EXPERTS, "shared_expert_intermediate_size": 16},
    ),
    "Qwen3-MoE (experts)": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {**GROUPED, **EXPERTS, "head_dim": 8},
    ),
    "Qwen3-Next (linear attention)": (
        "Qwen3NextConfig",
        "Qwen3NextForCausalLM",
        {
            **GROUPED,
            **EXPERTS,
            "head_dim": 8,
            "shared_expert_intermediate_size": 16,
            "layer_types": ["linear_attention", "full_attention"],
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
    ),
    "OLMoE (experts)": (
        "OlmoeConfig",
        "OlmoeForCausalLM",
        {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "GPT-OSS (experts, sinks)": (
        "GptOssConfig",
        "GptOssForCausalLM",
        {
            **GROUPED,
            "head_dim": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 4,
        },
    ),
    "Gemma": ("GemmaConfig", "GemmaForCausalLM", {**GROUPED, "head_dim": 16}),
    "Gemma 2 (soft cap)": (
        "Gemma2Config",
        "Gemma2ForCausalLM",
        {**GROUPED, "head_dim": 16, "sliding_window": 4},
    ),
    "Gemma 3 (text)": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {**GROUPED, "head_dim": 16, "sliding_window": 4},
    ),
    "Gemma 3 (multimodal)": (
        "Gemma3Config",
        "Gemma3ForConditionalGeneration",
        {
            "text_config": {**GROUPED, "head_dim": 16, "sliding_window": 4},
            "vision_config": {**SMALL, **IMAGES},
            "mm_tokens_per_image": 4,
        },
    ),
    "Phi": ("PhiConfig", "PhiForCausalLM", SMALL),
    "Phi-3": ("Phi3Config", "Phi3ForCausalLM", GROUPED),
    "StableLM": ("StableLmConfig", "StableLmForCausalLM", GROUPED),
    "OLMo 2": ("Olmo2Config", "Olmo2ForCausalLM", GROUPED),
    "Cohere": ("CohereConfig", "CohereForCausalLM", GROUPED),
    "Granite": (
        "GraniteConfig",
        "GraniteForCausalLM",
        {**GROUPED, "logits_scaling": 2.0},
    ),
    "StarCoder2": (
        "Starcoder2Config",
        "Starcoder2ForCausalLM",
        {**GROUPED, "sliding_window": 4},
    ),
    "SmolLM3": ("SmolLM3Config", "SmolLM3ForCausalLM", GROUPED),
    "DeepSeek-V3 (experts)": (
        "DeepseekV3Config",
        "DeepseekV3ForCausalLM",
        {
            **SMALL,
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
            "moe_intermediate_size": 16,
            "q_lora_rank": 8,
            "kv_lora_rank": 8,
            "qk_rope_head_dim": 4,
            "qk_nope_head_dim": 4,
            "v_head_dim": 8,
            "first_k_dense_replace": 1,
        },
    ),
    "Mamba": (
        "MambaConfig",
        "MambaForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2},
    ),
    "Mamba 2": (
        "Mamba2Config",
        "Mamba2ForCausalLM",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_heads": 4,
            "head_dim": 16,
            "n_groups": 1,
            "state_size": 8,
            "chunk_size": 4,
        },
    ),
    "RWKV": (
        "RwkvConfig",
        "RwkvForCausalLM",
        {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},
    ),
    "RecurrentGemma": (
        "RecurrentGemmaConfig",
        "RecurrentGemmaForCausalLM",
        {
            **SMALL,
            "num_hidden_layers": 3,
            "num_key_value_heads": 1,
            "lru_width": 32,
            "attention_window_size": 4,
        },
    ),
    "Jamba": (
        "JambaConfig",
        "JambaForCausalLM",
        {
            **GROUPED,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_d_state": 4,
            "use_mamba_kernels": False,
        },
    ),
    "Bamba": (
        "BambaConfig",
        "BambaForCausalLM",
        {
            **GROUPED,
            "attn_layer_indices": [1],
            "mamba_n_heads": 4,
            "mamba_d_head": 16,
            "mamba_d_state": 4,
            "mamba_n_groups": 1,
            "mamba_chunk_size": 4,
        },
    ),
    "Falcon-H1": (
        "FalconH1Config",
        "FalconH1ForCausalLM",
        {
            **GROUPED,
            "mamba_d_ssm": 32,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_d_state": 4,
            "mamba_n_groups": 1,
            "mamba_chunk_size": 4,
        },
    ),
    "LFM2": (
        "Lfm2Config",
        "Lfm2ForCausalLM",
        {**GROUPED, "layer_types": ["conv", "full_attention"]},
    ),
    "XGLM": (
        "XGLMConfig",
        "XGLMForCausalLM",
        {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
    ),
    "BioGPT": ("BioGptConfig", "BioGptForCausalLM", SMALL),
    "BERT (an encoder)": ("BertConfig", "BertLMHeadModel", SMALL),
    "BERT (a decoder)": (
        "BertConfig",
        "BertLMHeadModel",
        {**SMALL, "is_decoder": True},
    ),
    "RoBERTa (a decoder)": (
        "RobertaConfig",
        "RobertaForCausalLM",
        {**SMALL, "is_decoder": True},
    ),
}


ALGORITHMS = ("reinforce", "actor_critic", "trpo", "ppo")
PAIRED = {
    "DPO": partial(PairObjective, loss=dpo_loss),
    "IPO": partial(PairObjective, loss=ipo_loss),
    "soft DPO": SoftPairObjective,
}
OBJECTIVES = ("SFT", "reward", "SLiC", "KTO", *PAIRED)
PROMPTS = ["Who cleans the town hall?", "Why?", "Who?"]
ANSWERS = ["The baker, every day.", "Stone.", "A dog"]
PAIRS = [
    Preference(prompt, answer, "No.", meta={"probability": 0.8})
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
]
TOKENS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def build(family: str, tokenizer: Any) -> Any:
    """A model of a family, as wide as the tokenizer's vocabulary."""
    config, model, sizes = FAMILIES[family]
    vocabulary = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    if "text_config" in sizes:
        sizes = {**sizes, "text_config": {**vocabulary, **sizes["text_config"]}}
    else:
        sizes = {**vocabulary, **sizes}
    built = getattr(transformers, model)(getattr(transformers, config)(**sizes))
    with torch.no_grad():  # so that what stands before matters to what comes
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return built.eval()


def outcomes(family: str, tokenizer: Any, folder: Path) -> dict[tuple[str, str], str]:
    """Of all weights and of LoRA, by what was tried: pass, or the refusal."""
    torch.manual_seed(0)
    build(family, tokenizer).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    found = {}
    for tuning in ("full", "LoRA"):
        policy = None
        for what, attempt in _attempts(tokenizer, folder / tuning):
            try:
                if policy is None:
                    lora = 2 if tuning == "LoRA" else None
                    policy = load_policy(folder / "base", lora=lora, device="cpu")
                    _shake(policy)
                attempt(policy)
                found[tuning, what] = "pass"
            except (ValueError, OSError) as error:
                found[tuning, what] = str(error).replace(str(folder), "")
            except Exception as error:  # to be mended
                found[tuning, what] = f"FAILED: {type(error).__name__}: {error}"
    return found


def _attempts(
    tokenizer: Any, folder: Path
) -> Iterator[tuple[str, Callable[[Any], None]]]:
    yield "sampling", partial(_sampling, tokenizer=tokenizer)
    for algorithm in ALGORITHMS:
        yield algorithm, partial(_reinforce, tokenizer=tokenizer, algorithm=algorithm)
    for objective in OBJECTIVES:
        yield objective, partial(_fit, tokenizer=tokenizer, objective=objective)
    yield "save and load", partial(_save_and_load, tokenizer=tokenizer, folder=folder)


def _sampling(policy: Any, tokenizer: Any) -> None:
    """The cache and the padding give what the plain forward gives."""
    rollout = sample(policy, tokenizer, PROMPTS, max_new_tokens=6, n=2, seed=0)
    found = rollout_logprobs(policy, rollout)
    torch.testing.assert_close(rollout.logprobs, found, rtol=0, atol=1e-4)


def _reinforce(policy: Any, tokenizer: Any, algorithm: str) -> None:
    before = _weights(policy)
    config = RLConfig(
        algorithm=algorithm, updates=1, samples=2, max_new_tokens=3, progress=False
    )
    history = train(
        policy,
        PROMPTS,
        lambda _, said: list(range(len(said))),
        config,
        tokenizer=tokenizer,
    )
    if algorithm != "trpo" or history["approx_kl"][0] > 0:  # else no step was good
        _require_moved(policy, before)


def _fit(policy: Any, tokenizer: Any, objective: str) -> None:
    config = FitConfig(lr=1e-4, batch_size=3, steps=1, progress=False)
    rows: list[Any] = PAIRS
    trained = policy
    adapted = any("lora_" in name for name, _ in policy.named_parameters())
    reference = None if adapted else load_policy(policy.name_or_path, device="cpu")
    if objective == "SFT":
        loss: Any = SFTObjective(tokenizer)
    elif objective == "SLiC":
        loss = SLiCObjective(tokenizer)
    elif objective == "KTO":
        loss = KTOObjective(tokenizer, reference)
        rows = [
            Unpaired(prompt, answer, i > 0)
            for i, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True))
        ]
    elif objective == "reward":
        trained = RewardModel.from_policy(
            policy, tokenizer=tokenizer, lora=2 if adapted else None
        )
        torch.nn.init.normal_(trained.head.weight)
        loss = RewardObjective(trained)
    else:
        loss = PAIRED[objective](tokenizer, reference)
    before = _weights(trained)
    fit(trained, rows, loss, config)
    _require_moved(trained, before)


def _save_and_load(policy: Any, tokenizer: Any, folder: Path) -> None:
    """A policy, one with a value model of its own, and a reward model come back."""
    adapted = any("lora_" in name for name, _ in policy.named_parameters())
    lora = 2 if adapted else None
    valued = _shake(PolicyWithValue.from_policy(policy, separate=True, lora=lora))
    save_policy(policy, folder / "policy")
    valued.save_pretrained(folder / "value")
    judge = _shake(RewardModel.from_policy(policy, tokenizer=tokenizer, lora=lora))
    judge.save_pretrained(folder / "reward")
    close = partial(torch.testing.assert_close, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        expected = valued(TOKENS)
        close(load_policy(folder / "policy")(TOKENS).logits, expected.logits)
        close(PolicyWithValue.from_pretrained(folder / "value")(TOKENS), expected)
    found = RewardModel.from_pretrained(folder / "reward")
    close(found.score(PROMPTS, ANSWERS), judge.score(PROMPTS, ANSWERS))


def _shake(model: Any) -> Any:
    """As a training may leave it."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or name.startswith(("value_head", "head")):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def _weights(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def _require_moved(model: Any, before: dict[str, torch.Tensor]) -> None:
    """Trained weights have moved and are numbers; frozen ones have not."""
    moved = 0
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
        same = torch.equal(parameter, before[name])
        assert same or parameter.requires_grad, name
        moved += not same
    assert moved


def main(tokenizer: Any, families: list[str]) -> None:
    """Print the table as markdown, and the refusals below it."""
    tried = ["sampling", *ALGORITHMS, *OBJECTIVES, "save and load"]
    print("|".join(["", "family", "weights", *tried, ""]))
    print("|---" * (len(tried) + 2) + "|")
    notes: list[str] = []
    for family in families:
        with tempfile.TemporaryDirectory() as folder:
            found = outcomes(family, tokenizer, Path(folder))
        for tuning in ("full", "LoRA"):
            cells = []
            for what in tried:
                said = found[tuning, what]
                if said != "pass" and said not in notes:
                    notes.append(said)
                cells.append(said if said == "pass" else f"({notes.index(said) + 1})")
            print("|".join(["", family, tuning, *cells, ""]), flush=True)
    for number, note in enumerate(notes, 1):
        print(f"\n({number}) {note}")


if __name__ == "__main__":
    main(load_tokenizer("data/models/town-xs"), sys.argv[1:] or list(FAMILIES))
