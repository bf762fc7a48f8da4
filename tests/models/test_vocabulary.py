"""Numbers read from the vocabulary's scores chunk by chunk: those of all at once."""

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
)

from labs_helpers.models import vocabulary
from labs_helpers.models.vocabulary import states

TOKENS = (torch.arange(24) * 17 % 199 + 5).view(3, 8)
KEEP = torch.tensor([[0, 0, 1, 1, 1, 0, 0, 1], [0] * 7 + [1], [1] * 8]).bool()
SMALL = dict(
    vocab_size=300,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
)


@pytest.fixture(params=["llama", "lora", "soft cap", "scaled"])
def policy(request, tiny_policy):
    torch.manual_seed(0)
    if request.param == "soft cap":
        config = Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0)
        return Gemma2ForCausalLM(config).eval()
    if request.param == "scaled":
        return CohereForCausalLM(CohereConfig(**SMALL, logit_scale=0.3)).eval()
    policy = tiny_policy(spread=0.3)
    if request.param == "lora":
        policy = get_peft_model(policy, LoraConfig(r=2, init_lora_weights=False))
    return policy


def all_scores(policy):
    return policy(input_ids=TOKENS, use_cache=False).logits[KEEP].float()


def surprise(scores, targets):
    return F.cross_entropy(scores, targets, reduction="none")


TARGETS = TOKENS[KEEP]
# Each token's number weighs differently in what is differentiated.
WEIGHTS = torch.linspace(-1.0, 2.0, len(TARGETS))


@pytest.fixture(params=[1, 5, 1000])
def rows(request, monkeypatch, policy):
    """So many tokens' scores are held at a time."""
    held = request.param * 4 * policy.get_input_embeddings().num_embeddings
    monkeypatch.setattr(vocabulary, "CHUNK_BYTES", held)
    return request.param


def test_scores_are_the_models_own(policy):
    found = states(policy, TOKENS, KEEP)
    torch.testing.assert_close(found.scores(found.hidden), all_scores(policy))
    assert found.vocabulary == all_scores(policy).shape[1]


def test_numbers_and_gradients_are_those_of_all_at_once(policy, rows):
    found = states(policy, TOKENS, KEEP).each(surprise, TARGETS)
    expected = surprise(all_scores(policy), TARGETS)
    torch.testing.assert_close(found, expected)
    trained = [p for p in policy.parameters() if p.requires_grad]
    got = torch.autograd.grad(found @ WEIGHTS, trained)
    right = torch.autograd.grad(expected @ WEIGHTS, trained)
    assert len(right) > 5
    for a, b in zip(got, right, strict=True):
        assert b.norm() > 0
        assert (a - b).norm() < 1e-5 * b.norm()


def test_without_gradient_several_numbers_come_at_once(policy, rows):
    def both(scores, targets):
        return torch.stack([surprise(scores, targets), scores.logsumexp(1)], 1)

    with torch.inference_mode():
        found = states(policy, TOKENS, KEEP).each(both, TARGETS)
        scores = all_scores(policy)
    torch.testing.assert_close(found, both(scores, TARGETS))


def test_a_frozen_head_is_read_once(tiny_policy, monkeypatch):
    policy = get_peft_model(tiny_policy(spread=0.3), LoraConfig(r=2))
    monkeypatch.setattr(vocabulary, "CHUNK_BYTES", 4 * 300 * 5)
    read = []
    head = policy.get_output_embeddings()
    head.register_forward_hook(lambda m, inputs, output: read.append(len(inputs[0])))
    states(policy, TOKENS, KEEP).each(surprise, TARGETS).sum().backward()
    assert sum(read[1:]) == len(TARGETS)  # the first is the one that is looked at
    assert max(read) <= 5
