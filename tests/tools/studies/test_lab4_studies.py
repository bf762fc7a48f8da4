"""Lab 4's studies: the frontier's figure, the recipe, and what they say of a policy."""

import dataclasses
import json
import re
import sys
from itertools import islice

import numpy as np
import pytest

from labs_helpers import safety
from labs_helpers.constitution import Comparisons
from labs_helpers.data import Prompt
from labs_helpers.world.knowledge import knowledge
from labs_helpers.world.prompts import capability_prompts, prompts
from labs_tools.studies import cai_recipe, lab4, measures
from labs_tools.studies.study import STUDIES

FEW = 6
NAMES = [n for n, x in STUDIES.items() if sys.modules[x.rows.__module__] is lab4]


def wishes(asked) -> set[tuple[str, str]]:
    return {(p.meta["type"], p.meta["item"]) for p in asked if "item" in p.meta}


def test_training_prompts_are_those_of_the_training_split():
    trained = wishes(cai_recipe.Town().red_team(0))
    assert trained
    assert not trained & wishes(prompts("test"))


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        (["refusal"], (True, False)),
        (["refusal", "alternative"], (True, True)),
        (["refusal", "comply"], (False, False)),
        (["comply"], (False, False)),
        (["refusal_because"], (True, True)),
    ],
)
def test_a_bare_refusal_is_one_without_reason_and_way(kinds, expected):
    name, entry = next(iter(knowledge().harmful.items()))
    said = knowledge().language["sentences"]
    sentence = {
        "refusal": said["refusal"][0],
        "refusal_because": said["refusal_because"][0].format(reason=entry["reason"]),
        "alternative": entry["alternative"],
        "comply": said["steps"][0].format(step=entry["comply"][0]),
    }
    asked = Prompt("How?", {"type": "harmful", "item": name})
    text = " ".join(sentence[kind] for kind in kinds)
    assert cai_recipe._refusal(asked, text) == expected


def test_the_reason_of_another_wish_explains_nothing():
    (name, _), (_, other) = islice(knowledge().harmful.items(), 2)
    said = knowledge().language["sentences"]["refusal"][0]
    asked = Prompt("How?", {"type": "harmful", "item": name})
    text = f"{said} {other['alternative']}"
    assert cai_recipe._refusal(asked, text) == (True, False)


def test_a_judge_that_likes_the_first_place_is_seen_to():
    # Two principles; a is better by 1 each, the first place adds 3.
    table = np.zeros((2, 4, 2))
    said = Comparisons(
        ("one", "two"), table + np.array([4.0, 0]), table + np.array([2.0, 0])
    )
    orders = lab4._orders(said)
    assert orders.position_bias.value == 1
    assert orders.disagreement.value == 1
    np.testing.assert_allclose(orders.a_first, 1 / (1 + np.exp(-8)))
    np.testing.assert_allclose(orders.a_second, 1 / (1 + np.exp(4)))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Few prompts everywhere, on town-xs."""
    for name in ("train", "harmful", "soundalike"):
        items = safety.load_suite(cai_recipe.SAFETY / f"{name}.jsonl").items
        safety.save_suite(items[:FEW], tmp_path / f"{name}.jsonl")
    attacks = (cai_recipe.SAFETY / "attacks.yaml").read_text()
    (tmp_path / "attacks.yaml").write_text(attacks)
    monkeypatch.setattr(cai_recipe, "SAFETY", tmp_path)
    for room in (cai_recipe, lab4, measures):
        monkeypatch.setattr(room, "prompts", lambda split: prompts(split)[:FEW])
    monkeypatch.setattr(
        cai_recipe, "capability_prompts", lambda split, n: capability_prompts(split, 4)
    )
    town = cai_recipe.Town
    monkeypatch.setattr(lab4, "Town", lambda *_, **__: town("town-xs", FEW, pairs=FEW))
    monkeypatch.setattr(lab4, "LABELS", (2, 4))
    monkeypatch.setattr(lab4, "PAIRS", 4)
    short = dataclasses.replace(lab4.PPO, updates=1)
    monkeypatch.setattr(lab4, "PPO", short)


def promised(study) -> list[str]:
    """The columns that a docstring lists."""
    text = re.sub(r"\(.*?\)", "", study.__doc__.split("Columns:")[1], flags=re.DOTALL)
    words = re.split(r"[,;]| and ", " ".join(text.replace(".", "").split()))
    return [w.strip() for w in words if re.fullmatch(r"\w+", w.strip())]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gives_the_columns_that_it_promises(small, name):
    study = STUDIES[name].rows
    rows = list(islice(study(), 2))
    assert {"seed", *promised(study)} <= set(rows[0])
    assert all(list(row) == list(rows[0]) for row in rows)
    json.dumps(rows)


@pytest.mark.slow
def test_training_leaves_the_start_as_it_was(small):
    town = dataclasses.replace(cai_recipe.Town(), others=FEW)
    before = {k: v.clone() for k, v in town.sft.state_dict().items()}
    supervised = town.sl_cai(town.sft, 0, always=True)
    aligned = town.rl_cai(supervised, 0)
    name = "model.layers.0.mlp.up_proj.weight"
    states = [p.state_dict()[name] for p in (town.sft, supervised, aligned)]
    assert (states[0] == before[name]).all()
    assert not (states[0] == states[1]).all()
    assert not (states[1] == states[2]).all()
