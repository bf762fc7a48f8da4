"""One loop for all on-policy training: sample, score, learn, log, save, resume.

A policy, prompts and a reward function come in; the policy is trained in place and a
`History` goes out. The loop does not know how an update learns (see `updates`), nor
what the reward rewards.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from labs_helpers import checkpoint
from labs_helpers.chat import check_fits, encode_prompts
from labs_helpers.data import as_messages
from labs_helpers.fit import TrainingStopped
from labs_helpers.history import History
from labs_helpers.models import load_tokenizer
from labs_helpers.policies import Policy
from labs_helpers.policy_value import PolicyWithValue
from labs_helpers.rl.config import RLConfig
from labs_helpers.rl.experience import Reward, collect, reference_of
from labs_helpers.rl.learner import Learner, Measured, PretrainingLoss, processes
from labs_helpers.rl.updates import RULES


def train(
    policy: Policy | PolicyWithValue,
    prompts: Sequence[Any],
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
    `accelerate launch` every process samples answers to prompts of its own.

    Args:
        policy: A causal language model, full or with LoRA; a `PolicyWithValue` to keep
            the values, or to give them a model of their own. The value of a plain
            policy is read from its trunk, and forgotten.
        prompts: Text, lists of messages, or objects with .messages.
        reward: Given prompts and as many answers as text, gives a number for each.
        tokenizer: By default that of the folder that the policy came from.
        reference: What KL is measured from; None is the policy as it comes, or under
            LoRA its base model (merge a trained adapter first if it is to count).
        evaluate: Given the policy in eval mode; its figures go into the history.
        pretraining_loss: Of the policy, weighted, added to every step's loss: PPO-ptx
            (arXiv 2203.02155, eq. 2), against forgetting. See `pretraining_mix`.

    Raises:
        TrainingStopped: The reward function failed or gave no finite number for every
            answer, all answers were empty, or loss or gradient were not finite. The
            message says at which update, the folder keeps its last good checkpoint.
    """
    device = next(policy.parameters()).device
    with ExitStack() as stack:
        cuda = [device] if device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(cuda))
        run = _Run(
            policy, prompts, reward, config, tokenizer, reference, pretraining_loss
        )
        modules = [run.model.policy, run.model]  # the policy's mode is restored last
        if run.reference is not None:
            modules.append(run.reference)
        for module in modules:
            stack.callback(module.train, module.training)
        if run.reference is not None:
            run.reference.eval()
        stack.callback(run.thaw)
        run.resume()
        quiet = not (config.progress and run.is_main)
        bar = tqdm(total=config.updates, initial=run.step, disable=quiet)
        stack.enter_context(bar)
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
        if not len(prompts):
            raise ValueError("no prompt to train on: `prompts` is empty")
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
        check_fits(inner, self.tokenizer, asked, room=config.max_new_tokens)
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
        self.reference = reference_of(inner) if reference is None else reference
        if self.processes > 1 and self.reference is not None:
            self.reference.to(state.device)
        self.order = _order(len(prompts), config, self.processes)
        self.path = None
        if config.checkpoint is not None:
            self.path = Path(config.checkpoint) / "state.pt"
        self.step, self.samples, self.tokens, self.seconds = 0, 0, 0, 0.0
        self.kl_weight = config.kl_weight
        self.history: list[Measured] = []
        self.identity = {
            **config.identity,
            "processes": self.processes,
            "number of prompts": len(prompts),
            "the prompts' checksum": _checksum(prompts),
            "trained parameters": sum(p.numel() for p in self.trained.values()),
            "weights at the start": _fingerprint(inner),
        }

    def update(self) -> Measured:
        """Sample, score and learn once; return what was measured."""
        started = time.perf_counter()
        # Every update begins from a seed of its own: resuming needs no random state.
        seed = _seed(self.config.seed, self.step, self.rank)
        torch.manual_seed(seed)
        lr = self.learner.set_learning_rate(self.step)
        try:
            self.model.eval()
            with self.learner.autocast:
                experience, measured = collect(
                    self.model,
                    self.reference,
                    self.tokenizer,
                    [self.prompts[i] for i in self.order[self.step, self.rank]],
                    self.reward,
                    self.config,
                    kl_weight=self.kl_weight,
                    seed=seed,
                    with_values=self.rule.learns_values,
                )
            collected = time.perf_counter()
            self.model.train(self.config.dropout)
            measured |= self.rule.update(self.learner, experience)
        except (TrainingStopped, FloatingPointError) as error:
            where = f"update {self.step + 1} of {self.config.updates}"
            raise TrainingStopped(f"{where}: {error}{self._kept()}") from error
        measured["lr"] = lr
        measured["update_seconds"] = time.perf_counter() - collected
        measured = self.learner.mean_of(measured)
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
            checkpoint.save(self.path, state, self.identity)
        processes().wait_for_everyone()

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self.path is None or not self.path.exists():
            return
        state = checkpoint.load(self.path, self.identity, self.learner.device)
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(state["parameters"][name])
        self.learner.optimizer.load_state_dict(state["optimizer"])
        self.learner.scaler.load_state_dict(state["scaler"])
        for name in _COUNTERS:
            setattr(self, name, state[name])

    def thaw(self) -> None:
        """Give back the value's parameters, which REINFORCE does not train."""
        for parameter in self.frozen:
            parameter.requires_grad_(True)

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


def _order(prompts: int, config: RLConfig, processes: int) -> np.ndarray:
    """Prompt numbers by update, process and answer: every prompt once a pass."""
    shape = (config.updates, processes, config.samples)
    random = np.random.default_rng(config.seed)
    passes = -(-int(np.prod(shape)) // prompts)
    order = np.concatenate([random.permutation(prompts) for _ in range(passes)])
    return order[: int(np.prod(shape))].reshape(shape)


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _fingerprint(policy: Policy) -> int:
    """Tell models apart by a few of their weights; adapters start at random."""
    code = 0
    for name, parameter in policy.named_parameters():
        if "lora_" not in name:
            few = parameter.detach().flatten()[:256].float().cpu()
            code = zlib.crc32(few.numpy().tobytes(), code)
    return code


def _checksum(prompts: Sequence[Any]) -> int:
    code = 0
    for prompt in prompts:
        code = zlib.crc32(repr(as_messages(prompt)).encode(), code)
    return code


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
