"""Run a function on inputs and write down what happens; compare two such notes.

Observes values, shapes, dtypes, gradients, exceptions, printed text and changes to the
inputs. Knows nothing of right and wrong. Grading runs this file alone, beside the code
of a submission: it imports nothing of the package.
"""

import contextlib
import copy
import io
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Function = Callable[..., Any]
RTOL = 1e-5
MOST_PRINTED = 10_000


@dataclass(frozen=True)
class Observation:
    """What a function did with one input.

    Attributes:
        kind: "tensor", "array", "number", "None", "tuple of 3", or a type's name.
        values: the results as arrays; a number or a tensor is one.
        dtypes: theirs, such as "float32".
        gradients: by input, of a weighted sum of the result; None where none arrives.
        error: raised by the function.
        gradient_error: raised only when the inputs want gradients.
        changed: inputs that were modified in place.
        printed: the beginning of what it wrote to the screen.
        printed_count: characters that it wrote.
        atol: what the inputs' dtypes leave of a number near 0.
    """

    kind: str = "None"
    values: tuple[np.ndarray, ...] = ()
    dtypes: tuple[str, ...] = ()
    gradients: Mapping[str, np.ndarray | None] | None = None
    error: BaseException | None = None
    gradient_error: BaseException | None = None
    changed: tuple[str, ...] = ()
    printed: str = ""
    printed_count: int = 0
    atol: float = 1e-9

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the results."""
        return tuple(value.shape for value in self.values)

    @property
    def finite(self) -> bool:
        """Whether all results are."""
        return all(np.isfinite(value).all() for value in self.values)


class Printed(io.TextIOBase):
    """Keeps the beginning of what is printed, and counts."""

    def __init__(self) -> None:
        self.text, self.count = "", 0

    def writable(self) -> bool:
        """Say yes."""
        return True

    def write(self, text: str) -> int:
        """Count, and keep what fits."""
        self.count += len(text)
        self.text += text[: max(0, MOST_PRINTED - len(self.text))]
        return len(text)


def observe(
    function: Function, inputs: Mapping[str, Any], wanted: tuple[str, ...] = ()
) -> Observation:
    """Call a function and note what it does.

    Args:
        function: is called with copies of the inputs, by name. One that runs in
            another process is observed there: it has `observes_itself`, and takes
            `inputs` and `wanted`.
        inputs: tensors, arrays, numbers or lists.
        wanted: inputs whose gradients are noted, in a second call.
    """
    if getattr(function, "observes_itself", False):
        return function(inputs, wanted)
    given = {name: _copy(value) for name, value in inputs.items()}
    atol = 1e-6 if any("32" in _dtype(value) for value in inputs.values()) else 1e-9
    printed = Printed()
    with _quiet(printed):
        try:
            kind, leaves = _leaves(function(**given))
            values = tuple(map(_array, leaves))
        except (Exception, SystemExit) as error:
            said = {"printed": printed.text, "printed_count": printed.count}
            return Observation(error=error, atol=atol, **said)
    changed = tuple(
        name for name, value in inputs.items() if not _identical(value, given[name])
    )
    gradients, gradient_error = None, None
    if wanted and values:
        with _quiet(printed):
            gradients, gradient_error = _gradients(function, inputs, wanted)
    return Observation(
        kind=kind,
        values=values,
        dtypes=tuple(_dtype(leaf) for leaf in leaves),
        gradients=gradients,
        gradient_error=gradient_error,
        changed=changed,
        printed=printed.text,
        printed_count=printed.count,
        atol=atol,
    )


def same_values(a: Observation, b: Observation, rtol: float = RTOL) -> bool:
    """Whether two observations agree in shapes and values, or both are errors."""
    if a.error is not None or b.error is not None:
        return a.error is not None and b.error is not None
    if a.shapes != b.shapes:
        return False
    pairs = zip(a.values, b.values, strict=True)
    return all(close(x, y, rtol, max(a.atol, b.atol)) for x, y in pairs)


def same_gradients(a: Observation, b: Observation, rtol: float = RTOL) -> bool:
    """Whether the same gradients arrive at the same inputs."""
    if a.gradients is None or b.gradients is None:
        return a.gradients is b.gradients
    return all(
        same_gradient(value, b.gradients[name], rtol, max(a.atol, b.atol))
        for name, value in a.gradients.items()
    )


def same_gradient(
    a: np.ndarray | None, b: np.ndarray | None, rtol: float = RTOL, atol: float = 1e-6
) -> bool:
    """Whether two gradients are close, or both did not arrive."""
    if a is None or b is None:
        return a is b
    return close(a, b, rtol, atol)


def close(a: np.ndarray, b: np.ndarray, rtol: float = RTOL, atol: float = 1e-6) -> bool:
    """Whether two arrays agree in shape and, up to a tolerance, in values."""
    if a.shape != b.shape:
        return False
    a, b = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        near = np.isfinite(a) & (np.abs(a - b) <= atol + rtol * np.abs(a))
    return bool(np.all(near | (a == b) | (np.isnan(a) & np.isnan(b))))


@contextlib.contextmanager
def undisturbed_randomness() -> Iterator[None]:
    """Restore all random states: a check must not change what a lab does next."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


@contextlib.contextmanager
def _quiet(printed: Printed) -> Iterator[None]:
    with (
        contextlib.redirect_stdout(printed),
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
    ):
        warnings.simplefilter("ignore")
        yield


def _gradients(
    function: Function, inputs: Mapping[str, Any], wanted: tuple[str, ...]
) -> tuple[dict[str, np.ndarray | None], BaseException | None]:
    given = {name: _copy(value) for name, value in inputs.items()}
    leaves = {name: given[name].requires_grad_() for name in wanted if name in given}
    nothing = dict.fromkeys(leaves)
    try:
        result = function(**given)
        if not isinstance(result, Tensor) or not result.requires_grad:
            return nothing, None
        # Different weights, or a wrong row would look like the right one.
        weights = torch.linspace(1, 2, max(result.numel(), 1))[: result.numel()]
        total = (result * weights.reshape(result.shape).to(result.dtype)).sum()
        arrived = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    except (Exception, SystemExit) as error:
        return nothing, error
    return {
        name: None if gradient is None else _array(gradient)
        for name, gradient in zip(leaves, arrived, strict=True)
    }, None


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)


def _leaves(result: Any) -> tuple[str, tuple[Any, ...]]:
    if isinstance(result, Tensor):
        return ("complex", ()) if result.is_complex() else ("tensor", (result,))
    if isinstance(result, np.ndarray):
        readable = result.dtype.kind in "fiub"
        return ("array", (result,)) if readable else (f"array of {result.dtype}", ())
    if isinstance(result, int | float | np.integer | np.floating | np.bool_):
        return "number", (result,)
    if isinstance(result, tuple | list) and result:
        if all(isinstance(item, Tensor) for item in result):
            return f"tuple of {len(result)}", tuple(result)
        return type(result).__name__, ()
    return "None" if result is None else type(result).__name__, ()


def _array(value: Any) -> np.ndarray:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return np.asarray(value)


def _dtype(value: Any) -> str:
    return str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")


def _identical(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor | np.ndarray):
        return a.shape == b.shape and close(_array(a), _array(b), 0.0, 0.0)
    return a == b
