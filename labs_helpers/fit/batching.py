"""Which rows make a batch, decided before training. Knows lengths, not rows."""

import math

import numpy as np

WINDOW = 50


def bucketed_batches(
    lengths: np.ndarray, batch_size: int, steps: int, seed: int
) -> list[np.ndarray]:
    """Plan the rows of every step, the same for the same seed.

    Rows are shuffled, then sorted by length inside windows of about fifty batches,
    and the batches shuffled again: a batch holds little padding and yet they come in
    random order. Each pass uses every row once; batches are equally large, give or
    take one row.
    """
    random = np.random.default_rng(seed)
    per_pass = math.ceil(len(lengths) / batch_size)
    plan: list[np.ndarray] = []
    while len(plan) < steps:
        order = random.permutation(len(lengths))
        bounds = np.arange(per_pass + 1) * len(order) // per_pass
        batches = []
        for first in range(0, per_pass, WINDOW):
            ends = bounds[first : first + WINDOW + 1]
            window = order[ends[0] : ends[-1]]
            window = window[np.argsort(lengths[window], kind="stable")]
            batches += np.split(window, ends[1:-1] - ends[0])
        plan += [batches[i] for i in random.permutation(per_pass)]
    return plan[:steps]
