"""The town as a task: goals, suites and what is there."""

import pytest

from labs_helpers.data.task import NEEDS
from labs_helpers.safety import load_suite
from labs_helpers.world import recorded, town_task
from labs_helpers.world.annotators import differing, label
from labs_helpers.world.knowledge import DATA


def test_it_has_all_that_a_section_may_need():
    assert town_task().missing(*NEEDS) == ""


@pytest.mark.slow
def test_preferences_are_those_all_in_all():
    task = town_task()
    pairs = differing(recorded.pairs("validation"))
    assert task.preferences("validation") == label(pairs, dimension="overall")
    assert task.preferences("validation", "overall") == task.preferences("validation")


def test_a_goal_is_a_dimension_in_which_the_answers_differ():
    task = town_task()
    assert task.heads == ("overall", *task.truth.dimensions)
    rows = task.preferences("validation", "humour")
    assert {row.dimension for row in rows} == {"humour"}
    assert len(rows) == len(differing(recorded.pairs("validation"), "humour"))


def test_an_unknown_goal_is_named_with_the_known():
    with pytest.raises(ValueError, match="no goal 'kindness'; the town has overall"):
        town_task().preferences("train", "kindness")


def test_suites_are_the_committed_ones():
    suites = town_task().suites
    assert "refusals" not in suites
    for name, suite in suites.items():
        assert suite.items == load_suite(DATA / "safety" / f"{name}.jsonl").items
