"""Models: what is saved comes back, and what should not matter does not."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from labs_helpers.models import (
    RewardModel,
    default_device_and_dtype,
    encode_chat,
    load_policy,
    load_tokenizer,
    pad_right,
)
from labs_helpers.models.policies import frozen_copy, shares_parameters

PROMPTS = ["Who cleans?", "How can I open a mailbox without its key?", "Why?"]
ANSWERS = ["Stone.", "I won't help with that.", "I do not know why it is so."]


@pytest.fixture
def policy_dir(tmp_path, tiny_policy, tiny_tokenizer):
    folder = tmp_path / "policy"
    tiny_policy().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def reward_model(tiny_policy, tiny_tokenizer):
    return with_random_heads(
        RewardModel.from_policy(tiny_policy(), ("help", "harm"), tiny_tokenizer)
    )


def with_random_heads(model):
    torch.nn.init.normal_(model.head.weight)
    return model


def add_to_adapters(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)


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


class TestRewardModel:
    def test_starts_at_zero(self, tiny_policy, tiny_tokenizer):
        model = RewardModel.from_policy(tiny_policy(), tokenizer=tiny_tokenizer)
        assert torch.equal(model.score(PROMPTS, ANSWERS), torch.zeros(3, 1))

    def test_reads_the_policys_hidden_state_of_the_end_token(
        self, tiny_policy, tiny_tokenizer
    ):
        policy = tiny_policy()
        model = RewardModel.from_policy(policy, tokenizer=tiny_tokenizer)
        tokens = tiny_tokenizer("<|user|>Hi<|end|><|assistant|>You<|end|>")["input_ids"]
        assert model.encode("Hi", "You") == tokens
        hidden = policy.model(torch.tensor([tokens])).last_hidden_state[0, -1]
        torch.testing.assert_close(model.features(["Hi"], ["You"])[0], hidden)
        with_random_heads(model)
        expected = model.head.weight @ hidden
        torch.testing.assert_close(model.score(["Hi"], ["You"])[0], expected)

    def test_encoding_ends_with_the_end_token(self, reward_model, monkeypatch):
        template = reward_model.tokenizer.chat_template
        expected = reward_model.encode("Hi", "You")
        for changed in (
            template.replace("{% endfor %}", "{{ '\\n' }}{% endfor %}"),
            template.replace("<|end|>{% endgeneration %}", "{% endgeneration %}"),
        ):
            monkeypatch.setattr(reward_model.tokenizer, "chat_template", changed)
            tokens = reward_model.encode("Hi", "You")
            assert tokens[-1] == expected[-1] == 1
            assert tokens[-2] == expected[-2]

    def test_padding_does_not_change_scores(self, reward_model):
        rows = [[5, 6, 7], [8, 9, 10, 11, 12]]
        tokens, lengths = pad_right(rows, pad=0)
        together = reward_model(tokens, lengths)
        for row, score in zip(rows, together, strict=True):
            alone = reward_model(torch.tensor([row]), torch.tensor([len(row)]))[0]
            torch.testing.assert_close(score, alone, rtol=1e-5, atol=1e-5)

    def test_pad_token_does_not_matter(self, reward_model):
        rows = [[5, 6, 7], [8, 9, 10, 11, 12]]
        scores = [reward_model(*pad_right(rows, pad)) for pad in (0, 17)]
        assert torch.equal(*scores)

    @pytest.mark.parametrize("batch_size", [1, 2])
    def test_batch_composition_does_not_change_scores(self, reward_model, batch_size):
        scores = reward_model.score(PROMPTS, ANSWERS)
        other = reward_model.score(PROMPTS[::-1], ANSWERS[::-1], batch_size)
        torch.testing.assert_close(other.flip(0), scores, rtol=1e-5, atol=1e-5)

    def test_messages_score_as_their_text(self, reward_model):
        messages = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
        scores = reward_model.score(messages, ANSWERS)
        assert torch.equal(scores, reward_model.score(PROMPTS, ANSWERS))

    def test_no_answers_no_scores(self, reward_model):
        assert reward_model.score([], []).shape == (0, 2)

    def test_scoring_keeps_training_mode(self, reward_model):
        reward_model.train()
        reward_model.score(PROMPTS, ANSWERS)
        assert reward_model.training

    def test_shares_nothing_with_the_policy(self, tiny_policy, tiny_tokenizer):
        policy = tiny_policy()
        before = {name: p.clone() for name, p in policy.named_parameters()}
        model = RewardModel.from_policy(policy, tokenizer=tiny_tokenizer)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        for name, parameter in policy.named_parameters():
            assert torch.equal(parameter, before[name]), name

    def test_copies_the_weights_of_a_policy_with_a_patched_forward(
        self, tiny_policy, tiny_tokenizer
    ):
        policy = tiny_policy()
        expected = RewardModel.from_policy(policy, tokenizer=tiny_tokenizer).features(
            PROMPTS, ANSWERS
        )
        for module in (policy, policy.model):  # as a trainer may leave them
            module.forward = lambda *args, **kwargs: pytest.fail("the policy's own")
        model = RewardModel.from_policy(policy, tokenizer=tiny_tokenizer)
        assert torch.equal(model.features(PROMPTS, ANSWERS), expected)

    def test_save_and_load_give_identical_scores(self, reward_model, tmp_path):
        reward_model.save_pretrained(tmp_path)
        loaded = RewardModel.from_pretrained(tmp_path, device="cpu")
        assert loaded.heads == ("help", "harm")
        scores = loaded.score(PROMPTS, ANSWERS)
        assert torch.equal(scores, reward_model.score(PROMPTS, ANSWERS))

    def test_a_policy_folder_is_no_reward_model(self, policy_dir):
        with pytest.raises(FileNotFoundError, match="holds no reward model"):
            RewardModel.from_pretrained(policy_dir)

    def test_the_policys_own_tokenizer_is_the_default(self, policy_dir):
        model = RewardModel.from_policy(load_policy(policy_dir, device="cpu"))
        assert model.tokenizer.chat_template is not None

    @pytest.mark.parametrize("heads", [(), ("a", "a")])
    def test_heads_have_different_names(self, tiny_policy, tiny_tokenizer, heads):
        with pytest.raises(ValueError, match="tuple of different names"):
            RewardModel.from_policy(tiny_policy(), heads, tiny_tokenizer)


class TestRewardModelWithLora:
    def test_trains_adapters_and_heads(self, tiny_policy, tiny_tokenizer):
        model = RewardModel.from_policy(tiny_policy(), tokenizer=tiny_tokenizer, lora=2)
        names = [n for n, p in model.named_parameters() if p.requires_grad]
        assert "head.weight" in names
        assert all("lora_" in n or n == "head.weight" for n in names)

    def test_is_saved_merged(self, tiny_policy, tiny_tokenizer, tmp_path):
        model = with_random_heads(
            RewardModel.from_policy(tiny_policy(), tokenizer=tiny_tokenizer, lora=2)
        )
        add_to_adapters(model)
        model.save_pretrained(tmp_path)
        loaded = RewardModel.from_pretrained(tmp_path, device="cpu")
        expected = model.score(PROMPTS, ANSWERS)
        scores = loaded.score(PROMPTS, ANSWERS)
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)

    def test_a_policys_adapter_is_merged_in_the_copy(self, policy_dir):
        policy = load_policy(policy_dir, lora=2, device="cpu")
        add_to_adapters(policy)
        tokens = torch.tensor([[5, 6, 7]])
        before = policy(tokens).logits
        model = RewardModel.from_policy(policy, tokenizer=load_tokenizer(policy_dir))
        hidden = model.trunk(tokens).last_hidden_state
        logits = policy.get_base_model().lm_head(hidden)
        torch.testing.assert_close(logits, before, rtol=1e-4, atol=1e-4)
        assert torch.equal(policy(tokens).logits, before)


def test_a_request_is_asked_after_the_answer_and_saved(
    tiny_policy, tiny_tokenizer, tmp_path
):
    plain = RewardModel.from_policy(tiny_policy(), tokenizer=tiny_tokenizer)
    asking = RewardModel.from_policy(
        tiny_policy(), tokenizer=tiny_tokenizer, request="right?"
    )
    ids = asking.encode("hi", "yes")
    assert ids[: len(plain.encode("hi", "yes"))] == plain.encode("hi", "yes")
    text = tiny_tokenizer.decode(ids)
    assert text.endswith("<|assistant|>")
    assert "right?" in text
    asking.save_pretrained(tmp_path)
    assert RewardModel.from_pretrained(tmp_path).request == "right?"
