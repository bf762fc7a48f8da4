"""A wrong answer and what is wrong with it."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Wrong(NamedTuple):
    """A wrong answer.

    Attributes:
        misconception: in words.
        function: the answer.
        expected: words, separated by |, one of which a right diagnosis says in its
            name or message; empty where that is hard to say.
    """

    misconception: str
    function: Callable[..., Any]
    expected: str = ""
