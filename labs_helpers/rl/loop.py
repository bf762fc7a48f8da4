"""One loop for all on-policy training: sample, score, learn, log, save, resume.

A policy, prompts and a reward function come in; the policy is trained in place and a
`History` goes out. The loop does not know how an update learns (see `updates`), nor
what the reward rewards.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from labs_helpers.common import progress as waiting
from labs_helpers.fit import History, TrainingStopped, checkpoint
from labs_helpers.fit.identity import Identity, describe, digest, moved
from labs_helpers.fit.starts import describe_start, require_apart
from labs_helpers.models import Policy, PolicyWithValue, RewardModel, load_tokenizer
from labs_helpers.models.chat import encode_prompts
from labs_helpers.models.limits import check_fits
from labs_helpers.rl.config import RLConfig
from labs_helpers.rl.experience import Reward, collect, reference_of
from labs_helpers.rl.learner import Learner, Measured, PretrainingLoss
from labs_helpers.rl.memory import recomputing
from labs_helpers.rl.processes import processes
from labs_helpers.rl.prompts import as_prompts
from labs_helpers.rl.updates import RULES


def train(
    policy: Policy | PolicyWithValue,
    prompts: Iterable[Any],
    reward: Reward,
    config: RLConfig,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    reference: Policy | None = None,
    evaluate: Callable[[Policy], dict[str, float]] | None = None,
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
        prompts: Text, lists of messages, or objects with .messages; in any container.
        reward: Given prompts and as many answers as text, gives a number for each.
        tokenizer: By default that of the folder that the policy came from.
        reference: What KL is measured from; None is the policy as it comes, with what
            its adapter has been trained to, if it has one. It must not share what is
            trained.
        evaluate: Given the policy in eval mode; its figures go into the history.
        pretraining_loss: Of the policy, weighted, added to every step's loss: PPO-ptx
            (arXiv 2203.02155, eq. 2), against forgetting. See `pretraining_mix`.

    Raises:
        ValueError: A setting, prompt or reference cannot be used, or the folder holds
            another run, another training, or what is damaged.
        TrainingStopped: The reward function failed or gave no finite number for every
            answer, all answers were empty, or loss or gradient were not finite. The
            message says at which update, the folder keeps its last good checkpoint.
    """
    prompts = as_prompts(prompts)
    _require_reward(reward)
    device = next(policy.parameters()).device
    folder = None if config.checkpoint is None else Path(config.checkpoint)
    with ExitStack() as stack:
        only = folder if processes().is_main_process else None
        stack.enter_context(checkpoint.folder_of_one_run(only))
        cuda = [device] if device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(cuda))
        run = _Run(
            policy, prompts, reward, config, tokenizer, reference, pretraining_loss
        )
        modules = [run.model.policy, run.model]  # the policy's mode is restored last
        if isinstance(run.reference, nn.Module):
            modules.append(run.reference)
        for module in modules:
            stack.callback(module.train, module.training)
        if isinstance(run.reference, nn.Module):
            run.reference.eval()
        stack.callback(run.leave)
        run.resume()
        wanted = config.progress and run.is_main
        bar = stack.enter_context(
            waiting.bar(
                config.updates,
                config.algorithm,
                done=run.step,
                wanted=wanted,
                keep=True,
            )
        )
        while run.step < config.updates:
            measured = run.update()
            shown = {name: f"{measured[name]:.3f}" for name in ("reward", "kl")}
            bar.set_postfix(shown, refresh=False)
            bar.update()
            last = run.step == config.updates
            if evaluate and (last or _due(run.step, config.evaluate_every)):
                with torch.no_grad():
                    measured |= evaluate(run.model.eval().policy)
            run.log(measured)
            if last or _due(run.step, config.save_every):
                run.save()
    return History(run.history)


class _Run:
    """The state of a run: what a checkpoint holds, and one update of it."""

    def __init__(
        self,
        policy: Policy | PolicyWithValue,
        prompts: Sequence[Any],
        reward: Reward,
        config: RLConfig,
        tokenizer: PreTrainedTokenizerBase | None,
        reference: Policy | None,
        pretraining_loss: PretrainingLoss | None,
    ):
        if pretraining_loss is not None and config.algorithm == "trpo":
            raise ValueError(
                "TRPO's step maximises the surrogate alone and cannot mix in a "
                "pretraining loss: take algorithm='ppo'"
            )
        with_values = isinstance(policy, PolicyWithValue)
        self.model = policy if with_values else PolicyWithValue(policy)
        self.rule = RULES[config.algorithm]
        self.config, self.reward, self.prompts = config, reward, prompts
        state = processes()
        self.rank, self.processes = state.process_index, state.num_processes
        self.is_main = state.is_main_process
        if self.processes > 1:
            self.model.to(state.device)
        inner = self.model.policy
        self.tokenizer = tokenizer or load_tokenizer(inner.config.name_or_path)
        asked = encode_prompts(self.tokenizer, prompts)
        for reader in (inner, inner if reference is None else reference):
            check_fits(reader, self.tokenizer, asked, room=config.max_new_tokens)
        self.frozen = [] if self.rule.learns_values else self.model.value_parameters()
        for parameter in self.frozen:
            parameter.requires_grad_(False)
        self.trained = {
            n: p for n, p in self.model.named_parameters() if p.requires_grad
        }
        if not self.model.policy_parameters():
            raise ValueError(
                "the policy has no parameter with requires_grad: nothing to train"
            )
        self.learner = Learner(
            self.model, config, list(self.trained.values()), pretraining_loss
        )  # and makes the policy the same in all processes
        if reference is not None:
            require_apart(self.model, reference)
        self.reference = reference_of(inner) if reference is None else reference
        if self.processes > 1 and isinstance(self.reference, nn.Module):
            self.reference.to(state.device)
        self.order = _Order(len(prompts), config, self.processes)
        self.path = None
        if config.checkpoint is not None:
            self.path = Path(config.checkpoint) / "state.pt"
        self.step, self.samples, self.tokens, self.seconds = 0, 0, 0, 0.0
        self.kl_weight = config.kl_weight
        self.history: list[Measured] = []
        self.moving: list[str] = []
        self.others = {
            "reward": reward,
            "reference": reference,
            "pretraining_loss": pretraining_loss,
        }
        self.identity: Identity = {}
        self.asked: Identity = {}
        if self.path is not None:  # costs a look at every weight
            self.asked = self._described()
            self.identity = {
                **config.identity,
                "processes": self.processes,
                "number of prompts": len(prompts),
                "the prompts' content or order": digest(prompts),
                **describe("the tokenizer", self.tokenizer),
                **describe_start(self.model),
                **self.asked,
            }

    def update(self) -> Measured:
        """Sample, score and learn once; return what was measured."""
        started = time.perf_counter()
        # Every update begins from a seed of its own: resuming needs no random state.
        seed = _seed(self.config.seed, self.step)
        torch.manual_seed(seed)
        lr = self.learner.set_learning_rate(self.step)
        try:
            self.model.eval()
            with self.learner.autocast:
                experience, measured = collect(
                    self.model,
                    self.reference,
                    self.tokenizer,
                    [self.prompts[i] for i in self.order.of(self.step, self.rank)],
                    self.reward,
                    self.config,
                    kl_weight=self.kl_weight,
                    seed=seed,
                    with_values=self.rule.learns_values,
                )
            collected = time.perf_counter()
            self.model.train(self.config.dropout)
            with recomputing(self.model):
                measured |= self.rule.update(self.learner, experience)
        except (TrainingStopped, FloatingPointError) as error:
            where = f"update {self.step + 1} of {self.config.updates}"
            raise TrainingStopped(f"{where}: {error}{self._kept()}") from error
        measured["lr"] = lr
        measured["update_seconds"] = time.perf_counter() - collected
        self.step += 1
        self.samples += self.config.samples * self.processes
        answered = measured["length"] * self.config.samples * self.processes
        self.tokens += round(answered)
        self.kl_weight = adapted_kl_weight(
            self.kl_weight, measured["kl"], self.config.kl_target
        )
        self.seconds += time.perf_counter() - started
        return measured

    def log(self, measured: Measured) -> None:
        """Add a row to the history."""
        counts = {"step": self.step, "samples": self.samples, "tokens": self.tokens}
        row = {**counts, "seconds": self.seconds, **measured}
        self.history.append({name: float(value) for name, value in row.items()})

    def save(self) -> None:
        """Write a checkpoint, if one was asked for."""
        if self.path is None:
            return
        if self.is_main:
            state = {name: getattr(self, name) for name in _COUNTERS}
            state["parameters"] = {n: p.detach() for n, p in self.trained.items()}
            state["optimizer"] = self.learner.optimizer.state_dict()
            state["scaler"] = self.learner.scaler.state_dict()
            changed = moved(self.asked, self._described())
            state["moving"] = self.moving = sorted({*self.moving, *changed})
            checkpoint.save(self.path, state, self.identity)
        processes().wait_for_everyone()

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self.path is None or not self.path.exists():
            return
        state = checkpoint.load(self.path, self.identity, self.learner.device)
        with checkpoint.fitting(self.path):
            with torch.no_grad():
                for name, parameter in self.trained.items():
                    parameter.copy_(state["parameters"][name])
            self.learner.optimizer.load_state_dict(state["optimizer"])
            self.learner.scaler.load_state_dict(state["scaler"])
            for name in (*_COUNTERS, "moving"):
                setattr(self, name, state[name])

    def leave(self) -> None:
        """Free the gradients; give back the values, which REINFORCE does not train."""
        self.learner.optimizer.zero_grad(set_to_none=True)
        for parameter in self.frozen:
            parameter.requires_grad_(True)

    def _described(self) -> Identity:
        """What was given beside policy and prompts, with all that it holds."""
        known = {id(m): "the policy in training" for m in self.model.modules()}
        found: Identity = {}
        for name, value in self.others.items():
            found |= describe(name, value, known)
        return found

    def _kept(self) -> str:
        if self.path is None or not self.path.exists():
            return ""
        return f" {self.path} holds the last good checkpoint."


_COUNTERS = ("step", "samples", "tokens", "seconds", "kl_weight", "history")


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
    objective: Any, rows: Sequence[Any], weight: float, batch_size: int = 16
) -> PretrainingLoss:
    """Make a `pretraining_loss` of rows and an offline objective (`fit.SFTObjective`).

    Each call draws a batch with torch's random state, which `train` seeds.
    """
    encoded = [objective.encode(row) for row in rows]

    def loss(policy: nn.Module) -> torch.Tensor:
        drawn = torch.randint(len(encoded), (batch_size,)).tolist()
        return weight * objective.loss(policy, [encoded[i] for i in drawn])[0]

    return loss


class _Order:
    """Which prompts an update asks of each process: every prompt once a pass."""

    def __init__(self, prompts: int, config: RLConfig, processes: int):
        self.prompts, self.shape = prompts, (processes, config.samples)
        self.random = np.random.default_rng(config.seed)
        self.drawn = np.zeros(0, dtype=int)  # what is not asked yet,
        self.next = 0  # from this update on; they come in order

    def of(self, update: int, process: int) -> np.ndarray:
        """Prompt numbers, one an answer."""
        size = int(np.prod(self.shape))
        while self.next <= update:
            while len(self.drawn) < size:
                more = self.random.permutation(self.prompts)
                self.drawn = np.concatenate([self.drawn, more])
            asked, self.drawn = self.drawn[:size], self.drawn[size:]
            self.next += 1
        return asked.reshape(self.shape)[process]


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


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence((*numbers, 0)).generate_state(1)[0])


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
