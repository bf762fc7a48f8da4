"""What the studies of Lab 2 do to rows before anything is trained."""

from labs_helpers.course.studies import lab2, preferences, studies
from labs_helpers.world.goals import GOALS


def test_others_are_about_something_else_and_compared_as_a_whole():
    goal = GOALS["safety"]
    rows = lab2.other_rows(goal, n=20)
    assert len(rows) == 20
    assert not {row.meta["type"] for row in rows} & set(goal.kinds)
    assert {row.dimension for row in rows} == {None}


def test_the_share_of_flipped_labels_is_the_one_asked_for():
    rows = lab2.other_rows(GOALS["safety"], n=200)
    flipped = preferences._with_flips(rows, 0.3, seed=0)
    changed = [a.chosen != b.chosen for a, b in zip(rows, flipped, strict=True)]
    assert 0.2 < sum(changed) / len(rows) < 0.4
    assert all(
        {a.chosen[-1]["content"], a.rejected[-1]["content"]}
        == {b.chosen[-1]["content"], b.rejected[-1]["content"]}
        for a, b in zip(rows, flipped, strict=True)
    )


def test_a_pair_becomes_a_good_answer_and_a_bad_one():
    rows = lab2.other_rows(GOALS["humour"], n=3)
    found = preferences._unpaired(rows)
    assert [row.label for row in found] == [True, False] * 3
    assert found[0].completion == rows[0].chosen


def test_studies_are_known_to_the_command():
    assert {**lab2.STUDIES, **preferences.STUDIES}.keys() <= studies().keys()
