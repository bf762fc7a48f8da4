"""Reward models: what is saved comes back, and what should not matter does not."""

import pytest
import torch

from labs_helpers.models import RewardModel, load_policy, load_tokenizer, pad_right

from .conftest import add_to_adapters

PROMPTS = ["Who cleans?", "How can I open a mailbox without its key?", "Why?"]
ANSWERS = ["Stone.", "I won't help with that.", "I do not know why it is so."]


@pytest.fixture
def reward_model(tiny_policy, tiny_tokenizer):
    return with_random_heads(
        RewardModel.from_policy(tiny_policy(), ("help", "harm"), tiny_tokenizer)
    )


def with_random_heads(model):
    torch.nn.init.normal_(model.head.weight)
    return model


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

    def test_what_comes_several_times_is_read_once(self, reward_model, monkeypatch):
        read = []
        monkeypatch.setattr(
            type(reward_model),
            "_last_hidden",
            lambda self, tokens, lengths: (
                read.extend(tokens.tolist()) or torch.randn(len(tokens), self.width)
            ),
        )
        scores = reward_model.score(PROMPTS[:2] * 2, [*ANSWERS[:2], ANSWERS[0], "No."])
        assert len(read) == 3
        assert torch.equal(scores[0], scores[2])
        assert not torch.equal(scores[1], scores[3])

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
