"""Runs the verification of an answer in a process that is killed and replaced if it hangs, crashes or swells."""

import contextlib
import json
import math
import multiprocessing
import os
import resource
import signal
import socket
import struct
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from rewards.functions import BadReward
from rewards.graders import folder_of, resolve
from rewards.isolation import bare_environment, enclose

ATTEMPTS = 2
"""A worker that dies under an answer may have died of something else (the OOM killer, a stray signal): one retry."""

ORPHAN_S = 1.0
"""Seconds after its last deadline at which a stuck worker ends itself: later than its owner would have killed it."""

PREPARE_S = 120.0
"""Seconds for what a grader imports on its first use, a user's module included."""

BUSY = 0.8
"""A worker is hung if it has computed for this share of its deadline; otherwise it lacked a core."""

CLOCK_FACTOR = 5
"""A worker that lacks a core is given up after so many deadlines by the clock."""

RUINED = 3
"""Failures in a row after which a worker that had results before is replaced: what it ran may have ruined it."""

REPLY_BYTES = 2**16
"""Longest reply of a worker, which is a number, a word or an error."""

STALL_S = 10.0
"""Seconds after which a message that was begun is given up."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["rewards.preload"])


class Hung(Exception):
    """No result came within the deadline. busy: whether the worker was computing all the time."""

    def __init__(self, busy: bool) -> None:
        super().__init__("ran for longer than reward.deadline_s allows")
        self.busy = busy


class Died(Exception):
    """The worker ended under every attempt."""


class Failed(Exception):
    """What was run raised an error. The text says which."""


@dataclass(frozen=True)
class Limits:
    """What a worker may use.

    deadline_s: seconds of computing for one call; CLOCK_FACTOR times as many by the clock on a crowded machine
    memory: bytes that the worker may allocate
    enclosed: whether it stands behind the walls of `rewards.isolation`
    functions: graders that it prepares before these walls go up
    """

    deadline_s: float
    memory: int
    enclosed: bool = True
    functions: tuple[str, ...] = ()


def serve(pipe: Connection, limits: Limits, environment: dict[str, str]) -> None:
    """Serve a worker's calls: announce that it is ready and which walls are absent, then answer (name, arguments).

    A reply is JSON, [result, error]: it may come from code that an answer has run, and unpickling would run more.
    A call without arguments only prepares the grader. The process ends with its owner: an idle one reads the end of
    the pipe; a stuck one is ended by an alarm, whose default action needs no interpreter (which the power of two large
    integers does not give back).
    """
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in (0, 1, 2, pipe.fileno()):
            with contextlib.suppress(OSError):
                os.close(descriptor)  # the fork server's, by which it and others can be ended
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        for name in limits.functions:
            resolve(name)
        _reply(pipe, enclose(map(folder_of, limits.functions)) if limits.enclosed else [])
        while True:
            name, arguments = pipe.recv()
            if arguments is None:
                resolve(name)
                _reply(pipe)
                continue
            _limit_cpu(limits.deadline_s)
            signal.setitimer(signal.ITIMER_REAL, CLOCK_FACTOR * limits.deadline_s + ORPHAN_S)
            try:
                reply = resolve(name)(*arguments), ""
            except MemoryError:
                os._exit(1)  # what is left of this process cannot be trusted
            except BadReward as error:
                reply = None, str(error)
            except Exception as error:
                reply = None, f"{type(error).__name__}: {error}"
            signal.setitimer(signal.ITIMER_REAL, 0)
            _reply(pipe, *reply)


def _reply(pipe: Connection, result: Any = None, error: str = "") -> None:
    pipe.send_bytes(json.dumps([result, error[:1000]]).encode())


def _limit_cpu(seconds: float) -> None:
    """End this process once its threads have computed for twice the deadline more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime + 2 * seconds) + 1, hard))


@cache
def start_server() -> None:
    """Start the fork server of this process, which sees no tokens."""
    with bare_environment():
        forkserver.ensure_running()


class Worker:
    """A worker process that is replaced when a call takes it down. For one thread at a time.

    The fork server imports math-verify once, so that a worker starts in some milliseconds.

    restarts: how often the process was replaced
    absent: walls of `rewards.isolation` that the kernel does not give it, each a sentence
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: BaseProcess | None = None
        self._prepared: set[str] = set()
        self._failures: int | None = None
        """In a row; None before the first result."""
        self.absent: list[str] = []
        self.restarts = -1
        self._start()

    def run(self, name: str, *arguments: Any) -> Any:
        """Run a grader (see `rewards.graders`). Raises Hung, Died or Failed."""
        for _ in range(ATTEMPTS):
            try:
                self._prepare(name)
                self._pipe.send((name, arguments))
                busy = self._wait()
                if busy is None:
                    return self._result()
            except (EOFError, OSError):
                self.close()
                continue
            self.close()
            raise Hung(busy)
        raise Died("ended its process, or took more memory than reward.memory_mib allows")

    def close(self) -> None:
        """End the worker; the next call gets a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
            self._pipe.close()

    def _wait(self) -> bool | None:
        """Wait for the reply. None once it is there; else whether the worker was computing all the time."""
        deadline = self._limits.deadline_s
        if self._pipe.poll(deadline / 10):
            return None
        before = self._cpu_seconds()
        waited = deadline / 10
        while waited < CLOCK_FACTOR * deadline:
            step = deadline - waited if waited < deadline else deadline / 4
            if self._pipe.poll(step):
                return None
            waited += step
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
        """Return the reply. Raises Failed for an error, and gives a worker up that has only errors left."""
        result, error = self._receive()
        if not error:
            self._failures = 0
            return result
        if self._failures is not None:
            self._failures += 1
            if self._failures >= RUINED:
                self.close()
        raise Failed(error)

    def _prepare(self, name: str) -> None:
        if self._process is not None and self._pipe.poll():
            self.close()  # it has ended, or something in it writes replies of its own
        if self._process is None:
            self._start()
        if name not in self._prepared:
            self._pipe.send((name, None))
            self._hear()
            self._prepared.add(name)

    def _hear(self) -> Any:
        """Return what the worker says once it has prepared itself."""
        if not self._pipe.poll(PREPARE_S):
            self.close()
            raise Died
        return self._receive()[0]

    def _receive(self) -> tuple[Any, str]:
        """Read a reply, which may be anybody's. Raises EOFError, or OSError for what is none."""
        try:
            result, error = json.loads(self._pipe.recv_bytes(REPLY_BYTES))
        except (ValueError, TypeError, RecursionError) as error:
            raise OSError("a worker gave what is no reply") from error
        return result, error

    def _start(self) -> None:
        start_server()
        self._pipe, theirs = CONTEXT.Pipe()
        _never_wait_for_ever(self._pipe)
        environment = {} if self._limits.enclosed else dict(os.environ)
        self._process = CONTEXT.Process(
            target=serve, args=(theirs, self._limits, environment), name="verifier", daemon=True
        )
        self._process.start()
        theirs.close()
        self.absent = self._hear()
        self._prepared.clear()
        self._failures = None
        self.restarts += 1


def _never_wait_for_ever(pipe: Connection) -> None:
    """Let a message that the other end begins and does not finish, or does not read, raise BlockingIOError."""
    with socket.socket(fileno=os.dup(pipe.fileno())) as ours:
        for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, direction, struct.pack("ll", int(STALL_S), 0))
