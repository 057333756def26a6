"""Signals that reach a process which has nothing to save, before there is work or after it."""

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def handle(handler: Callable[[int, FrameType | None], Any]) -> None:
    """Have this function called at SIGINT and SIGTERM. Ray replaces the one for SIGTERM whenever it starts."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def leave(number: int, _: FrameType | None) -> None:
    """End this process at once, with the exit code of an interrupted one."""
    os._exit(128 + number)


def unwind(number: int, _: FrameType | None) -> None:
    """Raise SystemExit with the number of the signal, as Ray's own handler of SIGTERM does."""
    sys.exit(number)
