"""Policies with values: the policy's own numbers, values of 0, saved and loaded."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
)

from labs_helpers.models import PolicyWithValue, load_policy, logits_and_hidden

TOKENS = (torch.arange(21) * 17 % 199 + 5).view(3, 7)
KEEP = torch.tensor([[0, 0, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0, 0], [1] * 7]).bool()

NARROW = OPTConfig(
    vocab_size=300,
    hidden_size=16,
    word_embed_proj_dim=8,
    ffn_dim=16,
    num_hidden_layers=1,
    num_attention_heads=2,
)


def with_random_head(model):
    torch.nn.init.normal_(model.value_head.weight)
    torch.nn.init.normal_(model.value_head.bias)
    return model


def lora(policy):
    return get_peft_model(policy, LoraConfig(r=2, init_lora_weights=False)).eval()


class TestForward:
    @pytest.mark.parametrize("separate", [False, True])
    def test_logits_are_the_policys_and_values_0(self, tiny_policy, separate):
        policy = tiny_policy()
        model = PolicyWithValue.from_policy(policy, separate=separate)
        output = model(TOKENS)
        torch.testing.assert_close(output.logits, policy(TOKENS).logits)
        assert output.values.shape == TOKENS.shape
        assert (output.values == 0).all()

    @pytest.mark.parametrize("separate", [False, True])
    def test_only_what_is_wanted(self, tiny_policy, separate):
        model = with_random_head(PolicyWithValue.from_policy(tiny_policy(), separate))
        whole, part = model(TOKENS), model(TOKENS, KEEP)
        torch.testing.assert_close(part.logits, whole.logits[KEEP])
        torch.testing.assert_close(part.values, whole.values[KEEP])

    def test_what_stands_to_the_right_never_matters(self, tiny_policy):
        model = with_random_head(PolicyWithValue.from_policy(tiny_policy()))
        other = TOKENS.clone()
        other[:, 4:] = 0
        expected, actual = model(TOKENS), model(other)
        torch.testing.assert_close(actual.values[:, :4], expected.values[:, :4])

    def test_with_lora(self, tiny_policy):
        policy = lora(tiny_policy())
        output = PolicyWithValue.from_policy(policy, separate=True)(TOKENS, KEEP)
        torch.testing.assert_close(output.logits, policy(TOKENS).logits[KEEP])

    def test_what_a_model_does_to_its_scores_is_done(self):
        config = Gemma2Config(
            vocab_size=300,
            hidden_size=32,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            final_logit_softcapping=0.5,
            initializer_range=0.3,
        )
        policy = Gemma2ForCausalLM(config).eval()
        logits, _ = logits_and_hidden(policy, TOKENS, KEEP)
        assert logits.abs().max() <= 0.5
        torch.testing.assert_close(logits, policy(TOKENS).logits[KEEP])

    @pytest.mark.parametrize(
        ("kind", "sizes"),
        [
            (
                GPT2LMHeadModel,
                GPT2Config(vocab_size=300, n_embd=32, n_layer=1, n_head=2),
            ),
            (OPTForCausalLM, NARROW),  # its vocabulary head is narrower than the rest
        ],
    )
    def test_with_other_families(self, kind, sizes):
        policy = kind(sizes).eval()
        output = PolicyWithValue.from_policy(policy)(TOKENS, KEEP)
        torch.testing.assert_close(output.logits, policy(TOKENS).logits[KEEP])

    def test_a_failed_forward_leaves_no_hook(self, tiny_policy):
        policy = tiny_policy()
        with pytest.raises(IndexError):
            logits_and_hidden(policy, torch.full((1, 2), 10**6))
        assert not policy.lm_head._forward_pre_hooks


class TestParameters:
    def test_a_value_of_its_own_leaves_the_policy_alone(self, tiny_policy):
        model = with_random_head(PolicyWithValue.from_policy(tiny_policy(), True))
        model(TOKENS).values.sum().backward()
        assert all(p.grad is None for p in model.policy_parameters())
        assert model.value_trunk.embed_tokens.weight.grad is not None

    def test_policy_and_value_are_all(self, tiny_policy):
        model = PolicyWithValue.from_policy(tiny_policy(), separate=True)
        both = {*model.policy_parameters(), *model.value_parameters()}
        assert both == set(model.parameters())

    def test_lora_trains_adapters_and_the_head(self, tiny_policy):
        model = PolicyWithValue.from_policy(
            lora(tiny_policy()), separate=True, lora=LoraConfig(r=2)
        )
        named = [n for n, p in model.named_parameters() if p.requires_grad]
        assert all("lora_" in name or "value_head" in name for name in named)
        assert any(name.startswith("value_trunk") for name in named)

    def test_lora_of_a_shared_trunk_is_the_policys(self, tiny_policy):
        with pytest.raises(ValueError, match="separate=True"):
            PolicyWithValue.from_policy(tiny_policy(), lora=2)


class TestSaved:
    @pytest.mark.parametrize("separate", [False, True])
    def test_comes_back(self, tiny_policy, tmp_path, separate):
        model = with_random_head(PolicyWithValue.from_policy(tiny_policy(), separate))
        model.save_pretrained(tmp_path)
        loaded = PolicyWithValue.from_pretrained(tmp_path)
        assert not loaded.training
        for ours, theirs in zip(loaded(TOKENS), model(TOKENS), strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_the_folder_is_a_policy_too(self, tiny_policy, tmp_path):
        policy = tiny_policy()
        PolicyWithValue.from_policy(policy).save_pretrained(tmp_path)
        loaded = load_policy(tmp_path)
        torch.testing.assert_close(loaded(TOKENS).logits, policy(TOKENS).logits)

    def test_with_lora(self, tiny_policy, tmp_path):
        base = tiny_policy()
        base.save_pretrained(tmp_path / "base")
        policy = lora(load_policy(tmp_path / "base"))
        model = PolicyWithValue.from_policy(policy, True, lora=LoraConfig(r=2))
        with_random_head(model).save_pretrained(tmp_path / "rl")
        loaded = PolicyWithValue.from_pretrained(tmp_path / "rl")
        assert loaded.policy_parameters()
        for ours, theirs in zip(loaded(TOKENS), model(TOKENS), strict=True):
            torch.testing.assert_close(ours, theirs)

    def test_a_folder_without_values_is_named(self, tiny_policy, tmp_path):
        tiny_policy().save_pretrained(tmp_path)
        with pytest.raises(FileNotFoundError, match=r"value_head\.safetensors"):
            PolicyWithValue.from_pretrained(tmp_path)
