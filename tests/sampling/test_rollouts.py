"""Sampling: the log-probs are those of what was sampled, batching changes nothing."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BertConfig,
    BertLMHeadModel,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from labs_helpers.sampling import decoding, rollouts, sample

PROMPTS = ["Who cleans the town hall?", "Why?", "How do I open a mailbox?"]


def full_logprobs(model, rollout, temperature=1.0):
    """Log-probs of the answers by one forward over each row, without padding."""
    prompt_width = rollout.prompt_mask.shape[1]
    expected = torch.zeros_like(rollout.logprobs)
    for row in range(len(rollout.tokens)):
        real = rollout.attention_mask[row].bool()
        tokens = rollout.tokens[row][real]
        answer = int(rollout.response_mask[row].sum())
        with torch.no_grad():
            logits = model(tokens[None]).logits[0, :-1] / temperature
        logprobs = logits.log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
        expected[row, :answer] = logprobs[-answer:]
    assert rollout.tokens.shape[1] == prompt_width + expected.shape[1]
    return expected


def assert_logprobs_are_exact(model, rollout, temperature=1.0):
    expected = full_logprobs(model, rollout, temperature)
    torch.testing.assert_close(rollout.logprobs, expected, rtol=1e-4, atol=1e-4)


def same(a, b):
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for name in ("tokens", "prompt_mask", "response_mask", "finished")
    )


def with_bias(policy, tokens, bias, elsewhere=0.0):
    """Add a bias to the logits of some tokens."""
    head = torch.nn.Linear(32, policy.config.vocab_size)
    with torch.no_grad():
        head.weight.copy_(policy.lm_head.weight)
        head.bias.fill_(elsewhere)
        head.bias[tokens] = bias
    policy.lm_head = head
    return policy


@pytest.fixture
def chatty(tiny_policy):
    """A policy whose answers end by themselves, at different lengths."""
    return with_bias(tiny_policy(spread=0.15), tokens=[1], bias=4.0)


class TestLogprobs:
    @pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
    def test_equal_a_fresh_forward(self, chatty, tiny_tokenizer, temperature):
        rollout = sample(
            chatty,
            tiny_tokenizer,
            PROMPTS,
            max_new_tokens=12,
            temperature=temperature,
            n=4,
            seed=1,
        )
        assert rollout.finished.any()
        assert_logprobs_are_exact(chatty, rollout, temperature)

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_with_grouped_queries(self, tiny_policy, tiny_tokenizer, attention):
        policy = tiny_policy(num_key_value_heads=1, attn_implementation=attention)
        rollout = sample(policy, tiny_tokenizer, PROMPTS, max_new_tokens=8, seed=1)
        assert_logprobs_are_exact(policy, rollout)

    def test_with_lora(self, tiny_policy, tiny_tokenizer):
        policy = get_peft_model(
            tiny_policy(), LoraConfig(r=2, init_lora_weights=False)
        ).eval()
        rollout = sample(policy, tiny_tokenizer, PROMPTS, max_new_tokens=8, seed=1)
        assert_logprobs_are_exact(policy, rollout)

    def test_with_learnt_positions(self, tiny_tokenizer):
        config = GPT2Config(
            vocab_size=len(tiny_tokenizer),
            n_embd=32,
            n_layer=2,
            n_head=2,
            n_positions=64,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=1,
        )
        model = GPT2LMHeadModel(config).eval()
        rollout = sample(model, tiny_tokenizer, PROMPTS, max_new_tokens=8, seed=1)
        assert_logprobs_are_exact(model, rollout)

    def test_with_a_sliding_window(self, tiny_tokenizer):
        config = MistralConfig(
            vocab_size=len(tiny_tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=8,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=1,
        )
        model = MistralForCausalLM(config).eval()
        rollout = sample(model, tiny_tokenizer, ["Who?", "Why?"], max_new_tokens=12)
        assert_logprobs_are_exact(model, rollout)

    def test_greedy_takes_the_most_likely_token(self, tiny_policy, tiny_tokenizer):
        policy = tiny_policy()
        rollout = sample(
            policy, tiny_tokenizer, PROMPTS[:1], max_new_tokens=6, temperature=0
        )
        width = rollout.prompt_mask.shape[1]
        logits = policy(rollout.tokens).logits[0, width - 1 : -1]
        assert torch.equal(logits.argmax(1), rollout.responses[0])
        assert torch.equal(rollout.logprobs, torch.zeros_like(rollout.logprobs))


class TestDistribution:
    def test_frequencies_are_those_of_the_model(self, tiny_policy, tiny_tokenizer):
        probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
        policy = with_bias(
            tiny_policy(), [20, 21, 22, 23], probabilities.log(), elsewhere=-1e9
        )
        torch.nn.init.zeros_(policy.model.norm.weight)  # the logits are the bias alone
        n = 4000
        rollout = sample(
            policy, tiny_tokenizer, ["Why?"], max_new_tokens=1, n=n, seed=0
        )
        counts = rollout.responses[:, 0].bincount(minlength=24)[20:24]
        assert counts.sum() == n
        deviation = (counts / n - probabilities).abs()
        assert (deviation < 4 * (probabilities * (1 - probabilities) / n).sqrt()).all()
        expected = probabilities[rollout.responses[:, 0] - 20].log()
        torch.testing.assert_close(rollout.logprobs[:, 0], expected)

    def test_low_temperature_is_nearly_greedy(self, tiny_policy, tiny_tokenizer):
        policy = tiny_policy()
        settings = {"max_new_tokens": 6, "seed": 0}
        cold = sample(policy, tiny_tokenizer, PROMPTS, temperature=1e-3, **settings)
        greedy = sample(policy, tiny_tokenizer, PROMPTS, temperature=0, **settings)
        assert same(cold, greedy)

    def test_largest_random_number_takes_a_possible_token(self):
        logits = torch.tensor([[0.0, 1.0, -math.inf]])
        largest = torch.tensor([1 - 2**-23])
        token, logprob = rollouts._draw(logits, largest, temperature=1.0)
        assert token.item() == 1
        assert logprob.isfinite()


class TestSeeds:
    def test_same_seed_same_answers(self, tiny_policy, tiny_tokenizer):
        policy = tiny_policy()
        a, b, c = (
            sample(policy, tiny_tokenizer, PROMPTS, max_new_tokens=6, seed=seed)
            for seed in (1, 1, 2)
        )
        assert same(a, b)
        assert not same(a, c)

    def test_no_seed_continues_torchs_state(self, tiny_policy, tiny_tokenizer):
        policy = tiny_policy()
        rollouts = []
        for reset in (True, True, False):
            if reset:
                torch.manual_seed(3)
            rollouts.append(sample(policy, tiny_tokenizer, PROMPTS, max_new_tokens=6))
        assert same(rollouts[0], rollouts[1])
        assert not same(rollouts[1], rollouts[2])

    def test_a_seed_leaves_torchs_state_alone(self, tiny_policy, tiny_tokenizer):
        policy = tiny_policy()
        state = torch.get_rng_state()
        sample(policy, tiny_tokenizer, PROMPTS, max_new_tokens=2, seed=5)
        assert torch.equal(torch.get_rng_state(), state)


class TestBatching:
    @pytest.mark.parametrize("size", [1, 2, 5])
    def test_chunks_change_no_answer(self, chatty, tiny_tokenizer, monkeypatch, size):
        settings = {"max_new_tokens": 12, "n": 3, "seed": 1}
        whole = sample(chatty, tiny_tokenizer, PROMPTS, **settings)
        monkeypatch.setattr(rollouts, "_rows_per_chunk", lambda *_: size)
        chunks = sample(chatty, tiny_tokenizer, PROMPTS, **settings)
        assert same(whole, chunks)
        torch.testing.assert_close(
            chunks.logprobs, whole.logprobs, rtol=1e-4, atol=1e-4
        )

    def test_dropping_ended_rows_changes_no_answer(
        self, chatty, tiny_tokenizer, monkeypatch
    ):
        settings = {"max_new_tokens": 12, "n": 3, "seed": 1}
        dropped = sample(chatty, tiny_tokenizer, PROMPTS, **settings)
        monkeypatch.setattr(rollouts, "KEEP_BELOW", 0.0)
        kept = sample(chatty, tiny_tokenizer, PROMPTS, **settings)
        assert same(dropped, kept)

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    def test_reading_prompts_in_groups_changes_no_answer(
        self, tiny_policy, tiny_tokenizer, monkeypatch, attention
    ):
        policy = tiny_policy(attn_implementation=attention)
        settings = {"max_new_tokens": 6, "n": 2, "seed": 1}
        together = sample(policy, tiny_tokenizer, PROMPTS, **settings)
        monkeypatch.setattr(decoding, "GROUP_ROWS", 1)
        groups = sample(policy, tiny_tokenizer, PROMPTS, **settings)
        assert same(together, groups)
        assert_logprobs_are_exact(policy, groups)

    def test_answers_to_a_prompt_are_consecutive(self, tiny_policy, tiny_tokenizer):
        rollout = sample(tiny_policy(), tiny_tokenizer, PROMPTS, max_new_tokens=2, n=2)
        width = rollout.prompt_mask.shape[1]
        for row, tokens in enumerate(rollout.tokens[:, :width]):
            text = tiny_tokenizer.decode(tokens[rollout.prompt_mask[row]])
            assert text == f"<|user|>{PROMPTS[row // 2]}<|end|><|assistant|>"

    def test_chunks_fit_the_memory(self, tiny_policy, monkeypatch):
        policy = tiny_policy()
        monkeypatch.setattr(rollouts, "CPU_CHUNK_BYTES", 10 * (40 * 512 + 286 * 16))
        assert rollouts._rows_per_chunk(policy, length=40) == 10
        monkeypatch.setattr(rollouts, "CPU_CHUNK_BYTES", 1)
        assert rollouts._rows_per_chunk(policy, length=40) == 1


class TestEnds:
    def test_what_follows_the_end_token_is_masked(self, chatty, tiny_tokenizer):
        rollout = sample(
            chatty, tiny_tokenizer, PROMPTS, max_new_tokens=12, n=4, seed=1
        )
        assert 0 < rollout.finished.sum() < len(rollout.tokens)
        for row in range(len(rollout.tokens)):
            length = int(rollout.response_mask[row].sum())
            answer = rollout.responses[row]
            assert rollout.response_mask[row, :length].all()
            assert (answer[: length - 1] != 1).all()
            assert bool(answer[length - 1] == 1) == bool(rollout.finished[row])
            assert (answer[length:] == tiny_tokenizer.pad_token_id).all()
            assert (rollout.logprobs[row, length:] == 0).all()
            assert rollout.finished[row] or length == 12

    def test_width_is_that_of_the_longest_answer(self, tiny_policy, tiny_tokenizer):
        policy = with_bias(tiny_policy(), tokens=[1], bias=1e9)
        rollout = sample(policy, tiny_tokenizer, PROMPTS, max_new_tokens=5)
        assert rollout.responses.tolist() == [[1], [1], [1]]
        assert rollout.texts == ["", "", ""]
        assert rollout.finished.all()

    def test_the_models_own_end_tokens_count(self, tiny_policy, tiny_tokenizer):
        policy = tiny_policy()
        policy.generation_config.eos_token_id = [1, *range(10, 286)]
        rollout = sample(policy, tiny_tokenizer, PROMPTS, max_new_tokens=40)
        assert rollout.response_mask.shape[1] < 40
        assert rollout.finished.all()

    def test_texts_are_clean(self, chatty, tiny_tokenizer):
        rollout = sample(chatty, tiny_tokenizer, PROMPTS, max_new_tokens=12, seed=1)
        for text, answer, mask in zip(
            rollout.texts, rollout.responses, rollout.response_mask, strict=True
        ):
            decoded = tiny_tokenizer.decode(answer[mask], skip_special_tokens=True)
            assert text == decoded.strip()


class TestModel:
    @pytest.mark.parametrize("training", [True, False])
    def test_mode_comes_back(self, tiny_policy, tiny_tokenizer, training):
        policy = tiny_policy().train(training)
        sample(policy, tiny_tokenizer, PROMPTS, max_new_tokens=2)
        assert policy.training == training

    def test_can_be_trained_on_what_it_sampled(self, tiny_policy, tiny_tokenizer):
        policy = tiny_policy()
        rollout = sample(policy, tiny_tokenizer, PROMPTS, max_new_tokens=2)
        policy(
            rollout.tokens, attention_mask=rollout.attention_mask
        ).logits.sum().backward()
        assert policy.model.norm.weight.grad is not None

    def test_diverged_weights_are_named(self, tiny_policy, tiny_tokenizer):
        policy = tiny_policy()
        with torch.no_grad():
            policy.model.norm.weight.fill_(math.nan)
        with pytest.raises(FloatingPointError, match="NaN or infinite logits"):
            sample(policy, tiny_tokenizer, PROMPTS, max_new_tokens=2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0},
        {"n": 0},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"seed": 2**70},
    ],
)
def test_wrong_settings_are_named(tiny_policy, tiny_tokenizer, wrong):
    with pytest.raises(ValueError, match="sample needs"):
        sample(tiny_policy(), tiny_tokenizer, PROMPTS, **{"max_new_tokens": 1, **wrong})


def test_no_prompts(tiny_policy, tiny_tokenizer):
    with pytest.raises(ValueError, match="at least one prompt"):
        sample(tiny_policy(), tiny_tokenizer, [], max_new_tokens=1)


class TestWithoutACache:
    """Models whose cache gives something else are read whole for every token."""

    @pytest.fixture
    def mamba(self, tiny_tokenizer):
        torch.manual_seed(0)
        config = MambaConfig(
            vocab_size=len(tiny_tokenizer), hidden_size=16, num_hidden_layers=2
        )
        return MambaForCausalLM(config).eval()

    def test_a_state_space_model_is_sampled(self, mamba, tiny_tokenizer):
        rollout = sample(mamba, tiny_tokenizer, PROMPTS, max_new_tokens=6, n=2, seed=0)
        assert decoding.reading(mamba).decoder is decoding.Rereader
        assert_logprobs_are_exact(mamba, rollout)

    def test_both_ways_sample_the_same(self, tiny_policy, tiny_tokenizer, monkeypatch):
        def answers():
            policy = tiny_policy()
            return sample(
                policy, tiny_tokenizer, PROMPTS, max_new_tokens=12, n=3, seed=0
            )

        cached = answers()
        monkeypatch.setattr(
            decoding,
            "_try_cache",
            lambda model: decoding.Reading(decoding.Rereader, 64),
        )
        assert answers().texts == cached.texts

    def test_a_cache_that_is_wrong_is_not_used(self, tiny_policy, monkeypatch):
        monkeypatch.setattr(decoding.Decoder, "keep", lambda self, rows: None)
        reading = decoding.reading(tiny_policy())
        assert reading.decoder is decoding.Rereader

    def test_a_model_with_few_positions_is_sampled(self, tiny_tokenizer):
        sizes = {"n_positions": 5, "n_embd": 16, "n_layer": 1, "n_head": 2}
        gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=len(tiny_tokenizer), **sizes))
        rollout = sample(gpt2.eval(), tiny_tokenizer, ["a"], max_new_tokens=1)
        assert_logprobs_are_exact(gpt2, rollout)

    def test_an_encoder_is_refused(self, tiny_tokenizer):
        config = BertConfig(
            vocab_size=len(tiny_tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
        with pytest.raises(ValueError, match="sees the tokens that it is to predict"):
            sample(
                BertLMHeadModel(config).eval(), tiny_tokenizer, ["a"], max_new_tokens=2
            )
