"""What an exercise is, and what its check says about an answer.

Plain types: the reference, how to make inputs, the bank of mistakes, the diagnosis.
Runs nothing.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from labs_helpers.common.printable import text_table

Function = Callable[..., Any]
Inputs = dict[str, Any]
UNKNOWN = "differs from the reference"


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people give.

    Attributes:
        name: a few words.
        function: computes it.
        message: what the symptom means and where to look; never the solution.
    """

    name: str
    function: Function
    message: str


@dataclass(frozen=True)
class Exercise:
    """One function for the student to write.

    Attributes:
        id: lab and number, such as "1.2".
        title: a few words.
        reference: the right answer; its signature is the one that is asked for.
        inputs: takes a generator, a size (1 is the smallest) and a flavour, gives the
            arguments by name. Temperatures and the like are Python floats above 0.
        mistakes: the bank.
        flavours: kinds of input, such as "plain", "large values", "padding is NaN".
        gradients: inputs whose gradients count; none where the result is a metric, and
            any kind of number will do.
        difficulty: 1 to 5.
        minutes: that it takes.
        points: that it earns.
    """

    id: str
    title: str
    reference: Function
    inputs: Callable[[np.random.Generator, int, str], Inputs]
    mistakes: tuple[Mistake, ...]
    flavours: tuple[str, ...] = ("plain",)
    gradients: tuple[str, ...] = ()
    difficulty: int = 1
    minutes: int = 5
    points: int = 1

    @property
    def name(self) -> str:
        """The function that the student writes is called as the reference is."""
        return self.reference.__name__


class Finding(NamedTuple):
    """The name of a mistake and what to tell the student."""

    name: str
    message: str


@dataclass(frozen=True)
class Counterexample:
    """An input on which an answer is wrong, as small as could be found."""

    inputs: Mapping[str, Any]
    expected: Mapping[str, Any]
    got: Mapping[str, Any]

    def __str__(self) -> str:
        rows = [(name, *_shown(value)) for name, value in self.inputs.items()]
        for name, value in self.expected.items():
            rows.append((f"{name}, expected", *_shown(value)))
            rows.append((f"{name}, yours", *_shown(self.got.get(name))))
        return text_table(("", "shape", "value"), rows)


@dataclass(frozen=True)
class Diagnosis:
    """What a check found.

    Attributes:
        correct: whether the answer is right.
        mistake: the name of the mistake; None when right or when nobody knows it.
        message: one or two sentences for the student.
        points: earned.
        max_points: that could be earned.
        counterexample: for a mistake without a name.
    """

    correct: bool
    mistake: str | None
    message: str
    points: float
    max_points: float
    counterexample: Counterexample | None = None

    @property
    def name(self) -> str:
        """The diagnosis in a few words."""
        return "correct" if self.correct else self.mistake or UNKNOWN

    def __str__(self) -> str:
        points = f"{self.points:g} of {self.max_points:g} points"
        if self.correct:
            return " ".join(filter(None, [f"correct, {points}.", self.message]))
        named = f"{self.mistake}: " if self.mistake else ""
        text = f"not yet, {points}.\n{named[:1].upper()}{named[1:]}{self.message}"
        if self.counterexample is not None:
            text += f"\n\n{self.counterexample}\n"
        return text


class CheckFailed(AssertionError):
    """A wrong answer under LABS_STRICT=1. Jupyter shows its message alone."""

    def _render_traceback_(self) -> list[str]:
        return [f"CheckFailed: {self}"]


def lend(exercise: Exercise) -> Function:
    """Return the reference, marked as not the student's own."""

    @functools.wraps(exercise.reference)
    def reference(*args: Any, **kwargs: Any) -> Any:
        return exercise.reference(*args, **kwargs)

    reference.is_lent = True
    return reference


def is_lent(function: Any) -> bool:
    """Whether a function came from `lend`."""
    return getattr(function, "is_lent", False)


def _shown(value: Any) -> tuple[str, str]:
    """Shape and value for a table."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        text = np.array2string(value, precision=4, separator=", ", threshold=24)
        return str(value.shape), " ".join(text.split())
    if isinstance(value, float):
        return "", f"{value:.6g}"
    return "", str(value)
