"""A judge fitted on pairs: Bradley-Terry on frozen features of a language model.

In go a reward model and preferences that nothing else is trained on; the model's head
is set, and its accuracy on pairs outside of the fit comes back.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from labs_helpers.data import Message, Preference
from labs_helpers.evaluation.estimates import Estimate, rate
from labs_helpers.evaluation.win_rates import pairs_right
from labs_helpers.models import RewardModel

STRENGTHS = np.logspace(-5, 0, 6)  # inverse weights of the ridge penalty
FOLDS = 5
# Answers read at once: with more, a CPU spends its time on fetching memory.
BATCH_SIZE = 8


def drop_upper_layers(trunk: nn.Module, kept: float) -> None:
    """Keep the lower share of a trunk's layers: the upper ones predict tokens.

    Its configuration says so, and what is saved of it can be loaded.
    """
    config = trunk.config.get_text_config()
    depth = config.num_hidden_layers
    left = max(1, round(kept * depth))
    for module in trunk.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            del module[left:]
    config.num_hidden_layers = left
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:left]


def fit_head(model: RewardModel, rows: Sequence[Preference]) -> Estimate:
    """Set a one-headed model's head by Bradley-Terry on pairs, and keep the trunk.

    The penalty is chosen, and the accuracy counted, on folds of the pairs that the head
    of that fold has not seen.

    Raises:
        ValueError: there are fewer than 20 pairs.
    """
    if len(rows) < 4 * FOLDS:
        raise ValueError(f"expected {4 * FOLDS} pairs to fit or more, got {len(rows)}")
    features = model.features(*exchanges(rows), BATCH_SIZE).double().numpy()
    chosen, rejected = features.reshape(2, len(rows), -1)
    weights, right = bradley_terry_fit(chosen - rejected)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor(weights)[None])
    return rate(right)


def exchanges(rows: Sequence[Preference]) -> tuple[list[list[Message]], list[str]]:
    """What was said before the last answer, and that: all chosen, then all rejected."""
    asked, answers = [], []
    for side in ("chosen", "rejected"):
        for row in rows:
            *before, last = getattr(row, side)
            asked.append([*row.prompt, *before])
            answers.append(last["content"])
    return asked, answers


def bradley_terry_fit(
    gaps: Float[np.ndarray, "pairs D"],
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " pairs"]]:
    """Fit P(chosen over rejected) = sigmoid(w · gap), features of chosen less rejected.

    Logistic regression without intercept is Bradley-Terry, with half of the pairs
    turned round to have both outcomes, which changes neither loss nor fit.

    Returns:
        The weights w, and of each pair whether w of the other folds ranks it right.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    turned = np.where(np.arange(len(gaps)) % 2, -1.0, 1.0)
    inputs = gaps * turned[:, None]
    regression = LogisticRegression(fit_intercept=False, max_iter=10_000)
    scaled = make_pipeline(StandardScaler(with_mean=False), regression)
    grid = {"logisticregression__C": STRENGTHS}
    search = GridSearchCV(scaled, grid, cv=FOLDS, scoring="neg_log_loss")
    margins = cross_val_predict(
        search, inputs, turned, cv=FOLDS, method="decision_function"
    )
    scaler, fitted = search.fit(inputs, turned).best_estimator_
    return fitted.coef_[0] / scaler.scale_, pairs_right(margins * turned)
