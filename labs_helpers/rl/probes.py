"""Probe tasks: five small tasks whose optimum is known, each isolating one part.

An algorithm that fails one of them has its mistake where the task looks. They take
seconds: the policy is a random language model of a few thousand weights with eight
tokens to say. Knows nothing of how training works inside.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from labs_helpers.fit import History
from labs_helpers.models import PolicyWithValue
from labs_helpers.rl.config import Algorithm, RLConfig
from labs_helpers.rl.loop import train
from labs_helpers.sampling import sample

WORDS = ("<pad>", "<end>", "a", "b", "c", "d", "e", "f")


@dataclass(frozen=True)
class ProbeTask:
    """A task, its best answers, and what is broken if an algorithm does not find them.

    Attributes:
        prompts: what is asked.
        pays: the reward of an answer to a prompt.
        is_best: whether the optimal policy gives this answer.
        look_at: where to look if the task is not solved.
        settings: of `RLConfig`, where the task needs its own.
    """

    name: str
    prompts: tuple[str, ...]
    pays: Callable[[str, str], float]
    is_best: Callable[[str, str], bool]
    look_at: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def reward(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        """Score answers, for `train`."""
        return [self.pays(*pair) for pair in zip(prompts, answers, strict=True)]


class Solved(NamedTuple):
    """How a probe task went.

    Attributes:
        optimal: share of sampled answers that are the best ones.
        history: of the training.
        model: what was trained.
    """

    optimal: float
    history: History
    model: PolicyWithValue


PROBES = (
    ProbeTask(
        "reward",
        prompts=("a",),
        pays=lambda prompt, answer: float(answer == "b"),
        is_best=lambda prompt, answer: answer == "b",
        look_at="one word, one of eight pays: is the sign of the loss right, and is a "
        "reward given to the answer that earned it?",
        settings={"max_new_tokens": 1},
    ),
    ProbeTask(
        "value",
        prompts=("a", "b"),
        pays=lambda prompt, answer: {"a": 1, "b": -1}[prompt] + (answer == "c"),
        is_best=lambda prompt, answer: answer == "c",
        look_at="most of the reward depends on the prompt alone: are values fitted to "
        "returns, and taken off them with the right sign?",
        settings={"max_new_tokens": 1, "updates": 40},
    ),
    ProbeTask(
        "discount",
        prompts=("a",),
        pays=lambda prompt, answer: (-1.0, 0.8, 1.0, 1.0)[len(answer.split())],
        is_best=lambda prompt, answer: len(answer.split()) == 1,
        look_at="0.8 for ending after a word or 1 a token later, which gamma makes "
        "0.4: is the reward at the last token, and discounted on its way back?",
        settings={"max_new_tokens": 3, "gamma": 0.4, "updates": 60},
    ),
    ProbeTask(
        "action dependence",
        prompts=("a", "b"),
        pays=lambda prompt, answer: float(answer == {"a": "b", "b": "a"}[prompt]),
        is_best=lambda prompt, answer: answer == {"a": "b", "b": "a"}[prompt],
        look_at="what pays depends on the prompt: are prompts, answers and rewards "
        "still in the same order, and does the policy see the prompt?",
        settings={"max_new_tokens": 1},
    ),
    ProbeTask(
        "masking",
        prompts=("a",),
        pays=lambda prompt, answer: 1.0 if answer == "c" else 0.3 * (answer[:1] == "c"),
        is_best=lambda prompt, answer: answer == "c",
        look_at="answers of several lengths, and the best one ends early: does the end "
        "token count, and padding not?",
        settings={"max_new_tokens": 4, "missing_end_penalty": 0.2},
    ),
)


def probe_policy(seed: int = 0) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A random policy that says all eight words about equally often, and its tokens."""
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<end>"
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(WORDS),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=32,
            initializer_range=0.1,
            bos_token_id=None,
            eos_token_id=vocabulary["<end>"],
            pad_token_id=vocabulary["<pad>"],
        )
        return LlamaForCausalLM(config).eval(), tokenizer


def solve(
    task: ProbeTask, algorithm: Algorithm, seed: int = 0, **settings: Any
) -> Solved:
    """Train a random policy on a probe task; settings go before the task's own."""
    policy, tokenizer = probe_policy(seed)
    model = PolicyWithValue.from_policy(policy)
    config = RLConfig(
        **{
            "algorithm": algorithm,
            "updates": 30,
            "samples": 64,
            "lr": 3e-3 if algorithm == "ppo" else 1e-2,
            "epochs": 4,
            "lam": 0.95,
            "kl_weight": 0.0,
            "kl_bound": 0.05,
            "value_weight": 0.5,
            "clip": 0.2,
            "missing_end_penalty": 0.0,
            "schedule": "constant",
            "seed": seed,
            "progress": False,
            **task.settings,
            **settings,
        }
    )
    history = train(model, task.prompts, task.reward, config, tokenizer=tokenizer)
    number = -(-256 // len(task.prompts))
    answers = sample(
        policy,
        tokenizer,
        task.prompts,
        max_new_tokens=config.max_new_tokens,
        n=number,
        seed=seed,
    ).texts
    asked = [prompt for prompt in task.prompts for _ in range(number)]
    right = [task.is_best(*pair) for pair in zip(asked, answers, strict=True)]
    return Solved(sum(right) / len(right), history, model)
