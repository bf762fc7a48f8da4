"""Log-probs of answers: those of the plain model, whatever the batch; KL from them."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from labs_helpers.losses import sequence_logprobs
from labs_helpers.models import encode_chat
from labs_helpers.models.adapters import with_lora
from labs_helpers.sampling import (
    answer_logprobs,
    response_logprobs,
    rollout_kl,
    rollout_logprobs,
    sample,
)
from labs_helpers.sampling.logprobs import sequence_scores

ROWS = [
    ([5, 6, 7, 8, 9], [0, 0, 1, 1, 1]),
    ([9, 8, 7], [0, 1, 0]),
    ([3, 4, 5, 6, 7, 8, 9], [0, 1, 1, 0, 0, 1, 1]),
]
PROMPTS = ["Who?", "What is the hall made of?", "Why?"]


def plain(model, tokens, answer):
    """Log-prob of one sequence's answer by the model's own forward."""
    tokens, mask = torch.tensor([tokens]), torch.tensor([answer])
    return sequence_logprobs(model(tokens).logits[:, :-1], tokens[:, 1:], mask[:, 1:])


@pytest.fixture
def model(tiny_policy):
    return tiny_policy()


@pytest.fixture
def rollout(model, tiny_tokenizer):
    return sample(model, tiny_tokenizer, PROMPTS, max_new_tokens=12, n=4, seed=1)


class TestAnswerLogprobs:
    def test_a_batch_is_the_plain_model_row_by_row(self, model):
        logprobs, _ = answer_logprobs(model, ROWS)
        expected = torch.cat([plain(model, *row) for row in ROWS])
        torch.testing.assert_close(logprobs.sum(1), expected)

    @pytest.mark.parametrize(
        ("kind", "scaling"),
        [
            ("gemma2", {"final_logit_softcapping": 2.0, "head_dim": 8}),
            ("granite", {"logits_scaling": 8.0}),
            ("cohere", {"logit_scale": 0.25}),
        ],
    )
    def test_scores_that_a_model_scales(self, kind, scaling):
        config = AutoConfig.for_model(
            kind,
            vocab_size=32,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            initializer_range=1.0,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            **scaling,
        )
        model = AutoModelForCausalLM.from_config(config).eval()
        logprobs, _ = answer_logprobs(model, ROWS)
        expected = torch.cat([plain(model, *row) for row in ROWS])
        torch.testing.assert_close(logprobs.sum(1), expected)

    def test_gradients_too(self, model):
        weights = list(model.parameters())
        ours = torch.autograd.grad(answer_logprobs(model, ROWS)[0].sum(), weights)
        theirs = sum(plain(model, *row) for row in ROWS).sum()
        for a, b in zip(ours, torch.autograd.grad(theirs, weights), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    def test_columns_are_those_of_the_tokens(self, model):
        logprobs, predicted = answer_logprobs(model, ROWS)
        expected = torch.tensor(
            [answer[1:] + [0] * (7 - len(answer)) for _, answer in ROWS]
        )
        assert torch.equal(predicted, expected.bool())
        assert torch.equal(logprobs != 0, predicted)

    def test_lora_is_computed_with_its_adapter(self, model):
        policy = with_lora(model, 2, task="CAUSAL_LM")
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
        logprobs, _ = answer_logprobs(policy, ROWS)
        torch.testing.assert_close(logprobs.sum(1)[:1], plain(policy, *ROWS[0]))
        with policy.disable_adapter():
            without, _ = answer_logprobs(policy, ROWS)
        assert (logprobs - without).abs().max() > 0.1

    @pytest.mark.parametrize("size", [1, 2, 64])
    def test_scores_come_in_order_whatever_the_batches(self, model, size):
        scores = sequence_scores(model, ROWS, size)
        expected = torch.cat([plain(model, *row) for row in ROWS])
        torch.testing.assert_close(scores, expected.detach())
        assert not scores.requires_grad

    def test_nothing_asked_nothing_said(self, model):
        assert sequence_scores(model, []).shape == (0,)


class TestResponses:
    @pytest.mark.parametrize("end", [True, False])
    def test_is_the_next_turn(self, model, tiny_tokenizer, end):
        found = response_logprobs(model, tiny_tokenizer, ["Who?"], ["I."], end=end)
        turns = [{"role": "user", "content": "Who?"}]
        before = encode_chat(tiny_tokenizer, turns, add_generation_prompt=True)
        turns.append({"role": "assistant", "content": "I."})
        tokens = encode_chat(tiny_tokenizer, turns, add_generation_prompt=False)
        tokens = tokens if end else tokens[:-1]
        answer = [0] * len(before) + [1] * (len(tokens) - len(before))
        torch.testing.assert_close(found, plain(model, tokens, answer).detach())

    def test_one_response_to_a_prompt(self, model, tiny_tokenizer):
        with pytest.raises(ValueError, match="1 answers came to 3 prompts"):
            response_logprobs(model, tiny_tokenizer, PROMPTS, ["I."])


class TestRollouts:
    def test_the_sampler_says_the_same(self, model, rollout):
        found = rollout_logprobs(model, rollout, batch_size=5)
        torch.testing.assert_close(found, rollout.logprobs, rtol=1e-4, atol=1e-5)

    def test_kl_of_a_model_from_itself_is_nothing(self, model, rollout):
        kl = rollout_kl(model, model, rollout)
        torch.testing.assert_close(kl, torch.zeros(12), atol=1e-5, rtol=0)

    def test_kl_is_the_mean_of_the_differences(self, tiny_policy, tiny_tokenizer):
        policy, reference = tiny_policy(0, spread=0.1), tiny_policy(1, spread=0.1)
        rollout = sample(
            policy, tiny_tokenizer, ["Who?"], max_new_tokens=6, n=1500, seed=0
        )
        differences = rollout.logprobs - rollout_logprobs(reference, rollout)
        sampled = differences.sum(1)
        exact = rollout_kl(policy, reference, rollout)
        error = sampled.std() / 1500**0.5
        assert abs(sampled.mean() - exact.mean()) < 4 * error
        assert exact.std() < sampled.std() / 2
        assert (exact > 0).all()
