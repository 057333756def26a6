"""A run's loggers, each behind a worker of its own, so that none can stop or slow the run."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from actors.protocols import Tracker
from actors.worker import Worker

WAITING = 256
"""Most calls that wait for a logger, those of a hundred updates. Further rows and samples are lost."""

PAUSE_S = 60.0
"""Seconds before a logger that could not begin is begun again. Calls in between are lost."""

SHOWN_ROWS = 64
"""Most samples of an update or evaluation that loggers get."""


class Tracking:
    """Passes everything to all loggers and returns at once."""

    def __init__(self, trackers: Mapping[str, Tracker] | None = None) -> None:
        self._loggers = [Logger(name, tracker) for name, tracker in (trackers or {}).items()]

    @property
    def workers(self) -> list[Worker]:
        """The workers of the loggers, each under its logger's name."""
        return [logger.worker for logger in self._loggers]

    def begin(self, next_update: int) -> None:
        """Begin or continue the run. Earlier rows from `next_update` on no longer count."""
        for logger in self._loggers:
            logger.worker.put(logger.begin, next_update, due=True)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._put(lambda tracker: tracker.scalars(step, values))

    def samples(self, name: str, step: int, rows: list[dict[str, Any]]) -> None:
        """Log the first rows of samples/<name>.jsonl."""
        shown = rows[:SHOWN_ROWS]
        self._put(lambda tracker: tracker.samples(name, step, shown))

    def end(self, summary: dict[str, Any], seconds: float) -> None:
        """Log how the run ended, and give all loggers together this time to finish."""
        deadline = time.monotonic() + seconds
        self._put(lambda tracker: tracker.end(summary), due=True)
        for worker in self.workers:
            worker.wait(max(deadline - time.monotonic(), 0.0))

    def _put(self, call: Callable[[Tracker], None], due: bool = False) -> None:
        for logger in self._loggers:
            logger.worker.put(logger.do, call, due=due)


class Logger:
    """One logger with its worker, in whose thread `begin` and `do` are called."""

    def __init__(self, name: str, tracker: Tracker) -> None:
        self.worker = Worker(name, WAITING)
        self._tracker = tracker
        self._to_begin: int | None = None
        self._failed, self._error = 0.0, Exception()

    def begin(self, next_update: int) -> None:
        self._to_begin = next_update
        try:
            self._tracker.begin(next_update)
        except Exception as error:  # of any library: calls until the next try raise it again
            self._failed, self._error = time.monotonic(), error
            raise
        self._to_begin = None

    def do(self, call: Callable[[Tracker], None]) -> None:
        """Do a call, after another attempt to begin if the last one has failed. Raises its error before PAUSE_S."""
        if self._to_begin is not None:
            if time.monotonic() - self._failed < PAUSE_S:
                raise self._error
            self.begin(self._to_begin)
        call(self._tracker)
