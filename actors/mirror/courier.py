"""The thread that mirrors a run behind it."""

import threading
import time
from dataclasses import dataclass

from actors.mirror.mirror import Mirror
from actors.storage.checkpoints import Checkpoints
from conf.errors import in_brief

LOOK_S = 2.0
"""Seconds between two looks for a new checkpoint."""

EVERY_S = 300.0
"""Seconds after which all else is copied without one."""

PAUSE_S = 15.0
LONGEST_PAUSE_S = 600.0
"""Before a failed pass is tried again, doubled each time."""


@dataclass(frozen=True)
class Passes:
    """What has happened since the last look. news: that copying began to fail, or is well again; empty if neither."""

    copies: int
    failures: int
    bytes: int
    news: str


class Courier:
    """Makes a pass for each checkpoint, and now and then without one. Nothing that happens there stops the run."""

    def __init__(self, mirror: Mirror, checkpoints: Checkpoints) -> None:
        self._mirror, self._checkpoints = mirror, checkpoints
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._copies = self._failures = self._seen = 0
        self._fault, self._said = "", ""
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Make no further pass."""
        self._ended.set()

    def passes(self) -> Passes:
        """Return what has happened since the last call."""
        with self._lock:
            copied, self._seen = self._mirror.copied - self._seen, self._mirror.copied
            news = {
                (True, False): f"copying fails, and is tried again: {self._fault}",
                (False, True): "copying works again",
            }.get((bool(self._fault), bool(self._said)), "")
            found = Passes(self._copies, self._failures, copied, news)
            self._copies = self._failures = 0
            self._said = self._fault
        return found

    def _work(self) -> None:
        pause, done, latest = PAUSE_S, -EVERY_S, None
        while not self._ended.wait(LOOK_S):
            newest = self._checkpoints.latest
            if newest == latest and time.monotonic() < done + EVERY_S:
                continue
            try:
                self._mirror.copy()
            except Exception as error:  # the libraries behind a URL may raise anything; the run goes on
                self._note(in_brief(error))
                self._ended.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                self._note("")
                pause, done, latest = PAUSE_S, time.monotonic(), newest

    def _note(self, fault: str) -> None:
        with self._lock:
            self._fault = fault
            self._failures += bool(fault)
            self._copies += not fault
