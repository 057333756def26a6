"""The end of a process by SIGINT or SIGTERM, and what it clears before.

Nothing is unwound: an exception in the middle of an import, or the end of Python while another thread starts Ray,
crashes native libraries. Work that ends gracefully sets a handler of its own.
"""

import os
import shutil
import signal
import sys
import threading
import time
from _thread import start_new_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, NoReturn

import psutil

LEAVE_S = 20
"""Seconds after which a process that cannot clear its files ends without it."""

_leaving = threading.Lock()
_undone: list[Callable[[], object]] = []


def on_leave(undo: Callable[[], object]) -> None:
    """Have `leave` call a function, the last one first. It may be called beside any code, and with nothing to undo."""
    _undone.append(undo)


@contextmanager
def scratch_folder(prefix: str = "microbudget-", place: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder, which goes at the end, also when a signal ends this process. place: its parent."""
    with TemporaryDirectory(prefix=prefix, dir=place, ignore_cleanup_errors=True) as name:
        on_leave(partial(shutil.rmtree, name))
        yield Path(name)


def handle_signals(handler: Callable[[int, FrameType | None], Any] | int | None) -> None:
    """Handle SIGINT and SIGTERM by a function, if this is the main thread: others may not."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, handler)


@contextmanager
def blocked(number: int) -> Iterator[None]:
    """Make processes that start meanwhile ignore a signal. This thread gets it at the end."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


def end_by_signal(number: int, _: FrameType | None) -> NoReturn:
    """End this process at once, with the exit code of the signal."""
    leave(128 + number, f"ended by {signal.Signals(number).name}")


def leave(code: int, said: str = "", keep: bool = False) -> NoReturn:
    """Clear what `on_leave` names, say a line on stderr, and end this process with all that it has started. keep:
    whether files stay, since they may tell why a run has failed.

    The other processes are stopped first and killed last: they write no more files, and this one's libraries do not
    notice that their servers have ended.
    """
    processes = set[int]()

    def end(wait_s: float = 0.0) -> NoReturn:
        time.sleep(wait_s)
        _send(signal.SIGKILL, {*processes})
        os._exit(code)

    handle_signals(signal.SIG_IGN)
    start_new_thread(end, (LEAVE_S,))  # threading.Thread takes locks, which the interrupted code may hold
    with _leaving:  # until the end, also for a thread that comes second
        try:
            for _ in range(2):  # the second time for what another thread has started meanwhile
                while new := {child.pid for child in psutil.Process().children(recursive=True)} - processes:
                    _send(signal.SIGSTOP, new)
                    processes |= new
                for undo in [] if keep else reversed(_undone):
                    with suppress(Exception):
                        undo()
            for stream in filter(None, (sys.stdout, sys.stderr)):  # last, since a full pipe may block it
                with suppress(Exception):
                    stream.flush()
            cursor = "\x1b[?25h" if os.isatty(2) else ""  # a live display may have hidden it
            os.write(2, (cursor + (f"{Path(sys.argv[0]).name}: {said}\n" if said else "")).encode())
        finally:
            end()


def _send(number: int, processes: set[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)
