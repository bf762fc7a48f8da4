"""Sequences that begin alike, read in one row: what each would say alone."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
)

from labs_helpers.models.together import grouped, reads_together, together
from labs_helpers.sampling.logprobs import answer_logprobs

PROMPT = list(range(5, 25))
SEQUENCES = [
    [*PROMPT, 30, 31, 32],
    [3, 4, 5],
    [*PROMPT, 30, 40],
    [*PROMPT, 50, 51, 52, 53],
    PROMPT,
]


def gpt2():
    config = GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    return GPT2LMHeadModel(config)


def mistral(window):
    config = MistralConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=window,
    )
    return MistralForCausalLM(config)


@pytest.fixture(params=["llama", "lora", "gpt2", "mistral"])
def model(request, tiny_policy):
    torch.manual_seed(0)
    if request.param == "gpt2":
        return gpt2().eval()
    if request.param == "mistral":
        return mistral(None).eval()
    policy = tiny_policy(spread=0.3)
    if request.param == "lora":
        policy = get_peft_model(policy, LoraConfig(r=2, init_lora_weights=False))
    return policy.eval()


def test_each_token_has_the_state_that_it_has_alone(model):
    read = together(model, SEQUENCES)
    assert read.inputs["input_ids"].shape[0] < len(SEQUENCES)
    with torch.no_grad():
        at_once = model(**read.inputs, use_cache=False).logits
        for i, sequence in enumerate(SEQUENCES):
            alone = model(input_ids=torch.tensor([sequence]), use_cache=False).logits[0]
            rows, columns = (x[i, : len(sequence)] for x in (read.rows, read.columns))
            torch.testing.assert_close(at_once[rows, columns], alone)


def test_the_prompt_is_read_once(tiny_policy):
    assert [sorted(g.members) for g in grouped(tiny_policy(), SEQUENCES)] == [
        [1], [0, 2, 3, 4],
    ]  # fmt: skip
    read = together(tiny_policy(), SEQUENCES)
    assert read.inputs["input_ids"].shape[1] == len(PROMPT) + 3 + 2 + 4


@pytest.mark.parametrize(
    "sequences",
    [
        [[1, *range(9, 30)], [1, *range(31, 52)]],  # a beginning that is not worth it
        [[7, 8, 9]],
        [list(range(40)), [1, 2, 3], [4, 5, 6]],
    ],
)
def test_apart_where_that_is_no_dearer(tiny_policy, sequences):
    read = together(tiny_policy(), sequences)
    assert list(read.inputs) == ["input_ids"]
    assert read.inputs["input_ids"].shape[0] == len(sequences)


def test_windows_and_positions_by_distance_are_read_apart():
    bloom = BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=16, n_head=2))
    for model in (mistral(8), bloom):
        assert not reads_together(model.eval())
        assert list(together(model, SEQUENCES).inputs) == ["input_ids"]


def test_gradients_are_those_of_answers_apart(tiny_policy, monkeypatch):
    rows = [(s, [0] * 18 + [1] * (len(s) - 18)) for s in SEQUENCES if len(s) > 18]
    found = []
    for share in (True, False):
        if not share:
            monkeypatch.setattr(
                "labs_helpers.models.together.reads_together", lambda model: False
            )
        policy = tiny_policy(spread=0.3)
        logprobs, predicted = answer_logprobs(policy, rows)
        (logprobs * torch.arange(predicted.shape[1])).sum().backward()
        gradients = torch.cat([p.grad.flatten() for p in policy.parameters()])
        found.append((logprobs.detach(), predicted, gradients))
    (logprobs, predicted, gradient), (*alone, gradient_alone) = found
    torch.testing.assert_close([logprobs, predicted], alone)
    assert (gradient - gradient_alone).norm() <= 1e-5 * gradient_alone.norm()
