"""A process that does not outlive the one that started it."""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None)  # loaded before any fork


def end_with(parent: int) -> None:
    """Have the kernel send this process SIGTERM once the parent is gone: the thread of it that started this one."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before
        os._exit(128 + signal.SIGTERM)
