"""Exercise 4.3: what SL-CAI trains on, made of transcripts of critique and revision."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from labs_helpers.course.exercises.exercise import Exercise, Function, Inputs, Mistake

END = 1
Turns = list[list[int]]


def sl_cai_batch(
    transcripts: list[list[list[int]]], pad: int
) -> tuple[Int[Tensor, "B T"], Bool[Tensor, "B T"]]:
    """Token ids of prompt and last revision, and a mask of the revision.

    Args:
        transcripts: One a row. Each is a list of turns, and a turn a list of token
            ids that closes with the end token: the prompt, the first answer, and for
            every round four more: critique request, critique, revision request,
            revision. The last turn is the one to learn.
        pad: Fills rows on the right up to the longest; may be the end token's id.

    Returns:
        Tokens: of the prompt, straight followed by the last revision.
        Mask: True at the revision's tokens, its end token included.
    """
    width = max(len(turns[0]) + len(turns[-1]) for turns in transcripts)
    tokens = torch.full((len(transcripts), width), pad)
    mask = torch.zeros((len(transcripts), width), dtype=torch.bool)
    for row, turns in enumerate(transcripts):
        prompt, revision = turns[0], turns[-1]
        end = len(prompt) + len(revision)
        tokens[row, :end] = torch.tensor(prompt + revision)
        mask[row, len(prompt) : end] = True
    return tokens, mask


def inputs(rng: np.random.Generator, size: int, flavour: str) -> Inputs:
    """Transcripts with one round of revision or two."""
    transcripts = []
    for row in range(size):
        rounds = 2 if flavour == "two rounds" else 1
        if flavour == "one round or two":
            rounds = 1 + row % 2
        lengths = rng.integers(1, 5, size=2 + 4 * rounds)
        if flavour == "no padding":
            lengths[:] = 3
        if flavour == "nothing but the end token":
            lengths[-1] = 0
        transcripts.append(
            [[*rng.integers(2, 40, size=n).tolist(), END] for n in lengths]
        )
    pad = END if flavour == "padding is the end token" else 0
    return {"transcripts": transcripts, "pad": pad}


def _padded(rows: list[list[int]], counts: list[list[bool]], pad: int):
    width = max(map(len, rows))
    tokens = [row + [pad] * (width - len(row)) for row in rows]
    mask = [count + [False] * (width - len(count)) for count in counts]
    return torch.tensor(tokens), torch.tensor(mask)


def _made_of(parts: Callable[[Turns], list[tuple[list[int], bool]]]) -> Function:
    """Answer with rows of the parts that a function picks, each counted or not."""

    def answer(transcripts, pad):
        picked = [parts(turns) for turns in transcripts]
        rows = [[token for part, _ in row for token in part] for row in picked]
        counts = [[c for part, c in row for _ in part] for row in picked]
        return _padded(rows, counts, pad)

    return answer


def _masked(change: Callable[[Tensor, Tensor, Turns, int], Tensor]) -> Function:
    """Answer with the right tokens, and a mask made otherwise.

    The change takes tokens, the right mask, the prompts and pad.
    """

    def answer(transcripts, pad):
        tokens, mask = sl_cai_batch(transcripts, pad)
        return tokens, change(tokens, mask, [turns[0] for turns in transcripts], pad)

    return answer


def _positions(tokens: Tensor) -> Tensor:
    return torch.arange(tokens.shape[1]).expand(tokens.shape)


def _starts(prompts: Turns) -> Tensor:
    return torch.tensor([len(prompt) for prompt in prompts])[:, None]


def _rolled(mask: Tensor, by: int) -> Tensor:
    """Move a mask along the row; what leaves it is lost."""
    moved = torch.zeros_like(mask)
    if by < 0:
        moved[:, :by] = mask[:, -by:]
    else:
        moved[:, by:] = mask[:, :-by]
    return moved


def _padded_on_the_left(transcripts, pad):
    tokens, mask = sl_cai_batch(transcripts, pad)
    for row, turns in enumerate(transcripts):
        empty = tokens.shape[1] - len(turns[0]) - len(turns[-1])
        tokens[row], mask[row] = tokens[row].roll(empty), mask[row].roll(empty)
    return tokens, mask


def _labels(transcripts, pad):
    tokens, mask = sl_cai_batch(transcripts, pad)
    return tokens, tokens.masked_fill(~mask, -100)


MISTAKES = (
    Mistake(
        "the whole transcript",
        _made_of(lambda turns: [(t, t is turns[-1]) for t in turns]),
        "first answer and critique are still in front of the revision. At work nobody "
        "hands the policy a critique: it is to answer the prompt at once as it would "
        "after one.",
    ),
    Mistake(
        "the whole transcript, every turn of the assistant",
        _made_of(lambda turns: [(t, i % 2 == 1) for i, t in enumerate(turns)]),
        "the policy is trained on its first answer too, which is the one that it is "
        "to unlearn, with everything that was said about it in between.",
    ),
    Mistake(
        "the whole transcript, every token",
        _made_of(lambda turns: [(t, True) for t in turns]),
        "every token of the transcript counts, the requests and the first answer "
        "among them. One turn is to be learnt from one other.",
    ),
    Mistake(
        "first answer left in",
        _made_of(
            lambda turns: [(turns[0], False), (turns[1], False), (turns[-1], True)]
        ),
        "the first answer stands between prompt and revision, so that the policy "
        "learns to correct itself only after having said it.",
    ),
    Mistake(
        "request left in",
        _made_of(
            lambda turns: [(turns[0], False), (turns[-2], False), (turns[-1], True)]
        ),
        "the request to revise is still in front of the revision. Nobody will make "
        "it at work.",
    ),
    Mistake(
        "critique left in",
        _made_of(
            lambda turns: [(turns[0], False), (turns[-3], False), (turns[-1], True)]
        ),
        "the critique is still in front of the revision. The policy is to answer the "
        "prompt at once as it would after one.",
    ),
    Mistake(
        "first answer as the target",
        _made_of(lambda turns: [(turns[0], False), (turns[1], True)]),
        "this trains the answer as it was before any critique, which the policy "
        "gives anyway.",
    ),
    Mistake(
        "critique as the target",
        _made_of(lambda turns: [(turns[0], False), (turns[-3], True)]),
        "this trains the policy to criticise instead of to answer. The critique is "
        "scaffolding: used, then taken away.",
    ),
    Mistake(
        "first revision as the target",
        _made_of(lambda turns: [(turns[0], False), (turns[5], True)]),
        "it is right for one round, and takes the first revision where there are two. "
        "Count from the other end.",
    ),
    Mistake(
        "first answer preferred",
        _made_of(
            lambda turns: [(turns[0], False), (turns[1], True), (turns[-1], True)]
        ),
        "both answers count, the first and the revision, one after the other. Only "
        "the revision is to be learnt.",
    ),
    Mistake(
        "prompt left out",
        _made_of(lambda turns: [(turns[-1], True)]),
        "the prompt is missing: the policy would learn to give revisions of whatever "
        "comes. What does not count is masked, but it is still there to be read.",
    ),
    Mistake(
        "prompt after the revision",
        _made_of(lambda turns: [(turns[-1], True), (turns[0], False)]),
        "the revision stands before its prompt. A policy reads from left to right.",
    ),
    Mistake(
        "end token cut off",
        _made_of(lambda turns: [(turns[0], False), (turns[-1][:-1], True)]),
        "the revision's end token is gone. Without it nobody teaches the policy when "
        "to stop.",
    ),
    Mistake(
        "the prompt's end token cut off",
        _made_of(lambda turns: [(turns[0][:-1], False), (turns[-1], True)]),
        "the token that closes the prompt is gone, so that the policy never sees whose "
        "turn it is.",
    ),
    Mistake(
        "prompt counts",
        _made_of(lambda turns: [(turns[0], True), (turns[-1], True)]),
        "the mask selects the prompt as well. The policy is not to learn to ask.",
    ),
    Mistake(
        "end token left out",
        _masked(lambda tokens, mask, prompts, pad: mask & _rolled(mask, -1)),
        "the mask leaves out the revision's last token. It is the end token: without "
        "it nobody teaches the policy when to stop.",
    ),
    Mistake(
        "padding recognised by its token",
        _masked(
            lambda tokens, mask, prompts, pad: (
                (_positions(tokens) >= _starts(prompts)) & (tokens != pad)
            )
        ),
        "it is right until padding and end token are the same, as in many models: "
        "then the revision's end is taken for padding. Go by lengths, not by tokens.",
    ),
    Mistake(
        "first token left out",
        _masked(lambda tokens, mask, prompts, pad: mask & _rolled(mask, 1)),
        "the mask leaves out the revision's first token, where refusing and complying "
        "part.",
    ),
    Mistake(
        "mask one too early",
        _masked(lambda tokens, mask, prompts, pad: _rolled(mask, -1)),
        "the mask is one place too far left: it marks the positions that predict the "
        "revision, and the tokens themselves are asked for. The loss does the "
        "shifting.",
    ),
    Mistake(
        "mask one too late",
        _masked(lambda tokens, mask, prompts, pad: _rolled(mask, 1)),
        "the mask is one place too far right. The revision begins at index "
        "len(prompt), for indices begin at 0.",
    ),
    Mistake(
        "one place too many in front",
        _masked(lambda tokens, mask, prompts, pad: mask | _rolled(mask, -1)),
        "the mask takes the last token of the prompt along.",
    ),
    Mistake(
        "padding counts",
        _masked(
            lambda tokens, mask, prompts, pad: _positions(tokens) >= _starts(prompts)
        ),
        "the mask goes on to the end of the row, padding included, so that short "
        "revisions teach the policy to write padding.",
    ),
    Mistake(
        "padding counts, the prompt too",
        _masked(lambda tokens, mask, prompts, pad: torch.ones_like(mask)),
        "every place counts, prompt and padding included: the mask changes nothing.",
    ),
    Mistake(
        "mask upside down",
        _masked(lambda tokens, mask, prompts, pad: ~mask),
        "the mask is True where nothing is to be learnt, and False at the revision.",
    ),
    Mistake(
        "prompt, not revision",
        _masked(
            lambda tokens, mask, prompts, pad: _positions(tokens) < _starts(prompts)
        ),
        "the mask selects the prompt: the policy would learn to ask.",
    ),
    Mistake(
        "one prompt's length for all",
        _masked(
            lambda tokens, mask, prompts, pad: (
                (_positions(tokens) >= len(prompts[0]))
                & (_positions(tokens) <= mask.long().cumsum(1).argmax(1)[:, None])
            )
        ),
        "all rows begin to count where the first one does. Each prompt has its own "
        "length.",
    ),
    Mistake(
        "padded on the left",
        _padded_on_the_left,
        "rows are filled up on the left. Sampling wants that; here the right side is "
        "asked for.",
    ),
    Mistake(
        "labels, not a mask",
        _labels,
        "the second result holds token ids and -100, which is what some libraries "
        "call labels. A mask is asked for, True or False.",
    ),
)

EXERCISE = Exercise(
    id="4.3",
    title="What SL-CAI learns from",
    reference=sl_cai_batch,
    inputs=inputs,
    mistakes=MISTAKES,
    flavours=(
        "one round",
        "two rounds",
        "one round or two",
        "no padding",
        "padding is the end token",
        "nothing but the end token",
    ),
    difficulty=2,
    minutes=15,
    points=3,
)
