"""The README's example of aligning one's own model runs as it stands."""

from pathlib import Path

import pytest

from labs_tools.town.build import MODELS

ROOT = Path(__file__).parents[2]
EXAMPLE = """\
from labs_helpers.models import load_policy, load_tokenizer
from labs_helpers.rl import RLConfig, train
from labs_helpers.sampling import sample

name = "HuggingFaceTB/SmolLM2-135M-Instruct"  # any causal language model, or a folder
prompts = ["Why is the sky blue?", "How do I boil an egg?", "Who wrote Faust?"]

def reward(prompts, responses):  # yours: a number for each answer
    return [-abs(len(response.split()) - 12) / 12 for response in responses]

policy, tokenizer = load_policy(name, lora=16), load_tokenizer(name)
config = RLConfig(algorithm="ppo", updates=50, kl_weight=0.05, checkpoint="run")
history = train(policy, prompts, reward, config)
policy.save_pretrained("aligned")
print(history["reward"], sample(policy, tokenizer, prompts, max_new_tokens=48).texts)
"""


@pytest.mark.slow
def test_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = str(MODELS / "town-xs")
    code = EXAMPLE.replace("HuggingFaceTB/SmolLM2-135M-Instruct", model)
    exec(code.replace("updates=50", "updates=2, samples=16"), {})
    assert "[" in capsys.readouterr().out
    assert (tmp_path / "aligned" / "adapter_config.json").exists()
    assert (tmp_path / "run" / "state.pt").exists()


def test_is_the_readmes():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "labs_helpers.rl" not in readme or EXAMPLE in readme


def test_has_fifteen_lines():
    assert len([line for line in EXAMPLE.splitlines() if line]) <= 15
