"""A submission at work: its process, and its functions as if they were here.

`Session` starts a worker behind walls and speaks `protocol` with it under a time limit.
`Answer` is a function of the submission that the checks can call; values and gradients
cross as plain tensors, nothing else does.
"""

import builtins
import contextlib
import inspect
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labs_tools.grading import protocol, sandbox

START_SECONDS = 120.0
NO_MEMORY = 77  # the worker's exit code
FIRST_LENT = 1_000
KEPT_CALLS = 16


@dataclass(frozen=True)
class Limits:
    """What a submission may use.

    Attributes:
        exercise_seconds: for one exercise, its definition and all calls.
        total_seconds: for all exercises.
        memory: bytes beyond what Python and torch take.
        printed: characters that pass without a remark.
    """

    exercise_seconds: float = 30.0
    total_seconds: float = 180.0
    memory: int = 1 << 30
    printed: int = 1 << 20


class Stopped(BaseException):
    """The process of a submission is gone: why, in a few words, and for people.

    No Exception, so that no check takes it for an error of the answer.
    """

    def __init__(self, name: str, message: str):
        super().__init__(f"{name}: {message}")
        self.name, self.message = name, message


class AnswerError(Exception):
    """An exception in the submission whose type does not exist here."""


class Session:
    """One process of one submission. Close it; a stopped one cannot be used again."""

    def __init__(self, limits: Limits, hidden: Sequence[Path] = ()):
        self.limits = limits
        self.printed = 0
        self.seen_errors: set[str] = set()
        self._deadline = time.monotonic() + START_SECONDS
        self._lent: dict[int, Callable[..., Any]] = {}
        self._allowed: set[int] = set()
        self._own_calls: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        self._calls = 0
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        memory, seconds = limits.memory, int(limits.total_seconds) + 60
        self._process = subprocess.Popen(
            sandbox.start_command([str(memory), str(seconds)], hidden),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=sandbox.environment(),
            cwd=tempfile.gettempdir(),
            start_new_session=True,
        )
        for pipe in (self._process.stdin, self._process.stdout):
            os.set_blocking(pipe.fileno(), False)
        try:
            self.sealed = bool(self._receive().get("sealed"))
        except Stopped as stopped:
            self._log.seek(0)
            words = self._log.read()[-500:].decode(errors="replace").strip()
            self.close()
            raise RuntimeError(
                f"no process for submissions can be started ({stopped}): {words}"
            ) from None

    def close(self) -> None:
        """End the process and everything in it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._log.close()

    def allow(self, seconds: float) -> None:
        """Set the time from now on after which the process is stopped."""
        self._deadline = time.monotonic() + seconds

    def define(self, label: str, source: str) -> list[dict[str, Any]]:
        """Run a piece of the notebook; return the errors of its statements."""
        reply = self.ask({"do": "define", "label": label, "source": source})
        errors = reply.get("errors", [])
        errors = [e for e in [*errors, reply.get("error")] if isinstance(e, dict)]
        self.seen_errors.update(str(error.get("type")) for error in errors)
        return errors

    def lend(self, name: str, function: Callable[..., Any]) -> None:
        """Put a function of ours in place of an answer that is not right."""
        self.ask({"do": "lend", "name": name, "number": self._number(function)})

    def allow_calls(self, functions: dict[str, Callable[..., Any]]) -> None:
        """Let the submission call these functions of labs_helpers, and no others."""
        numbers = {name: self._number(function) for name, function in functions.items()}
        for number in self._allowed:
            del self._lent[number]
        self._allowed = set(numbers.values())
        self.ask({"do": "allow", "functions": numbers})

    def _number(self, function: Callable[..., Any]) -> int:
        number = max(self._lent, default=FIRST_LENT) + 1
        self._lent[number] = function
        return number

    def find(self, expression: str) -> Any:
        """Look up an object of the submission; what can be called is an Answer."""
        reply = self.ask({"do": "find", "expression": expression})
        if "error" in reply:
            raise self.error(reply["error"])
        if not reply.get("callable"):
            return _of_type(str(reply.get("type")))
        return Answer(self, int(reply["number"]), reply.get("parameters"))

    def ask(
        self, message: dict[str, Any], functions: Sequence[Callable[..., Any]] = ()
    ) -> dict[str, Any]:
        """Send a message and wait for its reply, calling functions meanwhile."""
        self._send(message)
        while True:
            reply = self._receive()
            if "ask" not in reply:
                break
            self._send(self._asked(functions, reply))
        count = reply.get("printed_count")
        self.printed = count if isinstance(count, int) else 0
        return reply

    def _asked(
        self, functions: Sequence[Callable[..., Any]], reply: dict[str, Any]
    ) -> dict[str, Any]:
        """Answer the submission, which calls a function of ours."""
        try:
            if reply["ask"] == "backward":
                return self._asked_backward(reply)
            own = {**dict(enumerate(functions)), **self._lent}
            args, kwargs = list(reply["args"]), dict(reply.get("kwargs", {}))
            args = [_plain(value) for value in args]
            kwargs = {str(name): _plain(value) for name, value in kwargs.items()}
            given = {**dict(enumerate(args)), **kwargs}
            leaves = [given[n].requires_grad_() for n in reply["wants_gradient"]]
            with torch.enable_grad():
                result = own[reply["ask"]](*args, **kwargs)
            items = result if isinstance(result, tuple | list) else [result]
            outputs = [item for item in items if isinstance(item, Tensor)]
            call = self.next_call()
            self._own_calls[call] = outputs, leaves
            while len(self._own_calls) > KEPT_CALLS:
                self._own_calls.pop(next(iter(self._own_calls)))
            tracked = [bool(leaves) and item.requires_grad for item in outputs]
            return {"result": result, "tracked": tracked, "call": call}
        except Exception as error:  # whatever they call it with
            return {"error": f"{type(error).__name__}: {error}"[:500]}

    def _asked_backward(self, reply: dict[str, Any]) -> dict[str, Any]:
        outputs, leaves = self._own_calls[reply["call"]]
        pairs = [
            (output, gradient)
            for output, gradient in zip(outputs, reply["gradients"], strict=True)
            if output.requires_grad and gradient is not None
        ]
        arrived = torch.autograd.grad(
            [output for output, _ in pairs],
            leaves,
            [gradient for _, gradient in pairs],
            retain_graph=True,
            allow_unused=True,
        )
        return {"gradients": list(arrived)}

    def next_call(self) -> int:
        """Number a call, for the way back of gradients."""
        self._calls += 1
        return self._calls

    def error(self, described: Any) -> Exception:
        """Make an exception of what the worker says about one."""
        described = described if isinstance(described, dict) else {}
        name = str(described.get("type", "Exception"))[:60]
        self.seen_errors.add(name)
        builtin = getattr(builtins, str(described.get("builtin")), AnswerError)
        usable = isinstance(builtin, type) and issubclass(builtin, Exception)
        usable = usable and not issubclass(builtin, UnicodeError | ExceptionGroup)
        base = builtin if usable else AnswerError
        if base.__name__ != name:
            base = type(_identifier(name), (base,), {})
        error = base(str(described.get("text", ""))[:500])
        error.quoted_line = str(described.get("line", ""))[:200]
        return error

    def _send(self, message: dict[str, Any]) -> None:
        view = memoryview(protocol.pack(message))
        pipe = self._process.stdin.fileno()
        while view:
            self._wait(pipe, to_write=True)
            try:
                view = view[os.write(pipe, view) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._gone() from None

    def _receive(self) -> dict[str, Any]:
        try:
            start = self._read(protocol.LENGTHS.size)
            header, data = (self._read(n) for n in protocol.lengths(start))
            return protocol.unpack(header, data, _of_number)
        except protocol.BadMessage as error:
            raise Stopped(
                "broke the connection",
                f"the code wrote into the pipe that carries its results ({error}).",
            ) from None

    def _read(self, length: int) -> bytes:
        parts, missing = [], length
        pipe = self._process.stdout.fileno()
        while missing:
            self._wait(pipe, to_write=False)
            try:
                part = os.read(pipe, min(missing, 1 << 20))
            except BlockingIOError:
                continue
            if not part:
                raise self._gone()
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _wait(self, pipe: int, to_write: bool) -> None:
        left = self._deadline - time.monotonic()
        ways = ([], [pipe]) if to_write else ([pipe], [])
        if left <= 0 or not any(select.select(*ways, [], left)):
            raise Stopped(
                "time limit",
                "it does not come to an end. Look for a loop whose condition never "
                "changes.",
            )

    def _gone(self) -> Stopped:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        if code == NO_MEMORY:
            return Stopped(
                "memory limit",
                "it takes more memory than a submission has. Look for a list that "
                "grows without end.",
            )
        return Stopped(
            "ended its process",
            f"the Python process ended while it ran (exit code {code}). Look for "
            "exit(), os._exit(), or for more memory than there is.",
        )


class Answer:
    """A function of a submission, called where it runs."""

    def __init__(self, session: Session, number: int, parameters: Any):
        self._session, self._number = session, number
        self._names: list[str] = []
        try:
            kinds = list(inspect._ParameterKind)
            known = [
                inspect.Parameter(
                    str(name),
                    kinds[int(kind)],
                    default=None if default else inspect.Parameter.empty,
                )
                for name, kind, default in parameters
            ]
            self.__signature__ = inspect.Signature(known)
        except (TypeError, ValueError, IndexError):
            pass  # as with builtins, which have none
        else:
            plain = inspect.Parameter.POSITIONAL_OR_KEYWORD
            self._names = [p.name for p in known if p.kind == plain]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it there; gradients find their way back."""
        names = self._names[: len(args)]
        if len(names) == len(args) and not set(names) & set(kwargs):
            args, kwargs = (), {**dict(zip(names, args, strict=True)), **kwargs}
        functions: list[Callable[..., Any]] = []
        call = self._session.next_call()
        wanted = [k for k, v in kwargs.items() if _wants_gradient(v)]
        reply = self._session.ask(
            {
                "do": "call",
                "number": self._number,
                "call": call,
                "args": [_crossing(value, functions) for value in args],
                "kwargs": {k: _crossing(v, functions) for k, v in kwargs.items()},
                "wants_gradient": wanted,
            },
            functions,
        )
        if self._session.printed:
            sys.stdout.write(str(reply.get("printed", ""))[:1000])
        if "error" in reply:
            raise self._session.error(reply["error"])
        _change(kwargs, reply.get("changed"))
        result = _plain(reply.get("result"))
        if not wanted:
            return result
        tracked = [flag is True for flag in reply.get("tracked") or []]
        leaves = [kwargs[name] for name in wanted]
        return _with_gradients(self._session, call, result, tracked, leaves)


class _Crossing(torch.autograd.Function):
    """Outputs that came from a submission; backward asks it for the gradients."""

    @staticmethod
    def forward(ctx, session, call, outputs, tracked, *leaves):
        ctx.session, ctx.call = session, call
        ctx.set_materialize_grads(False)
        ctx.like = [(leaf.shape, leaf.dtype) for leaf in leaves]
        fresh = tuple(output.clone() for output in outputs)
        ctx.mark_non_differentiable(
            *(x for x, flag in zip(fresh, tracked, strict=True) if not flag)
        )
        return fresh

    @staticmethod
    def backward(ctx, *gradients):
        asked = {"do": "backward", "call": ctx.call, "gradients": list(gradients)}
        reply = ctx.session.ask(asked)
        if "error" in reply:
            raise ctx.session.error(reply["error"])
        arrived = list(reply.get("gradients") or [])
        arrived += [None] * (len(ctx.like) - len(arrived))
        usable = [
            value
            if isinstance(value, Tensor) and (value.shape, value.dtype) == like
            else None
            for value, like in zip(arrived, ctx.like, strict=False)
        ]
        return None, None, None, None, *usable


def _with_gradients(
    session: Session,
    call: int,
    result: Any,
    tracked: Sequence[bool],
    leaves: Sequence[Tensor],
) -> Any:
    """Tie the tensors of a result to the inputs whose gradients are wanted."""
    several = isinstance(result, tuple | list)
    items = list(result) if several else [result]
    outputs = [item for item in items if isinstance(item, Tensor)]
    # Whole numbers have no gradients, whatever is said of them.
    flags = [
        flag and output.is_floating_point()
        for output, flag in zip(outputs, tracked, strict=False)
    ]
    flags += [False] * (len(outputs) - len(flags))
    if not any(flags):
        return result
    tied = iter(_Crossing.apply(session, call, outputs, flags, *leaves))
    items = [next(tied) if isinstance(item, Tensor) else item for item in items]
    return type(result)(items) if several else items[0]


def _wants_gradient(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


class _Given:
    """Stands for a function that the submission may call: its number crosses."""

    def __init__(self, number: int):
        self.number = number

    def __call__(self) -> None:
        raise NotImplementedError


def _crossing(value: Any, functions: list[Callable[..., Any]]) -> Any:
    if isinstance(value, Tensor | np.ndarray | np.generic) or not callable(value):
        return value
    functions.append(value)
    return _Given(len(functions) - 1)


def _change(given: dict[str, Any], changed: Any) -> None:
    """Do to our inputs what the submission did to its copies."""
    for name, value in (changed if isinstance(changed, dict) else {}).items():
        target = given.get(name)
        if isinstance(target, Tensor) and isinstance(value, Tensor):
            target.data = value
        elif isinstance(target, np.ndarray) and isinstance(value, np.ndarray):
            if target.shape == value.shape:
                target[...] = value
        elif isinstance(target, list) and isinstance(value, list):
            target[:] = value
        elif isinstance(target, dict) and isinstance(value, dict):
            target.clear()
            target.update(value)


def _plain(value: Any) -> Any:
    """Replace what did not cross by something of a type with the same name."""
    if isinstance(value, protocol.Other):
        return _of_type(value.name)
    if isinstance(value, tuple | list):
        return type(value)(_plain(item) for item in value)
    return value


def _of_type(name: str) -> Any:
    if name == "Tensor":  # complex, sparse and the like
        return torch.zeros((), dtype=torch.complex64)
    return type(_identifier(name), (), {})()


def _of_number(number: int) -> protocol.Other:
    return protocol.Other("function")


def _identifier(name: str) -> str:
    return name if name.isidentifier() else "object"
