"""Lab 3's studies run, and give the columns that their docstrings promise."""

import re
from dataclasses import replace

import numpy as np
import pytest

from labs_helpers.course.studies import instabilities, lab3, optimum
from labs_helpers.optimum import Optimum
from labs_helpers.world.prompts import capability_prompts
from labs_helpers.world.task import town_task

FEW = 6
ROOMS = (lab3, instabilities)
STUDIES = {name: study for room in ROOMS for name, study in room.STUDIES.items()}


@pytest.fixture
def small(monkeypatch):
    """Single updates on a few prompts."""
    task = town_task()
    task = replace(task, prompts=lambda split: town_task().prompts(split)[:FEW])
    best = Optimum(np.ones(FEW), np.ones(FEW), np.zeros(FEW))
    for where in (*ROOMS, optimum):
        monkeypatch.setattr(where, "town_task", lambda: task)
    monkeypatch.setattr(
        lab3, "attainable", lambda *_: optimum.Attainable(np.zeros(FEW), best)
    )
    monkeypatch.setattr(
        lab3, "capability_prompts", lambda split, n: capability_prompts(split, FEW)
    )
    monkeypatch.setattr(instabilities, "biased_reward", lambda *_: task.truth.scores)
    quick = replace(lab3.RECIPE, updates=2, samples=4, max_new_tokens=8, epochs=1)
    for room in ROOMS:
        monkeypatch.setattr(room, "LONGEST", 8)
        monkeypatch.setattr(room, "RECIPE", quick)
    monkeypatch.setattr(instabilities, "SHORT", quick)
    monkeypatch.setattr(optimum, "SAMPLES", 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_gives_the_columns_that_it_promises(small, name):
    study = STUDIES[name]
    row = next(iter(study()))
    promised = study.__doc__ or ""
    if "columns of rl_algorithms" in promised:
        promised = lab3.algorithms.__doc__
    listed = re.sub(r"\(.*?\)", "", promised.split("Columns:")[1], flags=re.DOTALL)
    for column in listed.replace(".", "").split(","):
        assert column.strip() in row


@pytest.mark.slow
def test_the_optimum_is_read_as_it_was_written(small, monkeypatch):
    monkeypatch.setattr(optimum, "SIZES", ("town-xs",))
    rows = list(optimum.optimum())
    monkeypatch.setattr(optimum, "_rows", lambda: rows)
    found = optimum.attainable("town-xs", 0.1)
    assert len(found.start) == FEW
    assert (found.optimum.objective >= found.start - 1e-4).all()
    assert (found.optimum.kl >= -2e-3).all()
    with pytest.raises(KeyError, match="asked for town-xs and 7"):
        optimum.attainable("town-xs", 7)
