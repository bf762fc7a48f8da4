"""What labs take on a graphics card: memory and minutes, before anything is loaded.

A profile's sizes say how many tokens a step reads, its model's shape what one takes:
bytes are measured on one layer and on two, operations are counted. Nothing here has
been timed on a card: minutes are arithmetic, with the shares of a card's speed that
are named below.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from labs_helpers.course.profile import Profile, load_profile, located, short_name
from labs_helpers.fit.parts import STATE_BYTES
from labs_helpers.models import memory
from labs_helpers.models.adapters import with_lora

EFFICIENCY = 0.3  # of a card's half-precision speed that small models reach
LAUNCH = 1e-3  # seconds that a layer takes however little it computes
HALF, SINGLE = 2, 4  # bytes
HELD = 4  # float32 copies of all scores in a loss written by hand, and their gradient
DECODED = 64  # answers that are sampled at once
# Beside the policy: a reward model and a judge, of half its layers in float32 each.
BESIDE, BESIDE_SHARE = 2, 0.5
START_UP = 3.0  # minutes: packages, downloads, figures
SHAPES: dict[str, dict[str, Any]] = {  # as their config.json says
    "Qwen2.5-0.5B-Instruct": {
        "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
        "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "SmolLM2-135M-Instruct": {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "vocab_size": 49152, "tie_word_embeddings": True,
    },
}  # fmt: skip


class Card(NamedTuple):
    """A graphics card.

    Attributes:
        memory: what a notebook can use of it, in GB.
        speed: in half precision, in 10^12 operations a second, by its maker's sheet.
        bandwidth: of its memory, in GB a second.
    """

    memory: float
    speed: float
    bandwidth: float


CARDS = {
    "T4": Card(13.5, 65, 320),
    "L4": Card(21.0, 121, 300),
    "A100": Card(38.0, 312, 1555),
    "H200": Card(138.0, 989, 4800),
}


@dataclass(frozen=True)
class Shape:
    """What a model takes, with its adapter: measured on its first layers."""

    config: PretrainedConfig
    lora: int

    @cached_property
    def _two(self) -> tuple[tuple[int, int, memory.Footprint], ...]:
        found = []
        for layers in (1, 2):
            model = self._first(layers)
            with torch.autocast("cpu", torch.bfloat16):
                footprint = memory.footprint(model)
            assert footprint is not None  # it reads tokens
            footprint = footprint._replace(lost=0.0)  # that is a CPU's heap
            weights = sum(p.numel() for p in model.parameters())
            learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
            found.append((weights, learnt, footprint))
        return tuple(found)

    def _first(self, layers: int) -> nn.Module:
        """So many layers, with the adapter."""
        known = self.config.to_dict() | {"layer_types": None}
        config = self.config.from_dict(known | {"num_hidden_layers": layers})
        # Under an adapter weights are in half precision.
        dtype = torch.bfloat16 if self.lora else torch.float32
        with torch.device("meta"):  # what the weights are is of no matter
            model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.to_empty(device="cpu")
        model.tie_weights()
        for tensor in model.state_dict().values():
            tensor.zero_()
        return with_lora(model, self.lora, task="CAUSAL_LM").train()

    def _whole(self, of: Callable[[Any], float], share: float) -> float:
        """One layer's figure, and that of each further layer as many times."""
        [(first, more)] = pairwise(of(part) for part in self._two)
        return first + (share * self.layers - 1) * (more - first)

    @property
    def layers(self) -> int:
        """How many there are."""
        return self.config.num_hidden_layers

    @property
    def scores(self) -> int:
        """Of the vocabulary."""
        return self.config.vocab_size

    def weights(self, share: float = 1.0) -> float:
        """Weights, with the adapter, of a share of the layers."""
        return self._whole(lambda part: part[0], share)

    def learnt(self, share: float = 1.0) -> float:
        """Those that are trained."""
        return self._whole(lambda part: part[1], share)

    def step(self, rows: int, length: int, share: float = 1.0) -> float:
        """Bytes of a forward and a backward pass over rows of a length."""
        return self._whole(lambda part: part[2].rows(rows, length), share)


class Work(NamedTuple):
    """One piece of a lab.

    Attributes:
        name: for people.
        steps: how often a batch is trained on; 0 where nothing is trained.
        rows: sequences of a batch.
        length: their tokens.
        whole: a batch is held at once, as in a loop written by hand and in TRL; `fit`
            and `rl` cut it into parts that fit.
        scores: the vocabulary's are held, too.
        copied: a copy of the model in float32 is trained, as TRL's is.
        share: of the layers that are used.
        read: tokens that are read without gradient.
        answers: that are sampled.
        new: tokens of an answer.
    """

    name: str
    steps: float = 0
    rows: int = 0
    length: int = 0
    whole: bool = False
    scores: bool = False
    copied: bool = False
    share: float = 1.0
    read: float = 0
    answers: float = 0
    new: int = 0


def lab1(s: Any) -> list[Work]:
    """Pieces of Lab 1."""
    rows, pair = 2 * s.batch_size, 2 * s.max_length
    fit = Work("reward models", 0, rows, s.max_length, share=s.kept_layers)
    # Trained twice: as asked, and on perturbed copies.
    groups = 2 * s.passes * s.head_pairs / s.group_batch
    tested = 4 * (s.test_pairs + s.calibration_pairs + s.robust_pairs) * pair
    drawn = s.prompts * s.samples
    return [
        fit._replace(rows=2 * s.group_batch, steps=groups, read=tested),
        fit._replace(name="the loop by hand", steps=s.hand_steps, whole=True),
        fit._replace(name="TRL", steps=2 * s.trl_steps, whole=True, copied=True),
        sampled(drawn, s.max_new_tokens, 4 * drawn * s.max_length),
    ]


def lab2(s: Any) -> list[Work]:
    """Pieces of Lab 2."""
    rows, pair = 2 * s.batch_size, 2 * s.max_length
    hand = Work("the loop by hand", 2 * s.hand_steps, 2 * s.hand_batch, s.max_length)
    steps, scored = s.trl_steps, {"whole": True, "scores": True}
    drawn = 8 * s.prompts * s.answers + 5 * s.all_prompts * s.samples
    drawn += 12 * s.all_prompts * s.wide_answers  # until both are equally far
    return [
        Work("DPO, IPO, KTO and SLiC", 4 * s.epochs * s.pairs / s.batch_size, rows,
             s.max_length, read=(s.pairs + 8 * s.test_pairs) * pair),
        hand._replace(**scored),
        Work("TRL", 2 * steps, 2 * s.trl_batch, s.max_length, copied=True, **scored),
        sampled(drawn, s.max_new_tokens, drawn * s.max_length),
        reinforced("PPO", s, s.ppo_updates, s.ppo_samples, s.ppo_tokens),
    ]  # fmt: skip


def lab3(s: Any) -> list[Work]:
    """Pieces of Lab 3."""
    new = s.max_new_tokens
    updates = s.quick_updates + s.updates + s.reward_updates + s.hacking_updates
    looks = s.hacking_updates / max(1, s.look_every)
    drawn = (6 * s.samples_each + looks) * s.prompts + s.repeated_prompts * s.repeats
    long = s.max_length + new
    return [
        Work("reward models", (s.pairs + s.few_pairs * s.few_epochs) / 4, 8,
             s.max_length, share=s.kept_layers, read=4 * s.test_pairs * s.max_length),
        Work("gradients one by one", 3 * s.groups, 4 * s.group_prompts, long),
        Work("passes over answers", 2 * s.passes + 12, s.trpo_answers, long, True),
        reinforced("PPO", s, updates + 2 * s.sick_updates, s.samples, new),
        sampled(drawn, new, 3 * drawn * long),
    ]  # fmt: skip


def lab4(s: Any) -> list[Work]:
    """Pieces of Lab 4."""
    asked = s.train_items * (1 + s.attacks_each) + s.train_prompts
    talks = 2 * asked + 2 * s.own
    own = 3 * s.samples * (s.harmful * s.attacks + s.soundalike + s.prompts)
    drawn = 3 * talks + 2 * s.pairs + 2 * own + 3 * s.use_samples * s.prompts
    compared = 8 * (s.pairs + s.people + own) * s.max_length
    rows, length = s.batch_size, s.max_length
    return [
        Work("SL-CAI", s.epochs * talks / rows, rows, length),
        Work("RL-CAI", s.dpo_epochs * s.pairs / rows, 2 * rows, length, read=compared),
        Work("TRL", 2 * s.trl_steps, rows, length, True, True, True),
        sampled(drawn, s.max_new_tokens, drawn * length),
    ]


LABS = {1: lab1, 2: lab2, 3: lab3, 4: lab4}


def sampled(answers: float, new: int, read: float) -> Work:
    """Answers, whose prompts and whose scoring read tokens."""
    return Work("sampling", read=read, answers=answers, new=new)


def reinforced(name: str, s: Any, updates: int, samples: int, new: int) -> Work:
    """Updates of two epochs, with a reference and a reward model that read along."""
    length = s.max_length + new
    return Work(name, 2 * updates, samples, length, read=3 * updates * samples * length,
                answers=updates * samples, new=new)  # fmt: skip


def gigabytes(work: Work, shape: Shape, card: Card) -> float:
    """What a piece takes at most, with the models; in parts, no more than there is."""
    weights = HALF * shape.weights(work.share)
    weights += SINGLE * BESIDE * shape.weights(BESIDE_SHARE)
    weights += SINGLE * shape.weights(work.share) * work.copied
    state = STATE_BYTES * shape.learnt(work.share) if work.steps else 0
    step = shape.step(work.rows, work.length, work.share)
    if work.scores:
        step += work.rows * work.length * HELD * SINGLE * shape.scores
    if not work.whole:
        step = min(step, memory.SHARE * max(0, card.memory * 2**30 - weights - state))
    return (weights + state + step) / 2**30


def minutes(work: Work, shape: Shape, card: Card) -> float:
    """Arithmetic: operations of what is read and trained on, and of each new token."""
    weights = shape.weights(work.share)
    trained = work.steps * work.rows * work.length
    operations = 2 * weights * work.read + 4 * weights * trained
    seconds = operations / (EFFICIENCY * card.speed * 1e12)
    launch = work.share * shape.layers * LAUNCH
    seconds += 3 * launch * work.steps
    rounds = work.answers / DECODED * work.new
    seconds += rounds * max(launch, HALF * weights / (card.bandwidth * 1e9))
    return seconds / 60


@cache
def _shape(config: str, lora: int) -> Shape:
    return Shape(AutoConfig.for_model(**json.loads(config)), lora)


def shape_of(profile: Profile, lab: int) -> Shape:
    """The shape of a profile's model, from disk or from what is known of it.

    Raises:
        ValueError: It is on no disk, and nothing is known of it.
    """
    name = str(located(profile.model))
    try:
        config = AutoConfig.from_pretrained(name, local_files_only=True)
    except OSError:
        known = SHAPES.get(short_name(name))
        if known is None:
            raise ValueError(
                f"The shape of {name!r} is not known here: bring it first "
                f"(labs fetch {profile.name}), or set LABS_MODEL to a folder"
            ) from None
        return _shape(json.dumps(known), profile.sizes(lab).lora_rank)
    return _shape(config.to_json_string(use_diff=False), profile.sizes(lab).lora_rank)


def plan(profile_name: str) -> int:
    """Print memory and minutes of each lab on each card; 0 if a T4 holds them all."""
    profile = load_profile(profile_name)
    print(f"{profile.title}: GB at most, and minutes by arithmetic\n")
    print(f"{'':6}{'largest on a T4':40}", *(f"{name:>15}" for name in CARDS))
    fits = True
    for number, pieces in LABS.items():
        shape, works = shape_of(profile, number), pieces(profile.sizes(number))
        cells = []
        for card in CARDS.values():
            most = max(gigabytes(work, shape, card) for work in works)
            spent = START_UP + sum(minutes(work, shape, card) for work in works)
            cells.append(f"{most:5.1f} GB {spent:3.0f} min")
            fits = fits and (card is not CARDS["T4"] or most <= card.memory)
        first = CARDS["T4"]
        largest = max(works, key=lambda work: gigabytes(work, shape, first))
        what = f"{largest.name}, {largest.rows} x {largest.length} tokens"
        print(f"Lab {number} {what:40}", *(f"{cell:>15}" for cell in cells))
    room = ", ".join(f"{name} {card.memory:g} GB" for name, card in CARDS.items())
    print(f"\nA notebook can use: {room}. fit and rl cut a batch into parts that fit.")
    return 0 if fits else 1
