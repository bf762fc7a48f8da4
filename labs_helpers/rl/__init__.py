"""One loop for all on-policy training: REINFORCE, RLOO, GRPO, actor-critic, TRPO, PPO.

`train(policy, prompts, reward, config)` takes any Hugging Face causal language model,
full or with LoRA, and any function that scores answers. Its rooms: `config` the
settings, `experience` what is learnt from and `collecting` how it is come by, `updates`
and `trust_region` the algorithms, `learner` the optimiser's step, `loop` what they
share, `rewards` reward functions made of others and `verifiable` those of a check,
`monitor` the alarms, `probes` tasks whose optimum is known.
"""

# fmt: off
from labs_helpers.fit import History, TrainingStopped
from labs_helpers.rl.collecting import collect
from labs_helpers.rl.config import RLConfig
from labs_helpers.rl.experience import read, unscored
from labs_helpers.rl.loop import pretraining_mix, train
from labs_helpers.rl.monitor import alarms
from labs_helpers.rl.probes import PROBES, WORDS, probe_policy, solve
from labs_helpers.rl.rewards import (
    Reward, SecondOpinion, ensemble, length_penalised, model_reward, standardised,
)
from labs_helpers.rl.verifiable import combined, formatted, verified
from labs_helpers.rl.environment import token_env
from labs_helpers.rl.trust_region import fisher_product, flat
