"""Policies and tokenizers: what is loaded, on which device, and what copies share."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from labs_helpers.models import (
    branch,
    default_device_and_dtype,
    encode_chat,
    load_policy,
    load_tokenizer,
)
from labs_helpers.models.policies import frozen_copy, shares_parameters

from .conftest import add_to_adapters


class TestTokenizer:
    def test_chat_is_encoded_as_a_list(self, tiny_tokenizer):
        messages = [{"role": "user", "content": "Hi"}]
        tokens = encode_chat(tiny_tokenizer, messages, add_generation_prompt=True)
        assert tiny_tokenizer.decode(tokens) == "<|user|>Hi<|end|><|assistant|>"

    def test_without_template_the_bare_text_is_read(self, tiny_tokenizer, monkeypatch):
        monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
        messages = [{"role": "user", "content": "Hi"}]
        tokens = encode_chat(tiny_tokenizer, messages, add_generation_prompt=True)
        assert tiny_tokenizer.decode(tokens) == "Hi"

    def test_missing_pad_token_becomes_the_end_token(self, tiny_tokenizer, tmp_path):
        without = copy.deepcopy(tiny_tokenizer)
        without.pad_token = None
        without.save_pretrained(tmp_path)
        tokenizer = load_tokenizer(tmp_path)
        assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1

    def test_missing_end_token_is_an_error(self, tiny_tokenizer, tmp_path):
        without = copy.deepcopy(tiny_tokenizer)
        without.eos_token = None
        without.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="no end-of-sequence token"):
            load_tokenizer(tmp_path)


class TestPolicy:
    def test_comes_in_evaluation_mode_without_dropout(
        self, tmp_path, tiny_policy, tiny_tokenizer
    ):
        tiny_policy(attention_dropout=0.5).save_pretrained(tmp_path)
        policy = load_policy(tmp_path, device="cpu")
        assert not policy.training
        tokens = torch.tensor([[5, 6, 7]])
        expected = policy(tokens).logits
        torch.testing.assert_close(policy.train()(tokens).logits, expected)

    @pytest.mark.parametrize("load", [load_policy, load_tokenizer])
    def test_missing_folder_is_named(self, load):
        with pytest.raises(OSError, match="Cannot load 'no/such/folder'"):
            load("no/such/folder")

    def test_lora_trains_only_adapters(self, policy_dir):
        policy = load_policy(policy_dir, lora=2, device="cpu")
        names = [n for n, p in policy.named_parameters() if p.requires_grad]
        assert len(names) == 2 * 2 * 7  # A and B, layers, linear maps in each
        assert all("lora_" in name for name in names)

    def test_lora_starts_at_the_base_model(self, policy_dir):
        tokens = torch.tensor([[5, 6, 7]])
        plain = load_policy(policy_dir, device="cpu")
        adapted = load_policy(policy_dir, lora=LoraConfig(r=2), device="cpu")
        torch.testing.assert_close(adapted(tokens).logits, plain(tokens).logits)

    def test_adapter_folder_loads_trainable_with_its_base(self, policy_dir, tmp_path):
        policy = load_policy(policy_dir, lora=2, device="cpu")
        add_to_adapters(policy)
        policy.save_pretrained(tmp_path / "adapter")
        loaded = load_policy(tmp_path / "adapter", device="cpu")
        tokens = torch.tensor([[5, 6, 7]])
        torch.testing.assert_close(loaded(tokens).logits, policy(tokens).logits)
        assert any(p.requires_grad for p in loaded.parameters())

    @pytest.mark.parametrize(
        ("capability", "expected"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16)]
    )
    def test_bfloat16_needs_capability_8(self, monkeypatch, capability, expected):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        hardware = default_device_and_dtype()
        assert hardware.dtype == expected
        assert f"{capability[0]}.{capability[1]}" in hardware.reason

    def test_cpu_computes_in_float32(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        device, dtype, _reason = default_device_and_dtype()
        assert (device.type, dtype) == ("cpu", torch.float32)


class TestSharedParameters:
    def test_another_copy_shares_none(self, tiny_policy):
        policy = tiny_policy()
        assert not shares_parameters(policy, tiny_policy())
        assert not shares_parameters(policy, frozen_copy(policy))

    def test_the_same_model_does(self, tiny_policy):
        policy = tiny_policy()
        assert shares_parameters(policy, policy)
        assert shares_parameters(policy, policy.model)

    def test_the_base_of_an_adapter_does(self, tiny_policy):
        base = tiny_policy()
        policy = get_peft_model(base, LoraConfig(r=2))
        assert shares_parameters(policy, base)
        assert shares_parameters(policy, policy)

    def test_one_tied_tensor_is_enough(self, tiny_policy):
        policy, other = tiny_policy(), tiny_policy()
        other.model.norm.weight.data = policy.model.norm.weight.data.view(-1)
        assert shares_parameters(policy, other)

    def test_frozen_weights_may_be_shared(self, tiny_policy):
        policy, other = tiny_policy(), tiny_policy()
        other.model.norm.weight = policy.model.norm.weight.requires_grad_(False)
        assert not shares_parameters(policy, other)


class TestBranch:
    TOKENS = torch.tensor([[5, 6, 7]])

    def train(self, policy):
        add_to_adapters(policy)
        return policy(self.TOKENS).logits.detach()

    def test_adapters_share_the_frozen_weights_and_nothing_else(self, tiny_policy):
        policy = tiny_policy().eval()
        begin = policy(self.TOKENS).logits.detach()
        first, second = branch(policy, lora=2), branch(policy, lora=2)
        for one in (first, second):
            torch.testing.assert_close(one(self.TOKENS).logits, begin)
            kept = {p.data_ptr() for p in one.parameters() if not p.requires_grad}
            assert kept == {p.data_ptr() for p in policy.parameters()}
            assert not shares_parameters(one, policy)
        assert not shares_parameters(first, second)
        assert not torch.allclose(self.train(first), begin)
        for other in (second, policy):
            torch.testing.assert_close(other(self.TOKENS).logits, begin)

    def test_without_an_adapter_all_weights_are_copied_to_be_trained(self, tiny_policy):
        policy = tiny_policy().requires_grad_(False)
        other = branch(policy)
        assert all(parameter.requires_grad for parameter in other.parameters())
        assert not shares_parameters(other, policy)

    def test_a_policy_with_an_adapter_is_no_beginning(self, tiny_policy):
        with pytest.raises(ValueError, match="expected a policy without an adapter"):
            branch(branch(tiny_policy(), lora=2), lora=2)
