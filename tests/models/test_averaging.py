"""Weights averaged with the start's: both ends, the middle, adapters, refusals."""

import copy

import pytest
import torch

from labs_helpers.models import averaged, branch

TOKENS = torch.tensor([[5, 6, 7, 8]])


@pytest.fixture
def trained(tiny_policy):
    """A policy that has moved away from its start."""

    def moved(start, lora=None):
        policy = branch(start, lora)
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in policy.parameters():
                if parameter.requires_grad:
                    parameter += 0.1 * torch.randn_like(parameter)
        return policy

    return moved


@pytest.mark.parametrize("lora", [None, 2])
def test_the_ends_are_start_and_trained(tiny_policy, trained, lora):
    start = tiny_policy(spread=0.1)
    policy = trained(start, lora)
    for share, expected in ((0.0, start), (1.0, policy)):
        found = averaged(start, policy, share)
        torch.testing.assert_close(found(TOKENS).logits, expected(TOKENS).logits)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_weights_are_averaged_and_inputs_stay(tiny_policy, trained, share):
    start = tiny_policy(spread=0.1)
    policy = trained(start)
    before = policy(TOKENS).logits
    found = dict(averaged(start, policy, share).named_parameters())
    for name, own in policy.named_parameters():
        expected = (1 - share) * start.get_parameter(name) + share * own
        torch.testing.assert_close(found[name], expected)
    torch.testing.assert_close(policy(TOKENS).logits, before)


def test_of_an_adapter_the_product_is_scaled(tiny_policy, trained):
    start = tiny_policy(spread=0.1)
    policy = trained(start, lora=2)
    # frozen weights are shared: each is merged into a copy
    half = copy.deepcopy(averaged(start, policy, 0.5)).merge_and_unload()
    whole = copy.deepcopy(policy).merge_and_unload()
    for name, own in whole.named_parameters():
        between = (tiny_policy(spread=0.1).get_parameter(name) + own) / 2
        torch.testing.assert_close(half.get_parameter(name), between)


def test_what_cannot_be_averaged_is_refused(tiny_policy, trained):
    start = tiny_policy()
    with pytest.raises(ValueError, match="between 0"):
        averaged(start, trained(start), 1.5)
    with pytest.raises(ValueError, match="not the same model"):
        averaged(tiny_policy(hidden_size=8, intermediate_size=8), trained(start), 0.5)
