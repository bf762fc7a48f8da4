"""The mixtures of prompts: their shares, and what is held out of training."""

import numpy as np

from labs_helpers.world.prompts import SHARES, practice_prompts, prompts


def test_practice_asks_more_in_the_shares_of_the_test():
    practice, test = practice_prompts(), prompts("test")
    assert len({p.text for p in practice}) > 2 * len(prompts("train"))
    for kind, share in SHARES.items():
        found = [np.mean([p.meta["type"] == kind for p in x]) for x in (practice, test)]
        assert abs(found[0] - share) < 1e-3
        assert abs(found[0] - found[1]) < 0.02


def test_practice_asks_nothing_that_is_held_out():
    held_out = {p.text for split in ("validation", "test") for p in prompts(split)}
    assert not held_out & {p.text for p in practice_prompts()}
