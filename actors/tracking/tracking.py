"""A run's loggers, each behind a bounded queue in a thread of its own, so that none can stop or slow the run."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from actors.protocols import Tracker
from conf.errors import in_brief

WAITING = 256
"""Most calls that wait for a logger, those of a hundred updates. Further rows and samples are lost."""

RETRY_S = 60.0
"""Seconds until a logger that could not begin is tried again. Calls in between are lost."""

SHOWN_ROWS = 64
"""Most samples of an update or evaluation that loggers get."""

Call = Callable[[Tracker], None]


@dataclass(frozen=True)
class Trouble:
    """The faults of a logger since the last look. lost: number of calls. reason: empty if it is not new."""

    tracker: str
    lost: int
    reason: str


class Tracking:
    """Passes everything to all loggers and returns at once."""

    def __init__(self, trackers: Mapping[str, Tracker] | None = None) -> None:
        self._threads = [LoggerThread(name, tracker) for name, tracker in (trackers or {}).items()]

    def begin(self, next_update: int) -> None:
        """Begin or continue the run. Earlier rows from `next_update` on no longer count."""
        for thread in self._threads:
            thread.begin(next_update)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._put(lambda tracker: tracker.scalars(step, values))

    def samples(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        """Log the first rows of samples/<name>.jsonl."""
        shown = rows[:SHOWN_ROWS]
        self._put(lambda tracker: tracker.samples(name, step, shown))

    def end(self, summary: dict[str, Any], seconds: float) -> None:
        """Log how the run ended, and give all loggers together this time to finish."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.put(lambda tracker: tracker.end(summary), due=True)
            thread.put(None, due=True)
        for thread in self._threads:
            with contextlib.suppress(RuntimeError):  # the thread has not started
                thread.thread.join(max(deadline - time.monotonic(), 0.0))

    def troubles(self) -> list[Trouble]:
        """Return the faults since the last call."""
        return [trouble for thread in self._threads if (trouble := thread.trouble()) is not None]

    def _put(self, call: Call) -> None:
        for thread in self._threads:
            thread.put(call)


class LoggerThread:
    """One logger with its queue and its daemon thread. The queue's numbers are updates to begin at; None is the end."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._name, self._tracker = name, tracker
        self._calls: queue.SimpleQueue[Call | int | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._lost, self._reason, self._said = 0, "", ""
        self._to_begin: int | None = None
        self._retry_at = 0.0

    def begin(self, next_update: int) -> None:
        self.put(next_update, due=True)
        if not self.thread.is_alive():
            self.thread.start()

    def put(self, call: Call | int | None, due: bool = False) -> None:
        """Have a call done or, unless it is due, lose it if too many wait already."""
        if due or self._calls.qsize() < WAITING:
            self._calls.put(call)
        else:
            self._note(f"it is {WAITING} calls behind")

    def trouble(self) -> Trouble | None:
        with self._lock:
            lost, self._lost = self._lost, 0
            news = "" if self._reason == self._said else self._reason
            self._said = self._reason
        return Trouble(self._name, lost, news) if lost else None

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                if isinstance(call, int):
                    self._begin(call)
                elif self._to_begin is None:
                    call(self._tracker)
                elif time.monotonic() < self._retry_at:
                    self._note(self._reason)
                else:
                    self._begin(self._to_begin)
                    call(self._tracker)
            except Exception as error:  # a logger's library may raise anything; the run goes on without it
                self._note(in_brief(error))

    def _begin(self, next_update: int) -> None:
        self._to_begin = next_update
        try:
            self._tracker.begin(next_update)
        finally:
            self._retry_at = time.monotonic() + RETRY_S
        self._to_begin = None

    def _note(self, reason: str) -> None:
        with self._lock:
            self._lost += 1
            self._reason = reason
