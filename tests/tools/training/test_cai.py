"""Constitutional AI from a file: two stages, each done once."""

import pytest

from labs_helpers.data import load_preferences
from labs_helpers.fit import History
from labs_helpers.models import load_policy
from labs_tools.cli import main
from labs_tools.training import cai

FILE = """
policy = "town-xs"
data = "prompts.txt"
constitution = "rules.yaml"
out = "out"
pairs = 4
max_new_tokens = 8
{keys}
[sft]
lr = 1e-3
batch_size = 2
progress = false
[dpo]
lr = 1e-3
batch_size = 2
progress = false
"""


@pytest.fixture
def trained(project):
    """A function that trains as the file says, with more keys."""

    def run(keys=""):
        (project / "run.toml").write_text(FILE.format(keys=keys))
        return main(["train", "cai", "--config", "run.toml"])

    return run


def test_both_stages_are_saved(project, trained, capsys):
    assert trained() == 0
    assert "of 4 answers were revised" in capsys.readouterr().out
    revisions = load_preferences("out/revisions.jsonl")
    assert {row.prompt[0]["content"] for row in revisions} <= {
        *(project / "prompts.txt").read_text().split("\n")
    }
    for row in load_preferences("out/comparisons.jsonl"):
        assert 0.5 <= row.meta["probability"] <= 1
    for folder in ("out", "out/sl-cai"):
        assert load_policy(folder)
        assert History.load(f"{folder}/history.csv").rows


@pytest.mark.slow
def test_what_is_done_is_not_done_again(trained, monkeypatch):
    assert trained() == 0
    for name in ("critique_and_revise", "compare_by_principles"):
        monkeypatch.setattr(cai, name, None)
    assert trained() == 0


@pytest.mark.slow
def test_an_adapter_is_its_own_reference(project, trained):
    assert trained("lora = 2") == 0
    for folder in ("out", "out/sl-cai"):
        assert (project / folder / "adapter_model.safetensors").exists()
        assert load_policy(folder)


@pytest.mark.slow
def test_another_constitution_is_another_run(project, trained, capsys):
    assert trained() == 0
    rules = (project / "rules.yaml").read_text().replace("rude", "rude or long")
    (project / "rules.yaml").write_text(rules)
    before = (project / "out" / "revisions.made_of").read_text()
    trained()
    assert (project / "out" / "revisions.made_of").read_text() != before


@pytest.mark.slow
def test_the_embedded_world_is_tried_as_in_lab_4():
    asked = cai.CAI(policy="town-xs")
    prompts = cai._prompts(asked)
    kinds = [prompt.meta.get("attack") for prompt in prompts]
    assert len(prompts) == len(cai._prompts(asked)) > 700
    assert sum(kind is not None for kind in kinds) > 90
