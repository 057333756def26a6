"""The course of a run, without Ray. The methods are in its order: start, training, updates, setbacks, end."""

import asyncio
import math
from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from microbudget_rl.actors.adapter_check.at_start import CheckAtStart
from microbudget_rl.actors.adapter_check.prompts import CheckPrompts
from microbudget_rl.actors.clock import cut_off
from microbudget_rl.actors.coordinator.budget import FINISH_MARGIN_S, LAST_MOMENT_S
from microbudget_rl.actors.coordinator.context import Outcome, RunContext
from microbudget_rl.actors.coordinator.evaluations import Evaluations
from microbudget_rl.actors.coordinator.ledger import UNDECIDED
from microbudget_rl.actors.coordinator.metrics import RunState, describe_batch
from microbudget_rl.actors.coordinator.producer import RolloutProducer
from microbudget_rl.actors.coordinator.publisher import PolicyPublisher
from microbudget_rl.actors.coordinator.rules.collapse_guard import Alarm
from microbudget_rl.actors.coordinator.rules.controls import Controls
from microbudget_rl.actors.coordinator.rules.learning import AHEAD, GONE, IN_STEP, STARTING, UPDATING, LearnerLifecycle
from microbudget_rl.actors.coordinator.rules.selection import Selection
from microbudget_rl.actors.coordinator.rules.way_back import (
    LEAST_AGE,
    WayBack,
    is_broken,
    newest_exploring,
    updates_needed,
)
from microbudget_rl.actors.coordinator.saving import Saving
from microbudget_rl.actors.coordinator.warm_start import WarmStart
from microbudget_rl.actors.errors import Halted, LearnerDied
from microbudget_rl.actors.formats import counted
from microbudget_rl.actors.messages import AdapterRef, Batch, Progress
from microbudget_rl.actors.storage.checkpoints import read_state, version_of
from microbudget_rl.actors.storage.documents import CoordinatorState, EventKind

TICK_S = 1.0
"""Seconds between two writes of the time spent."""

CRASHES = 5
"""Crashes of the learner without a checkpoint in between that halt the run. The next would come at the same place."""

SAMPLED_GROUPS = 8
"""Groups per update whose samples are kept, unless it was skipped; long responses would otherwise fill the disk in a
day."""

NO_UPDATE_FITS = Outcome("budget_exhausted", "no further update fits")

T = TypeVar("T")


class Coordinator:
    """One run from the first adapter to the final evaluation."""

    def __init__(self, run: RunContext) -> None:
        self._run, self.ledger = run, run.ledger
        self._config, self._learner, self._folder = run.config, run.learner, run.folder
        self._budget, self._clock, self._stopping = run.budget, run.clock, run.stopping
        self._saving = Saving(run, lambda: self._state)
        self._prompts = CheckPrompts(run.config, run.problems.train, partial(run.metered, "adapter_check"))
        doubt = None if run.config.adapter_check.at_start == "halt" else self._doubt
        self._startup_check = CheckAtStart(run.engine, run.learner, self._prompts, doubt)
        self._run_state = RunState(run.budget, run.ledger, run.config)
        self._evaluations = Evaluations(run, self._saving, self._run_state, self._prompts)
        self._warm_start = WarmStart(run, self._saving, self._run_state)
        self._training_deadline = asyncio.timeout(None)  # when training ends, set by `_end_training_in_time`
        self._lifecycle = LearnerLifecycle()
        self._restore_bookkeeping(self._folder.checkpoints.latest)

    def _restore_bookkeeping(self, checkpoint: Path | None) -> dict[str, float]:
        """Restore the bookkeeping from a checkpoint, or begin it anew. Return the metrics of its last update."""
        state = read_state(checkpoint) if checkpoint else CoordinatorState()
        self._rollbacks = sum(event.kind is EventKind.ROLLED_BACK for event in self._folder.events())
        self._saving.nothing_unsaved()
        self.ledger.go_back(state.counts)
        self._publisher = PolicyPublisher(self._run, self._prompts, self._startup_check, state.noise)
        due = self._evaluations.begin(state.version)
        self._controls = Controls(self._config, state.controls, self._rollbacks)
        self._producer = RolloutProducer(
            self._run, self._publisher, state, self._controls.fruitless, rollbacks=self._rollbacks, one_batch=due
        )
        scored = self._folder.scored(state.version)  # the file may have more
        history = [row for row in scored if row["update"]]
        self._selection = Selection(scored)
        self._entropy = {int(row["update"]): row["policy/entropy"] for row in history if "policy/entropy" in row}
        self._folder.checkpoints.way_back = self._exploring(state.version)
        return history[-1] if history else {}

    @property
    def _state(self) -> CoordinatorState:
        """The coordinator's part of a checkpoint."""
        parts = {
            "noise": self._publisher.noise,
            "controls": self._controls.state,
            "imitated": self._warm_start.losses,
            "warm_start_over": self._warm_start.ended,
        }
        return self._producer.state.model_copy(update=parts)

    @property
    def progress(self) -> Progress:
        return self._run_state.progress(self.updates)

    @property
    def updates(self) -> int:
        """Number of updates that led to the current policy: its version."""
        return self._producer.staleness.version

    async def run(self) -> Outcome:
        """Run from start to end, and return to the last checkpoint whenever the learner crashes. Raises Halted if the
        run must not go on, and any error of another actor.
        """
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(self._watch())
            try:
                async with cut_off(asyncio.timeout(self._budget.left - FINISH_MARGIN_S)) as limit:
                    await self._start()
                if limit.expired():
                    outcome = Outcome("budget_exhausted", "the budget ended while the run was starting")
                else:
                    if not self._stopping.stopped:
                        await self._train()
                    outcome = await self._finish()
            finally:
                await self._publisher.close()
            await self._folder.flush()
            watcher.cancel()
        return outcome

    async def _watch(self) -> None:
        while True:
            self._folder.write_spent(self._budget.spent, self.ledger.record)
            await self._stopping.notify()
            await self._clock.sleep(TICK_S)

    async def _start(self) -> None:
        """Wait for engine and learner, and adopt the learner's first version."""
        self._run_state.enter("starting", "engine and learner load")
        self.ledger.enter_all("start")
        try:
            await self._publish()
        finally:
            self.ledger.note_start()

    async def _publish(self) -> None:
        """Choose the result so far, load the learner, make a due warm start, and adopt the learner's version."""
        unless_stopped = self._stopping.unless_stopped
        self._selection = await self._saving.choose(self._folder.scored(self.updates))
        try:
            await unless_stopped(self._load())
            if await self._warm_start.due():
                await unless_stopped(self._startup_check.check())
                await self._warm_start.carry_out()
            if adapter := await unless_stopped(self._learner.publish()):
                await unless_stopped(self._adopt(adapter))
        except LearnerDied as death:
            self._note_crash(death)
            await self._publish()

    async def _load(self) -> None:
        """Restart a crashed learner, restore it if the run has a past, and prompt the engines for their first check."""
        checkpoint, revive = self._folder.checkpoints.latest, self._lifecycle.state is GONE
        if revive:
            await self._learner.revive()
            self._lifecycle.move(STARTING)
        if revive or checkpoint:
            folder = str(checkpoint) if checkpoint else None
            await self._learner.restore(folder, await self._folder.next_incarnation())
        await self._startup_check.begin()

    async def _train(self) -> None:
        """Train until the budget allows no further update. Each setback begins a new incarnation of the policy."""
        async with cut_off(self._training_deadline):
            self._end_training_in_time()
            while (wanted := await self._train_incarnation()) is not None:
                await self._go_back(wanted)
                await self._publish()
                if self._stopping.stopped:
                    return

    def _end_training_in_time(self) -> None:
        """Have the budget cut training off in time for what follows, as long as the learner is in its present state."""
        self._budget.cut_off(self._training_deadline, saves=self._lifecycle.state is UPDATING)

    async def _train_incarnation(self) -> WayBack | None:
        """Train until training ends or a setback comes. Return the way back after a setback."""
        self._run_state.enter("training")
        async with asyncio.TaskGroup() as tasks:
            producer = tasks.create_task(self._producer.run())
            admission = tasks.create_task(self._admit_groups())
            try:
                self.ledger.enter("learner", "adapter_check")  # while the engines generate the first batch
                await self._stopping.unless_stopped(self._publisher.check())
                wanted = await self._train_in_turns()
                if wanted is None:
                    await self._stopping.unless_stopped(admission)
            except LearnerDied as death:
                self._note_crash(death)
                wanted = WayBack(self._saving.saved_version)
            finally:
                producer.cancel()
                admission.cancel()
        return wanted

    async def _admit_groups(self) -> None:
        """Let groups after the first batch start once the base model and the model of a warm start are evaluated, while
        the learner works on the first batch: the duration decides how much of the budget is held back.
        """
        await self._evaluations.start(self._publisher.policy, lambda: self._producer.idle)
        self._end_training_in_time()
        await self._producer.open_admission()
        await self._evaluations.reference_set.inspect()  # its duration counts towards the reserve

    async def _train_in_turns(self) -> WayBack | None:
        """Make one update after another. Return the way back if the run must not go on from here."""
        if self._warm_start.ended and self.updates == 0 and (policy := self._publisher.policy):
            chosen = self._evaluations.choose(policy, self._selection.validated, last=False)
            self._selection = await self._stopping.unless_stopped(chosen) or self._selection
        turn_began = self._clock.now()
        while (batch := await self._next_batch()) and (row := await self._update(batch)):
            row["overlap"] = float(self._config.learner.max_staleness > 0)
            assert self._publisher.policy is not None
            try:
                row |= await self._stopping.unless_stopped(self._evaluations.validate(self._publisher.policy)) or {}
            finally:  # also if the budget cuts the validation off: the update is made
                alarms = self._controls.alarms(row)
                row["guard/alarms"] = sum(alarm.collapse for alarm in alarms)
                self._run_state.latest = self._folder.append_metrics(self.updates, row)
            if alarms and (wanted := self._raise_alarm(alarms)):
                return wanted
            best = self._selection.add_row(self._run_state.latest)
            if "policy/entropy" in row:
                self._entropy[self.updates] = row["policy/entropy"]
            signs = {
                "the validations have fallen": self._selection.fallen,
                "the entropy has risen": is_broken(self._entropy),
            }
            for cause, seen in signs.items():
                if seen and (wanted := self._way_back(cause)):
                    return wanted
            await self._saving.after_update(self.updates, chosen=best)
            if not self._controls.fruitless.frozen:
                self._folder.checkpoints.way_back = self._exploring(self.updates)
            self._budget.expect("turn", self._clock.now() - turn_began)
            turn_began = self._clock.now()
            self._end_training_in_time()
        if self._controls.fruitless.frozen and not self._stopping.stopped:
            exploring = self._exploring(self.updates - LEAST_AGE)
            return self._way_back(self._controls.fruitless.end_reason, exploring)
        return None

    def _exploring(self, version: int) -> int:
        """Return the newest checkpoint's version, up to one, that still explores; 0 without any."""
        versions = map(version_of, self._folder.checkpoints.all)
        return newest_exploring(self._entropy, [each for each in versions if each <= version])

    def _way_back(self, cause: str, version: int | None = None) -> WayBack | None:
        """Return the way back, by default to the chosen version or the last before the sign; None to go on."""
        settings, best = self._config.guard, self._selection.chosen
        trusted = self._folder.checkpoints.newest_until(self.updates - max(settings.patience, LEAST_AGE))
        if best is not None and best < self.updates:
            trusted = best
        trusted = trusted if version is None else version
        limit, fitting = self._config.budget.updates, self._budget.forecast("turn") or 0
        if limit is not None:
            fitting = limit - trusted if self._config.run.deterministic else min(fitting, limit - trusted)
        enough = fitting >= updates_needed(trusted, self.updates)
        if not (settings.goes_back and self._rollbacks < settings.rollbacks and enough):
            return None
        return WayBack(trusted, f"{cause}; back to version {trusted}")

    async def _next_batch(self) -> Batch | None:
        """Return the groups of the next update; None at the end of the training."""

        def batch_or_end() -> Batch | Outcome | bool | None:
            if result := self._ending() or self._producer.take_batch() or self._producer.out_of_time:
                return result
            complete = self._producer.staleness.waiting >= self._config.learner.problems_per_update
            self.ledger.enter("learner", "wait_stragglers" if complete else self._producer.wait_name("wait_rollouts"))
            return None

        batch = await self._stopping.until(batch_or_end)
        return batch if isinstance(batch, Batch) else None

    def _ending(self) -> Outcome | None:
        """Return the outcome of the run if no further update is due, else None."""
        limit, patience = self._config.budget.updates, self._config.validation.patience
        if self._stopping.stopped:
            return Outcome("interrupted", self._stopping.reason)
        if limit is not None and self.updates >= limit:
            return Outcome("completed", f"asked for {counted(self.updates, 'update')}")
        if self._controls.fruitless.end_reason:
            return Outcome("completed", self._controls.fruitless.end_reason)
        if 0 < patience <= self._selection.unrisen:
            best = f"the validations have not risen since update {self._selection.chosen}"
            return Outcome("completed", f"{best}, {self._selection.unrisen} times: validation.patience={patience}")
        if self._lifecycle.making_update:
            return Outcome("budget_exhausted", "the last update did not finish in time and is lost")
        return None if self._budget.allows("update") else NO_UPDATE_FITS

    async def _update(self, batch: Batch) -> dict[str, float] | None:
        """Train the learner on a batch, and sync the version to the engines. Return its row of metrics; None at a stop.

        The engines answer the adapter check while the learner computes the gradient. No step is taken before the check
        has passed, so that no weights come from groups of an unchecked version.
        """
        started = self._clock.now()
        self._lifecycle.move(UPDATING)
        self._end_training_in_time()
        measured = await self._busy("update", self._learner.accumulate(batch))
        accumulated = self._clock.now()
        comparison = await self._busy("adapter_check", self._publisher.check())
        checked = self._clock.now()
        await self._busy("wait_rollouts", self._stopping.unless_stopped(self._evaluations.replaceable.wait()))
        if not self._evaluations.replaceable.is_set():
            return None
        waited = self._clock.now() - checked
        self._lifecycle.move(AHEAD)
        self._end_training_in_time()
        progress = self.updates / (self._config.budget.updates or math.inf)
        if not self._config.run.deterministic:  # its schedules know no clock
            progress = max(progress, min(self._budget.spent / self._budget.total, 1.0))
        rate = self._controls.rate(batch.version, progress, measured)
        stats = await self._busy("update", self._learner.step(rate))
        stepped = self._clock.now()
        if stats.fault:
            self.ledger.count("updates/skipped")
            self._folder.write_samples(f"skipped-{batch.version + 1:06d}", batch.groups)
        decided = self._controls.stepped(rate, measured, stats.fault)
        figures = await self._busy("sync", self._adopt(stats.adapter, batch))
        self._folder.drop_adapters(keep=self._publisher.needed)
        self._folder.write_samples(f"update-{self.updates:06d}", batch.groups[:SAMPLED_GROUPS])
        rates = {group.problem.id: group.pass_rate for group in batch.groups}
        self._folder.append_solved(self.updates, {name: rate for name, rate in rates.items() if rate is not None})
        self._budget.expect("update", self._clock.now() - started - waited)
        return {
            **describe_batch(batch),
            **comparison,
            **stats.metrics,
            **decided,
            **figures,
            "time/learn": accumulated - started + stepped - checked - waited,
            "time/step": stepped - checked - waited,
            "time/sync": self._clock.now() - stepped,
            "time/adapter_check": checked - accumulated,
            "budget/spent_s": self._budget.spent,
            "budget/left_s": self._budget.left,
            **self.ledger.figures,
        }

    async def _busy(self, activity: str, work: Awaitable[T]) -> T:
        """Return the result of work that the learner does or waits for, within the grace period."""
        self.ledger.enter("learner", activity)
        return await self._stopping.within_grace(work)

    async def _adopt(self, adapter: AdapterRef, batch: Batch | None = None) -> dict[str, float]:
        """Have new groups sampled from a version, and count its batch as used. Return the batch's metrics."""
        await self._publisher.adopt(adapter)
        figures = self._producer.use(batch) if batch else {}
        self._lifecycle.move(IN_STEP)
        await self._publisher.retire_outdated()
        await self._stopping.notify()
        return figures

    def _raise_alarm(self, alarms: list[Alarm]) -> WayBack | None:
        """Record warnings. On a collapse warn, halt, or return the way back, by `guard.action`."""
        for alarm in alarms:
            if not alarm.collapse:
                self._folder.append_event(self.updates, EventKind.MISMATCH, str(alarm))
        settings, collapse = self._config.guard, ", ".join(str(alarm) for alarm in alarms if alarm.collapse)
        if not collapse:
            return None
        if (wanted := self._way_back(collapse)) is None:
            self._folder.append_event(self.updates, EventKind.COLLAPSE, collapse)
        if settings.action == "stop":
            raise Halted(f"collapse guard: the policy has collapsed: {collapse}")
        return wanted

    async def _go_back(self, wanted: WayBack) -> None:
        """Return to a version's checkpoint, or to the start. The problems of later groups are sampled again.

        A return counts once it is on disk: a run that is killed has either not begun to return, or has returned.
        """
        self._run_state.enter("recovering")
        self.ledger.enter_all("recover")
        await self._folder.flush()  # its files are read below
        lost, under_way = (
            self.updates - wanted.version,
            self._producer.staleness.running + self._producer.staleness.waiting,
        )
        self.ledger.count("updates/abandoned", lost)
        self.ledger.count("groups/abandoned", lost * self._config.learner.problems_per_update + under_way)
        abandoned, checkpoint = self._publisher, self._folder.return_to(wanted.version)
        if wanted.cause:
            self._folder.append_event(self.updates, EventKind.ROLLED_BACK, wanted.cause)
        if self._lifecycle.state is not GONE:
            self._lifecycle.move(STARTING if checkpoint else GONE)  # only a fresh learner is at version 0
        self._run_state.latest = self._restore_bookkeeping(checkpoint)
        await abandoned.abandon()
        await self._folder.checkpoints.clear()

    async def _finish(self) -> Outcome:
        """Write the last checkpoint, evaluate the result and the last policy, and return how the run ended."""
        self._run_state.enter("finishing", "the trained model is evaluated")
        stopping, left = self._stopping, self._budget.left
        # A checkpoint that takes long because the learner is late must leave time for the evaluation.
        evaluation = 0.0 if stopping.stopped else min(self._budget.evaluation_s, left / 2)
        in_time = False
        async with cut_off(asyncio.timeout(left - evaluation - LAST_MOMENT_S)):
            await self._conclude()
            in_time = True
        self.ledger.enter_all("evaluate")
        self.ledger.move(UNDECIDED, "tokens/unused", self.ledger.counts.get(UNDECIDED, 0))
        if policy := self._publisher.policy:
            await stopping.unless_stopped(self._evaluations.end(policy, in_time and self._lifecycle.at_policy))
        return replace(self._ending() or NO_UPDATE_FITS, plasticity=self._evaluations.reference_set.plasticity)

    async def _conclude(self) -> None:
        """Save the last version, or use the last checkpoint's, check that the engines serve it, and validate it."""
        if self._lifecycle.at_policy:
            try:
                if self.updates != self._saving.saved_version:
                    await self._saving.save(self.updates, chosen=self._selection.chosen == self.updates)
                else:
                    await self._folder.checkpoints.prune(self._config.checkpoint.keep_last)
                await self._stopping.unless_stopped(self._publisher.check())
            except LearnerDied as death:
                self._note_crash(death, f"update {self._saving.saved_version} is evaluated")
                await self._go_back(WayBack(self._saving.saved_version))
        checkpoint = self._folder.checkpoints.latest
        if self._publisher.policy is None and checkpoint is not None and not self._stopping.stopped:
            incarnation = await self._folder.next_incarnation()
            adapter = AdapterRef(self.updates, incarnation, str(checkpoint / "adapter"))
            await self._stopping.unless_stopped(self._publisher.adopt(adapter))
        if (policy := self._publisher.policy) is not None:
            await self._stopping.unless_stopped(self._evaluations.choose(policy, self._selection.validated))

    def _doubt(self, engine: str, fault: str) -> None:
        self._folder.append_event(self.updates, EventKind.CHECK_FAILED, fault, engine)

    def _note_crash(self, death: LearnerDied, then: str = "") -> None:
        """Record a crash of the learner. Raises Halted after CRASHES without a checkpoint in between.

        then: the next step, by default a restart.
        """
        if self._lifecycle.making_update:
            self.ledger.count("groups/abandoned", self._config.learner.problems_per_update)
        self._lifecycle.move(GONE)
        self.ledger.count("deaths/learner")
        saving = self._saving
        if not (death.caused and saving.crashes):  # else it is one with the crash before
            saving.crashes += 1
        hopeless = not then and saving.crashes >= CRASHES
        restart = f"restarting from update {saving.saved_version}, attempt {saving.crashes} of {CRASHES - 1}"
        then = "it is not restarted again" if hopeless else then or restart
        self._folder.append_event(self.updates, EventKind.DIED, f"{death.cause}; {then}", "learner")
        if hopeless:
            raise Halted(f"the learner has crashed {CRASHES} times in a row, the last time: {death.cause}") from death
