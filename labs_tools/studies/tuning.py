"""PPO's hyperparameters by Ray Tune: ASHA (arXiv 1810.05934) stops the worst early.

Trials are judged on the validation prompts. The settings that win are then trained
again with other seeds, beside the recipe, and both are judged on the held-out prompts.
Needs the extra `rl` to run.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import nn

from labs_helpers.rl.config import ALGORITHMS as LEARNING_RATES
from labs_tools.studies.cluster import cluster
from labs_tools.studies.lab3 import KL_WEIGHT, RECIPE, Trained, gold_and_kl
from labs_tools.studies.study import TOWN, Row, practised, study

MODEL = "town-xs"
TRIALS, LOOKS = 16, 4
BUDGET = replace(RECIPE, updates=60, evaluate_every=15)
SETTINGS = ("lr", "epochs", "minibatches", "clip", "lam")


@study(
    "rl_tuning",
    MODEL,
    data=(*TOWN, practised),
    recipe=(BUDGET, LEARNING_RATES, TRIALS, LOOKS),
)
def tuning() -> Iterator[Row]:
    """Sixteen trials of PPO on town-xs, halved again and again, and what won.

    Columns: trial (a number, "chosen" or "recipe"), lr, epochs, minibatches, clip, lam,
    seed, update, gold, kl, objective (E[gold] - 0.03 KL, of validation prompts in a
    numbered trial, of held-out ones in the two others).
    """
    best, reached = None, -np.inf
    for number, (settings, reports) in enumerate(search()):
        for report in reports:
            yield {"trial": number, **settings, "seed": BUDGET.seed, **report}
        if len(reports) == LOOKS and reports[-1]["objective"] > reached:
            best, reached = settings, reports[-1]["objective"]
    for seed in (1, 2, 3):
        for name, settings in (("chosen", best or {}), ("recipe", {})):
            config = replace(BUDGET, seed=seed, evaluate_every=0, **settings)
            policy = Trained(MODEL, config).policy
            found = _figures(policy, "test", config.updates)
            used = {s: getattr(config, s) for s in SETTINGS}
            used["lr"] = config.learning_rate
            yield {"trial": name, **used, "seed": seed, **found}


def trial(settings: dict[str, Any], report: Callable[[Row], None]) -> None:
    """Train with some settings; report gold, KL and the objective along the way."""
    config = replace(BUDGET, **settings)
    looks = iter(range(config.evaluate_every, 10**6, config.evaluate_every))

    def look(policy: nn.Module) -> dict[str, float]:
        found = _figures(policy, "validation", next(looks))
        report(found)
        return {}

    Trained(MODEL, config, evaluate=look)


def search() -> list[tuple[dict[str, Any], list[Row]]]:
    """Let ASHA divide the budget among random settings; each trial and its reports.

    Raises:
        ModuleNotFoundError: Ray is not installed.
    """
    with cluster(num_cpus=1), TemporaryDirectory() as folder:
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search import BasicVariantGenerator

        space = {
            "lr": tune.loguniform(5e-5, 3e-3),
            "epochs": tune.choice([1, 2, 4]),
            "minibatches": tune.choice([1, 4]),
            "clip": tune.choice([0.1, 0.2, 0.4]),
            "lam": tune.choice([0.95, 1.0]),
        }
        tuner = tune.Tuner(
            lambda settings: trial(settings, tune.report),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric="objective",
                mode="max",
                num_samples=TRIALS,
                search_alg=BasicVariantGenerator(random_state=0),
                scheduler=ASHAScheduler(max_t=LOOKS, reduction_factor=2),
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        return [_reported(result) for result in tuner.fit()]


def _reported(result: Any) -> tuple[dict[str, Any], list[Row]]:
    if result.error is not None:
        raise result.error
    table = result.metrics_dataframe[["update", "gold", "kl", "objective"]]
    settings = {name: result.config[name] for name in SETTINGS}
    settings["lr"] = float(f"{settings['lr']:.3g}")
    return settings, table.to_dict("records")


def _figures(policy: nn.Module, split: str, update: int) -> Row:
    gold, kl = gold_and_kl(policy, MODEL, split=split)
    objective = float((gold - KL_WEIGHT * kl).mean())
    return {
        "update": update,
        "gold": round(float(gold.mean()), 4),
        "kl": round(float(kl.mean()), 3),
        "objective": round(objective, 4),
    }
