"""Critique, then revision: a policy mends its own answers by principles.

In go a policy, its tokenizer, prompts, answers and a constitution; out come transcripts
with every critique and revision, and their last answers for supervised training. This
is the supervised stage of Constitutional AI (arXiv 2212.08073, section 3), with one
difference: an answer is revised only where the critique finds fault, for a revision of
a good answer can only lose. `always=True` revises all, as in the paper.
"""

import difflib
import html
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from transformers import PreTrainedTokenizerBase

from labs_helpers.common.printable import printable
from labs_helpers.constitution.principles import Constitution, Principle
from labs_helpers.data import Message, Unpaired, as_messages
from labs_helpers.models import Policy
from labs_helpers.models.chat import encode_conversation
from labs_helpers.sampling import sample


@dataclass(frozen=True)
class Round:
    """One principle put to one answer.

    Attributes:
        principle: that the answer was held against.
        critique: what the policy said of its answer.
        revision: its new answer; None where the critique found no fault.
    """

    principle: Principle
    critique: str
    revision: str | None


@dataclass(frozen=True, repr=False)
class Transcript:
    """An answer, and what became of it.

    Attributes:
        prompt: what was asked.
        first: the answer before any critique.
        rounds: in order.
    """

    prompt: Any
    first: str
    rounds: tuple[Round, ...] = ()

    @property
    def last(self) -> str:
        """The answer after the last revision."""
        revisions = [r.revision for r in self.rounds if r.revision is not None]
        return revisions[-1] if revisions else self.first

    @property
    def revised(self) -> bool:
        """Whether any round changed the answer."""
        return any(r.revision is not None for r in self.rounds)

    def to_last_revision(self) -> "Transcript":
        """The same without what came after the last revision: its end is `last`."""
        count = len(self.rounds)
        while count and self.rounds[count - 1].revision is None:
            count -= 1
        return replace(self, rounds=self.rounds[:count])

    def messages(self) -> list[Message]:
        """The conversation: prompt, answer, critique request, critique, and so on."""
        talk = [*as_messages(self.prompt), _said(self.first)]
        for each in self.rounds:
            talk += [_asked(each.principle.critique), _said(each.critique)]
            if each.revision is not None:
                talk += [_asked(each.principle.revision), _said(each.revision)]
        return talk

    def __str__(self) -> str:
        lines = [f"user      {as_messages(self.prompt)[-1]['content']}"]
        lines.append(f"answer    {self.first}")
        answer = self.first
        for each in self.rounds:
            lines.append(f"critique  {each.principle.id}: {each.critique}")
            if each.revision is not None:
                marks = {"same": "{}", "out": "[-{}-]", "in": "{{+{}+}}"}
                changed = word_diff(answer, each.revision)
                lines.append(
                    "revision  " + " ".join(marks[k].format(t) for k, t in changed)
                )
                answer = each.revision
        return printable("\n".join(lines))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """A table for notebooks: what was cut is struck through, what is new bold."""
        rows = [("user", html.escape(as_messages(self.prompt)[-1]["content"]))]
        rows.append(("answer", html.escape(self.first)))
        answer = self.first
        for each in self.rounds:
            said = f"<i>{html.escape(each.principle.text)}?</i> "
            rows.append(("critique", said + html.escape(each.critique)))
            if each.revision is not None:
                rows.append(("revision", _html_diff(answer, each.revision)))
                answer = each.revision
        cells = [
            f'<tr><td style="text-align:left"><b>{name}</b></td>'
            f'<td style="text-align:left">{text}</td></tr>'
            for name, text in rows
        ]
        return f"<table>{''.join(cells)}</table>"


def critique_and_revise(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Any],
    answers: Sequence[str],
    constitution: Constitution,
    *,
    each: int | None = None,
    rounds: int = 1,
    always: bool = False,
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    seed: int = 0,
) -> list[Transcript]:
    """Hold answers against principles, one after the other, and have them mended.

    Args:
        policy: critiques and revises; usually the one that answered.
        tokenizer: its tokenizer.
        prompts: what was asked.
        answers: one to each prompt.
        constitution: its principles are taken in order.
        each: draw so many principles for every answer, as the paper does with one;
            by default all of them.
        rounds: how often to go through the principles.
        always: revise even where the critique finds no fault.
        max_new_tokens: of a critique and of a revision.
        temperature: of revisions; critiques are the likeliest ones.
        seed: of revisions and of the draw of principles.
    """
    if len(prompts) != len(answers):
        raise ValueError(
            f"each prompt needs one answer; there are {len(prompts)} prompts and "
            f"{len(answers)} answers"
        )
    transcripts = [Transcript(p, a) for p, a in zip(prompts, answers, strict=True)]
    draw = random.Random(seed)
    plans = [_plan(constitution, each, rounds, draw) for _ in prompts]
    for step in range(max(map(len, plans), default=0)):
        _step(
            policy,
            tokenizer,
            transcripts,
            [plan[step] for plan in plans],
            kept=None if always else constitution.kept,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed + 1000 * step,
        )
    return transcripts


def revised_answers(transcripts: Sequence[Transcript]) -> list[Unpaired]:
    """Prompts with their last answers: what SL-CAI trains on, by `SFTObjective`.

    Critiques and first answers are left out: the policy is to give the mended answer
    at once.
    """
    return [
        Unpaired(
            as_messages(t.prompt),
            [_said(t.last)],
            label=True,
            meta=dict(getattr(t.prompt, "meta", {})),
        )
        for t in transcripts
    ]


def turn_tokens(
    transcript: Transcript, tokenizer: PreTrainedTokenizerBase
) -> list[list[int]]:
    """A transcript as token ids, turn by turn; together they are the conversation.

    The prompt first (earlier turns and what the chat template adds are part of it),
    then answers and requests. What the assistant says closes with its end token.
    """
    talk = transcript.messages()
    first = len(as_messages(transcript.prompt))
    tokens, said = encode_conversation(tokenizer, talk, first=first)
    turns = groupby(zip(tokens, said, strict=True), key=itemgetter(1))
    return [[token for token, _ in turn] for _, turn in turns]


def word_diff(before: str, after: str) -> list[tuple[str, str]]:
    """What is the "same", what is "out" and what is "in", in reading order.

    >>> word_diff("Rub the box.", "I won't rub the box.")
    [('out', 'Rub'), ('in', "I won't rub"), ('same', 'the box.')]
    """
    old, new = before.split(), after.split()
    pieces = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            pieces.append(("same", " ".join(old[i:j])))
            continue
        if j > i:
            pieces.append(("out", " ".join(old[i:j])))
        if m > k:
            pieces.append(("in", " ".join(new[k:m])))
    return pieces


def _step(
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    transcripts: list[Transcript],
    principles: list[Principle],
    *,
    kept: str | None,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> None:
    """Add one round to every transcript.

    Each principle meets the answer afresh, without the rounds before: the conversation
    stays short, and an earlier rule does not colour the next verdict.
    """

    def ask(talks: list[list[Message]], temperature: float) -> list[str]:
        if not talks:
            return []
        return sample(
            policy,
            tokenizer,
            talks,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
        ).texts

    talks = [
        [*as_messages(t.prompt), _said(t.last), _asked(p.critique)]
        for t, p in zip(transcripts, principles, strict=True)
    ]
    critiques = ask(talks, 0)
    faulty = [
        i
        for i, said in enumerate(critiques)
        if kept is None or not said.lower().startswith(kept.lower())
    ]
    revisions = dict.fromkeys(range(len(talks)))
    again = [
        [*talks[i], _said(critiques[i]), _asked(principles[i].revision)] for i in faulty
    ]
    revisions |= dict(zip(faulty, ask(again, temperature), strict=True))
    for i, (old, principle) in enumerate(zip(transcripts, principles, strict=True)):
        new = Round(principle, critiques[i], revisions[i])
        transcripts[i] = Transcript(old.prompt, old.first, (*old.rounds, new))


def _plan(
    constitution: Constitution, each: int | None, rounds: int, draw: random.Random
) -> list[Principle]:
    principles = list(constitution)
    if each is None:
        return principles * rounds
    return [p for _ in range(rounds) for p in draw.sample(principles, each)]


def _html_diff(before: str, after: str) -> str:
    marks = {"same": "{}", "out": "<del>{}</del>", "in": "<b>{}</b>"}
    pieces = word_diff(before, after)
    return " ".join(marks[kind].format(html.escape(text)) for kind, text in pieces)


def _said(content: str) -> Message:
    return {"role": "assistant", "content": content}


def _asked(content: str) -> Message:
    return {"role": "user", "content": content}
