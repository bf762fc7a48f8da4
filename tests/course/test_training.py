"""`labs train`: trains as a file says, resumes, and says what is wrong with a file."""

import json

import pytest

from labs_helpers.course.cli import main
from labs_helpers.course.training import BadSettings, read_settings
from labs_helpers.history import History
from labs_helpers.rl.probes import probe_policy

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
