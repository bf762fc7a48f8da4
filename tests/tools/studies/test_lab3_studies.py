"""Lab 3's studies run, and give the columns that their docstrings promise."""

import re
import sys
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from labs_helpers.course import recorded
from labs_helpers.course.profile import load_profile
from labs_helpers.data import SPLITS
from labs_helpers.evaluation import Optimum
from labs_helpers.world import town_task
from labs_helpers.world.prompts import capability_prompts, prompts
from labs_tools.studies import instabilities, lab3, measures, optimum, trl, tuning
from labs_tools.studies.study import STUDIES

FEW = 6
ROOMS = (lab3, instabilities)
NAMES = [n for n, x in STUDIES.items() if sys.modules[x.rows.__module__] in ROOMS]


@pytest.fixture
def small(monkeypatch):
    """Single updates on a few prompts."""
    few = {split: prompts(split)[:FEW] for split in SPLITS}
    task = replace(town_task(), prompts=few.get)
    best = Optimum(np.ones(FEW), np.ones(FEW), np.zeros(FEW))
    monkeypatch.setattr(lab3, "town_task", lambda: task)
    for where in (instabilities, measures, optimum, trl):
        monkeypatch.setattr(where, "prompts", few.get)
    monkeypatch.setattr(
        lab3, "attainable", lambda *_: recorded.Attainable(np.zeros(FEW), best)
    )
    for where in (lab3, measures):
        monkeypatch.setattr(
            where, "capability_prompts", lambda split, n: capability_prompts(split, FEW)
        )
    monkeypatch.setattr(instabilities, "biased_reward", lambda *_: task.truth.scores)
    monkeypatch.setattr(instabilities, "second_judge", lambda: task.truth.scores)
    quick = replace(lab3.RECIPE, updates=2, samples=4, max_new_tokens=8, epochs=1)
    monkeypatch.setattr(measures, "LONGEST", 8)
    for room in (*ROOMS, trl):
        monkeypatch.setattr(room, "RECIPE", quick)
    monkeypatch.setattr(instabilities, "SHORT", quick)
    monkeypatch.setattr(lab3, "LONG", quick)
    monkeypatch.setattr(optimum, "SAMPLES", 3)


def test_the_long_run_is_the_labs():
    assert lab3.LONG.updates == load_profile("tiny").sizes(3).updates


def promised(study):
    """The columns that a docstring lists."""
    text = study.__doc__
    if "columns of rl_algorithms" in text:
        text = lab3.algorithms.__doc__
    listed = re.sub(r"\(.*?\)", "", text.split("Columns:")[1], flags=re.DOTALL)
    return [column.strip() for column in listed.replace(".", "").split(",")]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_gives_the_columns_that_it_promises(small, name):
    study = STUDIES[name].rows
    row = next(iter(study()))
    for column in promised(study):
        assert column in row


@pytest.mark.slow
def test_trl_learns_from_as_many_answers(small):
    ours, _, theirs = islice(trl.trl(), 3)
    assert list(ours) == list(theirs)
    assert (ours["library"], theirs["library"]) == ("ours", "TRL")
    for column in promised(trl.trl):
        assert column in theirs


@pytest.mark.slow
def test_a_trial_reports_along_the_way(small, monkeypatch):
    budget = replace(lab3.RECIPE, evaluate_every=1)
    monkeypatch.setattr(tuning, "BUDGET", budget)
    reports = []
    tuning.trial({"lr": 1e-3, "clip": 0.1}, reports.append)
    assert [report["update"] for report in reports] == [1, 2]
    assert all(np.isfinite(report["objective"]) for report in reports)


def test_tuning_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[rl\]'"):
        next(tuning.tuning())


@pytest.mark.slow
def test_what_tuning_finds_is_judged_beside_the_recipe(small, monkeypatch):
    report = {"update": 2, "gold": 0.5, "kl": 0.0, "objective": 0.5}
    settings = dict.fromkeys(tuning.SETTINGS, 1)
    monkeypatch.setattr(tuning, "BUDGET", lab3.RECIPE)
    monkeypatch.setattr(tuning, "LOOKS", 1)
    monkeypatch.setattr(tuning, "search", lambda: [(settings, [report])])
    rows = list(tuning.tuning())
    assert [row["trial"] for row in rows[:3]] == [0, "chosen", "recipe"]
    for column in promised(tuning.tuning):
        assert all(column in row for row in rows)


@pytest.mark.slow
def test_the_optimum_is_read_as_it_was_written(small, monkeypatch):
    monkeypatch.setattr(optimum, "SIZES", ("town-xs",))
    rows = list(optimum.optimum())
    monkeypatch.setattr(recorded, "_optima", lambda: rows)
    found = recorded.attainable("town-xs", 0.1)
    assert len(found.start) == FEW
    assert (found.optimum.objective >= found.start - 1e-4).all()
    assert (found.optimum.kl >= -2e-3).all()
    with pytest.raises(KeyError, match="asked for town-xs and 7"):
        recorded.attainable("town-xs", 7)
