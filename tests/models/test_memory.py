"""What rows take, by autograd's own account, and rows cut into parts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn

from labs_helpers.models import RewardModel, memory


class TestFootprint:
    def test_recomputing_leaves_the_layers_inputs(self, tiny_policy):
        policy = tiny_policy(spread=0.1).train()
        plain = memory.footprint(policy)
        memory.recompute(policy)
        recomputed = memory.footprint(policy)
        assert recomputed.token < plain.token / 2
        assert recomputed.layer == plain.layer > 0

    def test_attention_that_keeps_its_scores_grows_with_the_square(self, tiny_policy):
        policy = tiny_policy(spread=0.1)
        fused = memory.footprint(policy)
        policy.set_attn_implementation("eager")
        heads = policy.config.num_attention_heads * policy.config.num_hidden_layers
        # Of each head the scores' softmax, in float32, and perhaps a copy.
        assert fused.square <= 1
        assert 4 * heads <= memory.footprint(policy).square <= 3 * 4 * heads

    def test_frozen_weights_need_less(self, tiny_policy):
        whole = memory.footprint(tiny_policy(spread=0.1))
        lora = LoraConfig(r=1, target_modules=["q_proj"])
        policy = get_peft_model(tiny_policy(spread=0.1), lora)
        assert memory.footprint(policy).token < whole.token

    def test_only_adapters_on_a_heap_leave_holes(self, tiny_policy, monkeypatch):
        assert memory.footprint(tiny_policy()).lost == 0
        policy = get_peft_model(tiny_policy(), LoraConfig(target_modules=["q_proj"]))
        for library, layers in {
            "glibc": policy.config.num_hidden_layers,
            "": 0,
        }.items():
            monkeypatch.setattr("platform.libc_ver", lambda name=library: (name, "2"))
            found = memory.footprint(policy)
            assert found.lost == pytest.approx(memory.LOST * layers * found.layer)

    def test_a_reward_model_is_its_trunk(self, tiny_policy, tiny_tokenizer):
        policy = tiny_policy(spread=0.1)
        model = RewardModel.from_policy(policy, tokenizer=tiny_tokenizer)
        found = memory.footprint(model)
        assert found.token == pytest.approx(memory.footprint(policy).token, rel=0.1)

    def test_what_reads_no_tokens_has_none(self):
        assert memory.footprint(nn.Linear(2, 2)) is None

    def test_neither_weights_nor_random_state_change(self, tiny_policy):
        policy = tiny_policy(spread=0.1)
        torch.manual_seed(3)
        expected = torch.rand(4)
        torch.manual_seed(3)
        memory.footprint(policy)
        assert torch.equal(torch.rand(4), expected)
        assert all(p.grad is None for p in policy.parameters())


class TestInParts:
    @given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 9), st.integers(1))
    def test_each_row_once_and_each_part_fits(self, lengths, at_least, limit):
        parts = memory.in_parts(
            lengths, at_least, lambda n, length: n * length <= limit
        )
        assert sorted(row for part in parts for row in part) == list(
            range(len(lengths))
        )
        assert len(parts) >= min(at_least, len(lengths))
        for part in parts:
            assert len(part) == 1 or len(part) * max(lengths[r] for r in part) <= limit

    def test_short_rows_are_not_padded_to_long_ones(self):
        parts = memory.in_parts(
            [100, 1, 1, 1], fits=lambda n, length: n * length <= 100
        )
        assert parts == [[1, 2, 3], [0]]

    def test_all_that_fits_is_one_part(self):
        assert memory.in_parts([3, 1, 2]) == [[1, 2, 0]]

    def test_kin_stay_side_by_side(self):
        lengths, beside = [9, 2, 3, 4, 5], [7, 1, 7, 1, 5]
        assert memory.in_parts(lengths, beside=beside) == [[1, 3, 4, 0, 2]]
        parts = memory.in_parts(lengths, 1, lambda n, length: n * length <= 18, beside)
        assert parts == [[1, 3, 4], [0, 2]]


def test_kin_begin_alike_by_half():
    sequences = [[1, 2, 3, 4], [9], [1, 2, 7], [1, 5, 6, 7], [1, 2, 3]]
    first, second, third, fourth, fifth = memory.kin(sequences)
    assert first == third == fifth
    assert len({first, second, fourth}) == 3


def test_a_forward_takes_as_many_rows_as_it_may(tiny_policy):
    policy = tiny_policy(spread=0.1)
    few, many = (memory.forward_rows(policy, length) for length in (2000, 20))
    assert many == pytest.approx(100 * few, rel=0.01)
    assert memory.forward_rows(policy, 10**12) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: tried"), True),
        (RuntimeError("shapes do not match"), False),
        (KeyError("memory"), False),
    ],
)
def test_what_running_out_of_memory_is(error, expected):
    assert memory.is_out_of_memory(error) is expected
