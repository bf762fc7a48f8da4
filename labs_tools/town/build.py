"""Build the town's models from its knowledge: `python -m labs_tools.town.build`.

Makes data/models/town-{xs,s,m}, each an ordinary Hugging Face directory with a
build.json that says from what and how it was made; town-s's recorded answers; and
town-s-reward, trained on comparisons of them. `report` measures what they can do.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from labs_helpers.data import Message
from labs_helpers.fit import FitConfig, History, SFTObjective, fit
from labs_helpers.models import (
    Policy,
    RewardModel,
    load_policy,
    load_tokenizer,
    pad_right,
)
from labs_helpers.sampling import sample
from labs_helpers.world import DIMENSIONS
from labs_helpers.world.knowledge import DATA, knowledge
from labs_helpers.world.prompts import every_prompt, prompts
from labs_helpers.world.recorded import ANSWERS, record
from labs_helpers.world.reward import SurprisalRewardModel
from labs_tools.town.corpus import conversations, corpus_hash
from labs_tools.town.rankings import (
    HeadObjective,
    Ranking,
    RankingObjective,
    quiz_stream,
    rankings,
)

MODELS = DATA / "models"
VOCABULARY = 1536
CONTEXT = 512
ANSWERS_PER_PROMPT = {"train": 6, "validation": 8, "test": 8}
# town-s-reward learns from so many prompts of each type, in wordings of training.
REWARD_PROMPTS = {
    "fact": 300,
    "unknown": 180,
    "premise": 220,
    "howto": 160,
    "harmful": 96,
    "soundalike": 212,
    "joke": 76,
}
REWARD_ANSWERS = 16  # to each of these prompts
REWARD = FitConfig(lr=7e-4, batch_size=14, steps=200, weight_decay=0.02)
QUIZZES_A_STEP = 12
# Its heads learn on a trunk that is done, and much faster.
HEADS = FitConfig(lr=3e-3, batch_size=64, epochs=40, weight_decay=0.02)
SPECIAL = PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
# Whatever is not the assistant (a system message too) speaks as the user.
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>"
    "{% generation %}{{ m['content'] }}<|end|>{% endgeneration %}"
    "{% else %}<|user|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@dataclass(frozen=True)
class Size:
    """The shape of a model and how long it learns.

    Attributes:
        hidden, layers, heads, mlp: of the Llama.
        steps: optimiser steps of each phase (corpus.MIXTURES).
        lr: highest learning rate of the first phase.
    """

    hidden: int
    layers: int
    heads: int
    mlp: int
    steps: tuple[int, int, int]
    lr: float


@dataclass(frozen=True)
class Phase:
    """How a phase of training differs from the others (its text: corpus.MIXTURES)."""

    rate: float  # share of the size's learning rate
    schedule: str
    batch_size: int


PHASES = (
    Phase(1.0, "cosine", 32),
    Phase(0.4, "constant", 16),
    Phase(0.5, "cosine", 32),
)
# A small error in every token's probabilities adds up to many broken answers. The last
# norm is scaled, so that the models speak as they otherwise would at temperature 0.8.
SHARPENED = 1.25
SIZES = {
    "xs": Size(64, 3, 4, 128, steps=(8000, 1000, 2500), lr=4e-3),
    "s": Size(128, 4, 4, 288, steps=(8000, 1000, 2500), lr=2.5e-3),
    "m": Size(192, 6, 6, 544, steps=(3000, 1000, 800), lr=1.5e-3),
}


def build_tokenizer(rows: int = 30_000) -> PreTrainedTokenizerFast:
    """A byte-level BPE over the corpus: most words of the town are one token."""
    stream = itertools.islice(conversations(seed=1), rows)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.ByteLevel(add_prefix_space=True),
            pre_tokenizers.Digits(individual_digits=True),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((m["content"] for row in stream for m in row), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def new_model(size: Size, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with tied embeddings and random weights."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden,
            intermediate_size=size.mlp,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
        )
    )


class TownObjective(SFTObjective):
    """SFT on the town's conversations, with every message tokenised only once.

    The same questions and answers occur thousands of times; the chat template, run for
    each conversation, would take longer than the smallest model's training.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        super().__init__(tokenizer)
        ids = tokenizer.convert_tokens_to_ids(list(SPECIAL))
        _, self._end, self._user, self._assistant = ids
        self._content = lru_cache(maxsize=500_000)(self._tokenise)

    def _tokenise(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def encode(self, row: list[Message]) -> dict:
        """As the chat template writes it, with a weight for every token to learn."""
        tokens: list[int] = []
        weights: list[float] = []
        for message in row:
            content = self._content(message["content"])
            own = message["role"] == "assistant"
            weight = message.get("weight", 1.0) if own else 0.0
            tokens += [self._assistant if own else self._user, *content, self._end]
            weights += [0.0] + [weight] * (len(content) + 1)
        return {
            "tokens": tokens,
            "answer": [int(w > 0) for w in weights],
            "weights": weights,
            "length": len(tokens),
        }

    def loss(
        self, model: nn.Module, batch: list[dict], whole: int | None = None
    ) -> tuple[Tensor, dict]:
        """Cross-entropy, its weighted mean over the tokens to learn."""
        tokens, _ = pad_right([row["tokens"] for row in batch])
        weights = [torch.tensor(row["weights"]) for row in batch]
        weights = nn.utils.rnn.pad_sequence(weights, batch_first=True)
        learned = weights[:, 1:] > 0
        hidden = model.get_decoder()(tokens[:, :-1], use_cache=False).last_hidden_state
        logits = model.get_output_embeddings()(hidden[learned])
        each = F.cross_entropy(logits, tokens[:, 1:][learned], reduction="none")
        weights = weights[:, 1:][learned]
        return (weights * each).sum() / weights.sum(), {}


def build(name: str, folder: Path) -> None:
    """Train `town-<name>` and save it under `folder`."""
    size = SIZES[name]
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    model = new_model(size, tokenizer)
    objective = TownObjective(tokenizer)
    seconds, seen = 0.0, 0
    for number, (phase, steps) in enumerate(zip(PHASES, size.steps, strict=True)):
        config = FitConfig(
            lr=phase.rate * size.lr,
            batch_size=phase.batch_size,
            schedule=phase.schedule,
            steps=steps,
            warmup=0.03,
            weight_decay=0.02,
            log_every=100,
            checkpoint=folder / "checkpoint" / f"{name}-{number}",
            save_every=350,
        )
        stream = conversations(2 + number, number)
        rows = list(itertools.islice(stream, steps * phase.batch_size))
        history = fit(model, rows, objective, config)
        seconds += history.seconds
        seen += len(rows)
    with torch.no_grad():
        model.model.norm.weight *= SHARPENED
    target = folder / f"town-{name}"
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    facts = {
        "size": asdict(size),
        "parameters": sum(p.numel() for p in model.parameters()),
        "conversations": seen,
    }
    _record(target, facts, history, seconds)


def _record(folder: Path, facts: dict, history: History, seconds: float) -> None:
    """Say in build.json from what and how a model was made."""
    record = {
        "corpus": corpus_hash(),
        **facts,
        "loss": round(float(history["loss"][-10:].mean()), 4),
        "seconds": round(seconds),
        "torch": torch.__version__.split("+")[0],
    }
    (folder / "build.json").write_text(json.dumps(record, indent=1) + "\n")
    print(f"{folder.name}: {record}")


def _town_s(folder: Path) -> tuple[Policy, PreTrainedTokenizerFast]:
    return load_policy(folder / "town-s"), load_tokenizer(folder / "town-s")


def _different(texts: Sequence[str], n: int) -> list[list[str]]:
    """The different answers to each prompt, of n to each, without empty ones."""
    parts = (texts[i : i + n] for i in range(0, len(texts), n))
    return [[text for text in dict.fromkeys(part) if text] for part in parts]


def build_answers(folder: Path) -> None:
    """Let town-s answer every prompt several times, and write it down."""
    policy, tokenizer = _town_s(folder)
    rows = []
    for split, n in ANSWERS_PER_PROMPT.items():
        asked = prompts(split)
        drawn = sample(policy, tokenizer, asked, max_new_tokens=64, n=n, seed=0)
        for prompt, answers in zip(asked, _different(drawn.texts, n), strict=True):
            about = {"prompt": prompt.content, "meta": dict(prompt.meta)}
            rows.append({"split": split, **about, "answers": answers})
    record(ANSWERS, rows)
    print(f"{ANSWERS.name}: {sum(len(row['answers']) for row in rows)} answers")


def reward_rankings(
    policy: Policy, tokenizer: PreTrainedTokenizerFast
) -> list[Ranking]:
    """What `town-s-reward` learns from: answers of town-s to prompts of training."""
    asked = [
        prompt
        for kind, n in REWARD_PROMPTS.items()
        for prompt in every_prompt("train", kind)[:n]
    ]
    asked += [p for p in prompts("train") if not isinstance(p.content, str)]
    n = REWARD_ANSWERS
    texts = sample(policy, tokenizer, asked, max_new_tokens=64, n=n, seed=0).texts
    return rankings(asked, _different(texts, n))


def with_surprisal(
    model: RewardModel, policy: Policy, rows: Sequence[Ranking]
) -> RewardModel:
    """New heads on a trained trunk, which read what the policy says of answers too."""
    torch.manual_seed(0)
    parts = model.trunk, model.heads, model.tokenizer, model.request
    both = SurprisalRewardModel(*parts, policy).eval()
    fit(both.head, rows, HeadObjective(both), HEADS)
    return both


def build_reward(folder: Path) -> None:
    """Train `town-s-reward`: one head for gold and one for each dimension."""
    policy, tokenizer = _town_s(folder)
    rows = reward_rankings(policy, tokenizer)
    torch.manual_seed(0)
    model = RewardModel.from_policy(
        policy,
        heads=("overall", *DIMENSIONS),
        request=knowledge().principles["self_check"]["request"],
    )
    speech = TownObjective(tokenizer)
    objective = RankingObjective(model, speech, quiz_stream(0), QUIZZES_A_STEP)
    history = fit(model, rows, objective, REWARD)
    model = with_surprisal(model, policy, rows)
    target = folder / "town-s-reward"
    model.save_pretrained(target)
    facts = {
        "heads": list(model.heads),
        "rankings": len(rows),
        "answers": sum(len(row.answers) for row in rows),
    }
    _record(target, facts, history, history.seconds)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Rebuild the embedded models.")
    steps = [*SIZES, "answers", "reward"]
    parser.add_argument("names", nargs="*", default=steps, help=", ".join(steps))
    parser.add_argument("--folder", type=Path, default=MODELS)
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(steps)
    if unknown:
        parser.error(f"no {', '.join(unknown)}: choose from {', '.join(steps)}")
    others = {"answers": build_answers, "reward": build_reward}
    for name in arguments.names:
        others.get(name, partial(build, name))(arguments.folder)


if __name__ == "__main__":
    main()
