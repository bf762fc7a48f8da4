"""Critique, then revision: a policy mends its own answers by principles.

In go a policy, its tokenizer, prompts, answers and a constitution; out come transcripts
with every critique and revision, and their last answers for supervised training. This
is the supervised stage of Constitutional AI (arXiv 2212.08073, section 3), with one
difference: an answer is revised only where the critique finds fault, for a revision of
a good answer can only lose. `always=True` revises all, as in the paper. What a weak
model writes in place of a revision is not taken (see `unusable`).
"""

import difflib
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any

from markupsafe import Markup
from transformers import PreTrainedTokenizerBase

from labs_helpers.common.printable import printable
from labs_helpers.constitution.principles import Constitution, Principle
from labs_helpers.data import Message, Unpaired, as_messages
from labs_helpers.models import Policy
from labs_helpers.models.chat import encode_conversation
from labs_helpers.sampling import Rollout, sample

# A critique said again, in place of an answer.
_ABOUT = re.compile(
    r"\b((follow|keep|break|answer)s? the (rules?|question)|(this|your) answer"
    r"|rewrite)\b",
    re.IGNORECASE,
)
_ROW = Markup(
    '<tr><td style="text-align:left"><b>{}</b></td>'
    '<td style="text-align:left">{}{}</td></tr>'
)


@dataclass(frozen=True)
class Round:
    """A principle put to an answer; no revision where the critique found no fault.

    Nor where it gives no verdict, or what came in its place is `unusable`: `refused`
    says why.
    """

    principle: Principle
    critique: str
    revision: str | None
    refused: str = ""


@dataclass(frozen=True, repr=False)
class Transcript:
    """An answer to a prompt before any critique, and its rounds."""

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
        return self.last != self.first

    def to_last_revision(self) -> "Transcript":
        """The same without what came after the last revision: its end is `last`."""
        count = len(self.rounds)
        while count and self.rounds[count - 1].revision is None:
            count -= 1
        return replace(self, rounds=self.rounds[:count])

    def messages(self) -> list[Message]:
        """The conversation: prompt, answer, critique request, critique, and so on."""
        talk = [*as_messages(self.prompt), said(self.first)]
        for each in self.rounds:
            talk += [asked(each.principle.critique), said(each.critique)]
            if each.revision is not None:
                talk += [asked(each.principle.revision), said(each.revision)]
        return talk

    def __str__(self) -> str:
        marks = {"same": "{}", "out": "[-{}-]", "in": "{{+{}+}}"}
        lines = [
            f"{name:10}{rule.id + ': ' if rule else ''}{_marked(pieces, marks)}"
            for name, rule, pieces in self._lines()
        ]
        return printable("\n".join(lines))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """A table for notebooks: what was cut is struck through, what is new bold."""
        marks = {"same": "{}", "out": "<del>{}</del>", "in": "<b>{}</b>"}
        marks = {kind: Markup(mark) for kind, mark in marks.items()}
        rows = [
            _ROW.format(
                name,
                Markup("<i>{}?</i> ").format(rule.text) if rule else "",
                _marked(pieces, marks),
            )
            for name, rule, pieces in self._lines()
        ]
        return f"<table>{''.join(rows)}</table>"

    def _lines(self) -> Iterator[tuple[str, Principle | None, list[tuple[str, str]]]]:
        """What is said, by which principle, and its pieces as in `word_diff`."""
        yield "user", None, [("same", as_messages(self.prompt)[-1]["content"])]
        yield "answer", None, [("same", self.first)]
        answer = self.first
        for each in self.rounds:
            yield "critique", each.principle, [("same", each.critique)]
            if each.revision is not None:
                yield "revision", None, word_diff(answer, each.revision)
                answer = each.revision


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

    Each principle meets an answer afresh, without the rounds before: the conversation
    stays short, and an earlier rule does not colour the next verdict. Critiques are the
    likeliest ones, revisions are sampled.

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
        max_new_tokens: of a critique, and of a revision.
        temperature: of revisions.
        seed: of revisions and of the draw of principles.
    """
    if len(prompts) != len(answers):
        raise ValueError(
            f"each prompt needs one answer; there are {len(prompts)} prompts and "
            f"{len(answers)} answers"
        )
    transcripts = [Transcript(p, a) for p, a in zip(prompts, answers, strict=True)]
    draw = random.Random(seed)
    plans = [_plan(list(constitution), each, rounds, draw) for _ in prompts]
    for step, principles in enumerate(zip(*plans, strict=True)):
        options = {"max_new_tokens": max_new_tokens, "seed": seed + 1000 * step}
        say = partial(sample, policy, tokenizer, **options)
        found = _round(transcripts, principles, constitution, always, temperature, say)
        transcripts = [
            replace(old, rounds=(*old.rounds, new))
            for old, new in zip(transcripts, found, strict=True)
        ]
    return transcripts


def revised_answers(transcripts: Sequence[Transcript]) -> list[Unpaired]:
    """Prompts with their last answers: what SL-CAI trains on, by `SFTObjective`.

    Critiques and first answers are left out: the policy is to give the mended answer
    at once.
    """
    return [
        Unpaired(
            as_messages(t.prompt), t.last, True, dict(getattr(t.prompt, "meta", {}))
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
    tokens, marks = encode_conversation(tokenizer, talk, first=first)
    turns = groupby(zip(tokens, marks, strict=True), key=itemgetter(1))
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
            pieces.append(("same", old[i:j]))
        else:
            pieces += [("out", old[i:j]), ("in", new[k:m])]
    return [(kind, " ".join(words)) for kind, words in pieces if words]


def unusable(revision: str, requests: Sequence[str] = ()) -> str:
    """Say why a text is no revision of an answer, in a word or two; "" if it may be.

    Args:
        requests: what was said between the two, the critique among it.

    >>> unusable("The red one, the red one, the red one.")
    'goes in a circle'
    """
    words = _words(revision)
    if not any(map(str.isalpha, revision)):
        return "empty"
    if _ABOUT.search(revision):
        return "about the answer"
    if any(_alike(words, _words(text)) for text in requests):
        return "said before"
    runs = Counter(zip(words, words[1:], words[2:], strict=False))
    if max(runs.values(), default=0) > 2:
        return "goes in a circle"
    letters, signs = sum(map(str.isalpha, revision)), len("".join(revision.split()))
    return "garbled" if 2 * letters < signs else ""


def said(content: str) -> Message:
    """A turn of the assistant."""
    return {"role": "assistant", "content": content}


def asked(content: str) -> Message:
    """A turn of the user."""
    return {"role": "user", "content": content}


def until_critique(prompt: Any, answer: str, principle: Principle) -> list[Message]:
    """The conversation in which an answer is held against a principle."""
    return [*as_messages(prompt), said(answer), asked(principle.critique)]


def _round(
    transcripts: Sequence[Transcript],
    principles: Sequence[Principle],
    constitution: Constitution,
    always: bool,
    temperature: float,
    say: Callable[..., Rollout],
) -> list[Round]:
    """Put one principle to each answer."""
    kept, broken = constitution.kept, constitution.broken
    talks = [
        until_critique(t.prompt, t.last, principle)
        for t, principle in zip(transcripts, principles, strict=True)
    ]
    critiques = say(talks, temperature=0).texts
    rounds = [Round(*pair, None) for pair in zip(principles, critiques, strict=True)]
    faulty = []
    for i, critique in enumerate(critiques):
        if always or _begins(critique, broken):
            faulty.append(i)
        elif not _begins(critique, kept):
            rounds[i] = replace(rounds[i], refused="no verdict")
    again = [
        [*talks[i], said(critiques[i]), asked(principles[i].revision)] for i in faulty
    ]
    revisions = say(again, temperature=temperature).texts if again else []
    for i, talk, text in zip(faulty, again, revisions, strict=True):
        refused = unusable(text, [message["content"] for message in talk[-3:]])
        revision = None if refused else text
        rounds[i] = replace(rounds[i], revision=revision, refused=refused)
    return rounds


def _alike(words: list[str], others: list[str]) -> bool:
    """Whether all but a tenth of two texts is the same, or one is the other's start."""
    if words == others[: len(words)]:
        return True
    return difflib.SequenceMatcher(None, words, others, autojunk=False).ratio() >= 0.9


def _begins(critique: str, verdict: str) -> bool:
    return critique.lower().startswith(verdict.lower())


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _plan(
    principles: list[Principle], each: int | None, rounds: int, draw: random.Random
) -> list[Principle]:
    if each is None:
        return principles * rounds
    return [p for _ in range(rounds) for p in draw.sample(principles, each)]


def _marked(pieces: list[tuple[str, str]], marks: Mapping[str, str]) -> str:
    """Pieces of `word_diff` in one; Markup escapes them."""
    parts = [marks[kind].format(text) for kind, text in pieces]
    return type(marks["same"])(" ").join(parts)
