"""Adapters: every kind that is let in comes back, merges and switches off exactly."""

import json

import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, MixtralForCausalLM

from labs_helpers.models import (
    PolicyWithValue,
    RewardModel,
    load_policy,
    load_tokenizer,
    logits_and_hidden,
    save_policy,
)
from labs_helpers.models.adapters import merged_copy, require_switch, with_lora
from labs_helpers.models.loading import quiet_loading

TOKENS = torch.arange(5, 25)[None]


@pytest.fixture
def base(tmp_path, tiny_policy, tiny_tokenizer):
    folder = tmp_path / "base"
    tiny_policy().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


def lora(**settings):
    return LoraConfig(
        **{
            "r": 2,
            "target_modules": "all-linear",
            **settings,
        }
    )


def shaken(model):
    """As a training may leave it."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.is_floating_point():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def assert_equal(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


SOME = {"target_modules": ["q_proj", "v_proj"]}
KINDS = {
    "LoRA": lora(),
    "rank-stabilised": lora(use_rslora=True),
    "DoRA": lora(use_dora=True),
    "random start": lora(init_lora_weights=False),
    "gaussian": lora(init_lora_weights="gaussian"),
    "orthogonal": lora(init_lora_weights="orthogonal"),
    "EVA": lora(init_lora_weights="eva", eva_config=peft.EvaConfig()),
    "no bias to train": lora(bias="all"),
    "patterns": lora(rank_pattern={"q_proj": 1}, alpha_pattern={"k_proj": 3}),
    "one layer": lora(**SOME, layers_to_transform=[1]),
    "a parameter": lora(**SOME, target_parameters=["mlp.up_proj.weight"]),
    "embeddings, tied": lora(target_modules=["q_proj", "embed_tokens"]),
    "DoRA of embeddings": lora(
        target_modules=["q_proj", "embed_tokens"], use_dora=True
    ),
    "head, tied": lora(target_modules=["q_proj", "lm_head"]),
    "embeddings saved": lora(**SOME, modules_to_save=["embed_tokens"]),
    "head saved": lora(**SOME, modules_to_save=["lm_head"]),
    "norms saved": lora(**SOME, modules_to_save=["norm"]),
    "some tokens": lora(trainable_token_indices=[5, 6]),
    "block-diagonal": lora(use_qalora=True, qalora_group_size=4),
    "IA3": peft.IA3Config(
        target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "LoHa": peft.LoHaConfig(**SOME),
    "LoKr": peft.LoKrConfig(**SOME),
    "AdaLoRA": peft.AdaLoraConfig(**SOME, total_step=9),
    "OFT": peft.OFTConfig(**SOME, oft_block_size=4),
    "VeRA": peft.VeraConfig(**SOME, r=2),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_comes_back_and_merges_as_it_computes(kind, base, tmp_path):
    policy = load_policy(base, lora=KINDS[kind], device="cpu")
    plain = load_policy(base, device="cpu")
    save_policy(shaken(policy), tmp_path / "adapter")
    with torch.no_grad():
        logits, hidden = logits_and_hidden(policy, TOKENS)
        loaded = load_policy(tmp_path / "adapter", device="cpu")
        assert_equal(loaded(TOKENS).logits, logits)
        assert any(p.requires_grad for p in loaded.parameters())
        trunk = RewardModel.from_policy(policy).trunk
        assert_equal(trunk(TOKENS).last_hidden_state, hidden)
        assert not torch.allclose(logits, plain(TOKENS).logits, atol=1e-3)
        with quiet_loading(), loaded.disable_adapter():
            assert_equal(loaded(TOKENS).logits, plain(TOKENS).logits)
    assert_equal(policy(TOKENS).logits, logits)  # it is as it was


ON_A_TRUNK = [k for k in KINDS if k not in ("head, tied", "one layer", "head saved")]


@pytest.mark.parametrize("kind", ON_A_TRUNK)
def test_a_reward_model_is_saved_as_it_computes(kind, base, tmp_path):
    model = RewardModel.from_policy(load_policy(base, device="cpu"), lora=KINDS[kind])
    shaken(model).save_pretrained(tmp_path / "reward")
    loaded = RewardModel.from_pretrained(tmp_path / "reward", device="cpu")
    expected = model.score(["Who?"], ["Me."])
    assert expected.abs() > 1e-3
    assert_equal(loaded.score(["Who?"], ["Me."]), expected)


def test_a_value_model_is_saved_as_it_computes(base, tmp_path):
    policy = load_policy(base, lora=lora(use_dora=True), device="cpu")
    model = PolicyWithValue.from_policy(shaken(policy), True, lora=lora(use_dora=True))
    shaken(model).save_pretrained(tmp_path / "rl")
    loaded = PolicyWithValue.from_pretrained(tmp_path / "rl", device="cpu")
    for actual, expected in zip(loaded(TOKENS), model(TOKENS), strict=True):
        assert_equal(actual, expected)


CHANGE_THE_BASE = {
    "pissa": lora(init_lora_weights="pissa"),
    "pissa, randomised": lora(init_lora_weights="pissa_niter_4"),
    "olora": lora(init_lora_weights="olora"),
    "replicated layers": lora(layer_replication=[(0, 2), (1, 2)]),
}


@pytest.mark.parametrize("kind", CHANGE_THE_BASE)
def test_a_policy_whose_base_would_change_is_refused(kind, base):
    with pytest.raises(ValueError, match="changes the base model's own weights"):
        load_policy(base, lora=CHANGE_THE_BASE[kind], device="cpu")


def test_where_the_base_is_merged_it_may_change(base, tmp_path):
    policy = load_policy(base, device="cpu")
    model = RewardModel.from_policy(policy, lora=CHANGE_THE_BASE["pissa"])
    shaken(model).save_pretrained(tmp_path / "reward")
    loaded = RewardModel.from_pretrained(tmp_path / "reward", device="cpu")
    assert_equal(loaded.score(["Who?"], ["Me."]), model.score(["Who?"], ["Me."]))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (lora(alora_invocation_tokens=[5], task_type="CAUSAL_LM"), "activated LoRA"),
        (peft.PromptTuningConfig(num_virtual_tokens=2), r"PROMPT_TUNING.* works on"),
        (peft.PrefixTuningConfig(num_virtual_tokens=2), r"PREFIX_TUNING.* works on"),
        (peft.AdaptionPromptConfig(adapter_len=2, adapter_layers=1), "works on"),
        (lora(target_modules=["nothing"]), "cannot be added to this model"),
        (lora(r=0), "cannot be added to this model"),
        (
            lora(use_bdlora=peft.tuners.lora.config.BdLoraConfig()),
            "cannot be added to this model",
        ),
        (-2, "rank of an adapter, at least 1.* got -2"),
    ],
)
def test_what_cannot_be_trained_here_is_refused_in_words(config, said, base):
    with pytest.raises(ValueError, match=said):
        load_policy(base, lora=config, device="cpu")


def test_rank_0_adds_none(base, tmp_path):
    policy = load_policy(base, lora=0, device="cpu")
    assert not isinstance(policy, peft.PeftModel)
    model = RewardModel.from_policy(policy, lora=0)
    model.save_pretrained(tmp_path / "reward")
    again = RewardModel.from_pretrained(tmp_path / "reward", lora=0)
    for trunk in (
        model.trunk,
        again.trunk,
        PolicyWithValue.from_policy(policy, True, lora=0).value_trunk,
    ):
        assert all(parameter.requires_grad for parameter in trunk.parameters())


def test_a_configuration_may_serve_twice(base):
    config = lora()
    policy = load_policy(base, lora=config, device="cpu")
    RewardModel.from_policy(policy, lora=config)
    assert config.target_modules == "all-linear"


def test_what_cannot_be_merged_is_refused_before_training(base):
    policy = load_policy(base, device="cpu")
    with pytest.raises(ValueError, match="cannot be merged"):
        RewardModel.from_policy(policy, lora=lora(lora_bias=True))


class TestBiases:
    @pytest.fixture
    def gpt2(self, tmp_path):
        sizes = {"vocab_size": 300, "n_embd": 16, "n_layer": 1, "n_head": 2}
        GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path / "gpt2")
        return tmp_path / "gpt2"

    def test_trained_biases_stay_when_switched_off_and_are_refused(self, gpt2):
        with pytest.raises(ValueError, match="still depends on weights that are"):
            load_policy(gpt2, lora=lora(bias="all"), device="cpu")

    def test_at_every_door(self, gpt2):
        config = lora(bias="all", fan_in_fan_out=True)
        policy = get_peft_model(load_policy(gpt2, device="cpu"), config)
        with pytest.raises(ValueError, match="bias='all'"):
            require_switch(policy)
        require_switch(load_policy(gpt2, lora=2, device="cpu"))

    def test_merged_ones_are_kept(self, gpt2):
        trunk = load_policy(gpt2, device="cpu").base_model
        adapted = shaken(with_lora(trunk, lora(bias="all"), "FEATURE_EXTRACTION"))
        with torch.no_grad():
            expected = adapted(TOKENS).last_hidden_state
            assert_equal(merged_copy(adapted)(TOKENS).last_hidden_state, expected)


class TestMerging:
    def test_a_trainers_forward_is_not_copied(self, base):
        policy = shaken(load_policy(base, lora=2, device="cpu"))
        expected = logits_and_hidden(policy, TOKENS)[1]
        for module in (policy, policy.get_base_model(), policy.get_base_model().model):
            module.forward = lambda *args, **kwargs: pytest.fail("the policy's own")
        assert_equal(merged_copy(policy)(TOKENS).last_hidden_state, expected)

    def test_nothing_is_shared(self, base):
        policy = load_policy(base, lora=2, device="cpu")
        trunk = merged_copy(policy)
        own = {p.data_ptr() for p in policy.parameters()}
        assert own.isdisjoint(p.data_ptr() for p in trunk.parameters())

    def test_in_half_precision_but_for_rounding(self, base):
        policy = load_policy(base, lora=2, device="cpu", dtype=torch.bfloat16)
        hidden = logits_and_hidden(shaken(policy), TOKENS)[1].float()
        merged = merged_copy(policy)
        assert merged.dtype == torch.bfloat16
        gap = merged(TOKENS).last_hidden_state.float() - hidden
        assert gap.norm() < 0.05 * hidden.norm()

    def test_a_model_that_its_config_does_not_describe_is_refused(self, tiny_policy):
        policy = tiny_policy()
        policy.config.intermediate_size = 17
        with pytest.raises(ValueError, match="its config does not say"):
            merged_copy(policy)

    def test_a_base_that_holds_an_adapter_is_refused(self, base):
        policy = load_policy(base, lora=2, device="cpu")
        with pytest.raises(ValueError, match="give the PeftModel"):
            RewardModel.from_policy(policy.get_base_model())

    def test_a_merge_that_is_not_exact_is_refused(self, base, monkeypatch):
        policy = shaken(load_policy(base, lora=2, device="cpu"))
        layer = peft.tuners.lora.Linear
        monkeypatch.setattr(layer, "merge", lambda *args, **kwargs: None)
        with pytest.raises(ValueError, match="does not merge exactly"):
            merged_copy(policy)


def test_a_mixture_of_experts_is_saved_and_merged(tmp_path, tiny_tokenizer):
    config = MixtralConfig(
        vocab_size=300,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
    )
    MixtralForCausalLM(config).save_pretrained(tmp_path / "base")
    policy = shaken(load_policy(tmp_path / "base", lora=2, device="cpu"))
    policy.save_pretrained(tmp_path / "adapter")
    loaded = load_policy(tmp_path / "adapter", device="cpu")
    assert_equal(loaded(TOKENS).logits, policy(TOKENS).logits)
    model = RewardModel.from_policy(loaded, tokenizer=tiny_tokenizer, lora=2)
    shaken(model).save_pretrained(tmp_path / "reward")
    again = RewardModel.from_pretrained(tmp_path / "reward", device="cpu")
    assert_equal(again.score(["Who?"], ["Me."]), model.score(["Who?"], ["Me."]))


class TestFolders:
    @pytest.fixture
    def adapter(self, base, tmp_path):
        shaken(load_policy(base, lora=2, device="cpu")).save_pretrained(tmp_path / "a")
        return tmp_path / "a"

    def test_an_adapter_on_an_adapter_is_refused(self, adapter):
        with pytest.raises(ValueError, match="holds an adapter already"):
            load_policy(adapter, lora=8)

    def test_an_adapter_goes_on_training_where_it_stood(self, adapter):
        before, after = load_policy(adapter), load_policy(adapter)
        shaken(after).save_pretrained(adapter)
        assert not torch.allclose(before(TOKENS).logits, after(TOKENS).logits)
        assert_equal(load_policy(adapter)(TOKENS).logits, after(TOKENS).logits)

    def test_its_tokenizer_is_that_of_its_base(self, adapter, base):
        expected = load_tokenizer(base).get_vocab()
        assert load_tokenizer(adapter).get_vocab() == expected

    def test_a_broken_tokenizer_of_its_own_is_not_replaced(self, adapter):
        (adapter / "tokenizer.json").write_text("{}")
        with pytest.raises(OSError, match="Cannot load"):
            load_tokenizer(adapter)

    def test_one_without_a_base_is_refused(self, adapter):
        file = adapter / "adapter_config.json"
        settings = json.loads(file.read_text())
        file.write_text(json.dumps({**settings, "base_model_name_or_path": None}))
        with pytest.raises(OSError, match="names no base model"):
            load_policy(adapter)

    def test_none_is_saved_that_could_not_be_loaded(self, tiny_policy, tmp_path):
        policy = get_peft_model(tiny_policy(), lora())
        with pytest.raises(ValueError, match=r"merge_and_unload\(\)"):
            save_policy(policy, tmp_path / "x")
        model = PolicyWithValue.from_policy(policy)
        with pytest.raises(ValueError, match="built in memory"):
            model.save_pretrained(tmp_path / "x")

    def test_beside_a_whole_model_it_is_unclear_what_is_meant(self, base, adapter):
        load_policy(base).save_pretrained(adapter)
        with pytest.raises(OSError, match="holds a whole model"):
            load_policy(adapter)

    def test_a_base_that_is_gone_is_named(self, adapter, base):
        base.rename(base.with_name("moved"))
        with pytest.raises(OSError, match=r"an adapter, for want of.*base'"):
            load_policy(adapter)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda w: w.pop(next(iter(w))), "not those that adapter_config.json"),
            (lambda w: w.update(a=torch.ones(1)), "not those that adapter_config.json"),
            (lambda w: next(iter(w.values())).fill_(torch.nan), "NaN"),
            (lambda w: w.update({next(iter(w)): torch.ones(9, 9)}), "Cannot load"),
        ],
    )
    def test_weights_that_are_not_its_own_are_refused(self, adapter, change, said):
        file = adapter / "adapter_model.safetensors"
        weights = load_file(file)
        change(weights)
        save_file(weights, file)
        with pytest.raises(OSError, match=said):
            load_policy(adapter)

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"peft_type": "NONE"}'])
    def test_a_broken_configuration_is_refused(self, adapter, content):
        (adapter / "adapter_config.json").write_text(content)
        with pytest.raises(OSError, match="Cannot load"):
            load_policy(adapter)

    def test_a_cut_file_is_refused(self, adapter):
        file = adapter / "adapter_model.safetensors"
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(OSError, match="Cannot load"):
            load_policy(adapter)

    def test_one_of_a_kind_that_cannot_be_trained_here(self, base, tmp_path):
        config = peft.PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
        policy = get_peft_model(load_policy(base), config)
        policy.save_pretrained(tmp_path / "prompt")
        with pytest.raises(OSError, match="PROMPT_TUNING"):
            load_policy(tmp_path / "prompt")
