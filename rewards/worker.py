"""Runs what may hang, crash or swell in a process that is killed and replaced when it does."""

import contextlib
import math
import multiprocessing
import os
import resource
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

from rewards.graders import resolve

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

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["rewards.preload"])


class Hung(Exception):
    """No result came within the deadline. busy: whether the worker was computing all the time."""

    def __init__(self, busy: bool) -> None:
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
    """

    deadline_s: float
    memory: int


def serve(pipe: Connection, limits: Limits) -> None:
    """Serve a worker's calls: announce that it is ready, then answer (name, arguments) by (result, error).

    A call without arguments only prepares the grader. The process ends with its owner: an idle one reads the end of
    the pipe; a stuck one is ended by an alarm, whose default action needs no interpreter (which the power of two large
    integers does not give back).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send(None)
        while True:
            name, arguments = pipe.recv()
            if arguments is None:
                resolve(name)
                pipe.send(None)
                continue
            _limit_cpu(limits.deadline_s)
            signal.setitimer(signal.ITIMER_REAL, CLOCK_FACTOR * limits.deadline_s + ORPHAN_S)
            try:
                reply = resolve(name)(*arguments), ""
            except MemoryError:
                os._exit(1)  # what is left of this process cannot be trusted
            except Exception as error:
                reply = None, f"{type(error).__name__}: {error}"
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send(reply)


def _limit_cpu(seconds: float) -> None:
    """End this process once its threads have computed for twice the deadline more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime + 2 * seconds) + 1, hard))


class Worker:
    """A worker process that is replaced when a call takes it down. For one thread at a time.

    The fork server imports math-verify once, so that a worker starts in some milliseconds.

    restarts: how often the process was replaced
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._process: BaseProcess | None = None
        self._prepared: set[str] = set()
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
                    result, error = self._pipe.recv()
                    if error:
                        raise Failed(error)
                    return result
            except (EOFError, OSError):
                self.close()
                continue
            self.close()
            raise Hung(busy)
        raise Died

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

    def _prepare(self, name: str) -> None:
        if self._process is None:
            self._start()
        if name not in self._prepared:
            self._pipe.send((name, None))
            if not self._pipe.poll(PREPARE_S):
                self.close()
                raise Died
            self._pipe.recv()
            self._prepared.add(name)

    def _start(self) -> None:
        self._pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=serve, args=(theirs, self._limits), name="verifier", daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()
        self._prepared.clear()
        self.restarts += 1
