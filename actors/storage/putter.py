"""A thread that puts remote checkpoints while a run goes on."""

import threading
import time
from dataclasses import dataclass

from actors.storage.remote import Remote
from actors.storage.run_record import RunRecord
from conf.errors import in_brief
from conf.schema import Config

SILENT_S = 60.0
"""Seconds without a byte moved after which a remote counts as not answering."""

LOOK_S = 2.0
"""Seconds between two looks for a new checkpoint."""

EVERY_S = 300.0
"""Seconds after which the other files are put without a new checkpoint."""

PAUSE_S = 15.0
LONGEST_PAUSE_S = 600.0
"""Seconds before a failed put is tried again: the first pause, doubled after each failure, and the longest."""


@dataclass(frozen=True)
class Puts:
    """Counts since the last look. news: says that puts began to fail, or work again; empty if neither."""

    copies: int
    failures: int
    bytes: int
    news: str


class Putter:
    """Puts a run at each checkpoint, and every EVERY_S without one. The run never waits, and no failure stops it."""

    def __init__(self, config: Config, run: RunRecord) -> None:
        self._run, self._url, self._name = run, config.checkpoint.remote, config.run.name
        self._remote: Remote | None = None  # made in the thread, since some libraries connect at once
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._copies = self._failures = self._seen = 0
        self._fault, self._said = "", ""
        self._busy = self._silent = False
        self._moved_at = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="remote checkpoints", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    def puts(self) -> Puts:
        """Return the counts since the last call. A remote that does not answer is one failure."""
        with self._lock:
            total = self._remote.moved if self._remote else 0
            moved, self._seen = total - self._seen, total
            if moved or not self._busy:
                self._moved_at, self._silent = time.monotonic(), False
            elif not self._silent and time.monotonic() > self._moved_at + SILENT_S:
                self._silent, self._fault = True, f"no answer within {SILENT_S:g} s"
                self._failures += 1
            news = {
                (True, False): f"remote checkpoints fail, and are tried again: {self._fault}",
                (False, True): "remote checkpoints work again",
            }.get((bool(self._fault), bool(self._said)), "")
            found = Puts(self._copies, self._failures, moved, news)
            self._copies = self._failures = 0
            self._said = self._fault
        return found

    def _work(self) -> None:
        pause, done, latest = PAUSE_S, -EVERY_S, None
        while not self._ended.wait(LOOK_S):
            try:
                newest = self._run.checkpoints.latest
                if newest == latest and time.monotonic() < done + EVERY_S:
                    continue
                self._note(busy=True)
                self._remote = self._remote or Remote(self._url, self._name)
                self._remote.put(self._run)
            except Exception as error:  # the libraries behind a URL may raise anything; the run goes on
                self._note(busy=False, fault=in_brief(error), failures=1)
                self._ended.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                self._note(busy=False, copies=1)
                pause, done, latest = PAUSE_S, time.monotonic(), newest

    def _note(self, busy: bool, fault: str = "", copies: int = 0, failures: int = 0) -> None:
        with self._lock:
            self._busy, self._moved_at = busy, time.monotonic()
            self._fault = self._fault if busy else fault
            self._copies += copies
            self._failures += failures
