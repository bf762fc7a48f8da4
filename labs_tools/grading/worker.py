"""Runs inside the sandbox: holds a submission's answers and observes them when asked.

In go pieces of notebooks and inputs, out come plain values. Copies of `protocol` and of
the lab's `observe` lie beside this file. Nothing here is secret or trusted: the
submission shares this process and may change all of it, which alters what it says it
computed and nothing else.
"""

import __future__

import ast
import builtins
import ctypes
import errno
import importlib.abc
import importlib.machinery
import inspect
import io
import linecache
import os
import resource
import signal
import sys
import traceback
import types
import typing

import protocol
import torch
from observe import Printed, observe

NO_MEMORY = 77  # exit code


# What stands for the course's own package


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
        return lent(self._name, name)

    def __call__(self, *args, **kwargs):
        """Have the grader compute it, or refuse."""
        function = Lent.allowed.get(self._name.rpartition(".")[2])
        if function is None:
            raise LentFunction(f"{self._name} belongs to the course")
        return function(*args, **kwargs)

    def __getitem__(self, item):
        return self

    def __or__(self, other):
        return self

    __ror__ = __or__


def lent(place, name):
    """Stand for a name in a module or an object of the course."""
    if name.startswith("__"):
        raise AttributeError(name)
    return Lent(f"{place}.{name}")


class LentModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds labs_helpers.anything, without its content."""

    def find_spec(self, name, path=None, target=None):
        """Answer for our packages alone."""
        if name.partition(".")[0] in ("labs_helpers", "labs_tools"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def exec_module(self, module):
        """Run nothing; give names when they are asked for."""
        module.__getattr__ = lambda name: lent(module.__name__, name)


# Serving


class Worker:
    """Does what the grader asks with the pieces that were defined so far."""

    def __init__(self, source, sink):
        self._source, self._sink = source, sink
        module = sys.modules["__main__"] = types.ModuleType("__main__")
        self._space = vars(module)
        self._space["__builtins__"] = builtins
        self._flags = 0
        self.printed = Printed()

    def serve(self):
        """Answer until the grader hangs up."""
        while True:
            message = self._receive()
            try:
                reply = getattr(self, "do_" + message["do"])(message)
            except BaseException as error:
                reply = {"error": described(error)}
            self.send({**reply, "printed_total": self.printed.count})

    def do_define(self, message):
        """Run a piece, statement by statement: one that fails takes no other along."""
        source, filename = message["source"], f"<{message['label']}>"
        lines = source.splitlines(keepends=True)
        linecache.cache[filename] = (len(source), None, lines, filename)
        if "from __future__ import annotations" in source:
            self._flags = __future__.annotations.compiler_flag
        errors = []
        for statement in ast.parse(source, filename).body:
            try:
                piece = ast.Module([statement], [])
                code = compile(piece, filename, "exec", self._flags, dont_inherit=True)
                exec(code, self._space)
            except BaseException as error:
                errors.append(described(error))
        return {"errors": errors}

    def do_find(self, message):
        """Say of an answer what it is, and its parameters if it can be called."""
        if message["name"] not in self._space:
            raise NameError(f"name {message['name']!r} is not defined")
        found = self._space[message["name"]]
        if not callable(found):
            return {"not_callable": type(found).__name__}
        try:
            kinds = inspect.signature(found).parameters.values()
        except (TypeError, ValueError):  # as with builtins, which have none
            return {}
        return {
            "parameters": [(x.name, int(x.kind), x.default is x.empty) for x in kinds]
        }

    def do_observe(self, message):
        """Observe an answer as the lab does."""
        answer, wanted = self._space[message["name"]], tuple(message["wanted"])
        seen = observe(answer, message["inputs"], wanted)
        self.printed.count += seen.printed_count
        errors = {"error": seen.error, "gradient_error": seen.gradient_error}
        errors = {k: None if e is None else described(e) for k, e in errors.items()}
        return {**vars(seen), **errors}

    def do_lend(self, message):
        """Take functions of the grader: for answers, and for those of labs_helpers."""
        self._space.update((name, self._function(name)) for name in message["answers"])
        Lent.allowed = {name: self._function(name) for name in message["library"]}
        return {}

    def _receive(self):
        def read(length):
            return os.read(self._source, min(length, 1 << 16))

        return protocol.receive(read, self._function)

    def send(self, message):
        """Write to the grader."""
        try:
            packed = protocol.pack(message)
        except BaseException as error:
            packed = protocol.pack({"error": described(error)})
        view = memoryview(packed)
        while view:
            view = view[os.write(self._sink, view) :]

    def ask(self, message):
        """Ask the grader for something while it waits for us."""
        self.send(message)
        reply = self._receive()
        if "error" in reply:
            raise getattr(builtins, reply["type"], ValueError)(reply["error"])
        return reply

    def _function(self, name):
        """Return what calls a function of the grader."""

        def function(*args, **kwargs):
            asked = {"ask": name, "args": args, "kwargs": kwargs, "wanted": []}
            leaves = []
            for key, value in (*enumerate(args), *kwargs.items()):
                tensor = isinstance(value, torch.Tensor) and torch.is_grad_enabled()
                if tensor and value.requires_grad:
                    asked["wanted"].append(key)
                    leaves.append(value)
            reply = self.ask(asked)
            result, tracked = reply["result"], reply["tracked"]
            if not any(tracked):
                return result
            several = isinstance(result, tuple | list)
            items = list(result) if several else [result]
            tensors = [item for item in items if isinstance(item, torch.Tensor)]
            tied = iter(Tied.apply(self, asked, tensors, tracked, *leaves))
            items = [next(tied) if isinstance(x, torch.Tensor) else x for x in items]
            return type(result)(items) if several else items[0]

        return function


class Tied(torch.autograd.Function):
    """Outputs of a function of the grader; backward asks it for the gradients."""

    @staticmethod
    def forward(ctx, worker, asked, outputs, tracked, *leaves):
        """Return the outputs, tied to the inputs."""
        ctx.worker, ctx.asked = worker, asked
        ctx.set_materialize_grads(False)
        fresh = tuple(output.clone() for output in outputs)
        pairs = zip(fresh, tracked, strict=True)
        ctx.mark_non_differentiable(*(output for output, flag in pairs if not flag))
        return fresh

    @staticmethod
    def backward(ctx, *gradients):
        """Return the gradients of the inputs."""
        reply = ctx.worker.ask({**ctx.asked, "gradients": gradients})
        return (None, None, None, None, *reply["gradients"])


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
    return {"type": kinds[0], "builtin": builtin, "text": text[:500], "line": line}


# Limits

# What no exercise needs: it makes processes, reaches the network, watches or stops
# other processes, or holds memory that no limit counts.
DENIED = (
    *("fork", "vfork", "execve", "execveat", "kill", "ptrace", "perf_event_open"),
    *("socket", "socketpair", "mount", "umount2", "unshare", "setns", "bpf"),
    *("open_by_handle_at", "userfaultfd", "io_uring_setup", "memfd_create"),
    *("shmget", "semget", "msgget", "process_vm_readv", "process_vm_writev"),
    *("pidfd_open", "add_key", "request_key", "keyctl"),
)
ALLOW, FAIL = 0x7FFF0000, 0x00050000
CLONE_THREAD, MASKED_EQUAL = 0x10000, 7


class _Comparison(ctypes.Structure):
    """libseccomp's struct scmp_arg_cmp."""

    _fields_ = (
        *(("arg", ctypes.c_uint), ("op", ctypes.c_int)),
        *(("mask", ctypes.c_uint64), ("value", ctypes.c_uint64)),
    )


def forbid_processes_and_network():
    """Forbid system calls for good, by seccomp, where there is Linux."""
    if not sys.platform.startswith("linux"):
        return
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        raise OSError("libseccomp is missing (apt install libseccomp2)") from None
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(ALLOW)))

    def deny(call, error, *comparisons):
        number = library.seccomp_syscall_resolve_name(call.encode())
        only = (_Comparison * len(comparisons))(*comparisons)
        action = ctypes.c_uint32(FAIL | error)
        return library.seccomp_rule_add_array(rules, action, number, len(only), only)

    processes = _Comparison(0, MASKED_EQUAL, CLONE_THREAD, 0)
    failed = [name for name in DENIED if deny(name, errno.EPERM)]
    # The flags of clone3 lie in memory, where no rule sees them: libc is to use clone.
    failed += [deny("clone3", errno.ENOSYS), deny("clone", errno.EPERM, processes)]
    if any(failed) or library.seccomp_load(rules):
        raise OSError(f"libseccomp cannot forbid system calls here: {failed}")


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
    if sys.platform.startswith("linux"):
        die_with_parent = 1
        ctypes.CDLL(None).prctl(die_with_parent, signal.SIGKILL, 0, 0, 0)
    torch.set_num_threads(1)
    forbid_processes_and_network()
    worker = Worker(os.dup(0), os.dup(1))
    sys.meta_path.insert(0, LentModules())
    sys.stdin, sys.stdout, sys.stderr = io.StringIO(), worker.printed, worker.printed
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    limit(memory, seconds)
    worker.send({"ready": True})
    try:
        worker.serve()
    except MemoryError:
        os._exit(NO_MEMORY)
    except EOFError:
        os._exit(0)
