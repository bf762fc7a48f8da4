"""The town's tasks are checked exactly, and by the same measure as its capability."""

import pytest

from labs_helpers.rl import formatted
from labs_helpers.world.checks import FORMAT, TASKS, exact, says
from labs_helpers.world.prompts import capability_prompts, prompts
from labs_helpers.world.task import capability

ASKED = capability_prompts("train", 60)
RIGHT = [f"It is {prompt.meta['expected']}." for prompt in ASKED]


def test_every_kind_of_task_is_checked():
    assert {prompt.meta["task"] for prompt in ASKED} == set(TASKS)
    assert exact(ASKED, RIGHT) == [1.0] * 60
    assert formatted(FORMAT)(ASKED, RIGHT) == [1.0] * 60


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "7",
        "It is 8.",
        "It is 7. It is 8.",
        "It is 7. It is 7.",
        "It is 7. Hm.",
        "is",
    ],
)
def test_nothing_else_is_right(answer):
    assert not says(answer, "7")


def test_agrees_with_the_probe_of_capability():
    probe = capability("test")
    answers = [f"It is {p.meta['expected']}." for p in probe.prompts]
    answers[::3] = answers[1::3]
    found = exact(probe.prompts, answers)
    assert found == probe.score(answers).tolist()
    assert 0 < sum(found) < len(found)


def test_other_prompts_have_no_check():
    with pytest.raises(ValueError, match="only a sum, an opposite or an order"):
        exact(prompts("test")[:1], ["It is 7."])
