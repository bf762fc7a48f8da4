"""A face is quick: beside torch and transformers it loads what people ask of it."""

import json
import subprocess
import sys

import pytest

FACES = (
    *("losses", "advantages", "common", "data", "models", "sampling", "fit", "rl"),
    *("evaluation", "constitution", "safety", "world", "course", "plots"),
)
# Each takes a tenth of a second or more, and is loaded by the function that needs it.
HEAVY = {
    *("IPython", "choix", "datasets", "ipywidgets", "krippendorff", "matplotlib"),
    *("nbformat", "pandas", "pyarrow", "ray", "scipy.optimize", "scipy.stats"),
    *("sklearn", "trl"),
}
# In one process, so that torch is loaded once: plots come last.
SCRIPT = """
import importlib, json, sys
import peft, torch, transformers
from transformers import AutoModelForCausalLM, LlamaForCausalLM, TrainerCallback

before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(f"labs_helpers.{name}")
    print(name, json.dumps(sorted(set(sys.modules) - before)))
"""


@pytest.mark.slow
def test_faces_load_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *FACES],
        check=True,
        capture_output=True,
        text=True,
        timeout=110,
    )
    loaded = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert loaded.keys() == set(FACES)
    for name, modules in loaded.items():
        assert not HEAVY & set(json.loads(modules)), name
