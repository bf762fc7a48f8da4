"""`labs train`: trains as a file says, resumes, and says what is wrong with a file."""

import json

import pytest
import torch
from safetensors.torch import load_file

from labs_helpers.fit import History
from labs_helpers.rl import probe_policy
from labs_tools.cli import main
from labs_tools.training import BadSettings, read_settings

REWARD = "def says_b(prompts, answers):\n    return [a.count('b') for a in answers]\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a policy of a few thousand weights, prompts and a reward."""
    monkeypatch.chdir(tmp_path)
    policy, tokenizer = probe_policy()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    policy.save_pretrained("policy")
    tokenizer.save_pretrained("policy")
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    (tmp_path / "mine.py").write_text(REWARD)
    return tmp_path


def write(folder, name="run.toml", settings="updates = 3", **changes):
    """Write a settings file, with some lines changed or left out."""
    lines = {
        "policy": "policy",
        "prompts": "prompts.txt",
        "reward": "mine.py:says_b",
        "out": "out",
        **changes,
    }
    text = "".join(f"{k} = {json.dumps(v)}\n" for k, v in lines.items() if v)
    text += f"[settings]\n{settings}\nsamples = 8\nmax_new_tokens = 4\n"
    path = folder / name
    path.write_text(text)
    return str(path)


def test_trains_and_saves(project, capsys):
    assert main(["train", "ppo", "--config", write(project)]) == 0
    assert "ppo: reward" in capsys.readouterr().out
    assert len(History.load("out/history.csv").rows) == 3
    assert (project / "out" / "model.safetensors").exists()
    assert (project / "out" / "tokenizer.json").exists()


def test_goes_on_with_a_run_that_was_broken_off(project, capsys):
    path = write(project, settings="updates = 3\nsave_every = 1")
    (project / "mine.py").write_text(
        "from pathlib import Path\n"
        "calls = []\n"
        "def says_b(prompts, answers):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 3:\n"
        "        Path('server').read_text()\n"
        "    return [a.count('b') for a in answers]\n"
    )
    assert main(["train", "reinforce", "--config", path]) == 1
    said = capsys.readouterr().err
    assert "stopped at update 3 of 3: the reward function failed" in said
    assert "last good checkpoint" in said
    (project / "server").write_text("is up again")
    assert main(["train", "reinforce", "--config", path]) == 0
    assert len(History.load("out/history.csv").rows) == 3


def test_a_reward_that_was_edited_makes_another_run(project, capsys):
    path = write(project)
    assert main(["train", "reinforce", "--config", path]) == 0
    (project / "mine.py").write_text("# a remark\n\n" + REWARD)
    assert main(["train", "reinforce", "--config", path]) == 0
    capsys.readouterr()
    (project / "mine.py").write_text(REWARD.replace("'b'", "'c'"))
    assert main(["train", "reinforce", "--config", path]) == 1
    assert "another run: reward's code: not the same" in capsys.readouterr().err


def test_yaml_says_the_same(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("policy: town-s\nsettings:\n  updates: 7\n")
    settings = read_settings(path)
    assert (settings.policy, settings.settings) == ("town-s", {"updates": 7})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": None}, "names no policy"),
        ({"polcy": "x"}, "no setting polcy; there are policy, prompts"),
        ({"settings": "updtes = 3"}, "no setting updtes; there are updates"),
        ({"settings": "updates = 0"}, "updates is at least 1"),
        ({"settings": "updates = "}, "cannot be read"),
        ({"prompts": "nowhere.txt"}, "there is no nowhere.txt"),
        ({"reward": "gold"}, "embedded world's prompts alone"),
        ({"reward": "mine.py:nothing"}, "has no function nothing"),
        ({"reward": "yours.py:says_b"}, "no file yours.py"),
        ({"reward": "policy"}, "holds no reward model"),
        ({"policy": "town-xxl"}, "policy 'town-xxl' cannot be loaded"),
    ],
)
def test_says_what_is_wrong(project, capsys, changes, message):
    assert main(["train", "ppo", "--config", write(project, **changes)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("labs: ")


def test_a_folder_of_another_run(project, capsys):
    assert main(["train", "ppo", "--config", write(project)]) == 0
    (project / "prompts.txt").write_text("a\nc\n")
    assert main(["train", "ppo", "--config", write(project)]) == 1
    assert "is the checkpoint of another run" in capsys.readouterr().err


def test_settings_that_are_no_table(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("policy: town-xs\nsettings: 5\n")
    with pytest.raises(BadSettings, match="settings is a table, got 5"):
        read_settings(file)


def test_reward_file_that_does_not_run(project, capsys):
    (project / "broken.py").write_text("def says_b(:\n")
    config = write(project, reward="broken.py:says_b")
    assert main(["train", "ppo", "--config", config]) == 1
    error = capsys.readouterr().err
    assert error.startswith("labs: reward: broken.py cannot be run: SyntaxError")


def test_unknown_algorithm_and_file(project, capsys):
    assert main(["train", "dpo", "--config", write(project)]) == 1
    assert "no algorithm 'dpo'; there are reinforce" in capsys.readouterr().err
    with pytest.raises(BadSettings, match="there is no file"):
        read_settings(project / "gone.toml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": "many"}, "lora is a whole number, got 'many'"),
        ({"lora": -1}, "lora is at least 0, got -1"),
        ({"lora": True}, "lora is a number, got True"),
        ({"prompts": 5}, "prompts is text, got 5"),
        ({"out": ["a"]}, "out is text, got ['a']"),
        ({"reward": "mine.py"}, "which function? Write mine.py:function"),
        ({"settings": 'schedule = "linaer"'}, "linear, constant; got 'linaer'"),
        ({"settings": 'whiten = "maybe"'}, "whiten is true or false, got 'maybe'"),
        ({"settings": "lr = -1"}, "lr is at least 0, got -1"),
        ({"settings": "lr = nan"}, "lr is a finite number, got nan"),
        ({"settings": "clip = -1"}, "clip is above 0, got -1"),
        ({"settings": "updates = 1e308"}, "updates is a whole number"),
        ({"settings": "updates = 9000000"}, "updates is at most 1,000,000"),
        ({"settings": "updates = 2025-01-01"}, "updates is a whole number"),
        ({"settings": "tempreature = 1"}, "did you mean temperature?"),
        ({"settings": f'lr = "{"9" * 10**6}"'}, "lr is a finite number, got '999"),
    ],
)
def test_says_which_setting_is_wrong(project, capsys, changes, message):
    assert main(["train", "ppo", "--config", write(project, **changes)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("labs: ")
    assert len(error) < 700


@pytest.mark.parametrize(
    "text",
    [
        "policy: !!python/object:os.system x\n",
        "policy: town-xs\nsettings: !!timestamp 5\n",
        "policy: town-xs\nsettings: {updates: 2025-13-45}\n",
        "policy: " + "[" * 5000,
        "policy: town-xs\npolicy: town-s\n",
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\npolicy: *b\n",
        "policy: *nothing\n",
        "- policy\n",
        "5: x\npolicy: town-xs\n",
        "policy: town-xs\nsettings: {1: 2}\n",
        "policy: town-xs\nsettings: [1]\n",
        "policy: \x07\n",
    ],
)
def test_yaml_that_cannot_be_meant(tmp_path, capsys, text):
    (tmp_path / "run.yaml").write_text(text)
    assert main(["train", "ppo", "--config", str(tmp_path / "run.yaml")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("labs: ")
    assert "Traceback" not in error
    assert len(error) < 700


def test_a_number_in_quotes_is_one(tmp_path):
    (tmp_path / "run.yaml").write_text("policy: town-xs\nlora: '8'\n")
    assert read_settings(tmp_path / "run.yaml").lora == 8


def test_an_adapter_is_drawn_from_the_seed(project):
    drawn = []
    for out in ("one", "two"):
        path = write(project, settings="updates = 1", lora=2, out=out)
        torch.manual_seed(len(drawn))  # whatever came before
        assert main(["train", "reinforce", "--config", path]) == 0
        drawn.append(load_file(project / out / "adapter_model.safetensors"))
    for name, tensor in drawn[0].items():
        assert torch.equal(tensor, drawn[1][name])
