"""Settings files: one schema, and what is wrong told with file and key."""

import json

import pytest
from pydantic import TypeAdapter

from labs_helpers.fit import FitConfig
from labs_helpers.rl import RLConfig
from labs_tools.cli import main
from labs_tools.training.settings import METHODS, BadSettings, read_settings, schema


def write(folder, text, name="run.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


SETTINGS = "policy = 'town-xs'\n[settings]\nlr = 1e-4\n"


def minimal(method):
    """The least that a file says."""
    return "policy = 'town-xs'\n" if method == "cai" else SETTINGS


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reads_the_least_file(tmp_path, method):
    asked = read_settings(method, write(tmp_path, minimal(method)))
    assert (asked.method, asked.policy, asked.out) == (method, "town-xs", "build/train")


def test_checkpoints_go_below_out(tmp_path):
    asked = read_settings("dpo", write(tmp_path, "out = 'here'\n" + SETTINGS))
    assert str(asked.settings.checkpoint) == "here/checkpoint"
    assert asked.settings.save_every == 100


def test_cai_has_the_defaults_of_lab_4(tmp_path):
    asked = read_settings("cai", write(tmp_path, "policy = 'town-s'\n"))
    assert (asked.sft.lr, asked.sft.epochs, asked.sft.batch_size) == (5e-4, 2, 32)
    assert (asked.dpo.lr, asked.dpo.epochs, asked.dpo.batch_size) == (1e-4, 1, 32)
    assert (asked.beta, asked.pairs, asked.max_new_tokens) == (0.1, 500, 64)


def test_an_algorithm_is_the_command_s(tmp_path):
    asked = read_settings("trpo", write(tmp_path, "policy = 'town-xs'\n"))
    assert asked.settings.algorithm == "trpo"
    twice = "policy = 'town-xs'\n[settings]\nalgorithm = 'ppo'\n"
    with pytest.raises(BadSettings, match="algorithm is ppo, the command is for trpo"):
        read_settings("trpo", write(tmp_path, twice))


def test_settings_of_groups_are_those_of_the_rules_that_have_them(tmp_path):
    path = write(tmp_path, "policy = 'town-xs'\n[settings]\nnormaliser = 'constant'\n")
    assert read_settings("grpo", path).settings.normaliser == "constant"
    with pytest.raises(BadSettings, match="only rloo and grpo read normaliser"):
        read_settings("ppo", path)


@pytest.mark.parametrize(
    ("method", "figure"),
    [("dpo", "-validation_loss"), ("ppo", "validation_objective")],
)
def test_patience_waits_for_what_a_method_is_judged_by(tmp_path, method, figure):
    path = write(tmp_path, "validation = 0.1\n" + SETTINGS + "patience = 2\n")
    assert read_settings(method, path).settings.best_by == figure


def test_yaml_says_the_same(tmp_path):
    text = "policy: town-s\nlora: '8'\nsettings: {updates: 7, lr: 1e-4}\n"
    asked = read_settings("ppo", write(tmp_path, text, "run.yaml"))
    assert (asked.lora, asked.settings.updates, asked.settings.lr) == (8, 7, 1e-4)


def test_the_file_may_name_its_method(tmp_path):
    path = write(tmp_path, "method = 'ipo'\n" + SETTINGS)
    assert read_settings("ipo", path).beta == 0.1
    with pytest.raises(BadSettings, match="is for 'ipo', the command is for dpo"):
        read_settings("dpo", path)


@pytest.mark.parametrize(
    ("method", "text", "message"),
    [
        ("ppo", "", "policy is missing"),
        ("ppo", "polcy = 'x'\n", "policy is missing. Rename 'polcy' to 'policy'"),
        ("ppo", "policy = 5\n", "policy is 5, expected text"),
        ("ppo", "policy = 'p'\nout = ['a']\n", "out is ['a'], expected text"),
        ("ppo", "policy = 'p'\nlora = -1\n", "lora is -1, expected at least 0"),
        ("ppo", "policy = 'p'\nlora = true\n", "lora is True, expected a number"),
        ("ppo", "policy = 'p'\nbeta = 0.1\n", "beta is no field. Fields are"),
        ("dpo", "policy = 'p'\n", "settings.lr is missing"),
        ("dpo", "policy = 'p'\n[settings]\n", "settings.lr is missing"),
        ("dpo", "beta = 0\n" + SETTINGS, "beta is 0, expected above 0"),
        ("dpo", "betta = 0.1\n" + SETTINGS, "betta is no field: did you mean beta?"),
        ("dpo", "validation = 1.5\n" + SETTINGS, "validation is 1.5, expected below 1"),
        ("dpo", "report_to = ['x']\n" + SETTINGS, "report_to[0] is 'x', expected one"),
        ("dpo", SETTINGS + "evaluate_every = 5\n", "Add validation, a file"),
        ("dpo", SETTINGS + "patience = 5\n", "Add validation, a file"),
        ("reward", "heads = []\n" + SETTINGS, "heads is [], expected a list of at lea"),
        ("cai", "policy = 'p'\n[dpo]\nlr = -1\n", "dpo.lr is -1, expected at least 0"),
        ("kto", "policy = 'p'\nsettings = 5\n", "settings is 5, expected an object"),
        ("ppo", SETTINGS + "updates = 0\n", "settings.updates is 0, expected at least"),
        ("ppo", SETTINGS + "updates = 1e308\n", "expected a whole number"),
        ("ppo", SETTINGS + "updates = 9000000\n", "expected at most 1,000,000"),
        ("ppo", SETTINGS + "updates = 2025-01-01\n", "settings.updates is datetime"),
        ("ppo", SETTINGS + "clip = -1\n", "settings.clip is -1, expected above 0"),
        ("ppo", SETTINGS + "whiten = 'maybe'\n", "expected true or false"),
        ("ppo", SETTINGS + "schedule = 'linaer'\n", "expected one of linear, constant"),
        ("ppo", SETTINGS + "tempreature = 1\n", "did you mean temperature?"),
        ("ppo", SETTINGS + "minibatches = 99\n", "64 samples cannot be cut into 99"),
        ("ppo", "policy = 'p'\n[settings]\nlr = nan\n", "expected a finite number"),
        ("ppo", "policy = ", "run.toml:1: cannot be read as TOML"),
        ("ppo", f"policy = 'p'\n[settings]\nlr = '{'9' * 10**6}'\n", "finite number"),
    ],
)
def test_says_what_is_wrong(tmp_path, capsys, method, text, message):
    path = write(tmp_path, text)
    assert main(["train", method, "--config", str(path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("labs: ")
    assert str(path) in error
    assert len(error) < 900


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
        "method: [x]\npolicy: town-xs\n",
        "policy: town-xs\nout: [x]\n",
    ],
)
def test_yaml_that_cannot_be_meant(tmp_path, capsys, text):
    path = write(tmp_path, text, "run.yaml")
    assert main(["train", "ppo", "--config", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("labs: ")
    assert "Traceback" not in error
    assert len(error) < 900


def test_unknown_method_and_no_file(tmp_path):
    with pytest.raises(BadSettings, match="no method 'sfft'; there are sft, reward"):
        read_settings("sfft", tmp_path / "x.toml")
    with pytest.raises(BadSettings, match="there is no file"):
        read_settings("sft", tmp_path / "x.toml")


def test_neither_method_nor_file(capsys):
    assert main(["train"]) == 1
    assert "give a method, of sft, reward" in capsys.readouterr().err


def test_the_help_names_every_method(capsys):
    assert main(["train", "--help"]) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert all(f" {name}" in said for name in METHODS)


class TestSchema:
    def test_is_printed(self, capsys):
        assert main(["train", "--schema"]) == 0
        assert json.loads(capsys.readouterr().out) == schema()

    def test_tells_methods_apart(self):
        assert set(schema()["discriminator"]["mapping"]) == set(METHODS)

    def test_says_what_every_setting_is(self):
        for name, entry in schema()["$defs"].items():
            for key, value in entry["properties"].items():
                assert value.get("description") or key == "method", (name, key)

    def test_has_every_setting_of_the_library(self):
        for kind in (FitConfig, RLConfig):
            fields = TypeAdapter(kind).json_schema()["properties"]
            assert set(schema()["$defs"][kind.__name__]["properties"]) == set(fields)
