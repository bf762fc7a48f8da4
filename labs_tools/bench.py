"""How fast the library is beside what people would use instead: `labs bench`.

A benchmark is two ways of doing the same work. They are timed in turns, in one process,
and the row gives the median of the ratios of neighbours: what slows the machine down
for a while slows both. Every measurement begins with a fresh model; building models and
trainers is not timed, tokenising is, where a way does it while it trains.

The last PPO of TRL is in its release 1.12. `pip install --no-deps --target DIR
trl==1.12.0` puts it into a folder, and `labs bench --trl-ppo DIR` measures against it.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForSequenceClassification,
    PreTrainedTokenizerBase,
    PrinterCallback,
)

from labs_helpers import data, fit, models, rl
from labs_helpers.common.files import write_atomically
from labs_helpers.course import MODELS, trl_config
from labs_helpers.losses import dpo_loss
from labs_helpers.models.loading import quiet_loading
from labs_helpers.sampling import sample
from labs_helpers.world import town_task
from labs_tools.studies import here

MODEL = MODELS / "town-s"
ANSWERS, LONGEST, EPOCHS = 64, 32, 4  # of a PPO update
UPDATES = 3
PAIRS, STEPS = 32, 8  # of a step on pairs
Way = Callable[[], Callable[[], Any]]  # sets up; what it gives works
Rows = list[list[int]]


@dataclass(frozen=True)
class Row:
    """One comparison: units of work a second, and how many times as fast ours is."""

    name: str  # what is compared, and with whom
    ours: float  # the median of our speeds
    theirs: float
    unit: str
    ratio: float  # the median of the ratios of neighbouring measurements
    bar: float  # what the ratio should reach
    runs: int  # measurements of each

    def __str__(self) -> str:
        reached = "reached" if self.ratio >= self.bar else "MISSED"
        return (
            f"{self.name:44} {self.ours:10.4g} {self.theirs:10.4g} {self.unit:10}"
            f"ratio {self.ratio:.2f}, bar {self.bar:.1f} {reached}"
        )


def interleaved(
    name: str,
    ours: Way,
    theirs: Way,
    unit: str,
    bar: float,
    runs: int,
    units: int | None = None,
) -> Row:
    """Time two ways in turns, after one untimed run of each.

    Args:
        units: of work done; without it the work says how many they were.
    """
    ours()()
    theirs()()
    speeds: tuple[list[float], list[float]] = ([], [])
    for number in range(runs):
        for which in (0, 1) if number % 2 else (1, 0):
            work = (ours, theirs)[which]()
            started = time.perf_counter()
            done = work()
            speeds[which].append((units or done) / (time.perf_counter() - started))
    ratio = statistics.median(a / b for a, b in zip(*speeds, strict=True))
    own, peer = map(statistics.median, speeds)
    return Row(name, round(own, 3), round(peer, 3), unit, round(ratio, 3), bar, runs)


def sampling(runs: int) -> Iterator[Row]:
    """Answers of up to 32 tokens to 64 prompts, each ending where it ends."""
    policy, tokenizer = _policy(), models.load_tokenizer(MODEL)
    asked = town_task().prompts("test")[:ANSWERS]

    def ours() -> int:
        said = sample(policy, tokenizer, asked, max_new_tokens=LONGEST)
        return int(said.response_mask.sum())

    def theirs() -> int:
        tokens, attended = _padded_left(_asked(tokenizer, asked), tokenizer)
        with torch.no_grad():
            said = policy.generate(
                input_ids=tokens,
                attention_mask=attended,
                do_sample=True,
                top_k=0,
                max_new_tokens=LONGEST,
            )[:, tokens.shape[1] :]
        tokenizer.batch_decode(said, skip_special_tokens=True)
        return int((said != tokenizer.pad_token_id).sum())

    name = "sampling, beside transformers' generate"
    yield interleaved(name, lambda: ours, lambda: theirs, "tokens/s", 1.3, runs)


def dpo(runs: int) -> Iterator[Row]:
    """Steps of DPO on equal batches, all weights trained."""
    from trl import DPOConfig, DPOTrainer

    rows, tokenizer = town_task().preferences("train")[: PAIRS * STEPS], _tokenizer()

    def ours() -> Callable[[], Any]:
        policy, reference = _policy(), fit.Reference(_policy())
        objective = fit.PairObjective(tokenizer, reference, partial(dpo_loss, beta=0.1))
        return _fitted(policy, rows, objective)

    def theirs() -> Callable[[], Any]:
        return _trainer(
            DPOTrainer,
            _settings(DPOConfig, beta=0.1, max_length=512),
            model=_policy(),
            ref_model=_policy(),
            train_dataset=data.to_trl(rows),
            processing_class=tokenizer,
        )

    name = "DPO, beside TRL's DPOTrainer"
    yield interleaved(name, ours, theirs, "pairs/s", 1.3, runs, len(rows))


def reward(runs: int) -> Iterator[Row]:
    """Steps of a reward model on equal batches, all weights trained."""
    from trl import RewardConfig, RewardTrainer

    rows, tokenizer = town_task().preferences("train")[: PAIRS * STEPS], _tokenizer()

    def ours() -> Callable[[], Any]:
        model = models.RewardModel.from_policy(_policy())
        return _fitted(model, rows, fit.RewardObjective(model))

    def theirs() -> Callable[[], Any]:
        return _trainer(
            RewardTrainer,
            _settings(RewardConfig, max_length=512),
            model=_classifier(tokenizer),
            train_dataset=data.to_trl(rows),
            processing_class=tokenizer,
        )

    name = "reward model, beside TRL's RewardTrainer"
    yield interleaved(name, ours, theirs, "pairs/s", 1.0, runs, len(rows))


def ppo(runs: int) -> Iterator[Row]:
    """Updates of PPO: 64 answers of up to 32 tokens, 4 epochs, one reward model.

    The values come from a model of their own, or from the policy's trunk, which TRL has
    not. TRL's micro-batch of 16 was faster here than one of 64.
    """
    tokenizer = _tokenizer()
    asked = town_task().prompts("train")[:ANSWERS]
    questions, judge = _asked(tokenizer, asked), _classifier(tokenizer)

    def score(prompts: Sequence[Any], texts: Sequence[str]) -> torch.Tensor:
        said = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        end = [tokenizer.eos_token_id]
        rows = [q + a + end for q, a in zip(questions, said, strict=True)]
        tokens, attended = _padded_left(rows, tokenizer)
        with torch.no_grad():
            return judge(input_ids=tokens, attention_mask=attended).logits[:, 0]

    def ours(separate: bool) -> Callable[[], Any]:
        model = models.PolicyWithValue.from_policy(_policy(), separate=separate)
        config = rl.RLConfig(
            updates=UPDATES,
            samples=ANSWERS,
            max_new_tokens=LONGEST,
            epochs=EPOCHS,
            lr=1e-6,
            progress=False,
        )
        return partial(rl.train, model, asked, score, config)

    theirs = partial(_trl_ppo, tokenizer, questions, judge)
    for name, separate, bar in (
        ("PPO with a value model, beside TRL 1.12's", True, 1.3),
        ("PPO with a shared trunk, beside TRL 1.12's", False, 2.0),
    ):
        way = partial(ours, separate)
        yield interleaved(name, way, theirs, "updates/s", bar, runs, UPDATES)


def _trl_ppo(
    tokenizer: PreTrainedTokenizerBase, questions: Rows, judge: Any
) -> Callable[[], Any]:
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    settings = _settings(
        PPOConfig,
        rows=16,
        gradient_accumulation_steps=ANSWERS // 16,
        num_mini_batches=1,
        num_ppo_epochs=EPOCHS,
        total_episodes=ANSWERS * UPDATES,
        response_length=LONGEST,
        stop_token="eos",
        learning_rate=1e-6,
        kl_coef=0.03,
        local_rollout_forward_batch_size=ANSWERS,
        num_sample_generations=0,
    )
    trainer = PPOTrainer(
        args=settings,
        processing_class=tokenizer,
        model=_policy(),
        ref_model=_policy(),
        reward_model=judge,
        value_model=_classifier(tokenizer),
        train_dataset=Dataset.from_list([{"input_ids": q} for q in questions]),
    )
    return trainer.train


BENCHMARKS = {"sampling": sampling, "dpo": dpo, "reward": reward}


def run(out: Path, trl_ppo: Path | None = None, runs: int = 5) -> list[Row]:
    """Run every benchmark, print its rows, and write them to a JSON file.

    Args:
        out: build/bench.json.
        trl_ppo: folder that holds TRL 1.12; None leaves PPO out.
        runs: measurements of each way.

    Raises:
        FileNotFoundError: `trl_ppo` holds no TRL with PPO; the message says how to.
    """
    if trl_ppo is not None and not (trl_ppo / "trl/experimental/ppo").is_dir():
        raise FileNotFoundError(
            f"{trl_ppo} does not hold TRL 1.12, the last with PPO: "
            f"pip install --no-deps --target {trl_ppo} trl==1.12.0"
        )
    rows = []
    with quiet_loading():
        for row in (row for each in BENCHMARKS.values() for row in each(runs)):
            print(row, flush=True)
            rows.append(row)
    if trl_ppo is None:
        print("PPO is left out: see `labs bench --help` for how to get its peer")
    else:
        rows += _ppo_apart(trl_ppo, runs)
    versions = here() | {"trl": metadata.version("trl")}
    found = {
        "device": versions.pop("device"),
        "date": versions.pop("date"),
        "versions": versions,
        "rows": [asdict(row) for row in rows],
    }
    write_atomically(out, json.dumps(found, indent=1) + "\n")
    return rows


def _ppo_apart(trl_ppo: Path, runs: int) -> list[Row]:
    """PPO's rows, from a process that finds the old TRL first."""
    path = os.pathsep.join([str(trl_ppo.resolve()), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "TRL_EXPERIMENTAL_SILENCE": "1"}
    command = [sys.executable, "-m", "labs_tools.bench", str(runs)]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("row ")]
    rows = [Row(**json.loads(line[4:])) for line in lines]
    print(*rows, sep="\n", flush=True)
    return rows


def _policy() -> models.Policy:
    return models.load_policy(MODEL)


def _tokenizer() -> PreTrainedTokenizerBase:
    tokenizer = models.load_tokenizer(MODEL)
    tokenizer.padding_side = "left"
    return tokenizer


def _classifier(tokenizer: PreTrainedTokenizerBase) -> Any:
    """The model with a score, which TRL takes for a reward model and for a critic."""
    return AutoModelForSequenceClassification.from_pretrained(
        MODEL, num_labels=1, pad_token_id=tokenizer.pad_token_id
    )


def _asked(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Any]) -> Rows:
    return [
        models.encode_chat(tokenizer, p.messages, add_generation_prompt=True)
        for p in prompts
    ]


def _padded_left(
    rows: Rows, tokenizer: PreTrainedTokenizerBase
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, and 1 where they are no padding."""
    tokens = pad_sequence(
        [*map(torch.tensor, rows)],
        batch_first=True,
        padding_value=tokenizer.pad_token_id,
        padding_side="left",
    )
    return tokens, (tokens != tokenizer.pad_token_id).long()


def _fitted(
    model: Any, rows: Sequence[data.Preference], objective: fit.Objective
) -> Callable[[], Any]:
    config = fit.FitConfig(lr=1e-5, batch_size=PAIRS, epochs=1, progress=False)
    return partial(fit.fit, model, rows, objective, config)


def _trainer(kind: Any, settings: Any, **options: Any) -> Callable[[], Any]:
    trainer = kind(args=settings, **options)
    trainer.remove_callback(PrinterCallback)
    return trainer.train


def _settings(kind: Any, rows: int = PAIRS, **own: Any) -> Any:
    return trl_config(
        kind,
        output_dir=TemporaryDirectory(prefix="bench").name,
        per_device_train_batch_size=rows,
        num_train_epochs=1,
        **own,
    )


if __name__ == "__main__":
    with quiet_loading():
        for measured in ppo(int(sys.argv[1])):
            print("row", json.dumps(asdict(measured)), flush=True)
