"""What an exercise is, how its inputs are drawn, and what its check says of an answer.

Runs nothing.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from labs_helpers.common.printable import text_table
from labs_helpers.course.exercises.patches import (
    Function,
    Mistake,
    Patch,
    mistakes_of,
    pairs_of,
)

Inputs = dict[str, Any]
UNKNOWN = "differs from the reference"


@dataclass(frozen=True)
class Exercise:
    """One function for the student to write.

    Attributes:
        id: lab and number, such as "1.2".
        title: a few words.
        reference: the right answer; its signature is the one that is asked for.
        inputs: takes a generator, a size (1 is the smallest) and a flavour, gives the
            arguments by name. Temperatures and the like are Python floats above 0.
        kinds: of input, its flavours, such as "plain; large values; padding is NaN".
        card: difficulty (1 to 5), minutes that it takes, points that it earns.
        gradients: inputs whose gradients count; none where the result is a metric, and
            any kind of number will do.
        patches: the bank of wrong answers, as it is read.
    """

    id: str
    title: str
    reference: Function
    inputs: Callable[[np.random.Generator, int, str], Inputs]
    kinds: str
    card: tuple[int, int, int]
    gradients: tuple[str, ...] = ()
    patches: tuple[Patch, ...] = ()

    @property
    def name(self) -> str:
        """The function that the student writes is called as the reference is."""
        return self.reference.__name__

    @property
    def points(self) -> float:
        """That it earns."""
        return float(self.card[2])

    @functools.cached_property
    def flavours(self) -> tuple[str, ...]:
        """Kinds of input."""
        return tuple(self.kinds.split("; "))

    @functools.cached_property
    def mistakes(self) -> tuple[Mistake, ...]:
        """Wrong answers that people give."""
        return mistakes_of(self.reference, self.patches)

    @functools.cached_property
    def pairs(self) -> tuple[Mistake, ...]:
        """Two of them at once, where their patches fit together."""
        return tuple(pairs_of(self.reference, self.patches))


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


# Random inputs


def tensors(flavour: str, **drawn: Any) -> Inputs:
    """Make tensors of arrays, of float32 or, where the flavour says so, of float64."""
    given = {}
    for name, value in drawn.items():
        if isinstance(value, np.ndarray):
            value = torch.tensor(value)
            if value.is_floating_point() and "float64" not in flavour:
                value = value.float()
        given[name] = value.item() if isinstance(value, np.generic) else value
    return given


def logprobs(
    rng: np.random.Generator, *shape: int, around: float = -8.0, scale: float = 2.0
) -> np.ndarray:
    """Draw log-probs of whole answers, multiples of 1/16.

    On a coarse binary grid float32 adds and subtracts without rounding, so that the
    order in which an answer does it makes no difference.
    """
    return np.asarray(np.round(rng.normal(around, scale, size=shape) * 16) / 16)


def draw_beta(rng: np.random.Generator) -> float:
    """Draw a price of KL, a multiple of 1/32 that is far from 1."""
    return rng.choice([rng.integers(2, 13), rng.integers(48, 65)]).item() / 32


def pair_inputs(
    rng: np.random.Generator,
    size: int,
    flavour: str,
    names: Sequence[str] = (
        "policy_chosen",
        "policy_rejected",
        "reference_chosen",
        "reference_rejected",
    ),
) -> Inputs:
    """Log-probs of two answers to each prompt, by policy and reference, and beta."""
    around, scale = -8.0, 2.0
    if flavour == "long answers":
        around = -900.0
    if flavour == "large differences":
        around, scale = -9000.0, 3000.0
    drawn = logprobs(rng, len(names), size, around=around, scale=scale)
    if flavour == "policy is the reference":
        drawn[:2] = drawn[2:]
    given = dict(zip(names, drawn, strict=True))
    return tensors(flavour, **given, beta=draw_beta(rng))


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
