"""Ray RLlib's PPO beside ours: the same token task, the same model, the same settings.

Needs the extra `rl` to run. The task is the probe "masking": to the prompt "a" the
answer "c" pays most, other answers that begin with "c" pay a little.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from labs_helpers.models import PolicyWithValue
from labs_helpers.rl import probe_policy, solve, token_env
from labs_helpers.rl.environment import END, MASKING
from labs_tools.studies.study import Row, each, study

UPDATES, ANSWERS, EPOCHS, LR, LAM = 30, 64, 4, 3e-3, 0.95


def _language_module() -> Any:
    """RLlib's idea of a model, around the probes' language model with its values."""
    from ray.rllib.core.columns import Columns
    from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
    from ray.rllib.core.rl_module.torch import TorchRLModule

    class Language(TorchRLModule, ValueFunctionAPI):
        def setup(self) -> None:
            """Build the model that ours trains, too."""
            self.language = PolicyWithValue.from_policy(probe_policy()[0])

        def _read(self, batch: dict) -> Any:
            tokens = batch[Columns.OBS].long()
            output = self.language(tokens)
            rows, last = torch.arange(len(tokens)), (tokens != END).sum(dim=1) - 1
            return output.logits[rows, last], output.values[rows, last]

        def _forward(self, batch: dict, **_: Any) -> dict:
            return {Columns.ACTION_DIST_INPUTS: self._read(batch)[0]}

        def compute_values(self, batch: dict, embeddings: Any = None) -> torch.Tensor:
            """The value of every state."""
            return self._read(batch)[1]

    return Language


@study(
    "rl_rllib", data=(), recipe=(UPDATES, ANSWERS, EPOCHS, LR, LAM, MASKING.settings)
)
def rllib() -> Iterator[Row]:
    """Mean reward by update of RLlib's PPO and ours, three seeds.

    RLlib's env runner samples and its learner learns, as its algorithm would have them
    do, but without the cluster that the algorithm starts.

    Columns: library, seed, update, tokens, reward.
    """
    for seed in each(range(3)):
        for library, run in {"RLlib": _theirs, "ours": _ours}.items():
            for update, (tokens, reward) in enumerate(run(seed), 1):
                found = {"tokens": tokens, "reward": round(reward, 4)}
                yield {"library": library, "seed": seed, "update": update} | found


def _ours(seed: int) -> Iterator[tuple[int, float]]:
    """Tokens so far and mean reward, by update."""
    settings = {"samples": ANSWERS, "epochs": EPOCHS, "lam": LAM, "lr": LR}
    solved = solve(MASKING, "ppo", seed, updates=UPDATES, **settings)
    for row in solved.history.rows:
        yield int(row["tokens"]), row["reward"]


def _theirs(seed: int) -> Iterator[tuple[int, float]]:
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core import DEFAULT_MODULE_ID
    from ray.rllib.core.rl_module.rl_module import RLModuleSpec
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    config = (
        PPOConfig()
        .environment(token_env())
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .rl_module(rl_module_spec=RLModuleSpec(module_class=_language_module()))
        .training(
            num_epochs=EPOCHS,
            lr=LR,
            gamma=1.0,
            lambda_=LAM,
            clip_param=0.2,
            vf_loss_coeff=0.25,  # theirs is the squared error, ours half of it
            vf_clip_param=float("inf"),
            entropy_coeff=0.0,
            use_kl_loss=False,
            grad_clip=1.0,
        )
        .debugging(seed=seed)
    )
    torch.manual_seed(seed)
    runner = SingleAgentEnvRunner(config=config)
    learner = config.build_learner(env=token_env()())
    tokens = 0
    for _ in range(UPDATES):
        trained = learner.module[DEFAULT_MODULE_ID].unwrapped()
        runner.module.load_state_dict(trained.state_dict())
        episodes = runner.sample(num_episodes=ANSWERS)
        tokens += sum(len(episode) for episode in episodes)
        learner.update(
            episodes=episodes,
            timesteps={"num_env_steps_sampled_lifetime": tokens},
            num_epochs=EPOCHS,
            minibatch_size=sum(len(episode) for episode in episodes),
        )
        yield tokens, float(np.mean([episode.get_return() for episode in episodes]))
