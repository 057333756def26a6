"""Why a process of Ray's died: from its exit status, the kernel, Ray's error and its log."""

import fcntl
import os
import re
import select
import signal
import struct
from pathlib import Path

LOG_LINES = 5
LOG_LINE_CHARACTERS = 200
"""How much of a dead actor's log is shown."""

CHATTER = re.compile(r"^(:job_id:|:actor_name:|:task_name:)|^\s*$|Warning: |^\[W\d|\bit/s\]|it/s\b|\| 0/")
"""Log lines that say nothing: Ray's own, warnings and progress bars."""

REAPED_S = 5.0
"""Seconds to wait for the end of a process: Ray reports its closed connection, and it still has memory to give back."""

SENDERS = {
    signal.SIGKILL: ", as the out-of-memory killer sends",
    signal.SIGBUS: ", as a full /dev/shm has the kernel send",
}
"""Who sends a signal that nobody here does."""

CRASH = re.compile(r"\*\*\* (SIG[A-Z]+) received")
MEMORY_MONITOR = re.compile(r"[^.\n]*(?:low on memory|memory usage exceeded)[^.\n]*", re.IGNORECASE)
PID = re.compile(r"\bpid[:=] ?(\d+)")

# struct pidfd_info of <linux/pidfd.h>, its first version: mask, cgroup id, eleven ids, exit status.
PIDFD_INFO = struct.Struct("QQ11Ii")
PIDFD_GET_INFO = (3 << 30) | (PIDFD_INFO.size << 16) | (0xFF << 8) | 11
PIDFD_INFO_EXIT = 1 << 3


class ExitWatcher:
    """Watches a process of this machine while it lives, to tell afterwards how it ended.

    Ray does not keep the exit status of its workers. Since Linux 6.15 the kernel tells it to whoever held a pidfd.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._oom_kills = oom_kills()
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except OSError:
            self._pidfd = None

    def findings(self) -> list[str]:
        """Return what is known of the end of a dead or dying process. To be called once: it closes the pidfd."""
        found = []
        if self._pidfd is not None:
            reaped = select.poll()
            reaped.register(self._pidfd, select.POLLHUP)
            reaped.poll(REAPED_S * 1000)
            status = exit_status(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
            if status is not None:
                found.append(describe_exit(os.waitstatus_to_exitcode(status)))
        if (killed := oom_kills() - self._oom_kills) > 0:
            found.append(
                f"the kernel's out-of-memory killer struck meanwhile (oom_kill of /proc/vmstat rose by {killed})"
            )
        return found


def exit_status(pidfd: int) -> int | None:
    """Return the wait status of a process that has ended, None if the kernel does not tell."""
    request = bytearray(PIDFD_INFO.pack(PIDFD_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, request)
    except OSError:
        return None
    mask, *_, status = PIDFD_INFO.unpack(request)
    return status if mask & PIDFD_INFO_EXIT else None


def describe_exit(code: int) -> str:
    """Put an exit code, or a signal as its negative number, into words."""
    if code >= 0:
        return f"it ended with exit code {code}"
    number = signal.Signals(-code)
    return f"it was killed by signal {-code} ({number.name}{SENDERS.get(number, '')})"


def oom_kills() -> int:
    """Count the processes that the kernel has killed for want of memory since the machine started."""
    found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def cause_of_death(error: str, watcher: ExitWatcher | None, logs: Path) -> str:
    """One line: why a process died, and the last lines of its log. error: Ray's text, or what the process raised.

    watcher: of a process of this machine. logs: folder of the session's logs.
    """
    log = find_log(logs, watcher.pid if watcher else None, error)
    text = log.read_text(errors="replace") if log else ""
    findings = watcher.findings() if watcher else []
    if monitor := MEMORY_MONITOR.search(error):
        findings.append(f"Ray's memory monitor: {monitor[0].strip()}")
    if crash := CRASH.search(text):
        findings.append(f"it crashed with {crash[1]}{SENDERS.get(signal.Signals[crash[1]], '')}")
    if "creation task" in error:
        findings.append(f"it could not start: {error.strip().splitlines()[-1].strip()}")
    lines = [line.strip()[:LOG_LINE_CHARACTERS] for line in text.splitlines() if not CHATTER.search(line)][-LOG_LINES:]
    return "; ".join(findings or [ray_message(error)]) + (f"; {log} ends with: {' | '.join(lines)}" if lines else "")


def find_log(logs: Path, pid: int | None, error: str) -> Path | None:
    """Return the log of a worker process, by its id or the one that Ray's text names."""
    named = PID.search(error)
    number = pid or (named and named[1])
    return next(logs.glob(f"worker-*-{number}.err"), None) if number else None


def ray_message(error: str) -> str:
    """Return the last line of Ray's text, without its list of possible causes."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return re.split(r" (?:Some common causes|There are some potential)", lines[-1])[0] if lines else "without a word"
