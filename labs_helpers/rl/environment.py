"""A probe task as a Gymnasium environment: text generation as other libraries see it.

In goes a probe, out comes a class of environments; Gymnasium comes with the extra `rl`.
"""

from typing import Any

import numpy as np

from labs_helpers.rl.probes import PROBES, WORDS, ProbeTask

MASKING = next(task for task in PROBES if task.name == "masking")
END = WORDS.index("<end>")


def token_env(task: ProbeTask = MASKING) -> Any:
    """Text generation as a Gymnasium environment: an action is a token."""
    import gymnasium

    longest = task.settings["max_new_tokens"]

    class Tokens(gymnasium.Env):
        action_space = gymnasium.spaces.Discrete(len(WORDS))
        observation_space = gymnasium.spaces.Box(
            0, len(WORDS) - 1, (1 + longest,), np.int64
        )

        def __init__(self, config: Any = None):
            self.prompt = task.prompts[0]

        def seen(self) -> np.ndarray:
            """Prompt and answer so far; end tokens fill the rest."""
            ids = [WORDS.index(self.prompt), *self.answer]
            padding = [END] * (1 + longest - len(ids))
            return np.array(ids + padding, np.int64)

        def reset(self, *, seed: int | None = None, options: Any = None):
            super().reset(seed=seed)
            self.answer: list[int] = []
            return self.seen(), {}

        def step(self, action: int):
            ended = action == END
            if not ended:
                self.answer.append(int(action))
            cut = not ended and len(self.answer) == longest
            reward = 0.0
            if ended or cut:
                words = " ".join(WORDS[i] for i in self.answer if i)
                reward = task.pays(self.prompt, words)
                reward -= cut * task.settings["missing_end_penalty"]
            return self.seen(), reward, ended or cut, False, {}

    return Tokens
