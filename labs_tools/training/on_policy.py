"""Methods that learn from the policy's own answers: `rl.train` as a file says."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import PeftModel

from labs_helpers.fit import History
from labs_helpers.fit.run import processes
from labs_helpers.rl import RLConfig, train
from labs_helpers.rl.collecting import reference_of
from labs_tools.training.data import reward_of, rows_of
from labs_tools.training.evaluation import on_prompts
from labs_tools.training.models import model_of, save
from labs_tools.training.publishing import reporting
from labs_tools.training.settings import OnPolicy


def run_on_policy(asked: OnPolicy) -> History:
    """Train on the policy's own answers, save, and give the history."""
    prompts, held_out = rows_of(asked)
    reward, config = reward_of(asked), _shared(asked.settings)
    policy, tokenizer = model_of(asked, config.seed)
    options: dict[str, Any] = {}
    if held_out:
        reference = reference_of(policy)
        if not isinstance(policy, PeftModel):  # one copy is enough
            options["reference"] = reference
        options["evaluate"] = on_prompts(held_out, reward, reference, tokenizer, config)
    with reporting(asked) as report:
        history = train(
            policy,
            prompts,
            reward,
            config,
            tokenizer=tokenizer,
            report=report,
            **options,
        )
    save(policy, tokenizer, history, Path(asked.out))
    return history


def _shared(config: RLConfig) -> RLConfig:
    """The settings of one process of several: they share the answers of an update."""
    number = processes().num_processes
    if config.samples % (number * config.group):
        raise ValueError(
            f"{number} processes cannot share settings.samples={config.samples}: take "
            f"a multiple of {number * config.group}"
        )
    return replace(config, samples=config.samples // number)
