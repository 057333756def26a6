"""Writes checkpoints: decides when one is due, and puts its parts together."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from microbudget_rl.actors.coordinator.context import RunContext
from microbudget_rl.actors.coordinator.rules.selection import Selection
from microbudget_rl.actors.coordinator.rules.way_back import FIRST_COPIES
from microbudget_rl.actors.storage.checkpoints import version_of, write_state
from microbudget_rl.actors.storage.documents import CoordinatorState
from microbudget_rl.actors.storage.files import damage

UNSAVED_S = 60.0
SAVING_SHARE = 0.02
"""A checkpoint is due UNSAVED_S seconds after the last, or later, so that it takes at most SAVING_SHARE of the time."""


class Saving:
    """Writes the checkpoints of a run. crashes: those of the learner since the newest one was written."""

    def __init__(self, run: RunContext, state: Callable[[], CoordinatorState]) -> None:
        """state: returns the coordinator's part of a checkpoint, once the learner has written its own."""
        self.crashes = 0
        self._run, self._state = run, state
        self.nothing_unsaved()

    @property
    def saved_version(self) -> int:
        """The version that the newest checkpoint holds; 0 without any."""
        latest = self._run.folder.checkpoints.latest
        return version_of(latest) if latest else 0

    @property
    def overdue(self) -> bool:
        """Whether too much work is unsaved."""
        unsaved, expected = self._run.clock.now() - self._since, self._run.budget.expected("checkpoint")
        return unsaved >= max(UNSAVED_S, expected / SAVING_SHARE)

    def nothing_unsaved(self) -> None:
        """Count unsaved work from this moment on."""
        self._since = self._run.clock.now()

    async def choose(self, rows: Sequence[Mapping[str, float]]) -> Selection:
        """Return the choice after some rows, and point `best` at it. Without validations the link is not ours."""
        choice = await asyncio.to_thread(self._choose, rows)
        if self._run.config.validation_problems:
            self._run.folder.checkpoints.mark_best(choice.chosen)
        return choice

    def _choose(self, rows: Sequence[Mapping[str, float]]) -> Selection:
        """Return the choice among the undamaged checkpoints, which are read: seconds for large ones."""
        checkpoints = self._run.folder.checkpoints
        versions = [version_of(checkpoint) for checkpoint in checkpoints.all]
        while (selection := Selection.among(versions, rows)).chosen is not None:
            if damage(checkpoints.path_of(selection.chosen), "adapter/") is None:
                break
            versions.remove(selection.chosen)
        return selection

    async def after_update(self, version: int, chosen: bool) -> None:
        """Write a checkpoint if it is due by `checkpoint.every`, chosen as the result, for a way back, or the first,
        whose duration sets the reserve for the last. Otherwise write a passing one if it is overdue.
        """
        config, budget = self._run.config, self._run.budget
        planned = chosen or version % config.checkpoint.every == 0 or not budget.knows("checkpoint")
        planned |= config.guard.goes_back and version in FIRST_COPIES
        if planned or self.overdue:
            await self.save(version, passing=not planned, chosen=chosen)

    async def save(self, version: int, passing: bool = False, chosen: bool = False) -> None:
        """Write a checkpoint. passing: the next one replaces it. chosen: it is the result so far."""
        run, started, keep = self._run, self._run.clock.now(), self._run.config.checkpoint.keep_last
        run.ledger.enter("learner", "checkpoint")
        async with run.folder.checkpoints.new(version, keep, passing, best=chosen) as folder:
            await run.stopping.within_grace(run.learner.save(str(folder)))
            state = self._state().model_copy(update={"counts": run.ledger.counts})
            await asyncio.to_thread(write_state, folder, state)
            run.folder.write_spent(run.budget.spent, run.ledger.record)  # never older than a checkpoint's counts
            await run.folder.flush()
        self.nothing_unsaved()
        self.crashes = 0
        run.budget.expect("checkpoint", run.clock.now() - started)
