"""The frontier's figure is drawn from the rows of its study."""

from matplotlib.text import Text

from labs_helpers.course import studies
from labs_helpers.course.studies import lab4


def row(method: str, seed: int, kl: float, gold: float, n: float | str = "") -> dict:
    return {"method": method, "seed": seed, "n": n, "kl": kl, "gold": gold}


def test_every_method_is_on_the_figure():
    rows = [
        row("best of n", s, 0.2 * n, 0.5 + 0.1 * n, n) for s in (0, 1) for n in (1, 2)
    ]
    rows += [row("optimum", 0, kl, 0.5 + kl / 3, kl) for kl in (0.0, 1.0)]
    rows += [row(m, s, 0.5, 0.6) for m in ("SFT", "PPO", "RL-CAI") for s in (0, 1)]
    figure = lab4.draw_frontier(rows)
    said = {t.get_text() for t in figure.findobj(Text)}
    assert {"SFT", "PPO", "RL-CAI", "best of n", "optimum"} <= said


def test_the_studies_are_registered():
    assert set(lab4.STUDIES) <= set(studies.studies())
    assert lab4.frontier.__doc__.splitlines()[0].endswith(".")


def wishes(asked) -> set[tuple[str, str]]:
    return {(p.meta["type"], p.meta["item"]) for p in asked if "item" in p.meta}


def test_training_prompts_are_those_of_the_training_split():
    trained = wishes(lab4._red_team(0))
    assert trained
    assert not trained & wishes(lab4.prompts("test"))
