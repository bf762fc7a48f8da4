"""What a model of the town can do, measured: `python -m labs_tools.town.report`.

The figures that the labs stand on, with 95 % intervals and bounds, on held-out prompts
and wordings; exit 1 where a bound is missed.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from labs_helpers.course.profile import MODELS
from labs_helpers.evaluation import Estimate, best_of_n, mean, rate
from labs_helpers.models import load_policy, load_tokenizer
from labs_helpers.rl import RLConfig, train
from labs_helpers.sampling import Rollout, sample
from labs_helpers.world import Gold
from labs_helpers.world.knowledge import knowledge
from labs_helpers.world.phrasebook import read
from labs_helpers.world.prompts import capability_prompts, lot, prompts
from labs_tools.town import probes

LONGEST = 64  # tokens of an answer
BOUNDS = {"critique": 0.8, "revision": 0.7, "comparison": 0.75}
ROOM = RLConfig(algorithm="reinforce", updates=60, max_new_tokens=LONGEST)


@dataclass(frozen=True)
class Figure:
    """One measured figure and the range in which it should lie."""

    name: str
    estimate: Estimate
    low: float | None = None
    high: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the value is in its range."""
        value = self.estimate.value
        return (self.low is None or value >= self.low) and (
            self.high is None or value <= self.high
        )

    def __str__(self) -> str:
        low = "" if self.low is None else f"at least {self.low}"
        high = "" if self.high is None else f"at most {self.high}"
        bounds = " and ".join(filter(None, (low, high)))
        verdict = ("MISSED", "holds")[self.holds] if bounds else ""
        return f"{self.name:37}{self.estimate!s:46}{bounds:31} {verdict}"


class Subject:
    """A policy with its tokenizer, that can be asked."""

    def __init__(self, name: str):
        self.policy = load_policy(MODELS / name)
        self.tokenizer = load_tokenizer(MODELS / name)
        # n answers to each prompt: a `Rollout`
        asks = sample, self.policy, self.tokenizer
        self.ask = partial(*asks, max_new_tokens=LONGEST, seed=0)

    def held_out(self, n: int, seed: int = 0) -> tuple[Rollout, np.ndarray]:
        """N answers to each held-out prompt, and their gold: (prompts, n)."""
        asked = prompts("test")
        drawn = self.ask(asked, n=n, seed=seed)
        repeated = [prompt for prompt in asked for _ in range(n)]
        return drawn, Gold().scores(repeated, drawn.texts).reshape(-1, n)


def answer_figures(subject: Subject, n: int = 16) -> Iterator[Figure]:
    """Form and gold of answers to the held-out prompts."""
    drawn, gold = subject.held_out(n)
    cluster = np.repeat(np.arange(len(gold)), n)
    whole = [
        read(text).well_formed and ended
        for text, ended in zip(drawn.texts, drawn.finished.tolist(), strict=True)
    ]
    yield Figure("answers well formed", rate(whole, cluster), low=0.98)
    yield Figure("mean gold", rate(gold.ravel(), cluster), low=0.35, high=0.65)
    perfect = rate(gold.ravel() == 1, cluster)
    yield Figure("answers that are perfect", perfect, low=0.15, high=0.40)
    best = best_of_n(gold, gold, [n])[:, 0]
    yield Figure(f"gold of the best of {n}", rate(best), low=0.9)


def skill_figures(
    subject: Subject, wordings: str = "train", per_trait: int = 240
) -> Iterator[Figure]:
    """Critiques, revisions and comparisons of held-out answers.

    Args:
        wordings: "train" for rules as they were learnt, which have bounds; "test" for
            wordings of rules that no model of the town ever read.
    """
    draw = lot("skills", wordings)
    tried = probes.cases("test", per_trait)
    asked = {
        "critique": [probes.critique_prompt(c, wordings, draw) for c in tried],
        "revision": [probes.revision_prompt(c, wordings, draw) for c in tried],
        "comparison": [probes.comparison_prompt(c, wordings, draw) for c in tried],
    }
    note = "" if wordings == "train" else ", new wordings"
    traits = np.array([case.trait for case in tried])
    for skill, requests in asked.items():
        said = subject.ask(requests, temperature=0).texts
        if skill == "comparison":
            right = Gold().scores(requests, said, "helpfulness") == 1
        else:
            judge = _agrees if skill == "critique" else probes.revision_is_right
            right = [judge(*pair) for pair in zip(tried, said, strict=True)]
        bound = None if note else BOUNDS[skill]
        if skill != "comparison":
            yield Figure(f"{skill}s right{note}", rate(right), low=bound)
        for trait in knowledge().traits:
            judged = skill == "comparison" and trait != "true"
            of_trait = rate(np.array(right)[traits == trait])
            low = bound if judged else None
            yield Figure(f"  {skill}: {trait}{note}", of_trait, low)


def _agrees(case: probes.Case, critique: str) -> bool:
    verdict = critique.split(",")[0].strip().lower()
    return verdict == ("no" if case.broken else "yes")


def capability_figure(subject: Subject) -> Figure:
    """Sums, order and opposites in held-out wordings, sampled at temperature 1."""
    asked = capability_prompts("test", 240)
    right = Gold().scores(asked, subject.ask(asked).texts, "helpfulness") == 1
    return Figure("capability tasks right", rate(right), low=0.9)


def room_figure(subject: Subject) -> Figure:
    """Does reinforcement have room? REINFORCE on gold, for a minute or two."""
    _, before = subject.held_out(4, seed=1)
    asked, gold = prompts("train"), Gold().scores
    train(subject.policy, asked, gold, ROOM, tokenizer=subject.tokenizer)
    _, after = subject.held_out(4, seed=1)
    gain = mean((after - before).mean(axis=1))
    return Figure(f"gold won by {ROOM.updates} REINFORCE updates", gain, low=0.2)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the embedded models.")
    parser.add_argument("names", nargs="*", default=["town-s"])
    parser.add_argument("--room", action="store_true", help="reinforcement, too")
    arguments = parser.parse_args()
    missing = [name for name in arguments.names if not (MODELS / name).is_dir()]
    if missing:
        parser.error(f"no {', '.join(missing)} in {MODELS}: build it first")
    missed = 0
    for name in arguments.names:
        subject = Subject(name)
        print(f"\n{name}, held-out prompts, 95 % intervals")
        figures = [
            *answer_figures(subject),
            *skill_figures(subject),
            *skill_figures(subject, wordings="test"),
            capability_figure(subject),
        ]
        if arguments.room:
            figures.append(room_figure(subject))
        for figure in figures:
            print(figure)
        missed += sum(not figure.holds for figure in figures)
    print(f"\n{missed} figures out of range" if missed else "\nall figures in range")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
