"""Diagrams with numbers in them, each of them computed: tokens, advantages, a choice.

What goes in is small enough to check by hand; what is derived from it is computed by
the functions of the library, so that the picture and the code say the same.
"""

from collections.abc import Sequence

import numpy as np

from labs_helpers.advantages import gae
from labs_helpers.plots.boxes import (
    SMALL,
    WIDTH,
    arrow,
    box,
    note,
    sheet,
)
from labs_helpers.plots.style import Axes, Figure, styled

LABELS = 1.25  # inches at the left, for the names of rows
CELL = 0.4  # inches, how high a row is


@styled
def diagram_mask(
    prompt: Sequence[str] = ("Where", "?"),
    answer: Sequence[str] = ("By", "the", "river"),
    padding: int = 1,
) -> Figure:
    """Draw which token predicts which, and which of the predictions count.

    The input is shifted by one against what it predicts; the end token counts, the
    prompt and the padding do not.
    """
    tokens = [*prompt, *answer, "<end>", *["<pad>"] * padding]
    counts = [False] * len(prompt) + [True] * (len(answer) + 1) + [False] * padding
    figure, axes = sheet(4.1)
    xs, wide = _columns(len(tokens))
    spans = (("prompt", 0, len(prompt)), ("answer", len(prompt), len(answer) + 1))
    for name, first, n in spans:
        here = xs[first : first + n]
        ends = [here[0] - wide / 2 + 0.04, here[-1] + wide / 2 - 0.04]
        axes.plot(ends, [0.5, 0.5], color="black", marker="", lw=1.4)
        note(axes, name, (np.mean(ends), 0.3), ha="center")
    cells, plain = (xs, wide - 0.06), ["data"] * len(tokens)
    inputs = (xs[:-1], wide - 0.06)
    _row(axes, "sequence", tokens, cells, 0.85, plain)
    _row(axes, "input", tokens[:-1], inputs, 1.75, plain[1:])
    kinds = ["step" if kept else "data" for kept in counts[1:]]
    _row(axes, "predicts", tokens[1:], inputs, 2.55, kinds)
    _row(axes, "mask", [str(int(x)) for x in counts[1:]], inputs, 3.15, kinds)
    for x in xs[:-1]:
        arrow(axes, (x, 1.75 + CELL / 2), (x, 2.55 - CELL / 2))
    note(
        axes,
        "Each token predicts the one after it: the last is no input, the\n"
        "first is predicted by none. The loss adds up where the mask is 1.",
        (0.1, 3.75),
    )
    return figure


@styled
def diagram_gae(
    rewards: Sequence[float] = (0.0, 0.0, 0.0, 1.0),
    values: Sequence[float] = (0.5, 0.4, 0.6, 0.8),
    gamma: float = 1.0,
    lam: float = 0.95,
) -> Figure:
    """Draw generalised advantage estimation as rows of numbers, an answer's tokens.

    Args:
        rewards: of each token.
        values: what the critic expects before each token.
        gamma: discount of a step.
        lam: how far rewards are trusted more than values.
    """
    import torch

    r, v = torch.tensor([rewards]), torch.tensor([values])
    advantages, returns = gae(r, v, torch.ones_like(r), gamma, lam)
    after = [*values[1:], 0.0]
    errors = [a + gamma * b - c for a, b, c in zip(rewards, after, values, strict=True)]
    figure, axes = sheet(4.9)
    xs, wide = _columns(len(rewards))
    rows = (
        ("token", [f"t = {t}" for t in range(len(rewards))], "data"),
        ("reward $r_t$", list(map(_signed, rewards)), "data"),
        ("value $V_t$", list(map(_signed, values)), "data"),
        (r"surprise $\delta_t$", list(map(_signed, errors)), "step"),
        ("advantage $A_t$", list(map(_signed, advantages[0].tolist())), "step"),
        ("return $R_t$", list(map(_signed, returns[0].tolist())), "step"),
    )
    ys = (0.35, 0.9, 1.4, 2.05, 2.75, 3.45)
    for (name, numbers, kind), y in zip(rows, ys, strict=True):
        if name == "token":
            for x, text in zip(xs, numbers, strict=True):
                note(axes, text, (x, y), ha="center")
        else:
            _row(axes, name, numbers, (xs, wide - 0.24), y, [kind] * len(numbers))
    reach = wide / 2 - 0.12
    for x, before in zip(xs[1:], xs, strict=False):
        arrow(axes, (x - reach, ys[4]), (before + reach, ys[4]))
    note(
        axes,
        rf"$\delta_t = r_t + \gamma V_{{t+1}} - V_t$, nothing after the last token"
        "\n"
        rf"$A_t = \delta_t + \gamma\lambda A_{{t+1}}$, from right to left (arrows)"
        "\n"
        rf"$R_t = A_t + V_t$;  here $\gamma = {gamma:g}$ and $\lambda = {lam:g}$",
        (0.1, 4.3),
        linespacing=1.6,
    )
    return figure


@styled
def diagram_bradley_terry(chosen: float = 1.2, rejected: float = 0.4) -> Figure:
    """Draw how one comparison trains a reward model, with the numbers of a pair.

    Args:
        chosen: reward of the chosen answer.
        rejected: reward of the rejected one.
    """
    difference = chosen - rejected
    probability = 1 / (1 + np.exp(-difference))
    loss = np.logaddexp(0, -difference)
    figure, axes = sheet(5.2)
    left, right = 1.5, 4.1
    rewards = []
    for x, name, reward in ((left, "chosen", chosen), (right, "rejected", rejected)):
        answer = box(axes, f"prompt and the\n{name} answer", (x, 0.5), (2.1, 0.62))
        model = box(axes, "reward model", (x, 1.45), (1.7, 0.48), "trained")
        rewards.append(box(axes, f"$r$ = {_signed(reward)}", (x, 2.3), (1.5, 0.44)))
        arrow(axes, answer.bottom, model.top)
        arrow(axes, model.bottom, rewards[-1].top)
    note(axes, "same", (WIDTH / 2, 1.35), ha="center")
    note(axes, "weights", (WIDTH / 2, 1.55), ha="center")
    middle, size = WIDTH / 2, (3.6, 0.44)
    apart = f"difference = {_signed(difference)}"
    gap = box(axes, apart, (middle, 3.2), size, "step")
    for reward in rewards:
        arrow(axes, reward.bottom, (reward.x, gap.top[1]))
    won = rf"$P$(chosen wins) = $\sigma$(difference) = {probability:.2f}"
    chance = box(axes, won, (middle, 3.95), size, "step")
    arrow(axes, gap.bottom, chance.top)
    cost = box(axes, rf"loss = $-\log P$ = {loss:.2f}", (middle, 4.7), size, "step")
    arrow(axes, chance.bottom, cost.top)
    for side, edge in ((cost.left, 0.15), (cost.right, WIDTH - 0.15)):
        at = left - 0.85 if edge < middle else right + 0.85
        arrow(axes, side, (edge, side[1]), (edge, 1.45), (at, 1.45), dashed=True)
    return figure


def _columns(n: int) -> tuple[np.ndarray, float]:
    """Middles of n columns beside the names of rows, and how wide each is."""
    wide = (WIDTH - LABELS - 0.1) / n
    return LABELS + wide * (np.arange(n) + 0.5), wide


def _row(
    axes: Axes,
    name: str,
    texts: Sequence[str],
    middles: tuple[np.ndarray, float],
    y: float,
    kinds: Sequence[str],
) -> None:
    """A row of cells, each with its middle and all of one width, and its name."""
    note(axes, name, (0.1, y))
    xs, wide = middles
    for x, text, kind in zip(xs, texts, kinds, strict=True):
        box(axes, text, (x, y), (wide, CELL), kind, fontsize=SMALL)


def _signed(number: float) -> str:
    return f"{number:.2f}".replace("-", "−")
