"""The end of a process by a signal, wherever it is."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from microbudget_rl.conf.command import outliving_terminal

pytestmark = pytest.mark.long

CODE = """
import atexit, os, signal, subprocess, sys, threading
from pathlib import Path
import microbudget_rl.conf.first
from microbudget_rl.conf.signals import leave, on_leave

what, folder = sys.argv[1], Path(sys.argv[2])
child = subprocess.Popen(["sleep", "600"])
print(child.pid)
(folder / "file").touch()
on_leave((folder / "file").unlink)
on_leave(lambda: 1 / 0)
atexit.register(print, "unwound")
if what == "thread":
    threading.Thread(target=leave, args=(130,)).start()
    threading.Event().wait()
if what == "keep":
    leave(1, keep=True)
try:
    os.kill(os.getpid(), signal.Signals[what])
    threading.Event().wait()
except BaseException:
    print("unwound")
"""


@pytest.mark.parametrize(
    ("what", "code", "lines"), [("SIGINT", 130, 1), ("SIGTERM", 143, 1), ("thread", 130, 0), ("keep", 1, 0)]
)
def test_process_ends_with_its_children_and_clears_its_files(what: str, code: int, lines: int, tmp_path: Path):
    """What it has printed is not lost, an undoing that fails stops no other, and nothing is unwound."""
    command = [sys.executable, "-c", CODE, what, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == lines
    assert bool([*tmp_path.iterdir()]) == (what == "keep")
    wait_for_end(int(done.stdout))


def wait_for_end(pid: int) -> None:
    """Wait until a killed process is gone, or at least a zombie, which not every machine's first process reaps."""
    with suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)


def test_a_lost_terminal_ends_nothing_that_must_last():
    before = signal.getsignal(signal.SIGHUP)
    with outliving_terminal():
        os.kill(os.getpid(), signal.SIGHUP)
        child = "import signal; assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN"
        assert subprocess.run([sys.executable, "-c", child]).returncode == 0
    assert signal.getsignal(signal.SIGHUP) == before
