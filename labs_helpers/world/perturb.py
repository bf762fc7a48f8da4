"""The same comparison in other clothes: typos, paraphrase, padding, flattery.

What people want differs nearly as much as before between the two answers, so a drop in
accuracy is the reward model's.
"""

import random
from collections.abc import Sequence

from labs_helpers.data import Prompt
from labs_helpers.safety.attacks import with_typos
from labs_helpers.world.annotators import Pair
from labs_helpers.world.answers import with_manner
from labs_helpers.world.prompts import PHRASINGS, ask

PERTURBATIONS = ("typos", "paraphrase", "padding", "flattery")


def perturbed(pairs: Sequence[Pair], kind: str, seed: int = 0) -> list[Pair]:
    """Each pair changed in one way, both answers alike.

    Args:
        pairs: what is compared.
        kind: typos in the question; paraphrase, the question in a wording of the
            training prompts; padding or flattery, one such sentence on both answers.
        seed: of what is drawn.

    Raises:
        KeyError: no such kind.
    """
    draw = random.Random(seed)
    if kind == "typos":
        return [Pair(_mistyped(x.prompt, draw), x.a, x.b) for x in pairs]
    if kind == "paraphrase":
        return [Pair(_reworded(x.prompt, draw), x.a, x.b) for x in pairs]
    manners = {"padding": "padded", "flattery": "flattering"}
    if kind not in manners:
        raise KeyError(f"kind is one of {', '.join(PERTURBATIONS)}; got {kind!r}")
    found = []
    for pair in pairs:
        same = draw.random()  # the same sentence in the same place
        a, b = (
            with_manner(text, manners[kind], random.Random(same))
            for text in (pair.a, pair.b)
        )
        found.append(Pair(pair.prompt, a, b))
    return found


def _mistyped(prompt: Prompt, draw: random.Random) -> Prompt:
    *before, last = prompt.messages
    text = with_typos(last["content"], draw)
    return Prompt((*before, {**last, "content": text}), prompt.meta)


def _reworded(prompt: Prompt, draw: random.Random) -> Prompt:
    *before, last = prompt.messages
    other = ask(prompt.meta, draw.choice(PHRASINGS["train"])).text
    return Prompt((*before, {**last, "content": other}), prompt.meta)
