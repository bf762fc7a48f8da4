"""One loop for all on-policy training: sample, score, learn, log, save, resume.

A policy, prompts and a reward function come in; the policy is trained in place and a
`History` goes out. The loop does not know how an update learns (see `updates`), nor
what the reward rewards.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from labs_helpers.common.settings import short
from labs_helpers.fit import History
from labs_helpers.fit.checkpoint import folder_of_one_run
from labs_helpers.fit.identity import describe, digest
from labs_helpers.fit.objectives import Objective
from labs_helpers.fit.references import require_apart
from labs_helpers.fit.run import processes
from labs_helpers.models import Policy, PolicyWithValue, RewardModel, load_tokenizer
from labs_helpers.models.chat import encode_prompts
from labs_helpers.models.limits import check_fits
from labs_helpers.rl import updates
from labs_helpers.rl.collecting import collect, reference_of
from labs_helpers.rl.config import RLConfig
from labs_helpers.rl.learner import Learner, Measured, PretrainingLoss, recomputing
from labs_helpers.rl.rewards import Reward


def train(
    policy: Policy | PolicyWithValue,
    prompts: Iterable[Any],
    reward: Reward,
    config: RLConfig,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    reference: Policy | None = None,
    evaluate: Callable[[Policy], dict[str, float]] | None = None,
    report: Callable[[dict[str, float]], Any] | None = None,
    pretraining_loss: PretrainingLoss | None = None,
) -> History:
    """Train a policy in place to earn reward near its reference; return the log.

    Where `config.checkpoint` holds an unfinished run, it goes on from there and ends
    with the weights of an unbroken one; give it the same policy as at the start. Under
    `torchrun` every process samples answers to prompts of its own, and all learn from
    all: N processes with S `samples` are one with N x S, but for rounding.

    Args:
        policy: A causal language model, full or with LoRA; a `PolicyWithValue` to keep
            the values, or to give them a model of their own. The value of a plain
            policy is read from its trunk, and forgotten.
        prompts: Text, lists of messages, or objects with .messages; in any container,
            rows of a table with a "prompt" too.
        reward: Given prompts and as many answers as text, gives a number for each.
        tokenizer: By default that of the folder that the policy came from.
        reference: What KL is measured from; None is the policy as it comes, with what
            its adapter has been trained to, if it has one. It must not share what is
            trained.
        evaluate: Given the policy in eval mode; its figures go into the history.
        report: Given every row of the history as it is logged, in the main process.
        pretraining_loss: Of the policy, weighted, added to every step's loss: PPO-ptx
            (arXiv 2203.02155, eq. 2), against forgetting. See `pretraining_mix`.

    Raises:
        ValueError: A setting, prompt or reference cannot be used, or the folder holds
            another run, another training, or what is damaged.
        TrainingStopped: The reward function failed or gave no finite number for every
            answer, all answers were empty, or loss or gradient were not finite. The
            message says at which update, the folder keeps its last good checkpoint.
    """
    training = _Training(config, as_prompts(prompts), reward)
    asked = {"reference": reference, "pretraining_loss": pretraining_loss}
    with ExitStack() as stack:
        is_main = processes().is_main_process
        stack.enter_context(folder_of_one_run(config.checkpoint if is_main else None))
        training.start(stack, policy, tokenizer, **asked)
        model = training.learner.model
        return training.learner.run.go(
            training.update,
            evaluate and (lambda: evaluate(model.eval().policy)),
            report,
            log_every=1,
            name=config.algorithm,
            shown=["reward", "kl"],
        )


class _Training:
    """What an update needs, and one update."""

    def __init__(self, config: RLConfig, prompts: list[Any], reward: Reward):
        _require_reward(reward)
        self.config, self.prompts, self.reward = config, prompts, reward
        self.order = _order(len(prompts), config)

    def start(
        self,
        stack: ExitStack,
        policy: Policy | PolicyWithValue,
        tokenizer: PreTrainedTokenizerBase | None,
        reference: Policy | None,
        pretraining_loss: PretrainingLoss | None,
    ) -> None:
        """Make ready, from a checkpoint if there is one; the stack undoes it."""
        if pretraining_loss is not None and self.config.algorithm == "trpo":
            raise ValueError(
                "TRPO's step maximises the surrogate alone and cannot mix in a "
                "pretraining loss: take algorithm='ppo'"
            )
        device = next(policy.parameters()).device
        cuda = [device] if device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(cuda))
        valued = isinstance(policy, PolicyWithValue)
        model = policy if valued else PolicyWithValue(policy)
        inner = model.policy
        self.tokenizer = tokenizer or load_tokenizer(inner.config.name_or_path)
        rows = encode_prompts(self.tokenizer, self.prompts)
        for reader in (inner, inner if reference is None else reference):
            check_fits(reader, self.tokenizer, rows, room=self.config.max_new_tokens)
        if not model.policy_parameters():
            raise ValueError(
                "the policy has no parameter with requires_grad: nothing to train"
            )
        for module in (inner, model):  # the policy's mode is restored last
            stack.callback(module.train, module.training)
        for parameter in () if self.config.learns_values else model.value_parameters():
            parameter.requires_grad_(False)
            stack.callback(parameter.requires_grad_, True)
        # Makes the policy the same in all processes.
        longest = max(map(len, rows)) + self.config.max_new_tokens
        self.learner = Learner(model, self.config, pretraining_loss, longest)
        stack.callback(self.learner.parts.undo)
        stack.callback(self.learner.run.free)
        if reference is not None:
            require_apart(model, reference)
        self.reference = reference_of(inner) if reference is None else reference
        if isinstance(self.reference, nn.Module):
            stack.callback(self.reference.train, self.reference.training)
            self.reference.eval()
            if processes().num_processes > 1:
                self.reference.to(self.learner.device)
        self._resume({"reference": reference, "pretraining_loss": pretraining_loss})

    def _resume(self, asked: dict[str, Any]) -> None:
        run = self.learner.run
        if run.path is not None:
            settings = {
                **self.config.identity,
                "processes": processes().num_processes,
                "number of prompts": len(self.prompts),
                "the prompts' content or order": digest(self.prompts),
                **describe("the tokenizer", self.tokenizer),
            }
            run.identify(settings, {"reward": self.reward, **asked})
            saved = run.saved()
            if saved is not None:
                run.resume(saved)

    def update(self) -> tuple[Measured, int]:
        """Sample, score and learn once; give what was measured, and on how much."""
        learner, run, config = self.learner, self.learner.run, self.config
        # Every update begins from a seed of its own: resuming needs no random state.
        seed = int(
            np.random.SeedSequence((config.seed, run.step, 0)).generate_state(1)[0]
        )
        torch.manual_seed(seed)
        lr, answered = learner.set_learning_rate(run.step), 0.0
        if run.history:
            last = run.history[-1]
            weight = adapted_kl_weight(last["kl_weight"], last["kl"], config.kl_target)
            learner.config = config = replace(config, kl_weight=weight)
            answered = last["samples"]
        asked = self.order[run.step, processes().process_index]
        learner.model.eval()
        with run.autocast:
            experience, measured = collect(
                learner.model,
                self.reference,
                self.tokenizer,
                [self.prompts[i] for i in asked],
                self.reward,
                config,
                seed=seed,
                cut=learner.parts.of,
                others=self.others(run.step),
            )
        collected = time.perf_counter()
        learner.model.train(config.dropout)
        with recomputing(learner.model):
            measured |= getattr(updates, config.algorithm)(learner, experience)
        measured |= {"lr": lr, "update_seconds": time.perf_counter() - collected}
        answered += self.order[0].size * config.group + measured.get("redrawn", 0)
        return {"samples": answered, **measured}, int(experience.mask.sum())

    def others(self, step: int) -> list[Any]:
        """Prompts that an update does not ask, in an order of its own, to draw from."""
        if not self.config.redraw:
            return []
        random = np.random.default_rng((self.config.seed, step, 1))
        asked = {*self.order[step].flat}
        drawn = random.permutation(len(self.prompts))
        return [self.prompts[i] for i in drawn if i not in asked]


def adapted_kl_weight(weight: float, kl: float, target: float | None) -> float:
    """Raise the price of KL where there is too much of it, lower it where too little.

    By at most 2 % an update (arXiv 1909.08593, section 2.2).

    >>> adapted_kl_weight(0.1, kl=12.0, target=10.0)
    0.102
    """
    if target is None:
        return weight
    return weight * (1 + 0.1 * float(np.clip(kl / target - 1, -0.2, 0.2)))


def pretraining_mix(
    objective: Objective, rows: Sequence[Any], weight: float, batch_size: int = 16
) -> PretrainingLoss:
    """Make a `pretraining_loss` of rows and an offline objective (`fit.SFTObjective`).

    Each call draws a batch with torch's random state, which `train` seeds.
    """
    encoded = [objective.encode(row) for row in rows]

    def loss(policy: nn.Module) -> torch.Tensor:
        drawn = torch.randint(len(encoded), (batch_size,)).tolist()
        return weight * objective.loss(policy, [encoded[i] for i in drawn])[0]

    return loss


def as_prompts(prompts: Any) -> list[Any]:
    """Prompts of a list, a table's column, an array or a generator, in their order.

    Rows of a table give what stands under "prompt".

    Raises:
        ValueError: there is none, or it is no list of them.
    """
    if hasattr(prompts, "iloc"):  # pandas
        table = prompts.ndim == 2
        prompts = prompts.to_dict("records") if table else prompts.tolist()
    if isinstance(prompts, str | dict) or not isinstance(prompts, Iterable):
        raise ValueError(
            f"prompts is a list of prompts, got {short(prompts)}. Put a single one in "
            "a list: [prompt]"
        )
    rows = [dict(row) if isinstance(row, dict) else row for row in prompts]
    if not rows:
        raise ValueError("no prompt to train on: `prompts` is empty")
    rows = [row.get("prompt", row) if isinstance(row, dict) else row for row in rows]
    return [row.tolist() if isinstance(row, np.ndarray) else row for row in rows]


def _require_reward(reward: Any) -> None:
    if isinstance(reward, RewardModel):
        raise ValueError(
            "a reward is a function of prompts and answers; of a reward model, "
            "rl.model_reward(reward_model, head) is one"
        )
    if not callable(reward) or isinstance(reward, nn.Module):
        raise ValueError(
            "a reward is a function of prompts and answers that gives a number for "
            f"each; got a {type(reward).__name__}"
        )


def _order(prompts: int, config: RLConfig) -> np.ndarray:
    """Prompts that each update asks of each process: every prompt once a pass."""
    asked = config.samples // config.group
    shape = (config.updates, processes().num_processes, asked)
    random = np.random.default_rng(config.seed)
    passes = -(-int(np.prod(shape)) // prompts)
    drawn = np.concatenate([random.permutation(prompts) for _ in range(passes)])
    return drawn[: int(np.prod(shape))].reshape(shape)
