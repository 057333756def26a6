"""Calls functions in a process that is killed and replaced if it hangs, crashes or takes too much memory."""

import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from microbudget_rl.actors.messages import Status
from microbudget_rl.actors.runtime.process import end_with
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema.reward import RemoteConfig
from microbudget_rl.conf.signals import blocked, on_leave
from microbudget_rl.rewards.isolation import bare_environment, enclose
from microbudget_rl.rewards.user_function import load, most_seconds

ATTEMPTS = 2
"""Attempts per call. A worker may crash for another reason than the answer (OOM killer, stray signal): one retry."""

PREPARE_S = 120.0
"""Seconds a function may take for its imports on first use, a user's module included."""

BUSY = 0.8
"""Fraction of the deadline after which a worker that was computing counts as hung; otherwise it lacked a core."""

CLOCK_FACTOR = 5
"""Number of deadlines, by the clock, after which a worker that lacked a core is given up."""

RUINED = 3
"""Failures in a row after which a worker that had results before is replaced: an answer may have corrupted it."""

REPLY_BYTES = 2**20
"""Longest reply of a worker: a number, a word or an error, or one for each sample of a group."""

STALL_S = 10.0
"""Seconds after which an unfinished message is given up."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["microbudget_rl.rewards.preload"])


class NoResult(Exception):
    """A call gave no result. status: the sample's"""

    status = Status.CRASH


class Hung(NoResult):
    """No result within the deadline, the setting `limit`. busy: whether the worker was computing all the time."""

    status = Status.TIMEOUT

    def __init__(self, busy: bool, limit: str = "reward.deadline_s") -> None:
        super().__init__(f"ran for longer than {limit} allows: raise the limit, or make it faster")
        self.busy = busy


class Crashed(NoResult):
    """The worker crashed in every attempt."""


class Failed(NoResult):
    """The function raised an error, which the text names."""


@dataclass(frozen=True)
class Limits:
    """The limits of a worker.

    deadline_s: seconds of computing per call; CLOCK_FACTOR times as many by the clock on a busy machine
    memory: bytes that the worker may allocate
    enclosed: whether `rewards.isolation` confines it
    functions: users' functions that it imports before it is confined
    remote: limits of its functions' calls to other machines; None without the network
    """

    deadline_s: float
    memory: int
    enclosed: bool = True
    functions: tuple[str, ...] = ()
    remote: RemoteConfig | None = None

    def seconds(self, arguments: Iterable[Any]) -> tuple[float, float]:
        """Return the seconds of computing, and by the clock, that a call may take: for each text in a list of them."""
        texts = next((len(each) for each in arguments if isinstance(each, list)), 1)
        computing = self.deadline_s * texts
        return computing, CLOCK_FACTOR * computing + (most_seconds(self.remote, texts) if self.remote else 0.0)


def serve(pipe: Connection, limits: Limits, environment: dict[str, str]) -> None:
    """Serve a worker's calls: report that it is ready, which walls are absent and which functions are batched; then
    receive (module, function, arguments), import them, report that, and reply.

    A reply is JSON, [result, error]: it may come from code that an answer has run, and unpickling would run more code.
    The first one has an error if a user's function cannot be imported. The process ends with the fork server, which
    ends with its owner.
    """
    end_with(os.getppid(), signal.SIGKILL)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in (0, 1, 2, pipe.fileno()):
            with contextlib.suppress(OSError):
                os.close(descriptor)  # the fork server's, which could end it and others
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            batched, folders = load(limits.functions, limits.remote)
            _reply(pipe, (enclose(folders, bool(limits.remote)) if limits.enclosed else [], batched))
        except BadInput as error:
            _reply(pipe, None, str(error))
        while True:
            module, function, arguments = pipe.recv()
            import_module(module)
            _reply(pipe)
            try:
                reply = function(*arguments), ""
            except MemoryError:
                os._exit(1)  # this process cannot be trusted any more
            except BaseException as error:  # a value that the function returns may raise anything
                reply = None, f"{type(error).__name__}: {error}"
            _reply(pipe, *reply)


def _reply(pipe: Connection, result: Any = None, error: str = "") -> None:
    pipe.send_bytes(json.dumps([result, error[:1000]]).encode())


@cache
def start_server() -> None:
    """Start this process's fork server in an environment without tokens."""
    on_leave(partial(shutil.rmtree, util.get_temp_dir(), ignore_errors=True))
    with bare_environment():
        resource_tracker.ensure_running()  # it would end the blocking of Ctrl-C
        with blocked(signal.SIGINT):
            forkserver.ensure_running()


class KillableWorker:
    """A worker process that is replaced when a call crashes it. One thread at a time may use it.

    The fork server imports math-verify once, so that a worker starts in some milliseconds.

    absent: walls of `rewards.isolation` that this kernel lacks, each a sentence
    batched: its functions that take all samples of a group in one call, by name: whether they compare these
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: BaseProcess | None = None
        self._failures: int | None = None
        """Failures in a row; None before the first result."""
        self.absent: list[str] = []
        self.batched: dict[str, bool] = {}
        self._start()

    def run(self, function: Callable[..., Any], *arguments: Any, needs: str = "microbudget_rl.rewards") -> Any:
        """Call a function of a module, after importing another one that it needs, for which no deadline pays. Raises
        Hung, Crashed or Failed.
        """
        for _ in range(ATTEMPTS):
            try:
                if self._process is not None and self._pipe.poll():
                    self.close()  # it has ended, or a function in it writes replies
                if self._process is None:
                    self._start()
                self._pipe.send((needs, function, arguments))
                self._first_reply()
                busy = self._wait(*self._limits.seconds(arguments))
                if busy is None:
                    return self._result()
            except (EOFError, OSError):
                self.close()
                continue
            self.close()
            raise Hung(busy)
        raise Crashed("ended its process, or took more memory than reward.memory_mib allows")

    def close(self) -> None:
        """Kill the worker; the next call gets a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
            self._pipe.close()

    def _wait(self, deadline: float, by_clock: float) -> bool | None:
        """Wait for the reply. Return None when it is there, else whether the worker was computing all the time."""
        if self._pipe.poll(deadline / 10):
            return None
        before = self._cpu_seconds()
        for _ in range(round(4 * by_clock / deadline)):
            if self._pipe.poll(deadline / 4):
                return None
            if self._cpu_seconds() - before >= BUSY * deadline:
                return True
        return False

    def _cpu_seconds(self) -> float:
        assert self._process is not None
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return times.user + times.system

    def _result(self) -> Any:
        """Return the reply. Raises Failed for an error, and replaces a worker that has only errors left, which a list
        for the samples of a group has as texts.
        """
        result, error = self._receive()
        if not error and not (isinstance(result, list) and all(isinstance(each, str) for each in result)):
            self._failures = 0
        elif self._failures is not None:
            self._failures += 1
            if self._failures >= RUINED:
                self.close()
        if error:
            raise Failed(error)
        return result

    def _first_reply(self) -> Any:
        """Return the worker's reply once it has imported what it needs. Raises Crashed or Failed if it cannot."""
        if not self._pipe.poll(PREPARE_S):
            self.close()
            raise Crashed(f"was not imported within {PREPARE_S:.0f} s")
        result, error = self._receive()
        if error:
            self.close()
            raise Failed(error)
        return result

    def _receive(self) -> tuple[Any, str]:
        """Read a reply, which an answer's code may have written. Raises EOFError, or OSError for an invalid one."""
        try:
            result, error = json.loads(self._pipe.recv_bytes(REPLY_BYTES))
        except (ValueError, TypeError, RecursionError) as error:
            raise OSError("a worker's reply is invalid") from error
        return result, error

    def _start(self) -> None:
        start_server()
        self._pipe, theirs = CONTEXT.Pipe()
        _set_timeouts(self._pipe)
        environment = {} if self._limits.enclosed else dict(os.environ)
        self._process = CONTEXT.Process(
            target=serve, args=(theirs, self._limits, environment), name="verifier", daemon=True
        )
        self._process.start()
        theirs.close()
        self.absent, self.batched = self._first_reply()
        self._failures = None


def _set_timeouts(pipe: Connection) -> None:
    """Make a message that the other end does not finish, or does not read, raise BlockingIOError."""
    with socket.socket(fileno=os.dup(pipe.fileno())) as ours:
        for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, direction, struct.pack("ll", int(STALL_S), 0))
