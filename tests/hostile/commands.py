"""Calls the commands of the project in this process, as a shell would, and says how each ended."""

import atexit
import contextlib
import hashlib
import importlib
import inspect
import io
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytest

from conf.schema import RewardConfig
from rewards.pool import VerifierPool
from rewards.reward import RewardFunction

DEADLINE_S = 120.0
"""Seconds after which a command hangs, on a busy machine too; refusals take one or two."""

SENTENCE = 1500
"""Characters of a refusal at most: a person reads it on one screen."""

COMMANDS = {
    "run": "launch.run",
    "sweep": "launch.sweep",
    "evaluate": "launch.evaluate",
    "report": "launch.report",
    "bench": "launch.bench",
    "result": "launch.result",
    "problems": "rewards.problems.__main__",
    "verify": "rewards.verify.__main__",
}


class Hang(BaseException):
    """A command went on beyond DEADLINE_S. No handler of errors may swallow it."""


@dataclass(frozen=True)
class Ending:
    """How a command ended. code: what its process would exit with; None for a hang or a traceback.

    started: whether Ray would have been started.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    started: bool = False
    error: str = ""


def call(command: str, *arguments: str) -> Ending:
    """Run a command to its end, or to where it would start Ray, which counts as accepted."""
    module = importlib.import_module(COMMANDS[command])
    out, err = io.StringIO(), io.StringIO()
    started: list[str] = []
    begun = time.monotonic()
    code: int | None = None
    error = ""
    with pytest.MonkeyPatch.context() as patch, unchanged_process(), contextlib.redirect_stdout(out):
        patch.setattr(sys, "argv", [command, *arguments])
        patch.setattr("rewards.problems.loading.VerifierPool", kept_pool)
        if command == "run":
            patch.setattr(module, "check_host", lambda *_: None)  # what else runs here is no matter
            patch.setattr(module, "carry_out", lambda *_: started.append("run") or 0)
        if command == "evaluate":
            patch.setattr(module, "carry_out", lambda *_: started.append("evaluation") or "completed")
        if command == "sweep":
            patch.setattr(module.Scheduler, "run", lambda _: started.append("sweep") or 0)
        with contextlib.redirect_stderr(err):
            try:
                given = [list(arguments)] if inspect.signature(module.main).parameters else []
                code = module.main(*given)
            except SystemExit as told:
                code = told.code if isinstance(told.code, int) else 1
            except Hang:
                error = f"hangs: no end within {DEADLINE_S:.0f} s"
            except BaseException as caught:  # whatever it is, a person would see a traceback
                error = f"traceback: {type(caught).__name__}: {str(caught)[:200]}"
    return Ending(code, out.getvalue(), err.getvalue(), time.monotonic() - begun, bool(started), error)


def shortcomings(ending: Ending, refused: bool | None) -> str:
    """Return what an ending lacks of the contract; empty if nothing. refused: whether it had to be, None for either."""
    if ending.error:
        return ending.error
    if ending.code not in (0, 2):
        return f"exit code {ending.code}: {ending.err.strip()[:300]}"
    if ending.code == 0:
        return "accepted" if refused else ""
    if refused is False:
        return f"refused, though it is sound: {ending.err.strip()[:300]}"
    sentence = ending.err.removesuffix("\n")
    if not sentence.strip() or "\n" in sentence or len(sentence) > SENTENCE:
        return f"refused by {len(sentence)} characters on {sentence.count(chr(10)) + 1} lines: {sentence[:200]!r}"
    if hidden := [character for character in sentence if not character.isprintable()]:
        return f"refused with control characters on the console: {hidden[:3]!r}"
    return ""


def files(place: Path) -> dict[str, str]:
    """Return what is under a folder: kind and content of everything, by path."""
    found = {}
    for path in sorted(place.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(place))] = f"link to {os.readlink(path)}"
        elif path.is_dir():
            found[str(path.relative_to(place))] = "folder"
        elif path.is_file():
            found[str(path.relative_to(place))] = hashlib.blake2b(path.read_bytes()).hexdigest()
        else:
            found[str(path.relative_to(place))] = "special"
    return found


@cache
def one_pool(*_: Any, **__: Any) -> VerifierPool:
    """Return the pool of workers that all commands share here: to start one takes longer than most refusals."""
    pool = VerifierPool(RewardFunction(RewardConfig()), workers=1)
    atexit.register(pool._close)
    return pool


@contextlib.contextmanager
def kept_pool(*_: Any, **__: Any) -> Iterator[VerifierPool]:
    yield one_pool()


@contextlib.contextmanager
def unchanged_process() -> Iterator[None]:
    """Undo what a command does to its process, and end one that hangs."""

    def hang(_: int, __: FrameType | None) -> NoReturn:
        raise Hang

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    handlers: list[Any] = [signal.getsignal(number) for number in numbers]
    environment, folder = dict(os.environ), Path.cwd()
    signal.signal(signal.SIGALRM, hang)
    left, again = signal.setitimer(signal.ITIMER_REAL, DEADLINE_S, 1.0)
    began = time.monotonic()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.01), again)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
