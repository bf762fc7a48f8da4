"""Sharpness of annotators: known people are told apart, whatever is missing."""

import numpy as np
import pytest
from scipy.special import expit

from labs_helpers.evaluation import annotator_sharpness

GAPS = np.random.default_rng(3).normal(scale=1.5, size=400)


def panel(*sharpness):
    draws = np.random.default_rng(1).random((len(sharpness), len(GAPS)))
    return (draws < expit(np.outer(sharpness, GAPS))).astype(float)


def test_sharp_careless_and_contrary_people_are_told_apart():
    found = annotator_sharpness(panel(2, 1, 1, 0, -1), samples=40)
    sharp, one, other, coin, contrary = (estimate.value for estimate in found)
    assert sharp > max(one, other) > min(one, other) > coin > contrary
    assert found[3].low < 0 < found[3].high
    assert found[4].high < 0
    assert np.mean([estimate.value**2 for estimate in found]) == pytest.approx(1)


def test_answers_that_change_places_change_nothing():
    votes = panel(2, 1, 0.5)
    turned = np.where(np.arange(len(GAPS)) % 2, 1 - votes, votes)
    first, second = (annotator_sharpness(v, samples=2) for v in (votes, turned))
    for a, b in zip(first, second, strict=True):
        assert a.value == pytest.approx(b.value, abs=1e-3)


def test_what_nobody_judged_does_not_matter():
    votes = panel(2, 1, 0.5)
    votes[0, ::2] = np.nan
    more = np.concatenate([votes, np.full((3, 50), np.nan)], axis=1)
    first, second = (annotator_sharpness(v, samples=2) for v in (votes, more))
    assert [x.value for x in first] == [x.value for x in second]
    assert [x.n for x in first] == [200, 400, 400]


@pytest.mark.parametrize(
    ("votes", "said"),
    [([1, 0], "one row a person"), ([[np.nan], [np.nan]], "nobody has judged")],
)
def test_what_cannot_be_compared_is_refused(votes, said):
    with pytest.raises(ValueError, match=said):
        annotator_sharpness(votes)
