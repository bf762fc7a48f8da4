"""The town's knowledge is complete, consistent and unambiguous."""

from collections import Counter

import pytest

from labs_helpers.data import SPLITS
from labs_helpers.world.knowledge import knowledge
from labs_helpers.world.phrasebook import phrasebook
from labs_helpers.world.prompts import PHRASINGS, SHARES, items, question


def test_there_is_as_much_as_promised():
    k = knowledge()
    assert sum(map(len, k.facts.values())) >= 400
    assert len(k.howtos) >= 60
    assert len(k.harmful) >= 40
    assert len({x["category"] for x in k.harmful.values()}) >= 6
    assert len(k.soundalike) >= 120
    assert sum(map(len, k.jokes.values())) >= 60
    assert all(len(t.wordings) >= 10 for t in k.traits.values())


def test_every_fact_has_a_value_of_its_attribute():
    k = knowledge()
    for entity, facts in k.facts.items():
        for attribute, value in facts.items():
            assert value in k.attributes[attribute].values, (entity, attribute)
            assert k.attributes[attribute].of == k.kinds[entity]


def test_no_sentence_means_two_things():
    assert len(phrasebook()) > 10_000  # building it raises on a clash


@pytest.mark.parametrize("kind", SHARES)
def test_questions_are_all_different(kind):
    asked = [question(x, p) for x in items()[kind] for p in range(8)]
    assert [q for q, n in Counter(asked).items() if n > 1] == []


def test_splits_share_no_item_and_no_phrasing():
    for kind in SHARES:
        seen = [{str(x) for x in items(split)[kind]} for split in SPLITS]
        assert all(seen)
        assert len(set.union(*seen)) == sum(map(len, seen))
        assert sum(map(len, seen)) == len(items()[kind])
    phrasings = [set(PHRASINGS[split]) for split in SPLITS]
    assert set.union(*phrasings) == set(range(8))
    assert sum(map(len, phrasings)) == 8
