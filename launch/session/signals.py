"""Handlers of SIGINT and SIGTERM for a process that has nothing to save, and timers that end it."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any


def handle_signals(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Have a function called at SIGINT and SIGTERM. Ray replaces the one for SIGTERM whenever it starts."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def exit_at_once(number: int, _: FrameType | None) -> None:
    """End this process without cleaning up, with the exit code of an interrupted one."""
    os._exit(128 + number)


def raise_exit(number: int, _: FrameType | None) -> None:
    """Raise SystemExit with the number of the signal, as Ray's own handler of SIGTERM does."""
    sys.exit(number)


def after(seconds: float, action: Callable[[], object]) -> threading.Timer:
    """Start a timer that does not keep the process alive."""
    timer = threading.Timer(seconds, action)
    timer.daemon = True
    timer.start()
    return timer
