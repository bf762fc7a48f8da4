"""Files to train an embedded model on, small enough for a step to take a moment."""

import json

import pytest

REWARD = "def says_b(prompts, answers):\n    return [a.count('b') for a in answers]\n"
RULES = """
defaults:
  critique: "Does this answer follow the rule: {text}?"
  revision: "Rewrite the answer so that it follows the rule: {text}."
  comparison: "{prompt} Answer A: {a} Answer B: {b} Which answer follows: {text}?"
replies: {kept: "Yes", broken: "No", first: "A", second: "B"}
principles:
  - id: kind
    text: do not be rude
"""
SETTINGS = {
    "offline": "lr = 1e-3\nbatch_size = 4\nsteps = 3\nlog_every = 1\nprogress = false",
    "on-policy": "updates = 3\nsamples = 4\nmax_new_tokens = 4\nprogress = false",
}


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def fill(folder):
    """Write pairs, answers, conversations, prompts, a reward and a constitution."""
    asked = [f"Who cleans the {what}?" for what in ("mill", "inn", "hall", "bridge")]
    rows = [
        {"prompt": a, "chosen": f"The baker, at {i}.", "rejected": "A dog" + " no" * i}
        for i in range(3)
        for a in asked
    ]
    jsonl(folder / "pairs.jsonl", rows)
    answers = [
        {"prompt": row["prompt"], "completion": row["chosen"], "label": i % 2 == 0}
        for i, row in enumerate(rows)
    ]
    jsonl(folder / "answers.jsonl", answers)
    said = {"role": "assistant", "content": "The baker."}
    talks = [[{"role": "user", "content": a}, said] for a in asked] * 2
    jsonl(folder / "conversations.jsonl", [{"messages": talk} for talk in talks])
    (folder / "prompts.txt").write_text("\n".join(asked))
    (folder / "mine.py").write_text(REWARD)
    (folder / "rules.yaml").write_text(RULES)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with such files, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def write(project):
    """A function that writes a settings file; of a setting said twice the last counts.

    Args of it are the kind of method, the file's name, more lines of settings, and keys
    of the file, left out where they are None.
    """

    def written(kind, name="run.toml", settings="", **keys):
        data = {"offline": "pairs.jsonl", "on-policy": "prompts.txt"}[kind]
        keys = {"policy": "town-xs", "data": data, "out": "out", **keys}
        if kind == "on-policy":
            keys.setdefault("reward", "mine.py:says_b")
        said = [f"{k} = {json.dumps(v)}" for k, v in keys.items() if v is not None]
        lines = [*SETTINGS[kind].splitlines(), *settings.splitlines()]
        last = {line.split(" = ")[0]: line for line in lines}
        text = "\n".join([*said, "[settings]", *last.values(), ""])
        (project / name).write_text(text)
        return name

    return written
