"""What is read whole is used; what is not ends in one sentence at every door, quietly.

The broken folders are those that people have: a download that stopped, a config edited
by hand, another model's weights, a file in place of a folder, no network.
"""

import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertLMHeadModel, T5Config
from transformers.utils import logging

from labs_helpers.common import hub
from labs_helpers.models import (
    PolicyWithValue,
    RewardModel,
    load_policy,
    load_tokenizer,
    loading,
)

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path, tiny_policy, tiny_tokenizer):
    tiny_policy().save_pretrained(tmp_path / "m")
    tiny_tokenizer.save_pretrained(tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def reward_folder(tmp_path, tiny_policy, tiny_tokenizer):
    model = RewardModel.from_policy(tiny_policy(), tokenizer=tiny_tokenizer)
    model.save_pretrained(tmp_path / "r")
    return tmp_path / "r"


@pytest.fixture
def value_folder(tmp_path, tiny_policy):
    PolicyWithValue.from_policy(tiny_policy(), True).save_pretrained(tmp_path / "v")
    return tmp_path / "v"


def change_weights(file, change):
    weights = load_file(file)
    change(weights)
    save_file(weights, file, {"format": "pt"})


def change_json(file, **settings):
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


KEY = "layers.0.mlp.up_proj.weight"


def named(weights):
    return next(name for name in weights if name.endswith(KEY))


BROKEN_WEIGHTS = {
    "one is missing": (lambda w: w.pop(named(w)), KEY),
    "one is strange": (lambda w: w.update(strange=torch.ones(2)), "strange"),
    "one has another shape": (lambda w: w.update({named(w): torch.ones(2, 3)}), KEY),
    "one is NaN": (lambda w: w[named(w)].view(-1)[3:4].fill_(torch.nan), "NaN"),
    "one is infinite": (lambda w: w[named(w)].view(-1)[3:4].fill_(torch.inf), "inf"),
}


@pytest.mark.parametrize("case", BROKEN_WEIGHTS)
def test_weights_that_are_not_the_models_are_named(
    case, folder, reward_folder, value_folder
):
    change, said = BROKEN_WEIGHTS[case]
    for file, load in (
        (folder / WEIGHTS, lambda: load_policy(folder)),
        (reward_folder / WEIGHTS, lambda: RewardModel.from_pretrained(reward_folder)),
        (
            value_folder / "value_trunk" / WEIGHTS,
            lambda: PolicyWithValue.from_pretrained(value_folder),
        ),
    ):
        change_weights(file, change)
        with pytest.raises(OSError, match=f"Cannot load.*{said}"):
            load()


def test_masks_of_older_checkpoints_are_no_weights(folder):
    """As GPT-2's and Pythia's own files have them."""
    change_weights(
        folder / WEIGHTS,
        lambda w: w.update({"model.layers.0.attn.bias": torch.ones(1, 1, 4, 4)}),
    )
    load_policy(folder)


BROKEN_FILES = {
    "cut weights": lambda f: (f / WEIGHTS).write_bytes(
        (f / WEIGHTS).read_bytes()[:5000]
    ),
    "empty weights": lambda f: (f / WEIGHTS).write_bytes(b""),
    "other bytes": lambda f: (f / WEIGHTS).write_bytes(b"<html>" * 99),
    "no weights": lambda f: (f / WEIGHTS).unlink(),
    "cut config": lambda f: (f / "config.json").write_text("{"),
    "config is a list": lambda f: (f / "config.json").write_text("[]"),
    "config of a wrong type": lambda f: change_json(f / "config.json", hidden_size="x"),
    "config of no heads": lambda f: change_json(
        f / "config.json", num_attention_heads=0
    ),
    "config of more layers": lambda f: change_json(
        f / "config.json", num_hidden_layers=9
    ),
    "config of fewer layers": lambda f: change_json(
        f / "config.json", num_hidden_layers=1
    ),
    "no model type": lambda f: (f / "config.json").write_text("{}"),
    "an unknown model type": lambda f: change_json(f / "config.json", model_type="x"),
    "no config": lambda f: (f / "config.json").unlink(),
    "nothing at all": lambda f: shutil.rmtree(f),
}


@pytest.mark.parametrize("case", BROKEN_FILES)
def test_broken_model_folders_end_in_a_sentence(case, folder, reward_folder):
    for broken in (folder, reward_folder):
        BROKEN_FILES[case](broken)
    with pytest.raises(OSError, match="Cannot load"):
        load_policy(folder)
    with pytest.raises(OSError, match=r"Cannot load|holds no reward model"):
        RewardModel.from_pretrained(reward_folder)


BROKEN_TOKENIZERS = {
    "an empty table": lambda f: (f / "tokenizer.json").write_text("{}"),
    "an empty file": lambda f: (f / "tokenizer.json").write_text(""),
    "no tokenizer": lambda f: [x.unlink() for x in f.glob("tokenizer*")],
    "a cut config": lambda f: (f / "tokenizer_config.json").write_text("{"),
    "a broken template": lambda f: (f / "chat_template.jinja").write_text("{% for m "),
}


@pytest.mark.parametrize("case", BROKEN_TOKENIZERS)
def test_broken_tokenizers_end_in_a_sentence(case, folder, reward_folder):
    for broken in (folder, reward_folder):
        BROKEN_TOKENIZERS[case](broken)
    with pytest.raises(OSError, match="Cannot load"):
        load_tokenizer(folder)
    with pytest.raises(OSError, match="Cannot load"):
        RewardModel.from_pretrained(reward_folder)


def test_a_template_that_asks_for_other_messages_is_not_broken(folder):
    template = folder / "chat_template.jinja"
    template.write_text("{{ raise_exception('a system message comes first') }}")
    assert "system" in load_tokenizer(folder).chat_template


SURPRISAL = "labs_helpers.world.reward:SurprisalRewardModel"
HEADS, HEAD_WEIGHTS = "reward_heads.json", "reward_head.safetensors"
BROKEN_HEADS = {
    "no heads": (lambda f: (f / HEADS).unlink(), "reward_heads.json is missing"),
    "cut": (lambda f: (f / HEADS).write_text("{"), "is no JSON"),
    "Latin-1": (
        lambda f: (f / HEADS).write_bytes('{"heads": ["ü"]}'.encode("cp1252")),
        "is no JSON",
    ),
    "deep": (lambda f: (f / HEADS).write_text("[" * 10**5), "is no JSON"),
    "a list": (lambda f: (f / HEADS).write_text('["reward"]'), "holds no table"),
    "no names": (lambda f: (f / HEADS).write_text("{}"), "expected"),
    "names are text": (lambda f: change_json(f / HEADS, heads="reward"), "expected"),
    "names twice": (lambda f: change_json(f / HEADS, heads=["a", "a"]), "expected"),
    "a number": (lambda f: change_json(f / HEADS, heads=[1]), "expected"),
    "a class of elsewhere": (
        lambda f: change_json(f / HEADS, kind="os:system"),
        "kind",
    ),
    "no class": (lambda f: change_json(f / HEADS, kind="labs_helpers.fit:X"), "X"),
    "no model": (lambda f: change_json(f / HEADS, kind="labs_helpers.fit:fit"), "kind"),
    "more names": (lambda f: change_json(f / HEADS, heads=["a", "b"]), "expected"),
    "no weights": (lambda f: (f / HEAD_WEIGHTS).unlink(), "is missing"),
    "cut weights": (lambda f: (f / HEAD_WEIGHTS).write_bytes(b"x"), "Cannot load"),
    "another width": (
        lambda f: save_file({"weight": torch.ones(1, 7)}, f / HEAD_WEIGHTS),
        "expected",
    ),
    "NaN": (
        lambda f: save_file(
            {"weight": torch.full((1, 32), torch.nan)}, f / HEAD_WEIGHTS
        ),
        "NaN",
    ),
    "another's": (
        lambda f: save_file({"x": torch.ones(1)}, f / HEAD_WEIGHTS),
        "expected",
    ),
    "no reference": (lambda f: change_json(f / HEADS, kind=SURPRISAL), "Cannot load"),
}


@pytest.mark.parametrize("case", BROKEN_HEADS)
def test_broken_reward_folders_end_in_a_sentence(case, reward_folder):
    change, said = BROKEN_HEADS[case]
    change(reward_folder)
    with pytest.raises(OSError, match=said):
        RewardModel.from_pretrained(reward_folder)


@pytest.mark.parametrize("content", [b"", b"x" * 99])
def test_broken_value_heads_end_in_a_sentence(content, value_folder):
    (value_folder / "value_head.safetensors").write_bytes(content)
    with pytest.raises(OSError, match="Cannot load"):
        PolicyWithValue.from_pretrained(value_folder)


def test_a_value_trunk_of_an_earlier_run_is_not_taken(value_folder, tiny_policy):
    PolicyWithValue.from_policy(tiny_policy()).save_pretrained(value_folder)
    assert PolicyWithValue.from_pretrained(value_folder).value_trunk is None


class TestOtherModels:
    def test_an_encoder_sees_what_it_is_to_predict(self, tmp_path):
        config = BertConfig(
            vocab_size=300,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
        BertLMHeadModel(config).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="sees the tokens that it is to predict"):
            load_policy(tmp_path)

    def test_an_encoder_decoder_is_refused(self, tmp_path):
        T5Config().save_pretrained(tmp_path)
        with pytest.raises(OSError, match="Cannot load"):
            load_policy(tmp_path)

    def test_code_of_a_folder_is_never_run_nor_asked_about(self, folder, monkeypatch):
        monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
        change_json(
            folder / "config.json",
            model_type="mine",
            auto_map={"AutoConfig": "m.C", "AutoModelForCausalLM": "m.M"},
        )
        (folder / "m.py").write_text("raise SystemExit('ran')")
        with pytest.raises(OSError, match="custom code"):
            load_policy(folder)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_read(self, folder, tiny_policy, dtype):
        tiny_policy().to(dtype).save_pretrained(folder)
        assert load_policy(folder, device="cpu").dtype == torch.float32
        assert load_policy(folder, device="cpu", dtype=dtype).dtype == dtype

    def test_several_files_are_read_only_all_together(self, folder, tiny_policy):
        policy = tiny_policy()
        (folder / WEIGHTS).unlink()
        policy.save_pretrained(folder, max_shard_size="10KB")
        tokens = torch.tensor([[5, 6]])
        loaded = load_policy(folder, device="cpu")
        torch.testing.assert_close(loaded(tokens).logits, policy(tokens).logits)
        next(folder.glob("model-00002*")).unlink()
        with pytest.raises(OSError, match="Cannot load"):
            load_policy(folder)

    def test_a_pickle_of_tensors_is_read_and_one_of_code_is_not(self, folder):
        weights = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).unlink()
        torch.save(weights, folder / "pytorch_model.bin")
        load_policy(folder)
        torch.save({"x": Attack()}, folder / "pytorch_model.bin")
        with pytest.raises(OSError, match="Cannot load"):
            load_policy(folder)

    def test_a_config_without_architectures_is_enough(self, folder):
        change_json(folder / "config.json", architectures=None)
        load_policy(folder)

    def test_a_file_is_no_folder(self, folder):
        with pytest.raises(OSError, match="this is a file"):
            load_policy(folder / "config.json")

    def test_nor_is_a_folder_of_something_else(self, tmp_path):
        (tmp_path / "notes.txt").write_text("x")
        with pytest.raises(OSError, match=r"no config\.json"):
            load_policy(tmp_path)

    def test_a_model_built_in_memory_has_no_tokenizer(self, tiny_policy):
        with pytest.raises(OSError, match="built in memory"):
            RewardModel.from_policy(tiny_policy())


class Attack:
    def __reduce__(self):
        return pytest.fail, ("a pickle ran",)


class TestWithoutNetwork:
    @pytest.mark.parametrize("load", [load_policy, load_tokenizer])
    @pytest.mark.parametrize("name", ["nobody/nothing", "no/such/folder", "x"])
    def test_what_runs_without_one_is_named(self, load, name):
        with pytest.raises(OSError, match="LABS_PROFILE=tiny"):
            load(name)

    def test_a_folder_asks_nobody(self, folder, monkeypatch):
        monkeypatch.setattr(hub, "out_of_reach", lambda: pytest.fail("asked"))
        load_policy(folder)
        load_tokenizer(folder)


def test_whatever_a_library_raises_is_told_as_what_cannot_be_loaded(folder):
    for error in (KeyError("added_tokens"), RuntimeError("a\nb"), TypeError()):
        with (
            pytest.raises(OSError, match=f"Cannot load.*{type(error).__name__}"),
            loading.named_origin(folder),
        ):
            raise error


class TestQuiet:
    def test_loading_and_saving_say_nothing(self, folder, capfd, recwarn):
        model = RewardModel.from_policy(load_policy(folder, lora=2))
        model.save_pretrained(folder / "r")
        RewardModel.from_pretrained(folder / "r")
        PolicyWithValue.from_policy(load_policy(folder), True).save_pretrained(
            folder / "v"
        )
        capfd.readouterr()
        PolicyWithValue.from_pretrained(folder / "v")
        assert capfd.readouterr() == ("", "")
        assert not recwarn.list

    def test_what_was_loud_before_is_loud_again(self):
        before = logging.get_verbosity(), logging.is_progress_bar_enabled()
        with loading.quiet_loading():
            assert not logging.is_progress_bar_enabled()
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
        with pytest.warns(UserWarning, match="heard"):
            warnings.warn("heard", stacklevel=1)
