"""A second opinion: the same answers by what is optimised and by what is not.

Gives `train` something to `evaluate`. A reward model that is being gamed goes on rising
where a judge that is not optimised falls behind; `monitor` looks for that. The judge
may be a reward model of other comparisons, a language model, people: whatever was kept
out of training. Knows no true reward.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from labs_helpers.models import Policy
from labs_helpers.rl.experience import Reward
from labs_helpers.rl.rewards import standardised
from labs_helpers.sampling import sample


class SecondOpinion:
    """An `evaluate` for `train`: two judges on the same held-out answers."""

    def __init__(
        self,
        reward: Reward,
        judge: Reward,
        prompts: Sequence[Any],
        start: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_new_tokens: int = 48,
        seed: int = 0,
    ):
        """Put both judges on one scale: 0 and variance 1 over the answers at the start.

        Args:
            reward: What is optimised.
            judge: What is not.
            prompts: Kept out of training; the more, the sooner a gap can be told.
            start: An answer to each, by the policy before it is trained.
        """
        self.reward, self.judge = (
            standardised(function, prompts, start) for function in (reward, judge)
        )
        self.prompts, self.tokenizer = prompts, tokenizer
        self.max_new_tokens, self.seed = max_new_tokens, seed
        rewards, opinions = self._both(start)
        self.at_start = rewards - opinions

    def __call__(self, policy: Policy) -> dict[str, float]:
        """Let the policy answer, and ask both; the figures for the history."""
        answers = sample(
            policy,
            self.tokenizer,
            self.prompts,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
        )
        return self.about(answers.texts)

    def about(self, answers: Sequence[str]) -> dict[str, float]:
        """What both say of one answer to each prompt.

        `second_opinion_error` is the standard error of the difference between the other
        two, the answers at the start taken off prompt by prompt.
        """
        rewards, opinions = self._both(answers)
        grown = rewards - opinions - self.at_start
        reward = rewards.mean().item()
        return {
            "held_out_reward": reward,
            "second_opinion": reward - grown.mean().item(),
            "second_opinion_error": grown.std().item() / len(grown) ** 0.5,
        }

    def _both(self, answers: Sequence[str]) -> tuple[Float[Tensor, " B"], ...]:
        return tuple(
            torch.as_tensor(judge(self.prompts, answers))
            for judge in (self.reward, self.judge)
        )
