"""The one road from messages to tokens: what a model reads, and which of it it says.

In go a tokenizer and messages; out come token ids and, for each, whether the assistant
said it. Training, scoring and sampling all come through here. These rules hold:

- What is read before an answer is what sampling reads, always: the conversation with
  its generation prompt, where a template thinks ("<think>") with the thought begun. An
  answer follows there as it was said: a think block that the template would put before
  it (Qwen3's empty one) is left out, a header with control tokens (harmony) is not.
- White space around an answer is written and trimmed as the template does it.
- The answer ends with the token that the template ends a turn with, without a template
  with the tokenizer's end token, and sampling stops there. What follows is not learnt.
- Where one piece of the tokenizer would straddle the border, the answer is encoded by
  itself: no sampler could have drawn such a piece.
- A text that holds the string of a control token ("<|end|>") is read as that text.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase as Tokenizer

from labs_helpers.data import Message, as_messages
from labs_helpers.data.messages import as_conversations, as_exchanges
from labs_helpers.models.limits import each_named
from labs_helpers.models.templates import (
    ANSWER,
    BLANK,
    BREAK,
    MARKED,
    Frame,
    as_text,
    frame_of,
    prompt_text,
    render,
)

ANCHORS = ("\n", "a", "1", ".")  # one of them merges with no given text


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], *, add_generation_prompt: bool
) -> list[int]:
    """The tokens of messages as the template writes them, or of all before an answer.

    Without a chat template that is the messages' bare text, one after another, with the
    tokenizer's special tokens of the beginning and never those of an end. A template
    that knows no generation prompt is asked what it writes before an answer.

    Raises:
        ValueError: the template refuses the conversation.
    """
    messages = as_text(tokenizer, as_messages(messages))
    if add_generation_prompt:
        text = prompt_text(tokenizer, messages)
    else:
        text = render(tokenizer, messages, False)
    return [*_opening(tokenizer), *_tokens(tokenizer, text)]


def encode_prompt(tokenizer: Tokenizer, prompt: Any) -> list[int]:
    """The tokens that a model reads before it answers."""
    return encode_chat(tokenizer, as_messages(prompt), add_generation_prompt=True)


def encode_prompts(tokenizer: Tokenizer, prompts: Sequence[Any]) -> list[list[int]]:
    """`encode_prompt` of each; an error says which it speaks of."""
    encode = partial(encode_prompt, tokenizer)
    return each_named("prompt", encode, zip(as_conversations(prompts)))


def encode_answer(
    tokenizer: Tokenizer, prompt: Any, answer: Any, *, end: bool = True
) -> tuple[list[int], list[int]]:
    """The tokens of a prompt and its answer, and 1 at each one that is the answer's.

    Args:
        prompt: text (one user message), messages, or an object with .messages.
        answer: text, or messages: then all of their assistant's turns are answers.
        end: whether the token that ends the last turn is there.
    """
    before = as_messages(prompt)
    talk = [*before, *as_messages(answer, "assistant")]
    return encode_conversation(tokenizer, talk, first=len(before), end=end)


def encode_answers(
    tokenizer: Tokenizer,
    prompts: Sequence[Any],
    answers: Sequence[Any],
    *,
    end: bool = True,
) -> list[tuple[list[int], list[int]]]:
    """`encode_answer` of each pair; an error says which it speaks of."""
    encode = partial(encode_answer, tokenizer, end=end)
    return each_named("row", encode, as_exchanges(prompts, answers))


def encode_conversation(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    *,
    first: int = 0,
    end: bool = True,
) -> tuple[list[int], list[int]]:
    """The tokens of a conversation to its last answer, and 1 at every answer's tokens.

    Earlier answers are marked as the template writes them in what the last one reads.

    Args:
        messages: after the last answer nothing counts.
        first: the assistant's turns before this message are no answers.

    Raises:
        ValueError: no turn is the assistant's, or the template refuses the
            conversation, or it writes an earlier answer otherwise than it was said.
    """
    turns = [
        i for i in range(first, len(messages)) if messages[i]["role"] == "assistant"
    ]
    if not turns:
        roles = [message["role"] for message in messages]
        raise ValueError(
            "nothing to learn in this conversation: no token of it is the assistant's. "
            f"Its roles are {roles}"
        )
    *earlier, last = turns
    talk = as_text(tokenizer, messages[: last + 1])
    text, before, frame = _before(tokenizer, talk[:last])
    answer = [0] * len(before)
    for i in earlier:
        span = _span(tokenizer, talk, i, text, before)
        answer[span] = [1] * len(answer[span])
    said = frame.write(talk[last]["content"], end=end)
    whole = _tokens(tokenizer, text + said)
    if whole[: len(before)] == before:
        tokens = whole[len(before) :]
    else:
        tokens = _tokens(tokenizer, said, continued=True)
    tokens += [frame.end] * end
    opening = _opening(tokenizer)
    marks = [0] * len(opening) + answer + [1] * len(tokens)
    return [*opening, *before, *tokens], marks


class _Before(NamedTuple):
    """What a model reads before an answer, and what the template writes around it."""

    text: str
    tokens: list[int]
    frame: Frame


def _before(tokenizer: Tokenizer, messages: list[Message]) -> _Before:
    """What stands before an answer to messages; the last is remembered.

    Answers to one prompt come one after another: pairs, and the samples of a prompt.
    """
    said = tuple((message["role"], message["content"]) for message in messages)
    state = (str(tokenizer.chat_template), tokenizer.eos_token, len(tokenizer))
    return _remembered(tokenizer, said, state)


@lru_cache(maxsize=1)
def _remembered(
    tokenizer: Tokenizer, said: tuple[tuple[str, str], ...], state: tuple
) -> _Before:
    messages: list[Message] = [{"role": role, "content": text} for role, text in said]
    text = prompt_text(tokenizer, messages)
    tokens = _tokens(tokenizer, text)
    return _Before(text, tokens, frame_of(tokenizer, messages, text))


def end_tokens(tokenizer: Tokenizer, model: Any = None) -> set[int]:
    """What ends an answer: the template's end of turn, the tokenizer's, the model's."""
    config = getattr(model, "generation_config", None)
    ends = getattr(config, "eos_token_id", None)
    ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    asked = [{"role": "user", "content": "Who?"}]
    with suppress(ValueError):  # a template that refuses this will say so of a prompt
        ends.add(frame_of(tokenizer, asked, prompt_text(tokenizer, asked)).end)
    return ends - {None}


def _span(
    tokenizer: Tokenizer, talk: list[Message], turn: int, text: str, tokens: list[int]
) -> slice:
    """An earlier answer among a prompt's tokens: those that begin inside it."""
    marked = [*talk[:turn], MARKED, *talk[turn + 1 : -1]]
    before, _, _ = prompt_text(tokenizer, marked).partition(ANSWER)
    before = before.removesuffix(BLANK)
    frame = frame_of(tokenizer, talk[:turn], prompt_text(tokenizer, talk[:turn]))
    said = frame.write(talk[turn]["content"], end=False).removeprefix(frame.lead)
    if not text.startswith(before + said):
        raise ValueError(
            f"turn {turn} of the conversation is written differently once more turns "
            f"follow it: the chat template does not repeat {said!r:.60}, and what the "
            "assistant learnt would not be what it said. Train on the last answer "
            "alone (a Preference or an Unpaired row), a row for every answer"
        )
    stop = len(before + said)
    if frame.closing and text.startswith(frame.closing, stop):
        stop += len(frame.closing)
    start = len(before.removesuffix(frame.lead))
    to_start = _tokens(tokenizer, text[:start])
    shared = _shared(tokens, to_start)
    shared += shared < len(to_start)  # that piece straddles the border
    return slice(shared, _shared(tokens, _tokens(tokenizer, text[:stop])))


def _shared(a: list[int], b: list[int]) -> int:
    """How many tokens two lists begin with alike."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _opening(tokenizer: Tokenizer) -> list[int]:
    """Special tokens before a text without a template; a template writes its own."""
    if tokenizer.chat_template is not None:
        return []
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    starts = (i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
    return whole[: next(starts, 0)]


def _tokens(tokenizer: Tokenizer, text: str, continued: bool = False) -> list[int]:
    """The tokens of a rendered text, cut where the string of a token is broken up."""
    tokens = []
    for piece in text.split(BREAK):
        encode = _continuation if continued else _plain
        tokens += encode(tokenizer, piece)
        continued = True
    return tokens


def _plain(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _continuation(tokenizer: Tokenizer, text: str) -> list[int]:
    """A text's tokens where it does not begin: no blank is put before it."""
    for anchor in ANCHORS:
        lead = _plain(tokenizer, anchor)
        both = _plain(tokenizer, anchor + text)
        if both[: len(lead)] == lead:
            return both[len(lead) :]
    return _plain(tokenizer, text)
