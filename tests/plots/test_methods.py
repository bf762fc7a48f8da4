"""The figure of every method has a place for each of them."""

from matplotlib.text import Text

from labs_helpers.plots import gold_against_kl_by_method


def row(method: str, seed: int, kl: float, gold: float, n: float | str = "") -> dict:
    return {"method": method, "seed": seed, "n": n, "kl": kl, "gold": gold}


def test_every_method_is_on_the_figure():
    rows = [
        row("best of n", s, 0.2 * n, 0.5 + 0.1 * n, n) for s in (0, 1) for n in (1, 2)
    ]
    rows += [row("optimum", 0, kl, 0.5 + kl / 3, kl) for kl in (0.0, 1.0)]
    rows += [row(m, s, 0.5, 0.6) for m in ("SFT", "PPO", "RL-CAI") for s in (0, 1)]
    figure = gold_against_kl_by_method(rows)
    said = {t.get_text() for t in figure.findobj(Text)}
    assert {"SFT", "PPO", "RL-CAI", "best of n", "optimum"} <= said
