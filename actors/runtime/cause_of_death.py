"""Finds why one of Ray's processes crashed, from the kernel, Ray's error and the log."""

import contextlib
import re
import signal
from pathlib import Path

import psutil

LOG_LINE_CHARACTERS = 300
"""Most characters of a log's last line that are shown."""

CHATTER = re.compile(r"^(:job_id:|:actor_name:|:task_name:)|^(\s|$)|Warning: | WARNING \d|^\[W\d|\bit/s\]|it/s\b|\| 0/")
"""Pattern of log lines without a cause: Ray's own, warnings with the code below them, and progress bars."""

REAPED_S = 5.0
"""Seconds to wait for the end of a process: Ray reports its closed connection while it still frees its memory."""

SENDERS = {
    signal.SIGKILL: ", as the out-of-memory killer sends",
    signal.SIGBUS: ", as a full /dev/shm has the kernel send",
}
"""Likely senders of a signal."""

CRASH = re.compile(r"\*\*\* (SIG[A-Z]+) received")
MEMORY_MONITOR = re.compile(r"[^.\n]*(?:low on memory|memory usage exceeded)[^.\n]*", re.IGNORECASE)
PID = re.compile(r"\bpid[:=] ?(\d+)")
LOST_CONNECTION = re.compile(r"unexpectedly exits with a connection error code 2")


class ExitWatcher:
    """Watches a process of this machine while it lives, to tell afterwards how it ended."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._oom_kills = oom_kills()
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._process = None

    def findings(self) -> list[str]:
        """Wait for the process to end. Return a sentence if the out-of-memory killer was active meanwhile."""
        if self._process:
            with contextlib.suppress(psutil.TimeoutExpired):
                self._process.wait(REAPED_S)
        if (killed := oom_kills() - self._oom_kills) > 0:
            return [f"the kernel's out-of-memory killer was active (oom_kill of /proc/vmstat rose by {killed})"]
        return []


def describe_exit(code: int) -> str:
    """Put an exit code, or a signal as its negative number, into words."""
    if code >= 0:
        return f"it ended with exit code {code}"
    number = signal.Signals(-code)
    return f"it was killed by signal {-code} ({number.name}{SENDERS.get(number, '')})"


def oom_kills() -> int:
    """Return the number of processes that the out-of-memory killer has killed since the machine started."""
    kills = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE)
    return int(kills[1]) if kills else 0


def cause_of_death(error: str, watcher: ExitWatcher | None, logs: Path) -> str:
    """Return one line with the cause of a process's end and its log. Without another cause, it has the log's last line.

    error: the text of Ray or of the process. watcher: for a process on this machine. logs: the session's folder.
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
    lines = [line.strip() for line in text.splitlines() if not CHATTER.search(line)]
    if not findings:
        findings = [_ray_message(error), *(f"its last output: {line[:LOG_LINE_CHARACTERS]}" for line in lines[-1:])]
    return "; ".join(findings) + (f" (log: {log})" if lines else "")


def find_log(logs: Path, pid: int | None, error: str) -> Path | None:
    """Return the log of a worker process, found by its id or by the id in Ray's text."""
    number = pid or ((named := PID.search(error)) and named[1])
    return next(logs.glob(f"worker-*-{number}.err"), None) if number else None


def _ray_message(error: str) -> str:
    """Return the last line of Ray's text, without its list of possible causes."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    if not lines or LOST_CONNECTION.search(lines[-1]):
        return "its process ended without a message, as after kill -9"
    return re.split(r" (?:Some common causes|There are some potential)", lines[-1])[0]
