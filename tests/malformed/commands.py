"""Calls the commands of the project in this process, as a shell would, and says how they break the contract: exit code
0 or 2 within a deadline, one sentence for a refusal, and no file changed.
"""

import atexit
import contextlib
import hashlib
import importlib
import io
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from conf.schema import RewardConfig
from rewards.pool import VerifierPool
from rewards.weighted_sum import RewardFunction
from tests.malformed.stock import RUN, Stock

DEADLINE_S = 20.0
"""Seconds of CPU time in which a command has to refuse what it cannot use."""

SENTENCE = 1500
"""Most characters of a refusal, which a person reads on one screen."""

MODULES = {
    "microbudget": "launch.__main__",
    "problems": "rewards.problems.__main__",
    "verify": "rewards.verify.__main__",
}
"""Command → its module, where that is not the one of its name in launch/."""

EXPENSIVE: dict[str, tuple[str, Any]] = {
    "run": ("carry_out", 0),
    "evaluate": ("carry_out", "completed"),
    "sweep": ("Scheduler.run", 0),
    "export": ("export", 0),
    "serve": ("watch", 0),
    "chat": ("chat", 0),
    "doctor": ("examine", None),
    "bundled": ("provide", True),
}
"""Command → the function that is not called here, since a command that gets there accepts its input; its result."""

Prepare = Callable[[Path, Stock], list[str]]
"""Puts input into an empty folder and returns the arguments of its command."""

TARGETS = {
    "report": ("finished", ["{copy}"]),
    "samples": ("trained", ["{copy}"]),
    "export": ("trained", ["{copy}"]),
    "push": ("trained", ["{copy}", "to=me/it", "dry_run=true"]),
    "serve": ("trained", ["{copy}"]),
    "run": ("unfinished", ["run.folder={copy}", f"run.name={RUN}"]),
    "evaluate": ("unfinished", [f"adapter={{copy}}/{RUN}/checkpoints/latest", "n=1", "device=cpu", "plan=true"]),
    "problems": ("model", ["model.path={copy}"]),
}
"""Command → the input of which it gets a damaged copy, and its arguments."""


def copied(command: str, damage: Callable[[Path], None]) -> Prepare:
    """Return a function that gives a command a copy in which something is damaged."""
    kind, arguments = TARGETS[command]

    def prepare(place: Path, stock: Stock) -> list[str]:
        copy = shutil.copytree(getattr(stock, kind), place / "copy", symlinks=True)
        damage(copy)
        kept = {"run": stock.without(), "problems": [f"file:{stock.data}", *stock.without("model.path", "data.source")]}
        return [*kept.get(command, []), *(argument.replace("{copy}", str(copy)) for argument in arguments)]

    return prepare


def tried(
    command: str, prepare: Prepare, place: Path, stock: Stock, refused: bool | None = None, resumes: bool = False
) -> str:
    """Try a command on one input in an empty folder. Return how it breaks the contract; empty if it does not.

    refused: whether it has to be, None where either will do. resumes: whether the command goes on with the files in its
    folder, and may change them once they are accepted.
    """
    arguments = prepare(place, stock)
    before, began = files(place), time.process_time()
    with contextlib.chdir(place):
        code, said, error = call(command, *arguments)
    took = time.process_time() - began
    after = files(place)
    lost = [name for name, content in before.items() if after.get(name) != content]
    if error or (fault := fault_of(code, said, refused)):
        return error or fault
    if refused and (took > DEADLINE_S or said.count("\n") != 1):
        return f"refused after {took:.0f} s, or not in one line: {said[:300]}"
    return f"{lost[0]} was changed" if lost and not (resumes and code == 0) else ""


def call(command: str, *arguments: str) -> tuple[int | None, str, str]:
    """Run a command until it ends, or accepts its input. Return its exit code, its text on stderr, and a traceback."""
    name = MODULES.get(command, f"launch.{command}")
    module = importlib.import_module(name)
    err = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, unchanged_process(), contextlib.redirect_stdout(io.StringIO()):
        patched.setattr("rewards.problems.loading.VerifierPool", kept_pool)
        patched.setattr("launch.run.check_host", lambda *_: None)  # what else runs here is no matter
        patched.setattr("launch.run.ray_session", lambda *_, **__: contextlib.nullcontext())
        if command in EXPENSIVE:
            function, result = EXPENSIVE[command]
            patched.setattr(f"{name}.{function}", lambda *_, **__: result)
        with contextlib.redirect_stderr(err):
            try:
                return module.main(list(arguments)), err.getvalue(), ""
            except SystemExit as told:
                return told.code if isinstance(told.code, int) else 1, err.getvalue(), ""
            except Exception as caught:  # whatever it is, a person would see a traceback
                return None, "", f"traceback: {type(caught).__name__}: {str(caught)[:200]}"


def fault_of(code: int | None, said: str, refused: bool | None) -> str:
    """Return how an ending breaks the contract; empty if it does not. refused: as in `tried`."""
    if code not in (0, 2):
        return f"exit code {code}: {said.strip()[:300]}"
    if refused == (code == 0):
        return f"accepted, or refused though it is sound: {said.strip()[:300]}"
    lines = said.removesuffix("\n").split("\n")
    if code == 2 and not (len(said) <= SENTENCE and all(line.strip() and line.isprintable() for line in lines)):
        return f"refused by {len(said)} characters: {said[:300]!r}"
    return ""


def files(place: Path) -> dict[str, str]:
    """Return kind and content of everything under a folder, by path."""
    found = {}
    for path in sorted(place.rglob("*")):
        kind = "folder" if path.is_dir() else "special"
        if path.is_symlink():
            kind = f"link to {os.readlink(path)}"
        elif path.is_file():
            kind = hashlib.blake2b(path.read_bytes()).hexdigest()
        found[str(path.relative_to(place))] = kind
    return found


@cache
def one_pool() -> VerifierPool:
    """Return the pool of workers that all commands share here: starting one takes longer than most refusals."""
    pool = VerifierPool(RewardFunction(RewardConfig()), workers=1)
    atexit.register(pool._close)
    return pool


@contextlib.contextmanager
def kept_pool(*_: Any, **__: Any) -> Iterator[VerifierPool]:
    yield one_pool()


@contextlib.contextmanager
def unchanged_process() -> Iterator[None]:
    """Undo what a command does to its process."""
    with patch.dict(os.environ), patch.object(sys, "path", [*sys.path]), contextlib.chdir("."):
        yield
