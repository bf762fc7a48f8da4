"""What a chat template writes, as text: around an answer, before it, and refusals.

In go a tokenizer, for its template and its control tokens, and messages; out comes the
rendered text, in which the strings of control tokens that a message holds are broken
up by `BREAK`.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import groupby, pairwise
from operator import itemgetter
from typing import NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase as Tokenizer

from labs_helpers.data import Message

# Noncharacters of Unicode, which no text holds, mark places in a rendered template.
ANSWER, BREAK = "\ufdd0\ufdd1\ufdd0", "\ufdd0\ufdd2\ufdd0"
BLANK = "\x0b"  # white space that no template writes, and every trimming one removes
MARKED: Message = {"role": "assistant", "content": BLANK + ANSWER + BLANK}
RENDER_ERRORS = (TemplateError, TypeError, ValueError, LookupError, AttributeError)


class Frame(NamedTuple):
    """What a template writes around an answer."""

    lead: str  # white space, or a header, between the prompt and the answer
    trims_left: bool
    trims_right: bool
    tail: str  # what stands between the answer and the token that ends it
    end: int
    closing: str  # the tail with the end token's string

    def write(self, content: str, end: bool) -> str:
        """The answer's text, without its end token."""
        if self.trims_left:
            content = content.lstrip()
        if self.trims_right:
            content = content.rstrip()
        return self.lead + content + self.tail * end


def frame_of(tokenizer: Tokenizer, messages: list[Message], text: str) -> Frame:
    """What the template writes around an answer to messages, whose prompt is `text`."""
    asked = [*messages, MARKED]
    before, mark, after = render(tokenizer, asked, False).partition(ANSWER)
    if not mark:
        raise ValueError(
            "the tokenizer's chat template does not write what the assistant says "
            f"after {_described(messages)}. Mend tokenizer.chat_template"
        )
    trims_left, trims_right = before[-1:] != BLANK, after[:1] != BLANK
    before, after = before.removesuffix(BLANK), after.removeprefix(BLANK)
    lead = before.removeprefix(text) if before.startswith(text) else ""
    controls = _controls(tokenizer)
    if not lead.isspace() and not controls.pattern.search(lead):
        lead = ""  # a think block
    if found := controls.pattern.search(after):
        tail, end = after[: found.start()], controls.ids[found.group()]
        return Frame(lead, trims_left, trims_right, tail, end, after[: found.end()])
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError(
            "no answer could ever end: the tokenizer has no end-of-sequence token, and "
            "its chat template none that ends a turn. Set tokenizer.eos_token"
        )
    return Frame(lead, trims_left, trims_right, "", end, "")


def prompt_text(tokenizer: Tokenizer, messages: list[Message]) -> str:
    """What is read before an answer to messages, which the template may refuse."""
    if tokenizer.chat_template is not None and not messages:
        raise ValueError(
            "the assistant speaks first in this conversation, and a chat template "
            "answers somebody. Put what the user says in front of it"
        )
    text = render(tokenizer, messages, True)
    if tokenizer.chat_template is None or text != render(tokenizer, messages, False):
        return text
    # The template writes no generation prompt: is there a header before an answer?
    asked = [*messages, MARKED]
    try:
        before = render(tokenizer, asked, False).partition(ANSWER)[0]
    except ValueError:  # no answer can follow, which is for who asks for one to say
        return text
    header = before.removesuffix(BLANK)
    return header if header.startswith(text) and header[len(text) :].strip() else text


def render(tokenizer: Tokenizer, messages: list[Message], generation: bool) -> str:
    """The conversation as the template writes it; without one, as bare text.

    A template that refuses it, or leaves out a system message, is a ValueError.
    """
    if tokenizer.chat_template is None:
        return "".join(message["content"] for message in messages)
    try:
        text = _applied(tokenizer, messages, generation)
    except RENDER_ERRORS as error:
        raise ValueError(
            f"the tokenizer's chat template refuses {_described(messages)}. It says: "
            f"{error}. {_remedy(tokenizer, messages)}"
        ) from error
    for message in messages:
        if message["role"] == "system" and message["content"].strip() not in text:
            raise ValueError(
                "the tokenizer's chat template leaves out what the system says in "
                f"{_described(messages)}. {_remedy(tokenizer, messages)}"
            )
    return text


def _applied(tokenizer: Tokenizer, messages: list[Message], generation: bool) -> str:
    return tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=generation
    )


def _remedy(tokenizer: Tokenizer, messages: list[Message]) -> str:
    """What would make the template take the messages, found out by trying."""
    roles = [message["role"] for message in messages]
    speakers = ["user" if role == "system" else role for role in roles]
    joined: list[Message] = []
    for speaker, turns in groupby(zip(speakers, messages, strict=True), itemgetter(0)):
        content = "\n\n".join(message["content"] for _, message in turns)
        joined.append({"role": speaker, "content": content})
    advice = []
    if "system" in roles:
        advice.append("put what the system says in front of what the user says")
    if any(a == b for a, b in pairwise(role for role in roles if role != "system")):
        advice.append("join turns of one role that follow each other")
    with suppress(*RENDER_ERRORS):
        _applied(tokenizer, joined, True)
        if advice:
            return f"It takes the same words otherwise: {' and '.join(advice)}"
    return "Give the tokenizer another chat_template, or leave the row out"


def _described(messages: list[Message]) -> str:
    said = messages[0]["content"].replace(BREAK, "") if messages else ""
    roles = ", ".join(message["role"] for message in messages)
    return f"the conversation that begins {said!r:.60}, whose roles are {roles}"


class _Controls(NamedTuple):
    """A tokenizer's control tokens, and what finds their strings."""

    ids: dict[str, int]
    pattern: re.Pattern[str]


def _controls(tokenizer: Tokenizer) -> _Controls:
    """Special tokens, and what the template writes around turns; remembered."""
    state = (len(tokenizer), *tokenizer.all_special_ids)
    return _found_controls(tokenizer, str(tokenizer.chat_template), state)


@lru_cache(maxsize=4)
def _found_controls(tokenizer: Tokenizer, template: str, state: tuple) -> _Controls:
    added = {token.content: id for id, token in tokenizer.added_tokens_decoder.items()}
    special = {t.content for t in tokenizer.added_tokens_decoder.values() if t.special}
    asked = {"role": "user", "content": "Who?"}
    try:
        written = render(tokenizer, [asked, MARKED, asked], False)
    except ValueError:
        written = ""
    around = {string for string in added if string in written}
    ids = {
        string: added.get(string, tokenizer.convert_tokens_to_ids(string))
        for string in {*special, *tokenizer.all_special_tokens, *around}
        if len(string) > 1 and not string.isspace()
    }
    longest_first = sorted(ids, key=len, reverse=True)
    return _Controls(ids, re.compile("|".join(map(re.escape, longest_first)) or "(?!)"))


def as_text(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[Message]:
    """Messages in which the strings of control tokens are broken up."""

    def broken(text: str) -> str:
        text = text.replace(BREAK, "").replace(ANSWER, "")
        while found := pattern.search(text):
            text = BREAK.join((text[: found.start() + 1], text[found.start() + 1 :]))
        return text

    pattern = _controls(tokenizer).pattern
    return [{**m, "content": broken(m["content"])} for m in messages]
