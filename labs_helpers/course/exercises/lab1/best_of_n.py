"""Exercise 1.6: what best-of-n gains in truth when a proxy does the choosing."""

import numpy as np
from jaxtyping import Float

from labs_helpers.course.exercises.exercise import Exercise, Inputs, Mistake


def best_of_n(
    proxy: Float[np.ndarray, "prompts N"], gold: Float[np.ndarray, "prompts N"], n: int
) -> float:
    """Mean gold of the answer that the proxy likes best among each prompt's first n."""
    best = proxy[:, :n].argmax(axis=1)
    return float(gold[np.arange(len(gold)), best].mean())


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Rewards by a proxy and in truth of N answers to each prompt."""
    samples = int(rng.integers(size + 2, size + 6))
    dtype = np.float32 if flavour == "float32" else np.float64
    proxy = rng.normal(size=(size, samples)).astype(dtype)
    shift = -50.0 if flavour == "all rewards negative" else 0.0
    scale = 1e6 if flavour == "large rewards" else 1.0
    n = {"n = 1": 1, "n = N": samples}.get(flavour) or int(rng.integers(2, samples))
    return {
        "proxy": ((proxy + shift) * scale).astype(dtype),
        "gold": rng.normal(size=(size, samples)).astype(dtype),
        "n": n,
    }


def _pick(gold: np.ndarray, index: np.ndarray) -> np.ndarray:
    return gold[np.arange(len(gold)), index]


def _filled(proxy: np.ndarray, n: int) -> np.ndarray:
    masked = proxy.copy()
    masked[:, n:] = 0
    return masked


MISTAKES = (
    Mistake(
        "best by gold",
        lambda proxy, gold, n: gold[:, :n].max(1).mean(),
        "the truth does the choosing, and the proxy is never used: this is the upper "
        "end that the proxy is to be compared with.",
    ),
    Mistake(
        "the proxy's own opinion",
        lambda proxy, gold, n: proxy[:, :n].max(1).mean(),
        "it reports how much the proxy likes its choice. That always rises with n; "
        "the question is what the choice is worth in truth.",
    ),
    Mistake(
        "best of all N",
        lambda proxy, gold, n: _pick(gold, proxy.argmax(1)).mean(),
        "it chooses among all samples and never looks at n.",
    ),
    Mistake(
        "mean of the best n",
        lambda proxy, gold, n: np.take_along_axis(
            gold, proxy.argsort(1)[:, -n:], 1
        ).mean(),
        "it averages the n samples that the proxy likes best. Best-of-n keeps one of "
        "the first n.",
    ),
    Mistake(
        "last n",
        lambda proxy, gold, n: _pick(
            gold, proxy.shape[1] - n + proxy[:, -n:].argmax(1)
        ).mean(),
        "it chooses among the last n samples of each prompt, not the first n.",
    ),
    Mistake(
        "index of a slice used on the whole",
        lambda proxy, gold, n: _pick(gold, proxy[:, -n:].argmax(1)).mean(),
        "the index counts from where a slice begins, and gold is read from the start: "
        "proxy and gold look at different samples.",
    ),
    Mistake(
        "worst of n",
        lambda proxy, gold, n: _pick(gold, proxy[:, :n].argmin(1)).mean(),
        "it takes the sample that the proxy likes least.",
    ),
    Mistake(
        "sorted the wrong way",
        lambda proxy, gold, n: _pick(gold, proxy.argsort(1)[:, 0]).mean(),
        "argsort begins with the smallest: this is the sample that the proxy likes "
        "least of all.",
    ),
    Mistake(
        "one sample for all prompts",
        lambda proxy, gold, n: gold.flat[
            np.ravel_multi_index(
                np.unravel_index(proxy[:, :n].argmax(), proxy[:, :n].shape), gold.shape
            )
        ],
        "without an axis argmax finds one winner in the whole table. Every prompt has "
        "its own.",
    ),
    Mistake(
        "best prompt for each sample",
        lambda proxy, gold, n: np.take_along_axis(
            gold[:, :n], proxy[:, :n].argmax(0)[None], 0
        ).mean(),
        "the competition is between prompts, along the first axis. It belongs between "
        "the samples of one prompt.",
    ),
    Mistake(
        "mean of the first n",
        lambda proxy, gold, n: gold[:, :n].mean(),
        "it averages the first n samples: nobody has chosen yet.",
    ),
    Mistake(
        "columns of all rows",
        lambda proxy, gold, n: gold[:, proxy[:, :n].argmax(1)].mean(),
        "`gold[:, best]` has shape (prompts, prompts): each prompt gets the other "
        "prompts' choices too. Each row needs its own column.",
    ),
    Mistake(
        "one sample too few",
        lambda proxy, gold, n: _pick(gold, proxy[:, : max(n - 1, 1)].argmax(1)).mean(),
        "it chooses among n - 1 samples: a slice already leaves out its end.",
    ),
    Mistake(
        "one sample too many",
        lambda proxy, gold, n: _pick(gold, proxy[:, : n + 1].argmax(1)).mean(),
        "it chooses among n + 1 samples: a slice already leaves out its end.",
    ),
    Mistake(
        "zeros compete",
        lambda proxy, gold, n: _pick(gold, _filled(proxy, n).argmax(1)).mean(),
        "samples after the first n are set to 0, and 0 wins where rewards are "
        "negative. Leave them out instead.",
    ),
    Mistake(
        "sum over prompts",
        lambda proxy, gold, n: _pick(gold, proxy[:, :n].argmax(1)).sum(),
        "the value grows with the number of prompts. Their mean is asked for.",
    ),
)

EXERCISE = Exercise(
    id="1.6",
    title="Best of n, judged in truth",
    reference=best_of_n,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "plain",
        "float32",
        "n = 1",
        "n = N",
        "all rewards negative",
        "large rewards",
    ),
    difficulty=2,
    minutes=10,
    points=2,
)
