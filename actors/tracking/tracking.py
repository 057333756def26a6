"""A run's trackers, each behind a bounded queue in a thread of its own, so that none can stop or slow the run."""

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
"""Calls that wait for a tracker at most: a hundred updates. What comes then is lost to it."""

RETRY_S = 60.0
"""Seconds between two tries to begin with a tracker that could not."""

SHOWN_ROWS = 64
"""Samples of an update or evaluation that trackers are given."""

Call = Callable[[Tracker], None]


@dataclass(frozen=True)
class Trouble:
    """What has gone wrong with a tracker since the last look.

    lost: calls. reason: of the last of them; empty if it was said before.
    """

    tracker: str
    lost: int
    reason: str


class Tracking:
    """Hands everything to all trackers and returns at once."""

    def __init__(self, trackers: Mapping[str, Tracker] | None = None) -> None:
        self._lanes = [Lane(name, tracker) for name, tracker in (trackers or {}).items()]

    def begin(self, next_update: int) -> None:
        """Begin or go on with the run. Rows from `next_update` on that were shown before do not count any more."""
        for lane in self._lanes:
            lane.begin(next_update)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Show numbers by name at an update."""
        self._put(lambda tracker: tracker.scalars(step, values))

    def samples(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        """Show samples as samples/<name>.jsonl has them."""
        shown = rows[:SHOWN_ROWS]
        self._put(lambda tracker: tracker.samples(name, step, shown))

    def end(self, summary: dict[str, Any], seconds: float) -> None:
        """Show how the run ended, and wait so long at most until all trackers have everything."""
        self._put(lambda tracker: tracker.end(summary))
        deadline = time.monotonic() + seconds
        for lane in self._lanes:
            lane.close()
        for lane in self._lanes:
            lane.join(max(deadline - time.monotonic(), 0.0))

    def troubles(self) -> list[Trouble]:
        """Return what has gone wrong since the last call."""
        return [trouble for lane in self._lanes if (trouble := lane.trouble()) is not None]

    def _put(self, call: Call) -> None:
        for lane in self._lanes:
            lane.put(call)


class Lane:
    """One tracker with its queue and its thread."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self._name, self._tracker = name, tracker
        self._calls: queue.Queue[Call | None] = queue.Queue(WAITING)
        self._lock = threading.Lock()
        self._lost, self._reason, self._said = 0, "", ""
        self._next_update = 1
        self._begun, self._tried = False, float("inf")
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)

    def begin(self, next_update: int) -> None:
        self.put(lambda _: self._begin(next_update))
        if not self._thread.is_alive():
            self._thread.start()

    def put(self, call: Call) -> None:
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._note(f"it is {WAITING} calls behind")

    def close(self) -> None:
        """Have the thread end once it has done what waits; one that hangs ends with its process."""
        with contextlib.suppress(queue.Full):
            self._calls.put_nowait(None)

    def join(self, seconds: float) -> None:
        if self._thread.is_alive():
            self._thread.join(seconds)

    def trouble(self) -> Trouble | None:
        with self._lock:
            lost, self._lost = self._lost, 0
            news = "" if self._reason == self._said else self._reason
            self._said = self._reason
        return Trouble(self._name, lost, news) if lost else None

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                self._begin_again()
                call(self._tracker)
            except Exception as error:  # a tracker's library may raise anything; the run goes on without it
                self._note(in_brief(error))

    def _begin(self, next_update: int) -> None:
        self._begun, self._next_update, self._tried = False, next_update, time.monotonic()
        self._tracker.begin(next_update)
        self._begun = True

    def _begin_again(self) -> None:
        """Try again, now and then, to begin where that has failed."""
        if not self._begun and time.monotonic() >= self._tried + RETRY_S:
            self._begin(self._next_update)

    def _note(self, reason: str) -> None:
        with self._lock:
            self._lost += 1
            self._reason = reason
