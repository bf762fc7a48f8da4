"""The plan's arithmetic, against what is measured, and what it says of the profiles."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from labs_helpers.course.profile import load_profile, profile_names
from labs_helpers.models import memory
from labs_helpers.models.adapters import with_lora
from labs_tools import plan

SMALL = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 64,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 96,
    "num_hidden_layers": 6, "tie_word_embeddings": True,
}  # fmt: skip


@pytest.fixture
def shape():
    return plan.Shape(AutoConfig.for_model(**SMALL), 4)


def whole(layers):
    config = AutoConfig.for_model(**SMALL | {"num_hidden_layers": layers})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return with_lora(model, 4, task="CAUSAL_LM").train()


@pytest.mark.parametrize("layers", [6, 3])
def test_two_layers_tell_what_many_take(shape, layers):
    model, share = whole(layers), layers / 6
    assert shape.weights(share) == sum(p.numel() for p in model.parameters())
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert shape.learnt(share) == learnt
    with torch.autocast("cpu", torch.bfloat16):
        measured = memory.footprint(model)._replace(lost=0.0).rows(4, 100)
    assert shape.step(4, 100, share) == pytest.approx(measured, rel=0.01)


def test_a_token_takes_what_was_measured_of_a_whole_model():
    # 1.5 MB a token put aside under autocast by 24 layers of these widths, LoRA 16.
    known = plan.SHAPES["Qwen2.5-0.5B-Instruct"]
    found = plan.Shape(AutoConfig.for_model(**known), 16)
    assert found.weights() == pytest.approx(494e6 + found.learnt(), rel=0.01)
    token = found.step(1, 2000) - found.step(1, 1000)
    aside = token / 1000 - memory.LAYERS * 152_512  # as one layer computes
    assert aside == pytest.approx(1.5e6, rel=0.05)


def test_what_is_cut_fits_and_what_is_whole_is_counted_whole(shape):
    card = plan.Card(0.02, 65, 320)
    batch = plan.Work("a batch", 1, 64, 512)
    assert plan.gigabytes(batch, shape, card) <= card.memory
    held = batch._replace(whole=True)
    scored = held._replace(scores=True)
    assert plan.gigabytes(held, shape, card) > card.memory
    difference = plan.gigabytes(scored, shape, card) - plan.gigabytes(held, shape, card)
    assert difference == pytest.approx(64 * 512 * 96 * 16 / 2**30)


def test_minutes_follow_operations_and_the_time_of_a_launch(shape):
    card = plan.Card(13.5, 65, 320)
    read = plan.Work("reading", read=1e12)
    expected = 2 * shape.weights() * 1e12 / (0.3 * 65e12) / 60
    assert plan.minutes(read, shape, card) == pytest.approx(expected)
    drawn = plan.Work("sampling", answers=640, new=100)
    assert plan.minutes(drawn, shape, card) == pytest.approx(10 * 100 * 6e-3 / 60)


def test_every_lab_of_gpu_fits_a_t4(capsys):
    assert plan.plan("gpu") == 0
    said = capsys.readouterr().out
    assert [f"Lab {n}" in said for n in plan.LABS] == [True] * 4
    profile, card = load_profile("gpu"), plan.CARDS["T4"]
    for number, pieces in plan.LABS.items():
        shape, works = plan.shape_of(profile, number), pieces(profile.sizes(number))
        assert max(plan.gigabytes(work, shape, card) for work in works) <= 13.5
        spent = sum(plan.minutes(work, shape, card) for work in works)
        assert plan.START_UP + spent <= 45


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_has_the_sizes_that_the_plan_reads(name):
    for number, pieces in plan.LABS.items():
        assert pieces(load_profile(name).sizes(number))


def test_an_unknown_shape_is_a_sentence(monkeypatch):
    monkeypatch.setenv("LABS_MODEL", "no/such-model")
    with pytest.raises(ValueError, match="labs fetch gpu"):
        plan.shape_of(load_profile("gpu"), 1)
