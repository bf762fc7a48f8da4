"""Runs inside the sandbox: holds a submission's answers and calls them when asked.

In go pieces of notebooks and calls, out come plain values: see `protocol`, of which a
copy lies beside this file. Nothing here is secret or trusted; the submission shares
this process and may change all of it, which alters what it answers and nothing else.
"""

import __future__

import ast
import builtins
import ctypes
import importlib.abc
import importlib.machinery
import inspect
import io
import linecache
import os
import platform
import resource
import signal
import struct
import sys
import traceback
import types
import typing

import numpy as np  # noqa: F401 - loaded before memory is limited
import torch

try:
    import protocol
except ModuleNotFoundError:  # outside of the sandbox, for tests
    from labs_tools.grading import protocol

MOST_PRINTED = 10_000
KEPT_CALLS = 4
NO_MEMORY = 77  # exit code


class LentFunction(Exception):
    """An answer called a function of labs_helpers."""


class Lent:
    """Stands for what is in labs_helpers. Annotations may name it.

    A call works where the grader lends the function for the exercise at hand.
    """

    allowed: typing.ClassVar = {}

    def __init__(self, name):
        self._name = name

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Lent(f"{self._name}.{name}")

    def __call__(self, *args, **kwargs):
        """Have the grader compute it, or refuse."""
        function = Lent.allowed.get(self._name.rpartition(".")[2])
        if function is not None:
            return function(*args, **kwargs)
        raise LentFunction(f"{self._name} belongs to the course")

    def __getitem__(self, item):
        return self

    def __or__(self, other):
        return self

    __ror__ = __or__


class LentModule(types.ModuleType):
    """A module of labs_helpers without its content."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Lent(f"{self.__name__}.{name}")


class LentModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds labs_helpers.anything."""

    def find_spec(self, name, path=None, target=None):
        """Answer for our package alone."""
        if name.partition(".")[0] in ("labs_helpers", "labs_tools"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        """Make a module without content."""
        return LentModule(spec.name)

    def exec_module(self, module):
        """Run nothing."""


class Printed(io.TextIOBase):
    """Counts what is printed and keeps the beginning."""

    def __init__(self):
        self.text, self.count = "", 0

    def writable(self):
        """Say yes."""
        return True

    def write(self, text):
        """Count, and keep what fits."""
        self.count += len(text)
        if len(self.text) < MOST_PRINTED:
            self.text += text[: MOST_PRINTED - len(self.text)]
        return len(text)


class Worker:
    """The pieces defined so far, and the objects and calls that were asked for."""

    def __init__(self, source, sink):
        self._source, self._sink = source, sink
        self._module = types.ModuleType("__main__")
        self._objects = []
        self._calls = {}
        self._flags = 0
        self._printed = Printed()
        self._spaces = vars(self._module)
        self._spaces["__builtins__"] = builtins
        sys.modules["__main__"] = self._module

    def serve(self):
        """Answer until the grader hangs up."""
        while (message := self._receive()) is not None:
            try:
                reply = getattr(self, "do_" + message["do"])(message)
            except BaseException as error:
                reply = {"error": described(error)}
            reply["printed"] = self._printed.text[:MOST_PRINTED]
            reply["printed_count"] = self._printed.count
            self._send(reply)

    def do_define(self, message):
        """Run a piece, statement by statement: one that fails takes no other along."""
        label, source = message["label"], message["source"]
        filename = f"<{label}>"
        lines = source.splitlines(keepends=True)
        linecache.cache[filename] = (len(source), None, lines, filename)
        if "from __future__ import annotations" in source:
            self._flags = __future__.annotations.compiler_flag
        errors = []
        for statement in ast.parse(source, filename).body:
            try:
                piece = ast.Module([statement], [])
                code = compile(piece, filename, "exec", self._flags, dont_inherit=True)
                exec(code, self._spaces)
            except BaseException as error:
                errors.append(described(error))
        return {"errors": errors}

    def do_find(self, message):
        """Look up what is to be called."""
        found = eval(message["expression"], self._spaces)
        self._objects.append(found)
        parameters = None
        if callable(found):
            try:
                kinds = inspect.signature(found).parameters.values()
                parameters = [
                    [p.name, int(p.kind), p.default is not p.empty] for p in kinds
                ]
            except (TypeError, ValueError):
                parameters = None
        return {
            "number": len(self._objects) - 1,
            "callable": callable(found),
            "type": type(found).__name__,
            "parameters": parameters,
        }

    def do_lend(self, message):
        """Put a function of the grader in place of an answer that is not right."""
        self._spaces[message["name"]] = self._function(message["number"])
        return {}

    def do_allow(self, message):
        """Let functions of labs_helpers be called for an exercise."""
        numbers = dict(message["functions"])
        Lent.allowed = {name: self._function(n) for name, n in numbers.items()}
        return {}

    def do_call(self, message):
        """Call an object; keep the graph where an input asks for its gradient."""
        function = self._objects[message["number"]]
        args, given = list(message["args"]), dict(message["kwargs"])
        names = list(message["wants_gradient"])
        leaves = [given[name].requires_grad_() for name in names]
        before = {name: protocol.pack({"": value}) for name, value in given.items()}
        result = function(*args, **given)
        changed = {
            name: value
            for name, value in given.items()
            if not callable(value) and protocol.pack({"": value}) != before[name]
        }
        outputs = [
            item
            for item in (result if isinstance(result, tuple | list) else [result])
            if isinstance(item, torch.Tensor)
        ]
        self._calls[message["call"]] = (outputs, leaves)
        while len(self._calls) > KEPT_CALLS:
            self._calls.pop(next(iter(self._calls)))
        return {
            "result": result,
            "tracked": [bool(item.requires_grad) for item in outputs],
            "changed": {} if leaves else changed,
        }

    def do_backward(self, message):
        """Send gradients back through a call."""
        outputs, leaves = self._calls[message["call"]]
        pairs = [
            (output, gradient)
            for output, gradient in zip(outputs, message["gradients"], strict=True)
            if output.requires_grad and gradient is not None
        ]
        arrived = torch.autograd.grad(
            [output for output, _ in pairs],
            leaves,
            [gradient.to(output.dtype) for output, gradient in pairs],
            retain_graph=True,
            allow_unused=True,
        )
        return {"gradients": list(arrived)}

    def _receive(self):
        start = self._read(protocol.LENGTHS.size)
        if start is None:
            return None
        header, data = (self._read(length) for length in protocol.lengths(start))
        return protocol.unpack(header, data, self._function)

    def _read(self, length):
        parts, missing = [], length
        while missing:
            part = os.read(self._source, min(missing, 1 << 16))
            if not part:
                return None
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def _send(self, message):
        try:
            packed = protocol.pack(message)
        except BaseException as error:
            packed = protocol.pack({"error": described(error)})
        view = memoryview(packed)
        while view:
            view = view[os.write(self._sink, view) :]

    def _function(self, number):
        """Return what calls a function that the grader gave."""

        def function(*args, **kwargs):
            given = [*enumerate(args), *kwargs.items()]
            tracked = {
                name: value
                for name, value in given
                if isinstance(value, torch.Tensor)
                and value.requires_grad
                and torch.is_grad_enabled()
            }
            reply = self.ask(
                {
                    "ask": number,
                    "args": list(args),
                    "kwargs": kwargs,
                    "wants_gradient": list(tracked),
                }
            )
            result = reply["result"]
            if not any(reply["tracked"]):
                return result
            several = isinstance(result, tuple | list)
            items = list(result) if several else [result]
            outputs = [item for item in items if isinstance(item, torch.Tensor)]
            flags = reply["tracked"]
            tied = iter(
                Tied.apply(self, reply["call"], outputs, flags, *tracked.values())
            )
            tie = torch.Tensor
            items = [next(tied) if isinstance(item, tie) else item for item in items]
            return type(result)(items) if several else items[0]

        function.number = number
        return function

    def ask(self, message):
        """Ask the grader for something while it waits for us."""
        self._send(message)
        reply = self._receive()
        if reply is None:
            raise SystemExit
        if "error" in reply:
            raise ValueError(reply["error"])
        return reply


class Tied(torch.autograd.Function):
    """Outputs of a function of the grader; backward asks it for the gradients."""

    @staticmethod
    def forward(ctx, worker, call, outputs, tracked, *leaves):
        """Return the outputs, tied to the inputs."""
        ctx.worker, ctx.call = worker, call
        ctx.set_materialize_grads(False)
        fresh = tuple(output.clone() for output in outputs)
        ctx.mark_non_differentiable(
            *(x for x, flag in zip(fresh, tracked, strict=True) if not flag)
        )
        return fresh

    @staticmethod
    def backward(ctx, *gradients):
        """Return the gradients of the inputs."""
        asked = {"ask": "backward", "call": ctx.call, "gradients": list(gradients)}
        return (None, None, None, None, *ctx.worker.ask(asked)["gradients"])


def described(error):
    """Name an exception, and quote the line of the submission that it came from."""
    line = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename.startswith("<") and frame.line:
            line = frame.line
    try:
        text = str(error)
    except BaseException:
        text = ""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    builtin = next((name for name in kinds if hasattr(builtins, name)), "Exception")
    return {
        "type": type(error).__name__[:60],
        "builtin": builtin,
        "text": text[:500],
        "line": line[:200],
    }


# Limits

# Numbers of system calls that no exercise needs: they make processes, reach the
# network, watch or stop other processes, or hold memory that no limit counts.
DENIED = {
    "x86_64": (
        *(57, 58, 59, 322),  # fork, vfork, execve, execveat
        *(41, 53, 62, 101, 298),  # socket, socketpair, kill, ptrace, perf_event_open
        *(165, 166, 272, 308, 304, 321, 323, 425),  # mount ... io_uring_setup
        *(29, 64, 68, 319, 310, 311, 434, 248, 249, 250),  # shmget ... keyctl
    ),
    "aarch64": (
        *(221, 281),
        *(198, 199, 129, 117, 241),
        *(40, 39, 97, 268, 265, 280, 282, 425),
        *(194, 190, 186, 279, 270, 271, 434, 217, 218, 219),
    ),
}
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE = {"x86_64": 56, "aarch64": 220}
CLONE3 = 435
CLONE_THREAD = 0x10000
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, FAIL, KILL = 0x7FFF0000, 0x00050000, 0x80000000
EPERM, ENOSYS = 1, 38


def forbid_processes_and_network():
    """Forbid system calls for good, by seccomp; False where that is not possible."""
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine not in DENIED:
        return False
    program = [
        (LOAD, 0, 0, 4),
        (EQUAL, 1, 0, ARCHITECTURE[machine]),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, 0),
        (AT_LEAST, 0, 1, 0x40000000),  # the other ABI of x86
        (RETURN, 0, 0, FAIL | ENOSYS),
        (EQUAL, 0, 1, CLONE3),  # its flags lie in memory: make libc use clone
        (RETURN, 0, 0, FAIL | ENOSYS),
        (EQUAL, 0, 4, CLONE[machine]),
        (LOAD, 0, 0, 16),
        (ANY_BIT, 0, 1, CLONE_THREAD),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, FAIL | EPERM),
    ]
    for number in DENIED[machine]:
        program += [(EQUAL, 0, 1, number), (RETURN, 0, 0, FAIL | EPERM)]
    program.append((RETURN, 0, 0, ALLOW))
    packed = b"".join(struct.pack("=HBBI", *line) for line in program)
    content = ctypes.create_string_buffer(packed, len(packed))
    header = struct.pack("@HP", len(program), ctypes.addressof(content))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_seccomp, with_filter = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) != 0:
        return False
    return libc.prctl(set_seccomp, with_filter, header, 0, 0) == 0


def limit(memory, seconds):
    """Limit memory beyond what is in use, files, open files and processor time."""
    used = 0
    if sys.platform.startswith("linux"):
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
    limits = {
        "RLIMIT_AS": used + memory,
        "RLIMIT_FSIZE": 1 << 24,
        "RLIMIT_NOFILE": 128,
        "RLIMIT_CORE": 0,
        "RLIMIT_CPU": seconds,
    }
    for name, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (value, value))
        except (AttributeError, OSError, ValueError):
            continue
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def main():
    """Serve on the pipes that the grader gave, with the limits that it names."""
    memory, seconds = map(int, sys.argv[1:3])
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    if sys.platform.startswith("linux"):
        die_with_parent = 1
        ctypes.CDLL(None).prctl(die_with_parent, signal.SIGKILL, 0, 0, 0)
    torch.set_num_threads(1)
    worker = Worker(source, sink)
    sys.meta_path.insert(0, LentModules())
    sys.stdin = io.StringIO()
    sys.stdout = sys.stderr = worker._printed
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    limit(memory, seconds)
    sealed = forbid_processes_and_network()
    worker._send({"ready": True, "sealed": sealed})
    try:
        worker.serve()
    except MemoryError:
        os._exit(NO_MEMORY)
    os._exit(0)


if __name__ == "__main__":
    main()
