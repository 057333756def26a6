"""How a run stands, and how it ends."""

from dataclasses import dataclass, field
from typing import Any


class Halted(Exception):
    """The run must not go on: its text says what was found."""


class Interrupted(Exception):
    """The run was told to stop and a step could not finish within the grace."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: all as in summary.json, `final` as `Evaluation.summary` and `plasticity` as
    `Plasticity.measure` have them.
    """

    status: str
    reason: str
    final: dict[str, Any] | None = None
    plasticity: dict[str, Any] | None = None


@dataclass(frozen=True)
class Progress:
    """What a watcher sees while a run goes on. `latest` is the last row of metrics.jsonl. updates_left: forecast of the
    updates that still fit. cost: of the time spent, if an hour has a price. notice: what was found amiss last.
    """

    phase: str
    updates: int
    spent: float
    left: float
    updates_left: int | None
    latest: dict[str, float] = field(default_factory=dict)
    cost: float | None = None
    notice: str = ""


def root_cause(error: BaseException) -> BaseException:
    """The first single error in a group of errors, as asyncio's task groups raise them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
