"""Studies of Lab 4: every method on one figure, and what a constitution's rounds do.

All on town-xs, for there are many runs, judged by gold on held-out prompts. `labs study
frontier` also draws docs/frontier.png.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from labs_helpers import constitution as cai
from labs_helpers import safety
from labs_helpers.course.profile import MODELS, ROOT
from labs_helpers.course.studies import Row, Study, columns
from labs_helpers.data import Preference, Unpaired
from labs_helpers.estimates import Estimate, mean
from labs_helpers.fit import (
    FitConfig,
    KTOObjective,
    Objective,
    PairObjective,
    Reference,
    SFTObjective,
    SLiCObjective,
    fit,
)
from labs_helpers.frontier import optimal_frontier
from labs_helpers.logprobs import rollout_kl
from labs_helpers.losses import dpo_loss, ipo_loss, kto_loss, slic_loss, soft_dpo_loss
from labs_helpers.models import load_policy, load_tokenizer
from labs_helpers.optimum import best_of_n, best_of_n_kl
from labs_helpers.plot_style import COLOURS, GREY, MARKERS, new_figure, style
from labs_helpers.policies import Policy
from labs_helpers.sampling import sample
from labs_helpers.task import Prompt
from labs_helpers.world.annotators import PANEL, Pair, differing, label
from labs_helpers.world.gold import Gold
from labs_helpers.world.prompts import prompts

MODEL = MODELS / "town-xs"
FIGURE = ROOT / "docs" / "frontier.png"
SEEDS = range(3)
NS = (1, 2, 4, 8, 16)
KL_WEIGHTS = (0.03, 0.1, 0.2, 0.3, 0.5, 1.0, 10.0)
CAREFUL = PANEL[0]
ONLINE = ("REINFORCE", "actor-critic", "TRPO", "PPO")
UPDATES, PAIRS = 30, 400
TEXT = 64  # tokens of an answer at most


def frontier() -> Iterator[Row]:
    """Gold against KL for eleven methods and the optimum, three seeds; a figure too.

    Best of n and the on-policy methods are given gold itself, the offline ones 400
    comparisons by a careful simulated annotator, SL-CAI and RL-CAI a constitution and
    no label at all.
    """
    rows = []
    for row in _frontier():
        rows.append(row)
        yield row
    FIGURE.parent.mkdir(exist_ok=True)
    draw_frontier(rows).savefig(FIGURE, dpi=150)


FAMILIES = {
    "start": ("SFT",),
    "offline, 400 comparisons": ("DPO", "IPO", "KTO", "SLiC"),
    "on-policy, gold itself": ONLINE,
    "a constitution, no label": ("SL-CAI", "RL-CAI"),
}


def draw_frontier(rows: Sequence[Row]) -> Figure:
    """The figure of the study: large points are means, small ones single seeds.

    What learnt from the same has the same colour.
    """
    with style():
        figure, axes = new_figure(8.4, 5.0)
        optima = sorted((r["kl"], r["gold"]) for r in _of(rows, "optimum"))
        axes.plot(*np.array(optima).T, color="black", marker="", label="optimum")
        best = _of(rows, "best of n")
        line = [
            np.mean([(r["kl"], r["gold"]) for r in best if r["n"] == n], axis=0)
            for n in sorted({row["n"] for row in best})
        ]
        axes.plot(*np.array(line).T, color=GREY, ls="--", marker="", label="best of n")
        for colour, (family, methods) in zip(
            ("#000000", *COLOURS), FAMILIES.items(), strict=False
        ):
            axes.plot([], [], ls="none", marker="", label=family)
            for marker, method in zip(MARKERS, methods, strict=False):
                points = np.array([(r["kl"], r["gold"]) for r in _of(rows, method)])
                if not len(points):
                    continue
                same = {"ls": "none", "marker": marker, "color": colour}
                axes.plot(*points.T, markersize=4, alpha=0.4, mew=0, **same)
                axes.plot(*points.mean(axis=0), markersize=10, label=method, **same)
        axes.set(
            xlabel="KL from the reference (nats per answer)",
            ylabel="mean gold reward",
        )
        legend = axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=10)
        for text in legend.get_texts():
            if text.get_text() in FAMILIES:
                text.set_fontweight("bold")
    return figure


def _of(rows: Sequence[Row], method: str) -> list[Row]:
    return [row for row in rows if row["method"] == method]


def _frontier() -> Iterator[Row]:
    for seed in SEEDS:
        yield from _best_of(seed)
        yield _row("SFT", seed, _sft()[0])
        for name, train in _methods().items():
            yield _row(name, seed, train(seed))
        supervised = _sl_cai(seed)
        yield _row("SL-CAI", seed, supervised)
        yield _row("RL-CAI", seed, _rl_cai(supervised, seed))
    yield from _optima()


def _row(method: str, seed: int, policy: Policy) -> Row:
    asked = prompts("test")
    drawn = sample(policy, _sft()[1], asked, max_new_tokens=TEXT, n=2, seed=50 + seed)
    repeated = [prompt for prompt in asked for _ in range(2)]
    clusters = np.repeat(np.arange(len(asked)), 2)
    gold = mean(Gold().scores(repeated, drawn.texts), clusters)
    kl = mean(rollout_kl(policy, _sft()[0], drawn).double().numpy(), clusters)
    return {
        "method": method,
        "seed": seed,
        "n": "",
        **columns("kl", kl),
        **columns("gold", gold),
    }


@cache
def _sft() -> tuple[Policy, Any, Reference]:
    policy = load_policy(MODEL)
    return policy, load_tokenizer(MODEL), Reference(policy)


def _optima() -> Iterator[Row]:
    """The closed-form optimum for several KL weights, from 512 answers to a prompt."""
    asked = prompts("test")
    found = optimal_frontier(
        _sft()[0],
        asked,
        Gold().scores,
        KL_WEIGHTS,
        tokenizer=_sft()[1],
        max_new_tokens=TEXT,
        seed=123,
    )
    for weight, optimum in zip(KL_WEIGHTS, found, strict=True):
        yield {
            "method": "optimum",
            "seed": 0,
            "n": weight,
            **columns("kl", mean(optimum.kl)),
            **columns("gold", mean(optimum.reward)),
        }


def _best_of(seed: int) -> Iterator[Row]:
    """The best of n by gold, exactly, from 16 answers to each prompt."""
    policy, tokenizer, _ = _sft()
    asked, n = prompts("test"), max(NS)
    texts = sample(
        policy, tokenizer, asked, max_new_tokens=TEXT, n=n, seed=70 + seed
    ).texts
    repeated = [prompt for prompt in asked for _ in range(n)]
    gold = Gold().scores(repeated, texts).reshape(len(asked), n)
    won = best_of_n(gold, gold, list(NS))
    for column, each in zip(won.T, NS, strict=True):
        kl = float(best_of_n_kl(each))
        yield {
            "method": "best of n",
            "seed": seed,
            "n": each,
            **columns("kl", Estimate(kl, kl, kl, len(asked))),
            **columns("gold", mean(column)),
        }


# Offline methods: comparisons of a careful simulated annotator


def _methods() -> dict[str, Callable[[int], Policy]]:
    tokenizer, reference = _sft()[1:]

    def pairs(loss: Callable[..., Any]) -> Callable[[int], Policy]:
        objective = PairObjective(tokenizer, reference, loss)
        return lambda seed: _offline(_compared(seed), objective, seed)

    def kto(seed: int) -> Policy:
        rows = [
            Unpaired(row.prompt, answer, good)
            for row in _compared(seed)
            for answer, good in ((row.chosen, True), (row.rejected, False))
        ]
        objective = KTOObjective(tokenizer, reference, partial(kto_loss, beta=0.1))
        return _offline(rows, objective, seed)

    def slic(seed: int) -> Policy:
        objective = SLiCObjective(tokenizer, partial(slic_loss, delta=1.0, weight=0.1))
        return _offline(_compared(seed), objective, seed)

    return {
        "DPO": pairs(partial(dpo_loss, beta=0.1)),
        "IPO": pairs(partial(ipo_loss, beta=0.1)),
        "KTO": kto,
        "SLiC": slic,
        **{name: partial(_online, name) for name in ONLINE},
    }


@cache
def _compared(seed: int) -> tuple[Preference, ...]:
    """Two sampled answers that differ in gold to each of the training prompts."""
    policy, tokenizer, _ = _sft()
    asked = prompts("train")
    texts = sample(
        policy, tokenizer, asked, max_new_tokens=TEXT, n=2, seed=30 + seed
    ).texts
    drawn = [Pair(p, *texts[2 * i : 2 * i + 2]) for i, p in enumerate(asked)]
    return tuple(label(differing(drawn, n=PAIRS), [CAREFUL], seed))


def _offline(rows: Sequence[Any], objective: Objective, seed: int) -> Policy:
    torch.manual_seed(seed)
    policy = load_policy(MODEL)
    config = FitConfig(lr=2e-4, batch_size=32, epochs=2, seed=seed, progress=False)
    fit(policy, rows, objective, config)
    return policy


# On-policy methods: gold itself


def _online(name: str, seed: int) -> Policy:
    from labs_helpers.rl import RLConfig, train

    torch.manual_seed(seed)
    policy = load_policy(MODEL)
    algorithm = name.lower().replace("-", "_")
    config = RLConfig(algorithm=algorithm, updates=UPDATES, seed=seed, progress=False)
    gold = Gold()

    def reward(asked: Sequence[Prompt], texts: Sequence[str]) -> torch.Tensor:
        return torch.tensor(gold.scores(asked, texts), dtype=torch.float)

    train(policy, prompts("train"), reward, config, tokenizer=_sft()[1])
    return policy


# Constitutional AI: no label


@cache
def _rules() -> cai.Constitution:
    return cai.load_constitution(ROOT / "data" / "constitution.yaml")


@cache
def _red_team(seed: int) -> tuple[Prompt, ...]:
    """Lab 4's training prompts: harmful ones under attack, sound-alikes, the rest."""
    items = safety.load_suite(ROOT / "data" / "safety" / "train.jsonl").items
    attacks = safety.load_attacks(ROOT / "data" / "safety" / "attacks.yaml", "train")
    rng = np.random.default_rng(seed)
    found = [item.prompt for item in items]
    for item in items:
        if item.kind == "harmful":
            attack = attacks[rng.integers(len(attacks))]
            found.append(safety.attacked(item, attack, seed))
    return (*found, *prompts("train")[:200])


def _transcripts(seed: int, **options: Any) -> list[cai.Transcript]:
    policy, tokenizer, _ = _sft()
    asked = _red_team(seed)
    answers = safety.answers_of(policy, tokenizer, asked, seed=10 + seed)
    return cai.critique_and_revise(
        policy, tokenizer, asked, answers, _rules(), seed=seed, **options
    )


def _sl_cai(seed: int, **options: Any) -> Policy:
    torch.manual_seed(seed)
    policy = load_policy(MODEL)
    config = FitConfig(lr=5e-4, batch_size=32, epochs=2, seed=seed, progress=False)
    rows = cai.revised_answers(_transcripts(seed, **options))
    fit(policy, rows, SFTObjective(_sft()[1]), config)
    return policy


def _rl_cai(start: Policy, seed: int) -> Policy:
    judge, tokenizer, _ = _sft()
    asked = _red_team(seed)
    texts = safety.answers_of(start, tokenizer, asked, 2, seed=20 + seed)
    a, b = texts[::2], texts[1::2]
    said = cai.compare_by_principles(judge, tokenizer, asked, a, b, _rules())
    rows = cai.preferences_from(asked, a, b, said.probability)
    policy = load_policy(MODEL)
    policy.load_state_dict(start.state_dict())
    config = FitConfig(lr=1e-4, batch_size=32, seed=seed, progress=False)
    objective = cai.SoftPairObjective(
        tokenizer, start, partial(soft_dpo_loss, beta=0.1)
    )
    fit(policy, rows, objective, config)
    return policy


def revision_rounds() -> Iterator[Row]:
    """What more rounds, and revising everything, do to a model trained on revisions."""
    suite = safety.load_suite(ROOT / "data" / "safety" / "harmful.jsonl")
    attacks = safety.load_attacks(ROOT / "data" / "safety" / "attacks.yaml")
    sound = safety.load_suite(ROOT / "data" / "safety" / "soundalike.jsonl")
    complied = safety.complied_by_truth(Gold())
    ways: dict[str, dict[str, Any]] = {
        "no revision": {},
        "one round": {"rounds": 1},
        "two rounds": {"rounds": 2},
        "one principle drawn, always revised": {"each": 1, "always": True},
    }
    for way, options in ways.items():
        for seed in SEEDS:
            policy = _sl_cai(seed, **options) if options else _sft()[0]
            table = safety.attack_table(
                policy, _sft()[1], suite, attacks, complied=complied, seed=seed
            )
            refused = safety.refusal_table(policy, _sft()[1], sound, seed=seed)
            row = _row(way, seed, policy)
            yield {
                "way": way,
                "seed": seed,
                **columns("attack", table.overall()),
                **columns("over_refusal", refused.rate("safe")),
                "gold": row["gold"],
            }
            if not options:
                break


STUDIES: dict[str, Study] = {
    "frontier": frontier,
    "revision_rounds": revision_rounds,
}
