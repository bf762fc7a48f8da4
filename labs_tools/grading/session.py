"""A submission at work: its process, and its answers as they can be observed there.

`Session` starts a worker behind walls and speaks `protocol` with it under a time limit.
Of what comes back nothing is believed but its form: an `Observation` is made of it, and
compared elsewhere.
"""

import builtins
import contextlib
import inspect
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from labs_helpers.course.exercises.observe import Observation
from labs_tools.grading import protocol, sandbox

Functions = Mapping[str, Callable[..., Any]]
START_SECONDS = 120.0
NO_MEMORY = 77  # the worker's exit code


@dataclass(frozen=True)
class Limits:
    """What a submission may use; memory in bytes beyond what Python and torch take."""

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


class Session:
    """One process of one submission. Close it; a stopped one cannot be used again.

    Attributes:
        lent: our functions that stand in place of answers.
        printed: characters that the submission has printed.
        seen_errors: names of the types of the exceptions that it raised.
    """

    def __init__(self, limits: Limits, hidden: Sequence[Path] = ()):
        self.printed = 0
        self.seen_errors: set[str] = set()
        self._deadline = time.monotonic() + START_SECONDS
        self.lent: dict[str, Callable[..., Any]] = {}
        self._library: Functions = {}
        memory, seconds = limits.memory, int(limits.total_seconds) + 60
        self._process = subprocess.Popen(
            sandbox.start_command([str(memory), str(seconds)], hidden),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=sandbox.environment(),
            cwd=tempfile.gettempdir(),
            start_new_session=True,
        )
        os.set_blocking(self._process.stdin.fileno(), False)
        try:
            self._receive()
        except Stopped as stopped:
            self._process.kill()
            words = self._process.stderr.read()[-500:].decode(errors="replace").strip()
            self.close()
            raise RuntimeError(
                f"no process for submissions can be started ({stopped}): {words}"
            ) from None

    def close(self) -> None:
        """End the process and everything in it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with self._process:
            self._process.kill()

    def allow(self, seconds: float) -> None:
        """Set the time from now on after which the process is stopped."""
        self._deadline = time.monotonic() + seconds

    def define(self, label: str, source: str) -> list[dict[str, Any]]:
        """Run a piece of the notebook; return the errors of its statements."""
        reply = self.ask({"do": "define", "label": label, "source": source})
        errors = reply.get("errors")
        errors = [*(errors if isinstance(errors, list) else []), reply.get("error")]
        errors = [error for error in errors if isinstance(error, dict)]
        self.seen_errors.update(str(error.get("type")) for error in errors)
        return errors

    def lend(self, answers: Functions, library: Functions) -> None:
        """Let the submission call functions of ours.

        Args:
            answers: stand from now on in place of answers that are not right.
            library: functions of labs_helpers, until the next call.
        """
        self.lent |= answers
        self._library = library
        self.ask({"do": "lend", "answers": [*answers], "library": [*library]})

    def find(self, name: str) -> Any:
        """Look up an answer; what cannot be called is told by its type alone."""
        reply = self.ask({"do": "find", "name": name})
        if reply.get("error") is not None:
            raise self.error(reply["error"])
        if reply.get("not_callable") is not None:
            return protocol.stand_in(str(reply["not_callable"]))
        return Answer(self, name, reply.get("parameters"))

    def ask(
        self, message: dict[str, Any], functions: Functions | None = None
    ) -> dict[str, Any]:
        """Send a message and wait for its reply, calling functions meanwhile."""
        self._send(message)
        while "ask" in (reply := self._receive()):
            own = {**self.lent, **self._library, **(functions or {})}
            try:
                self._send(_called(own, reply))
            except Exception as error:  # whatever they call it with
                self._send({"error": str(error)[:500], "type": type(error).__name__})
        count = reply.get("printed_total")
        self.printed = count if isinstance(count, int) else 0
        return reply

    def error(self, described: Any) -> Exception:
        """Make an exception of what the worker says about one."""
        described = described if isinstance(described, dict) else {}
        name = str(described.get("type", "Exception"))[:60]
        self.seen_errors.add(name)
        base = getattr(builtins, str(described.get("builtin")), None)
        usable = isinstance(base, type) and issubclass(base, Exception)
        if not usable or issubclass(base, UnicodeError | ExceptionGroup):
            base = Exception
        if base.__name__ != name:
            base = type(name if name.isidentifier() else "object", (base,), {})
        error = base(str(described.get("text", ""))[:500])
        error.quoted_line = str(described.get("line", ""))[:200]
        return error

    def _send(self, message: dict[str, Any]) -> None:
        view = memoryview(protocol.pack(message))
        pipe = self._process.stdin.fileno()
        while view:
            self._wait([], [pipe])
            try:
                view = view[os.write(pipe, view) :]
            except BrokenPipeError:
                raise self._gone() from None

    def _receive(self) -> dict[str, Any]:
        try:
            return protocol.receive(self._read)
        except EOFError:
            raise self._gone() from None
        except protocol.BadMessage as error:
            raise Stopped(
                "broke the connection",
                f"the code wrote into the pipe that carries its results ({error}).",
            ) from None

    def _read(self, length: int) -> bytes:
        pipe = self._process.stdout.fileno()
        self._wait([pipe], [])
        return os.read(pipe, min(length, 1 << 20))

    def _wait(self, to_read: list[int], to_write: list[int]) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0 or not any(select.select(to_read, to_write, [], left)):
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
    """A function of a submission: observed where it runs, known here by its signature.

    Calling it observes it on inputs, as `observe` does with a function of this process.
    """

    observes_itself: ClassVar = True
    __signature__: ClassVar = inspect.signature(lambda *args, **kwargs: None)

    def __init__(self, session: Session, name: str, parameters: Any):
        self._session, self._name = session, name
        kinds = list(inspect._ParameterKind)
        with contextlib.suppress(TypeError, ValueError, IndexError):  # said by it
            known = [
                inspect.Parameter(
                    str(name),
                    kinds[int(kind)],
                    default=inspect.Parameter.empty if required is True else None,
                )
                for name, kind, required in parameters
            ]
            self.__signature__ = inspect.Signature(known)

    def __call__(
        self, inputs: Mapping[str, Any], wanted: Sequence[str] = ()
    ) -> Observation:
        """Observe it on inputs. The tolerance stays ours: it is no observation."""
        functions = {k: v for k, v in inputs.items() if _is_function(v)}
        given = {**inputs, **{name: protocol.Function(name) for name in functions}}
        asked = {"do": "observe", "name": self._name, "inputs": given, "wanted": wanted}
        seen = self._session.ask(asked, functions)
        printed = str(seen.get("printed", ""))[:1000]
        error, gradient_error = (
            None if seen.get(key) is None else self._session.error(seen[key])
            for key in ("error", "gradient_error")
        )
        if error is not None:
            return Observation(error=error, printed=printed)
        values, dtypes, changed = (
            found if isinstance(found := seen.get(name), tuple) else ()
            for name in ("values", "dtypes", "changed")
        )
        gradients = None
        if isinstance(arrived := seen.get("gradients"), dict):
            found = {name: arrived.get(name) for name in wanted}
            gradients = {k: v if _is_array(v) else None for k, v in found.items()}
        return Observation(
            kind=str(seen.get("kind"))[:60],
            values=tuple(filter(_is_array, values)),
            dtypes=tuple(map(str, dtypes)),
            gradients=gradients,
            gradient_error=gradient_error,
            changed=tuple(map(str, changed)),
            printed=printed,
        )


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, Tensor | np.ndarray | np.generic)


def _called(functions: Functions, asked: dict[str, Any]) -> dict[str, Any]:
    """Call a function of ours for the submission, or go back through its gradients."""
    args, kwargs = list(asked["args"]), dict(asked["kwargs"])
    given = {**dict(enumerate(args)), **kwargs}
    leaves = [given[name].requires_grad_() for name in asked["wanted"]]
    with torch.enable_grad():
        result = functions[asked["ask"]](*args, **kwargs)
    items = result if isinstance(result, tuple | list) else [result]
    outputs = [item for item in items if isinstance(item, Tensor)]
    if "gradients" not in asked:
        tracked = [bool(leaves) and output.requires_grad for output in outputs]
        return {"result": result, "tracked": tracked}
    pairs = [
        (output, gradient)
        for output, gradient in zip(outputs, asked["gradients"], strict=True)
        if output.requires_grad and gradient is not None
    ]
    ours, theirs = zip(*pairs, strict=True)
    return {"gradients": torch.autograd.grad(ours, leaves, theirs, allow_unused=True)}
