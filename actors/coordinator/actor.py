"""The Ray actor of a run: it starts the other actors, runs a Coordinator on them, and writes the summary."""

import asyncio
import contextlib
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from microbudget_rl.actors.clock import WallClock, cut_off
from microbudget_rl.actors.coordinator.budget import FINISH_MARGIN_S, Budget
from microbudget_rl.actors.coordinator.context import Outcome, RunContext, RunRequest, summarise
from microbudget_rl.actors.coordinator.coordinator import Coordinator
from microbudget_rl.actors.coordinator.ledger import Ledger
from microbudget_rl.actors.coordinator.stopping import StopController
from microbudget_rl.actors.errors import Halted, Interrupted, root_cause
from microbudget_rl.actors.messages import Progress
from microbudget_rl.actors.models.sizes import groups_at_once
from microbudget_rl.actors.protocols import Clock, Engine, Learner, Verifier
from microbudget_rl.actors.rollout.pool import EnginePool
from microbudget_rl.actors.rollout.shared_weights import SharedWeights
from microbudget_rl.actors.runtime.host_resources import HostGuard, HostWarning, measure, total_memory
from microbudget_rl.actors.runtime.supervision import Record
from microbudget_rl.actors.storage.copies import Copies
from microbudget_rl.actors.storage.documents import EventKind, RunSummary
from microbudget_rl.actors.storage.files import disk_trouble
from microbudget_rl.actors.storage.run_folder import RunFolder
from microbudget_rl.actors.tracking import make_tracking
from microbudget_rl.actors.worker import Worker
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config

LOOK_S = 5.0
"""Seconds between two checks of the host's resources; 1 while the run starts."""

Started = list[Engine | Learner | Verifier | SharedWeights]

StartActors = Callable[[RunRequest, Started, Clock, Record], Awaitable[tuple[EnginePool, Learner, Verifier]]]
"""Starts the actors of a request, adds each to the list as soon as it starts, and records crashes."""


class CoordinatorActor:
    """One run as an asynchronous actor, which answers `progress` and `stop` during `run`."""

    def __init__(
        self, request: RunRequest, start_actors: StartActors, foreign: Callable[[Path, Config], str | None]
    ) -> None:
        """foreign: returns why a checkpoint does not fit a run with these settings; None if it does."""
        with contextlib.suppress(OSError):  # Ray offers its workers to the OOM killer first, but this one is small
            Path("/proc/self/oom_score_adj").write_text("0")
        config, spent = request.config, request.spent
        self._request, self._start_actors = request, start_actors
        self._folder = RunFolder(request.folder)
        tracking = make_tracking(config, request.folder, self._folder.identity() or config.run.name)
        self._folder.recover(lambda checkpoint: foreign(checkpoint, config), tracking)
        self._copies = Copies(config, self._folder) if config.checkpoint.copy else None
        self._clock = WallClock()
        self._budget = Budget(config.budget.seconds, spent, self._clock, config.final_policies)
        since = spent if request.restarted else request.spent_before
        self._ledger = Ledger(self._clock, spent, self._folder.ledger(), since)
        for actor in ("run", "rollouts", "rewards", "learner"):
            self._ledger.enter(actor, "start")
        if request.restarted:
            self._ledger.count("deaths/coordinator")
        self._actors: Started = []
        self._engines: EnginePool | None = None
        self._coordinator: Coordinator | None = None
        self._stopping = StopController(self._clock, config.budget.grace_s)
        self._fatal: HostWarning | None = None
        self._noted = set[tuple[str, str]]()

    async def run(self) -> RunSummary:
        """Run to the end, write summary.json and return it. Raises BadInput if that ended the run."""
        bad_input: BadInput | None = None
        failure = ""
        try:
            async with asyncio.TaskGroup() as tasks:
                guard = tasks.create_task(self._watch_host())
                outcome = await self._carry_out()
                guard.cancel()
        except BaseException as error:
            cause = root_cause(error)
            trouble = disk_trouble(self._folder.path, cause)
            halted = trouble or isinstance(cause, Halted)
            status = "halted" if halted else "interrupted" if isinstance(cause, Interrupted) else "failed"
            outcome = Outcome(status, trouble or last_line(cause))
            bad_input = cause if isinstance(cause, BadInput) else None
            if outcome.status != "interrupted":
                failure = traceback.format_exc()
        if self._fatal and outcome.status == "interrupted":
            reason = f"{self._fatal.text}: make room there, then give the same command"
            outcome = replace(outcome, status="halted", reason=reason)
        facts = self._request, outcome, self._updates, self._ledger.record
        summary = await self._folder.writer.in_turn(lambda: self._folder.write_ending(summarise(*facts), failure))
        if bad_input:
            raise bad_input
        return summary

    async def progress(self) -> Progress:
        if self._coordinator is None:
            doing = "engine, learner and reward workers start"
            return Progress("starting", 0, self._budget.spent, self._budget.left, None, doing=doing)
        return replace(self._coordinator.progress, answers=self._engines is not None and self._engines.answers)

    async def stop(self, reason: str) -> None:
        """End the run gracefully, or at once when called again."""
        self._stopping.stop(reason)

    async def close(self) -> None:
        """Free everything the actors hold, engine processes included. Errors of crashed actors are ignored."""
        await asyncio.gather(*(actor.close() for actor in self._actors), return_exceptions=True)

    async def show_ending(self, summary: RunSummary, seconds: float) -> None:
        """Give the loggers these seconds to send the rest of the run and its summary."""
        await asyncio.to_thread(self._folder.tracking.end, summary.content, seconds)

    async def _carry_out(self) -> Outcome:
        """Start the actors, which takes minutes on a GPU, then run the coordinator."""
        request, clock = self._request, self._clock
        start = self._start_actors(request, self._actors, clock, self._note_actor)
        started = None
        async with cut_off(asyncio.timeout(self._budget.left - FINISH_MARGIN_S)) as limit:
            started = await self._stopping.unless_stopped(start)
        if limit.expired():
            return Outcome("budget_exhausted", "the budget ended while the engines were starting")
        if started is None:
            return Outcome("interrupted", self._stopping.reason)
        self._engines, learner, verifier = started
        run = RunContext(
            config=request.config,
            problems=request.problems,
            engine=self._engines,
            learner=learner,
            verifier=verifier,
            folder=self._folder,
            budget=self._budget,
            ledger=self._ledger,
            clock=clock,
            stopping=self._stopping,
            max_running=groups_at_once(request.config, request.placement.device) * len(request.placement.rollouts),
        )
        self._coordinator = Coordinator(run)
        return await self._coordinator.run()

    async def _watch_host(self) -> None:
        """Check the host periodically, and count failed checks. Raises the error that ended the shared weights."""
        guard = HostGuard(self._request.host_needs, total_memory())
        while True:
            try:
                try:
                    await self._check_host(guard)
                finally:
                    if self._copies:
                        self._copies.look()
            except Exception:  # of the system's files, which have many formats, or a full disk
                self._ledger.count("warnings/look failed")
            for actor in self._actors:
                if isinstance(actor, SharedWeights):
                    actor.check()
            await self._clock.sleep(LOOK_S if self._coordinator else 1.0)

    async def _check_host(self, guard: HostGuard) -> None:
        """Record alarms, and write the time spent until there is a coordinator. A fatal alarm stops the run first."""
        alarms = guard.look(measure(self._folder.path))
        for alarm in alarms:
            if alarm.fatal and not self._stopping.stopped:
                self._fatal = alarm
                await self.stop(alarm.text)
        for alarm in alarms:
            self._ledger.count(f"warnings/{alarm.kind}")
            self._folder.append_event(self._updates, EventKind.LOW, alarm.text, alarm.kind)
        self._note_losses()
        if self._coordinator is None:
            self._folder.write_spent(self._budget.spent, self._ledger.record)

    def _note_losses(self) -> None:
        """Count what loggers and copies have lost, and record a new reason as an event."""
        workers: dict[Worker, EventKind] = dict.fromkeys(self._folder.tracking.workers, EventKind.LOGGER_FAILED)
        if self._copies:
            workers[self._copies.worker] = EventKind.COPY_FAILED
        for worker, kind in workers.items():
            lost, reason = worker.losses()
            self._ledger.count(f"warnings/{worker.name}", lost)
            if reason:
                self._folder.append_event(self._updates, kind, reason, worker.name)

    def _note_actor(self, name: str, kind: EventKind, detail: str) -> None:
        """Record an actor's event, a fallback only once, and count a crash."""
        if kind is EventKind.FALLBACK and (name, detail) in self._noted:
            return
        self._noted.add((name, detail))
        if kind is EventKind.DIED:
            self._ledger.count(f"deaths/{name.partition('-')[0]}")
        self._folder.append_event(self._updates, kind, detail, name)

    @property
    def _updates(self) -> int:
        return self._coordinator.updates if self._coordinator else 0


def last_line(error: BaseException) -> str:
    """Return the last line of an error's text, which names a remote error's cause. failure.log has the whole text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
