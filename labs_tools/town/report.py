"""What a model of the town can do, measured: `python -m labs_tools.town.report`.

Comes in: models of data/models. Goes out: the figures that the labs stand on, with 95 %
intervals and bounds, on held-out prompts and wordings; exit 1 where a bound is missed.
Does not train, but for one minute of REINFORCE that shows that there is room above.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from labs_helpers.data import Prompt
from labs_helpers.evaluation import Estimate, best_of_n, mean, rate
from labs_helpers.losses import reinforce_loss
from labs_helpers.models import load_policy, load_tokenizer
from labs_helpers.sampling import sample
from labs_helpers.world.gold import score
from labs_helpers.world.knowledge import knowledge
from labs_helpers.world.phrasebook import read
from labs_helpers.world.prompts import capability_prompts, lot, prompts
from labs_tools.town import probes
from labs_tools.town.build import MODELS

MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Figure:
    """One measured figure and the range in which it should lie."""

    name: str
    estimate: Estimate
    low: float | None = None
    high: float | None = None

    @property
    def holds(self) -> bool | None:
        """Whether the value is in its range; None where there is none."""
        if self.low is None and self.high is None:
            return None
        value = self.estimate.value
        return (self.low or 0) <= value <= (1 if self.high is None else self.high)

    def __str__(self) -> str:
        low = "" if self.low is None else f"at least {self.low}"
        high = "" if self.high is None else f"at most {self.high}"
        verdict = {True: "holds", False: "MISSED", None: ""}[self.holds]
        bounds = " and ".join(x for x in (low, high) if x)
        return f"{self.name:37}{self.estimate!s:46}{bounds:31} {verdict}"


class Subject:
    """A policy with its tokenizer, that can be asked."""

    def __init__(self, name: str):
        self.policy = load_policy(MODELS / name)
        self.tokenizer = load_tokenizer(MODELS / name)

    def ask(self, asked: Sequence[Prompt], n: int = 1, seed: int = 0, temperature=1.0):
        """Sample n answers to each prompt: a `Rollout`."""
        return sample(
            self.policy,
            self.tokenizer,
            asked,
            max_new_tokens=MAX_NEW_TOKENS,
            temperature=temperature,
            n=n,
            seed=seed,
        )


def answer_figures(subject: Subject, n: int = 16) -> list[Figure]:
    """Form and gold of answers to the held-out prompts."""
    asked = prompts("test")
    drawn = subject.ask(asked, n)
    cluster = np.repeat(np.arange(len(asked)), n)
    whole = [
        read(text).well_formed and ended
        for text, ended in zip(drawn.texts, drawn.finished.tolist(), strict=True)
    ]
    gold = np.array(
        [score(asked[i], t)["gold"] for i, t in zip(cluster, drawn.texts, strict=True)]
    )
    best = best_of_n(gold.reshape(-1, n), gold.reshape(-1, n), [n])[:, 0]
    return [
        Figure("answers well formed", rate(whole, cluster), low=0.98),
        Figure("mean gold", rate(gold, cluster), low=0.35, high=0.65),
        Figure("answers that are perfect", rate(gold == 1, cluster), 0.15, 0.40),
        Figure(f"gold of the best of {n}", rate(best), low=0.9),
    ]


def skill_figures(
    subject: Subject, per_trait: int = 240, wordings: str = "train"
) -> list[Figure]:
    """Critiques, revisions and comparisons of held-out answers.

    Args:
        wordings: "train" for rules as they were learnt, "test" for wordings of rules
            that no model of the town ever read.
    """
    draw = lot("skills", wordings)
    tried = probes.cases("test", per_trait)
    critiques = [probes.critique_prompt(c, wordings, draw) for c in tried]
    revisions = [probes.revision_prompt(c, wordings, draw) for c in tried]
    compared = [probes.comparison_prompt(c, wordings, draw) for c in tried]
    said, revised, chosen = (
        subject.ask(asked, temperature=0).texts
        for asked in (critiques, revisions, compared)
    )
    right = {
        "critique": [
            _verdict(text) == ("no" if c.broken else "yes")
            for c, text in zip(tried, said, strict=True)
        ],
        "revision": [
            probes.revision_is_right(c, text)
            for c, text in zip(tried, revised, strict=True)
        ],
        "comparison": [
            score(p, text)["helpfulness"] == 1
            for p, text in zip(compared, chosen, strict=True)
        ],
    }
    bounds = {"critique": 0.8, "revision": 0.7, "comparison": 0.75}
    note = "" if wordings == "train" else ", new wordings"
    found = []
    for skill, correct in right.items():
        bound = bounds[skill] if wordings == "train" else None
        if skill != "comparison":
            found.append(Figure(f"{skill}s right{note}", rate(correct), low=bound))
        for trait in knowledge().traits:
            of_trait = [
                x for c, x in zip(tried, correct, strict=True) if c.trait == trait
            ]
            judged = skill == "comparison" and trait != "true"
            found.append(
                Figure(
                    f"  {skill}: {trait}{note}",
                    rate(of_trait),
                    low=bound if judged else None,
                )
            )
    return found


def _verdict(text: str) -> str:
    return text.split(",")[0].strip().lower()


def capability_figure(subject: Subject) -> Figure:
    """Sums, order and opposites in held-out wordings, sampled at temperature 1."""
    asked = capability_prompts("test", 240)
    texts = subject.ask(asked).texts
    right = [score(p, t)["helpfulness"] == 1 for p, t in zip(asked, texts, strict=True)]
    return Figure("capability tasks right", rate(right), low=0.9)


def room_figures(subject: Subject, seconds: float = 60) -> list[Figure]:
    """Does reinforcement have room? REINFORCE in its simplest form, for a minute.

    One update a batch of 64 prompts with one answer each; the advantage is the gold
    less the batch's mean, a small KL penalty towards the SFT policy is part of the
    reward.
    """
    held_out = prompts("test")

    def gold_now() -> np.ndarray:
        drawn = subject.ask(held_out, n=4, seed=1)
        golds = [
            score(held_out[i // 4], text)["gold"] for i, text in enumerate(drawn.texts)
        ]
        return np.array(golds).reshape(-1, 4).mean(axis=1)

    before = gold_now()
    stock = prompts("train")
    optimizer = torch.optim.AdamW(subject.policy.parameters(), lr=3e-4)
    started, update = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        batch = lot("room", update).sample(stock, 64)
        drawn = subject.ask(batch, seed=update)
        rewards = torch.tensor(
            [
                score(p, text)["gold"] * ended
                for p, text, ended in zip(
                    batch, drawn.texts, drawn.finished.tolist(), strict=True
                )
            ]
        )
        advantages = (rewards - rewards.mean())[:, None].expand_as(drawn.logprobs)
        width = drawn.prompt_mask.shape[1]
        logits = subject.policy(
            input_ids=drawn.tokens, attention_mask=drawn.attention_mask
        ).logits[:, width - 1 : -1]
        logprobs = logits.log_softmax(-1).gather(-1, drawn.responses[..., None])[..., 0]
        loss = reinforce_loss(logprobs, advantages, drawn.response_mask)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(subject.policy.parameters(), 1.0)
        optimizer.step()
        update += 1
    gain = mean(gold_now() - before)
    return [Figure(f"gold won by {update} REINFORCE updates", gain, low=0.2)]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the embedded models.")
    parser.add_argument("names", nargs="*", default=["town-s"])
    parser.add_argument("--room", action="store_true", help="a minute of REINFORCE")
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
            figures += room_figures(subject)
        for figure in figures:
            print(figure)
        missed += sum(figure.holds is False for figure in figures)
    print(f"\n{missed} figures out of range" if missed else "\nall figures in range")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
