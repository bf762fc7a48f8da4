"""What a model can read: its vocabulary and its positions, checked before it is asked.

In go a model and rows of token ids; out comes nothing, or an error that names the row,
what was expected and what to do.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from torch import nn
from transformers import PreTrainedTokenizerBase as Tokenizer

T = TypeVar("T")


def check_fits(
    model: Any,
    tokenizer: Tokenizer,
    rows: Sequence[Sequence[int]],
    room: int = 0,
    numbers: Sequence[int] | None = None,
) -> None:
    """Refuse rows of tokens that a model cannot read.

    Args:
        tokenizer: names the tokens.
        room: tokens that are to follow each row.
        numbers: what the rows are called, by default 0, 1, 2 ...

    Raises:
        ValueError: a row is empty, too long, or holds a token without an embedding.
    """
    size, limit = vocabulary(model), positions(model)
    for number, row in zip(numbers or range(len(rows)), rows, strict=True):
        if not row:
            raise ValueError(
                f"row {number} is empty: its text gives no token, and without a chat "
                "template or a beginning token there is nothing for the model to read. "
                "Give it some text, or leave it out"
            )
        if max(row) >= size:
            token = max(row)
            raise ValueError(
                f"row {number} holds token {token}, "
                f"{tokenizer.convert_ids_to_tokens(token)!r}; the model has embeddings "
                f"for {size} tokens, 0 to {size - 1}. Take the tokenizer that belongs "
                "to the model, or make room for what was added to it: "
                "model.resize_token_embeddings(len(tokenizer))"
            )
        if limit is not None and len(row) + room > limit:
            asked = f"is {len(row)} tokens long"
            advice = "Shorten it, or leave it out"
            if room:
                asked += f" and {room} new ones (max_new_tokens) are to follow"
                if len(row) < limit:
                    advice += f", or let at most {limit - len(row)} follow"
            raise ValueError(
                f"row {number} {asked}; the model has {limit} positions. {advice}. It "
                f"begins {tokenizer.decode(row[:20])!r}"
            )


def pad_token(tokenizer: Tokenizer, model: nn.Module) -> int:
    """A token to pad with: the tokenizer's own, if the model can read that."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token is not None and 0 <= token < vocabulary(model):
            return token
    return 0


def vocabulary(model: Any) -> int:
    """How many tokens a model has embeddings for."""
    if not hasattr(model, "get_input_embeddings"):
        more = " (its .policy is one)" if hasattr(model, "policy") else ""
        raise ValueError(
            "expected a language model, as load_policy gives one; got a "
            f"{type(model).__name__}{more}"
        )
    return model.get_input_embeddings().weight.shape[0]


def positions(model: nn.Module) -> int | None:
    """The longest sequence that a model was made for, None if nothing says it."""
    limits = [
        table.num_embeddings - table.padding_idx - 1  # RoBERTa counts from its padding
        for name, table in model.named_modules()
        if isinstance(table, nn.Embedding)
        and name.endswith("position_embeddings")
        and table.padding_idx is not None
    ]
    config = model.config.get_text_config()
    for name in ("max_position_embeddings", "max_seq_len"):
        limit = getattr(config, name, None)
        if isinstance(limit, int) and limit > 0:
            limits.append(limit)
    return min(limits, default=None)


def each_named(name: str, encode: Callable[..., T], rows: Iterable[tuple]) -> list[T]:
    """Encode each row, given as arguments; an error says of which row it speaks."""
    found = []
    for number, row in enumerate(rows):
        try:
            found.append(encode(*row))
        except ValueError as error:
            raise ValueError(f"{name} {number}: {error}") from error
    return found
