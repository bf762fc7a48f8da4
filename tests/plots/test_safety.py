"""Figures about safety are drawn, with every name in them."""

import numpy as np
import pytest

from labs_helpers.evaluation import Estimate
from labs_helpers.plots import safety as safety_plots
from labs_helpers.safety import AttackTable

ONE, TWO = Estimate(0.4, 0.3, 0.5, 40), Estimate(0.1, 0.0, 0.2, 40)


def texts(figure) -> str:
    from matplotlib.text import Text

    return " ".join(t.get_text() for t in figure.findobj(Text))


@pytest.fixture
def table():
    succeeded = np.array([[[0.0], [1], [0]], [[1], [np.nan], [0]]])
    return AttackTable(("no attack", "role_play"), ("x", "y", "x"), succeeded)


def test_heatmaps(table):
    figure = safety_plots.attack_heatmaps({"SFT": table, "RL": table})
    for name in ("role play", "no attack", "x", "y", "SFT", "RL"):
        assert name in texts(figure)


def test_the_trade():
    figure = safety_plots.helpful_and_harmless({"SFT": (ONE, TWO), "RL": (TWO, ONE)})
    assert "SFT" in texts(figure)


def test_rates_side_by_side():
    rates = {"SFT": {"over_refusal": ONE}, "RL": {"over_refusal": TWO}}
    figure = safety_plots.rates_by_policy(rates, "rate", bound=(0.1, "at most"))
    assert "over refusal" in texts(figure)
    assert "at most" in texts(figure)


def test_agreement():
    figure = safety_plots.label_agreement({"AI": ONE, "coin": TWO}, highlighted=["AI"])
    assert "AI" in texts(figure)
