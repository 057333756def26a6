"""Why a process of Ray's died: what can be learned from its exit status, the kernel, Ray and its log."""

import fcntl
import os
import re
import select
import signal
import struct
from pathlib import Path

LOG_LINES = 5
LOG_LINE_CHARACTERS = 200
"""Of a dead actor's log, in the cause of its death."""

NOISE = re.compile(r"^(:job_id:|:actor_name:|:task_name:)|^\s*$|Warning: |^\[W\d|\bit/s\]|it/s\b|\| 0/")
"""Lines of a worker's log that Ray writes for itself, warnings and progress bars."""

REAPED_S = 5.0
"""Ray tells of a closed connection, which comes before the end: a process has all its memory to give back first."""

CRASH = re.compile(r"\*\*\* (SIG[A-Z]+) received")
MEMORY_MONITOR = re.compile(r"[^.\n]*(?:low on memory|memory usage exceeded)[^.\n]*", re.IGNORECASE)
PID = re.compile(r"\bpid[:=] ?(\d+)")

# struct pidfd_info of <linux/pidfd.h>, its first version: mask, cgroup id, eleven ids, exit status.
PIDFD_INFO = struct.Struct("QQ11Ii")
PIDFD_GET_INFO = (3 << 30) | (PIDFD_INFO.size << 16) | (0xFF << 8) | 11
PIDFD_INFO_EXIT = 1 << 3


class Witness:
    """Watches a process of this machine while it lives, to tell afterwards how it ended.

    Ray does not keep the exit status of its workers. Since Linux 6.15 the kernel tells it to whoever held a pidfd.
    """

    def __init__(self, pid: int) -> None:
        self._oom_kills = oom_kills()
        try:
            self._pidfd: int | None = os.pidfd_open(pid)
        except OSError:
            self._pidfd = None

    def testimony(self) -> list[str]:
        """What was seen, once the process is dead or about to be. For one call: it lets go of the process."""
        seen = []
        if self._pidfd is not None:
            reaped = select.poll()
            reaped.register(self._pidfd, select.POLLHUP)
            reaped.poll(REAPED_S * 1000)
            status = exit_status(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
            if status is not None:
                seen.append(describe_status(os.waitstatus_to_exitcode(status)))
        if (killed := oom_kills() - self._oom_kills) > 0:
            seen.append(
                f"the kernel's out-of-memory killer struck meanwhile (oom_kill of /proc/vmstat rose by {killed})"
            )
        return seen


def exit_status(pidfd: int) -> int | None:
    """The wait status of a process that has ended, None if the kernel does not tell."""
    request = bytearray(PIDFD_INFO.pack(PIDFD_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, request)
    except OSError:
        return None
    mask, *_, status = PIDFD_INFO.unpack(request)
    return status if mask & PIDFD_INFO_EXIT else None


def describe_status(code: int) -> str:
    """An exit code, or a signal as its negative number, in words."""
    if code >= 0:
        return f"it ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"it was killed by signal {-code} ({name}{', as the out-of-memory killer sends' if code == -9 else ''})"


def oom_kills() -> int:
    """Processes that the kernel has killed for want of memory since the machine started."""
    rows = (line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return next((int(row[1]) for row in rows if row[0] == "oom_kill"), 0)


def post_mortem(error: str, witness: Witness | None, log: Path | None) -> str:
    """One line: what a process died of and what it said last. error: the text it left, Ray's or its own."""
    said = log.read_text(errors="replace") if log else ""
    findings = witness.testimony() if witness else []
    if monitor := MEMORY_MONITOR.search(error):
        findings.append(f"Ray's memory monitor: {monitor[0].strip()}")
    if crash := CRASH.search(said):
        findings.append(f"it crashed with {crash[1]}")
    if "creation task" in error:
        findings.append(f"it could not start: {error.strip().splitlines()[-1].strip()}")
    lines = last_lines(said)
    return "; ".join(findings or [ray_says(error)]) + (f"; {log} ends with: {' | '.join(lines)}" if lines else "")


def log_of(logs: Path, pid: int | None, error: str) -> Path | None:
    """The log of a worker process, by its id or the one that Ray's text names."""
    named = PID.search(error)
    number = pid or (named and named[1])
    return next(logs.glob(f"worker-*-{number}.err"), None) if number else None


def ray_says(error: str) -> str:
    """What Ray's text says where nothing better is known: its last line without the list of possible causes."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return re.split(r" (?:Some common causes|There are some potential)", lines[-1])[0] if lines else "without a word"


def last_lines(log: str) -> list[str]:
    """The last lines of a worker's log that say something, shortened."""
    lines = [line.strip() for line in log.splitlines() if not NOISE.search(line)]
    return [line[:LOG_LINE_CHARACTERS] for line in lines[-LOG_LINES:]]
