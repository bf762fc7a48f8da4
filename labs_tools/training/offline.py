"""Methods that learn from rows: which objective a settings file asks for, and `fit`."""

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftModel

from labs_helpers.course.profile import located
from labs_helpers.fit import (
    History,
    KTOObjective,
    Objective,
    PairObjective,
    RewardObjective,
    SFTObjective,
    SLiCObjective,
    fit,
)
from labs_helpers.losses import dpo_loss, ipo_loss, kto_loss, slic_loss
from labs_helpers.models import Policy, RewardModel, load_policy
from labs_tools.training.data import rows_of
from labs_tools.training.evaluation import on_rows
from labs_tools.training.models import model_of, save
from labs_tools.training.publishing import reporting
from labs_tools.training.settings import Offline

PAIR_LOSSES = {"dpo": dpo_loss, "ipo": ipo_loss}


def run_offline(asked: Offline) -> History:
    """Train on rows, save, and give the history."""
    rows, held_out = rows_of(asked)
    model, tokenizer = model_of(asked, asked.settings.seed)
    if asked.method == "reward":
        lora = asked.lora or None
        model = RewardModel.from_policy(model, asked.heads, tokenizer, lora=lora)
    objective = _objective(asked, model, tokenizer)
    evaluate = None
    if held_out:
        evaluate = on_rows(model, objective, held_out, asked.settings)
    with reporting(asked) as report:
        options = {"evaluate": evaluate, "report": report}
        history = fit(model, rows, objective, asked.settings, **options)
    save(model, tokenizer, history, Path(asked.out))
    return history


def _objective(
    asked: Offline, model: Policy | RewardModel, tokenizer: Any
) -> Objective:
    if asked.method == "sft":
        return SFTObjective(tokenizer)
    if asked.method == "reward":
        return RewardObjective(model, asked.margin, asked.center_weight)
    if asked.method == "slic":
        return SLiCObjective(tokenizer, _with_settings(slic_loss, asked))
    # Under an adapter the policy is its own reference, as it is at the start.
    reference = None
    if not isinstance(model, PeftModel):
        reference = load_policy(located(asked.policy))
    if asked.method == "kto":
        return KTOObjective(tokenizer, reference, _with_settings(kto_loss, asked))
    loss = _with_settings(PAIR_LOSSES[asked.method], asked)
    return PairObjective(tokenizer, reference, loss)


def _with_settings(loss: Callable[..., Any], asked: Offline) -> Callable[..., Any]:
    """A loss with those of its parameters that have a default set as the file says."""
    known = inspect.signature(loss).parameters.values()
    names = [p.name for p in known if p.default is not p.empty]
    return partial(loss, **{k: getattr(asked, k) for k in names if hasattr(asked, k)})
