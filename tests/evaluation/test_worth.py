"""What sampled answers are worth, by truth or by judge."""

import numpy as np
import pytest

from labs_helpers.data import Prompt, Task
from labs_helpers.evaluation import worth_of_answers


class Longer:
    """Prefers the longer answer, and counts how often it was asked."""

    calls = 0

    def compare(self, prompts, a, b):
        self.calls += 1
        assert len(prompts) == len(a) == len(b)
        return np.array(
            [0.5 + 0.5 * np.sign(len(x) - len(y)) for x, y in zip(a, b, strict=True)]
        )


class Length:
    dimensions = ("gold",)

    def score(self, prompt, response):
        return {"gold": float(len(response))}

    def scores(self, prompts, responses, dimension="gold"):
        return np.array(
            [
                len(prompt.text) + len(x)
                for prompt, x in zip(prompts, responses, strict=True)
            ],
            float,
        )


def task(**measures):
    return Task("a set", lambda split: [], lambda split: [], **measures)


PROMPTS = [Prompt("a"), Prompt("bcd")]
ANSWERS = [["x", "xxx", "xx"], ["yy", "y", "y"]]


def test_a_judge_gives_the_share_of_the_other_answers_that_are_worse():
    judge = Longer()
    found = worth_of_answers(task(judge=judge), PROMPTS, ANSWERS)
    assert (found.name, found.by) == ("win rate", "the judge")
    assert found.values.tolist() == [[0, 1, 0.5], [1, 0.25, 0.25]]
    assert found.values.mean(1).tolist() == [0.5, 0.5]
    assert judge.calls == 1


def test_truth_goes_before_the_judge():
    found = worth_of_answers(task(judge=Longer(), truth=Length()), PROMPTS, ANSWERS)
    assert (found.name, found.by) == ("gold", "gold")
    assert found.values.tolist() == [[2, 4, 3], [5, 4, 4]]


@pytest.mark.parametrize(
    ("measures", "answers", "message"),
    [
        ({}, ANSWERS, "a set has no truth: .* needs a judge"),
        ({"judge": Longer()}, [["x"], ["y"]], "two answers to a prompt or more"),
        ({"judge": Longer()}, [["x", "y"], ["y"]], "equally many answers"),
        ({"judge": Longer()}, [["x", "y"]], "equally many answers"),
    ],
)
def test_what_cannot_be_measured_is_refused(measures, answers, message):
    with pytest.raises(ValueError, match=message):
        worth_of_answers(task(**measures), PROMPTS, answers)
