"""TRL's RLOO and GRPO beside ours: the same model, prompts, reward and samples.

TRL has had no PPO since 1.13; these two are its on-policy training. A round of theirs
compares four answers to each of sixteen prompts, one of ours takes sixty-four prompts.
The price of KL, the epochs, the optimiser and its schedule are those of our recipe.
"""

from collections.abc import Iterator
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

from torch import nn

from labs_helpers.course.profile import MODELS
from labs_helpers.course.trl import trl_config
from labs_helpers.models import load_policy
from labs_helpers.world import Gold
from labs_helpers.world.prompts import prompts
from labs_tools.studies.lab3 import PPO, RECIPE, Trained, measured
from labs_tools.studies.measures import loaded
from labs_tools.studies.study import TOWN, Row, each, optima, study

ANSWERS = 4  # to a prompt
RATES = (3e-4, 1e-3)  # two, so that theirs is not judged by our learning rate
MODEL = "town-xs"


@study("rl_trl", MODEL, data=(*TOWN, optima), recipe=(PPO, ANSWERS, RATES))
def trl() -> Iterator[Row]:
    """PPO and REINFORCE of ours, RLOO and GRPO of TRL, on town-xs, two seeds.

    Columns: library, algorithm, lr, seed, gold, kl, covered, seconds.
    """
    for seed in each(range(2)):
        for algorithm in ("ppo", "reinforce"):
            yield _ours(algorithm, seed)
        for algorithm in ("rloo", "grpo"):
            for rate in RATES:
                yield _theirs(algorithm, rate, seed)


def _ours(algorithm: str, seed: int) -> Row:
    config = replace(RECIPE, algorithm=algorithm, seed=seed)
    run = Trained(MODEL, config, asked=prompts("train"))
    about = {"library": "ours", "algorithm": algorithm, "lr": config.learning_rate}
    return about | {"seed": seed} | run.row()


def _theirs(algorithm: str, rate: float, seed: int) -> Row:
    policy = load_policy(MODELS / MODEL)
    with TemporaryDirectory() as folder:
        trained = _trainer(algorithm, rate, seed, policy, folder).train()
    about = {"library": "TRL", "algorithm": algorithm, "lr": rate, "seed": seed}
    seconds = round(trained.metrics["train_runtime"], 1)
    return about | measured(policy, MODEL) | {"alarms": "", "seconds": seconds}


def _trainer(
    algorithm: str, rate: float, seed: int, policy: nn.Module, folder: str
) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    rloo, grpo = (RLOOConfig, RLOOTrainer), (GRPOConfig, GRPOTrainer)
    settings, trainer = {"rloo": rloo, "grpo": grpo}[algorithm]
    tokenizer, asked = loaded(MODEL)[1], prompts("train")

    def reward(
        completions: list, completion_ids: list, number: list, **_: Any
    ) -> list[float]:
        texts = [message[0]["content"] for message in completions]
        gold = Gold().scores([asked[i] for i in number], texts)
        cut = [tokenizer.eos_token_id not in ids for ids in completion_ids]
        pairs = zip(gold, cut, strict=True)
        return [float(g) - RECIPE.missing_end_penalty * c for g, c in pairs]

    return trainer(
        model=policy,
        reward_funcs=reward,
        args=trl_config(
            settings,
            output_dir=folder,
            learning_rate=rate,
            beta=RECIPE.kl_weight,
            epsilon=RECIPE.clip,
            num_iterations=RECIPE.passes,
            max_steps=RECIPE.passes * RECIPE.updates,
            per_device_train_batch_size=RECIPE.samples,
            num_generations=ANSWERS,
            max_completion_length=RECIPE.max_new_tokens,
            max_grad_norm=RECIPE.max_grad_norm,
            lr_scheduler_type="linear",
            seed=seed,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": p.messages, "number": i} for i, p in enumerate(asked)]
        ),
        processing_class=tokenizer,
    )
