"""Families of language models with small random weights, and all that is done to them.

`python -m tests.models.architectures` prints the table: what was tried of each family,
with all weights and with LoRA, and the sentences of those that are refused.
"""

import sys
import tempfile
import tomllib
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from labs_helpers.data import Preference, Unpaired
from labs_helpers.fit import (
    FitConfig,
    KTOObjective,
    PairObjective,
    RewardObjective,
    SFTObjective,
    SLiCObjective,
    SoftPairObjective,
    fit,
)
from labs_helpers.losses import dpo_loss, ipo_loss
from labs_helpers.models import (
    PolicyWithValue,
    RewardModel,
    load_policy,
    load_tokenizer,
    save_policy,
)
from labs_helpers.models.policies import frozen_copy
from labs_helpers.rl import RLConfig, train
from labs_helpers.rl.config import ALGORITHMS
from labs_helpers.sampling import rollout_logprobs, sample

FAMILIES: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("families.toml").read_text(encoding="utf-8")
)
PAIRED = {
    "DPO": partial(PairObjective, loss=dpo_loss),
    "IPO": partial(PairObjective, loss=ipo_loss),
    "soft DPO": SoftPairObjective,
}
OBJECTIVES = ("SFT", "reward", "SLiC", "KTO", *PAIRED)
TRIED = ("sampling", *ALGORITHMS, *OBJECTIVES, "save and load")
PROMPTS = ["Who cleans the town hall?", "Why?", "Who?"]
ANSWERS = ["The baker, every day.", "Stone.", "A dog"]
PAIRS = [
    Preference(prompt, answer, "No.", meta={"probability": 0.8})
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
]
TOKENS = torch.tensor([[5, 6, 7, 8, 9, 10]])


def build(family: str, tokenizer: Any) -> Any:
    """A model of a family, as wide as the tokenizer's vocabulary."""
    given = FAMILIES[family]
    sizes = given["sizes"]
    vocabulary = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
    }
    if "text_config" in sizes:
        sizes = {**sizes, "text_config": {**vocabulary, **sizes["text_config"]}}
    else:
        sizes = {**vocabulary, **sizes}
    config = getattr(transformers, given["config"])(**sizes)
    built = getattr(transformers, given["model"])(config)
    with torch.no_grad():  # so that what stands before matters to what comes
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return built.eval()


def outcomes(
    family: str, tokenizer: Any, folder: Path, with_lora: Collection[str] = TRIED
) -> dict[tuple[str, str], str]:
    """Of all weights and of LoRA, by what was tried: pass, or the refusal.

    Args:
        with_lora: what is tried with LoRA; with all weights everything is.
    """
    torch.manual_seed(0)
    build(family, tokenizer).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    found = {}
    for tuning in ("full", "LoRA"):
        policy = None
        for what, attempt in _attempts(tokenizer, folder / tuning):
            if tuning == "LoRA" and what not in with_lora:
                continue
            try:
                if policy is None:
                    lora = 2 if tuning == "LoRA" else None
                    policy = load_policy(folder / "base", lora=lora, device="cpu")
                    _shake(policy)
                attempt(policy)
                found[tuning, what] = "pass"
            except (ValueError, OSError) as error:
                found[tuning, what] = str(error).replace(str(folder), "")
            except Exception as error:  # to be mended
                found[tuning, what] = f"FAILED: {type(error).__name__}: {error}"
    return found


def _attempts(
    tokenizer: Any, folder: Path
) -> Iterator[tuple[str, Callable[[Any], None]]]:
    yield "sampling", partial(_sampling, tokenizer=tokenizer)
    for algorithm in ALGORITHMS:
        yield algorithm, partial(_reinforce, tokenizer=tokenizer, algorithm=algorithm)
    for objective in OBJECTIVES:
        yield objective, partial(_fit, tokenizer=tokenizer, objective=objective)
    yield "save and load", partial(_save_and_load, tokenizer=tokenizer, folder=folder)


def _sampling(policy: Any, tokenizer: Any) -> None:
    """The cache and the padding give what the plain forward gives."""
    rollout = sample(policy, tokenizer, PROMPTS, max_new_tokens=6, n=2, seed=0)
    found = rollout_logprobs(policy, rollout)
    torch.testing.assert_close(rollout.logprobs, found, rtol=0, atol=1e-4)


def _reinforce(policy: Any, tokenizer: Any, algorithm: str) -> None:
    before = _weights(policy)
    config = RLConfig(
        algorithm=algorithm, updates=1, samples=4, max_new_tokens=3, progress=False
    )
    history = train(
        policy,
        PROMPTS,
        lambda _, said: list(range(len(said))),
        config,
        tokenizer=tokenizer,
    )
    if algorithm != "trpo" or history["approx_kl"][0] > 0:  # else no step was good
        _require_moved(policy, before)


def _fit(policy: Any, tokenizer: Any, objective: str) -> None:
    config = FitConfig(lr=1e-4, batch_size=3, steps=1, progress=False)
    rows: list[Any] = PAIRS
    trained = policy
    adapted = any("lora_" in name for name, _ in policy.named_parameters())
    reference = None if adapted else frozen_copy(policy)
    if objective == "SFT":
        loss: Any = SFTObjective(tokenizer)
    elif objective == "SLiC":
        loss = SLiCObjective(tokenizer)
    elif objective == "KTO":
        loss = KTOObjective(tokenizer, reference)
        rows = [
            Unpaired(prompt, answer, i > 0)
            for i, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True))
        ]
    elif objective == "reward":
        trained = RewardModel.from_policy(
            policy, tokenizer=tokenizer, lora=2 if adapted else None
        )
        torch.nn.init.normal_(trained.head.weight)
        loss = RewardObjective(trained)
    else:
        loss = PAIRED[objective](tokenizer, reference)
    before = _weights(trained)
    fit(trained, rows, loss, config)
    _require_moved(trained, before)


def _save_and_load(policy: Any, tokenizer: Any, folder: Path) -> None:
    """A policy, one with a value model of its own, and a reward model come back."""
    adapted = any("lora_" in name for name, _ in policy.named_parameters())
    lora = 2 if adapted else None
    valued = _shake(PolicyWithValue.from_policy(policy, separate=True, lora=lora))
    save_policy(policy, folder / "policy")
    valued.save_pretrained(folder / "value")
    judge = _shake(RewardModel.from_policy(policy, tokenizer=tokenizer, lora=lora))
    judge.save_pretrained(folder / "reward")
    close = partial(torch.testing.assert_close, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        expected = valued(TOKENS)
        close(load_policy(folder / "policy")(TOKENS).logits, expected.logits)
        close(PolicyWithValue.from_pretrained(folder / "value")(TOKENS), expected)
    found = RewardModel.from_pretrained(folder / "reward")
    close(found.score(PROMPTS, ANSWERS), judge.score(PROMPTS, ANSWERS))


def _shake(model: Any) -> Any:
    """As a training may leave it."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or name.startswith(("value_head", "head")):
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def _weights(model: Any) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def _require_moved(model: Any, before: dict[str, torch.Tensor]) -> None:
    """Trained weights have moved and are numbers; frozen ones have not."""
    moved = 0
    for name, parameter in model.named_parameters():
        assert parameter.isfinite().all(), name
        same = torch.equal(parameter, before[name])
        assert same or parameter.requires_grad, name
        moved += not same
    assert moved


def main(tokenizer: Any, families: list[str]) -> None:
    """Print the table as markdown, and the refusals below it."""
    print("|".join(["", "family", "weights", *TRIED, ""]))
    print("|---" * (len(TRIED) + 2) + "|")
    notes: list[str] = []
    for family in families:
        with tempfile.TemporaryDirectory() as folder:
            found = outcomes(family, tokenizer, Path(folder))
        for tuning in ("full", "LoRA"):
            cells = []
            for what in TRIED:
                said = found[tuning, what]
                if said != "pass" and said not in notes:
                    notes.append(said)
                cells.append(said if said == "pass" else f"({notes.index(said) + 1})")
            print("|".join(["", family, tuning, *cells, ""]), flush=True)
    for number, note in enumerate(notes, 1):
        print(f"\n({number}) {note}")


if __name__ == "__main__":
    main(load_tokenizer("data/models/town-xs"), sys.argv[1:] or list(FAMILIES))
