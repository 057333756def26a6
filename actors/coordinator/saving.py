"""Writing checkpoints: when one is due, and how its parts come together."""

from collections.abc import Callable
from typing import Any

from actors.coordinator.context import RunContext
from actors.storage.checkpoints import write_state

UNSAVED_S = 60.0
SAVING_SHARE = 0.02
"""A checkpoint is due after so many seconds, or once writing it takes at most this share of the time since the last."""


class Saving:
    """Writes the checkpoints of a run. version: of the newest one, 0 without any."""

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self.go_on_from(0)

    def go_on_from(self, version: int) -> None:
        """Count the work that is unsaved from now on."""
        self.version, self._since = version, self._run.clock.now()

    @property
    def due(self) -> bool:
        """Whether a death would now cost a minute's work, or more where a checkpoint takes long."""
        takes = self._run.budget.expected("checkpoint")
        return self._run.clock.now() - self._since >= max(UNSAVED_S, takes / SAVING_SHARE)

    async def save(self, version: int, state: Callable[[], dict[str, Any]], passing: bool = False) -> None:
        """Write a checkpoint. state: what it keeps of the coordinator, asked for once the learner has written its part.

        passing: the next one takes its place.
        """
        run, started = self._run, self._run.clock.now()
        run.ledger.enter("learner", "checkpoint")
        async with run.folder.checkpoints.new(version, run.config.checkpoint.keep_last, passing) as folder:
            await run.stopping.within_grace(run.learner.save(str(folder)))
            counts = run.ledger.counts
            write_state(folder, state() | {"counts": counts})
            run.folder.write_spent(run.budget.spent, run.ledger.record)  # never older than a checkpoint's counts
            run.folder.flush()
        self.go_on_from(version)
        run.budget.expect("checkpoint", run.clock.now() - started)
