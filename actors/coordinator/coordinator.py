"""The run: produce groups, train on them, watch the budget.

`Coordinator` knows no Ray: it drives an Engine, a Learner and a Verifier through their protocols. Read `run` first.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from actors.adapter_check.canary import Canary
from actors.adapter_check.probes import Probes
from actors.adapter_check.startup_check import StartupCheck
from actors.coordinator.budget import EVALUATION_SAFETY, FINISH_MARGIN_S, Budget
from actors.coordinator.curriculum import Curriculum
from actors.coordinator.data_order import DataCursor, ProblemOrder
from actors.coordinator.guard import Alarm, Guard
from actors.coordinator.heldout import LAST_MOMENT_S, HeldoutEvaluations
from actors.coordinator.ledger import UNDECIDED, Ledger
from actors.coordinator.metering import MeteredEngine, Pace
from actors.coordinator.metrics import describe_batch, describe_canary
from actors.coordinator.plasticity import Plasticity
from actors.coordinator.producer import RolloutProducer
from actors.coordinator.publisher import PolicyPublisher
from actors.coordinator.staleness import StalenessManager
from actors.coordinator.stopping import StopController
from actors.errors import Halted, LearnerDied
from actors.messages import AdapterRef, Batch, Outcome, ProblemSet, Progress
from actors.protocols import Clock, Engine, Learner, Verifier
from actors.storage.checkpoints import read_state, write_state
from actors.storage.run_folder import RunFolder
from conf.schema import Config

TICK_S = 1.0
"""How often the time spent is written down and the budget looked at."""

ROLLED_BACK = "collapse, rolled back"
"""The event of a rollback by the guard."""

FAULTS = 3
"""Updates in a row without a finite loss and gradient: one may be a freak of its batch, three are the weights."""

T = TypeVar("T")


@dataclass(frozen=True)
class Setback:
    """Why a run goes back to a checkpoint. trusted: version of that checkpoint. died: whether the learner died."""

    trusted: int
    died: bool = False


class Coordinator:
    """One run from the first adapter to the final evaluation."""

    _checkpoint: Path | None
    _saved: int
    _pacing: StalenessManager
    _serving: PolicyPublisher
    _production: RolloutProducer

    def __init__(
        self,
        config: Config,
        engine: Engine,
        learner: Learner,
        verifier: Verifier,
        problems: ProblemSet,
        folder: RunFolder,
        budget: Budget,
        ledger: Ledger,
        clock: Clock,
        max_running: int,
        resume_from: Path | None = None,
    ) -> None:
        """max_running: groups the engines take at once. resume_from: a checkpoint folder of this run."""
        self._config = config
        pace = Pace()
        self._engine = MeteredEngine(engine, "waiting", ledger, clock, pace)
        judged = MeteredEngine(engine, "eval", ledger, clock, pace)
        self._judging = HeldoutEvaluations(config, judged, verifier, problems.heldout, folder, budget, ledger, clock)
        self._learner = learner
        self._probed = MeteredEngine(engine, "canary", ledger, clock, pace)
        self._probes = Probes(config, problems.train)
        self._proof = StartupCheck(self._probed, self._learner, self._probes)
        looked_at = problems.heldout or problems.train
        self._plasticity = Plasticity(config, judged, self._learner, looked_at, folder, budget, clock)
        self._verifier = verifier
        self._problems = problems
        self._folder = folder
        self._budget = budget
        self._clock = clock
        self._max_running = max_running
        self._order = ProblemOrder(problems.train, config.run.seed)
        self._waiting = StopController(clock)
        self.ledger = ledger
        self.base: dict[str, Any] | None = None
        self._faults = 0
        self._lost = False
        self._overdue = False
        self._phase = "starting"
        self._notice = ""
        self._latest: dict[str, float] = {}
        self._stand_at(resume_from)

    @property
    def progress(self) -> Progress:
        fitting, limit = self._budget.forecast("turn"), self._config.budget.updates
        missing = [limit - self.updates] if limit is not None else []
        return Progress(
            phase=self._phase,
            updates=self.updates,
            spent=self._budget.spent,
            left=self._budget.left,
            updates_left=None if fitting is None else min([fitting, *missing]),
            latest=self._latest,
            cost=self._budget.cost,
            notice=self._notice,
        )

    @property
    def updates(self) -> int:
        """Updates behind the current policy."""
        return self._pacing.version

    def stop(self, reason: str) -> None:
        """End the run gracefully: finish the running update within the grace, save, leave. Again: leave at once."""
        self._waiting.stop(reason, self._config.budget.grace_s)

    async def run(self) -> Outcome:
        """The whole run. Raises Halted when it must not go on, and whatever an actor raises but the learner's death,
        after which it goes back to the last checkpoint.
        """
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(self._watch())
            try:
                async with asyncio.timeout(self._budget.left - FINISH_MARGIN_S):
                    await self._start()
            except TimeoutError:
                outcome = Outcome("budget_exhausted", "the budget ended while the run was starting")
            else:
                rehearsal = tasks.create_task(self._plasticity.rehearse())
                if not self._waiting.stopped:
                    await self._train()
                rehearsal.cancel()
                outcome = await self._finish()
            finally:
                await self._serving.close()
            watcher.cancel()
        return outcome

    async def _start(self) -> None:
        """Measure the base model while the learner comes up, then publish and load the first version."""
        self._enter_phase("starting")
        self._all_enter("start")
        base = asyncio.create_task(self._look_at_base())
        try:
            await self._waiting.unless_stopped(self._publish())
            self.base = await self._waiting.unless_stopped(base)
        finally:
            base.cancel()

    async def _look_at_base(self) -> dict[str, Any] | None:
        await self._plasticity.draw()
        return await self._judging.base()

    async def _publish(self, died: bool = False) -> AdapterRef:
        """Bring the learner to the checkpoint, or to the start, a dead one back to life, and adopt its version.

        Raises ActorDied if it dies too often.
        """
        adapter = None
        while adapter is None:
            try:
                if died:
                    await self._learner.revive()
                if self._checkpoint or died:
                    folder = str(self._checkpoint) if self._checkpoint else None
                    await self._learner.restore(folder, self._folder.next_incarnation())
                await self._proof.begin()
                await self._proof.judge()
                adapter = await self._learner.publish()
            except LearnerDied as death:
                self._note_death(death)
                died = True
        await self._adopt(adapter)
        return adapter

    async def _train(self) -> None:
        """Live until the budget allows no more, over as many incarnations as it takes."""
        try:
            async with asyncio.timeout(self._budget.left - self._budget.evaluation_reserve - FINISH_MARGIN_S):
                while (setback := await self._live()) is not None:
                    await self._abandon(setback)
                    revive = setback.died or self._checkpoint is None
                    if self._waiting.stopped or await self._waiting.unless_stopped(self._publish(revive)) is None:
                        return
        except TimeoutError:
            self._lost = bool(self._at_work)
            self._overdue = self._at_work == "step"  # which leaves the learner at a version that nobody has

    async def _live(self) -> Setback | None:
        """One incarnation of the policy, from its first version to the end of training, or to what cuts it off."""
        setback: Setback | None = None
        self._enter_phase("training")
        async with asyncio.TaskGroup() as tasks:
            try:
                await self._waiting.unless_stopped(self._serving.ask_canary())
                producer = tasks.create_task(self._production.run())
                try:
                    setback = await self._take_turns()
                finally:
                    producer.cancel()
            except LearnerDied as death:
                self._note_death(death)
                setback = Setback(self._saved, died=True)
        return setback

    async def _take_turns(self) -> Setback | None:
        """One update after the other, to the end of training or to a collapse that the guard does not let pass."""
        turn_began = self._clock.now()
        while (batch := await self._next_batch()) is not None:
            started = self._clock.now()
            row = await self._update(batch)
            self._budget.expect("update", self._clock.now() - started)
            row["overlap"] = float(self._config.learner.max_staleness > 0)
            row |= await self._waiting.unless_stopped(self._judging.validate(self._policy)) or {}
            alarms = self._guard.look(row)
            row["guard/alarms"] = len(alarms)
            self._latest = self._folder.append_metrics(self.updates, row)
            if alarms and (setback := self._raise_alarm(alarms)):
                return setback
            best = row.get("validation/pass@1", -1.0) > self._folder.checkpoints.best_score
            # The first checkpoint early: the reserve for the last one is learned from it.
            if best or self.updates % self._config.checkpoint.every == 0 or not self._budget.knows("checkpoint"):
                await self._save(row.get("validation/pass@1"))
            if best:
                self._folder.checkpoints.mark_best(self.updates)
            self._budget.expect("turn", self._clock.now() - turn_began)
            turn_began = self._clock.now()
        return None

    async def _next_batch(self) -> Batch | None:
        """The groups of the next update, or None when the training is to end."""

        def look() -> Batch | bool | None:
            if found := self._ended() or self._production.take_batch() or self._production.stranded:
                return found
            complete = self._pacing.waiting >= self._config.learner.problems_per_update
            self.ledger.enter("learner", "wait_stragglers" if complete else "wait_rollouts")
            return None

        batch = await self._waiting.until(look)
        return batch if isinstance(batch, Batch) else None

    def _ended(self) -> bool:
        limit = self._config.budget.updates
        return (
            (limit is not None and self.updates >= limit)
            or self._production.drought.solved
            or self._waiting.stopped
            or not self._budget.allows("update")
        )

    def _raise_alarm(self, alarms: list[Alarm]) -> Setback | None:
        """Do what was asked for in case of a collapse: write it down, go back before it, or halt."""
        settings = self._config.guard
        found = ", ".join(map(str, alarms))
        rollbacks = sum(event["event"] == ROLLED_BACK for event in self._folder.events())
        if settings.action == "warn":
            self._note("collapse", found)
            return None
        if settings.action == "stop" or rollbacks >= settings.rollbacks:
            self._note("collapse", found)
            again = f" after {rollbacks} rollbacks" if rollbacks else ""
            raise Halted(f"guard: the policy collapses{again}: {found}")
        trusted = self._folder.checkpoints.newest_until(self.updates - settings.patience)
        self._note(ROLLED_BACK, f"{found}; back to version {trusted}")
        return Setback(trusted)

    async def _update(self, batch: Batch) -> dict[str, float]:
        """What the learner makes of a batch, and the swap of its adapter into the engines; its row of metrics.

        The canary answers while the learner computes the gradient, and no step is taken before its word: never are
        weights made from groups of a version that was not vouched for.
        """
        self._at_work = "accumulate"
        started = self._clock.now()
        await self._busy("update", self._learner.accumulate(batch))
        accumulated = self._clock.now()
        judgement = await self._busy("canary", self._serving.ask_canary())
        judged = self._clock.now()
        self._at_work = "step"
        stats = await self._busy("update", self._learner.step(self._budget.progress))
        stepped = self._clock.now()
        self._check_fault(batch, stats.fault)
        figures = await self._busy("sync", self._adopt(stats.adapter, batch))
        self._folder.drop_adapters(keep=self._serving.held)
        self._folder.write_samples(f"update-{self.updates:06d}", batch.groups)
        health = await self._waiting.within_grace(self._verifier.health())
        return {
            **describe_canary(judgement),
            **stats.metrics,
            **describe_batch(batch),
            **{f"verify/{name}": count for name, count in health.items()},
            **figures,
            "time/learn": accumulated - started + stepped - judged,
            "time/step": stepped - judged,
            "time/sync": self._clock.now() - stepped,
            "time/canary": judged - accumulated,
            "budget/spent_s": self._budget.spent,
            "budget/left_s": self._budget.left,
            **self.ledger.figures,
        }

    @property
    def _policy(self) -> AdapterRef:
        assert self._serving.policy is not None
        return self._serving.policy

    async def _adopt(self, adapter: AdapterRef, batch: Batch | None = None) -> dict[str, float]:
        """Make a version the one new groups are sampled from, and a batch a part of the history behind it; how that
        came about. Nothing can come between the two.
        """
        await self._serving.adopt(adapter)
        while self._pacing.version < adapter.version:
            self._pacing.advance()
        figures = self._production.use(batch) if batch else {}
        self._at_work = ""
        await self._on_change()
        return figures

    async def _on_change(self) -> None:
        await self._serving.retire_idle(self._pacing.runs)
        await self._waiting.notify()

    async def _save(self, validation: float | None = None) -> None:
        """A checkpoint of the current version; validation: its pass@1, if that was measured."""
        started = self._clock.now()
        async with self._folder.checkpoints.new(self.updates, self._config.checkpoint.keep_last) as folder:
            await self._busy("checkpoint", self._learner.save(str(folder)))
            state = {
                "version": self.updates,
                "next_unused": self._production.cursor.next_unused,
                "used": self._production.cursor.used,
                "noise": self._serving.noise,
                "problems": self._production.curriculum.state,
                "counts": self.ledger.counts,
                "validation": validation,
            }
            write_state(folder, state)
            self._folder.write_spent(self._budget.spent, self.ledger.record)  # never older than a checkpoint's counts
        self._checkpoint = self._folder.checkpoints.latest
        self._saved = self.updates
        self._budget.expect("checkpoint", self._clock.now() - started)

    def _stand_at(self, checkpoint: Path | None) -> None:
        """The bookkeeping of a checkpoint, or of the start."""
        state = read_state(checkpoint) if checkpoint else {}
        config = self._config
        self._saved = state.get("version", 0)
        self._checkpoint = checkpoint
        self.ledger.go_back(state.get("counts", {}))
        self._pacing = StalenessManager(
            config.learner.problems_per_update,
            config.learner.max_staleness,
            self._max_running,
            self._saved,
            config.budget.updates,
        )
        self._at_work = ""
        canary = Canary(config.canary.noise_floor, state.get("noise"))
        self._serving = PolicyPublisher(self._probed, self._learner, self._probes, canary, self._proof)
        self._production = RolloutProducer(
            config,
            self._engine,
            self._verifier,
            self._order,
            self._serving,
            self._pacing,
            DataCursor(state.get("next_unused", 0), tuple(state.get("used", ()))),
            Curriculum(config.curriculum.rest_epochs, state.get("problems")),
            self._waiting,
            self.ledger,
            self._clock,
            self._budget,
            self._on_change,
            sum(event["event"] == ROLLED_BACK for event in self._folder.events()),
        )
        self._guard = Guard(config.guard, self._folder.rows())

    async def _abandon(self, setback: Setback) -> None:
        """Go back to a checkpoint, or to the start: nothing that came after it counts any more.

        Its groups are dropped wherever they are, their problems come up again, and its versions leave the engines.
        """
        self._enter_phase("recovering")
        self._all_enter("recover")
        lost = self.updates - setback.trusted
        self.ledger.count("updates/abandoned", lost)
        self.ledger.count(
            "groups/abandoned",
            lost * self._config.learner.problems_per_update + self._pacing.running + self._pacing.waiting,
        )
        abandoned = self._serving
        self._stand_at(self._folder.return_to(setback.trusted))
        self._latest = next(reversed(self._folder.rows()), {})
        await abandoned.abandon()

    async def _finish(self) -> Outcome:
        """The last checkpoint, the final evaluation, the verdict on the run."""
        self._enter_phase("finishing")
        waiting, left = self._waiting, self._budget.left
        # A checkpoint that takes long, since the learner is late, leaves the evaluation the time it needs.
        evaluation = 0.0 if waiting.stopped else min(self._budget.evaluation_reserve / EVALUATION_SAFETY, left / 2)
        try:
            async with asyncio.timeout(left - evaluation - LAST_MOMENT_S):
                await self._conclude()
        except TimeoutError:
            self._overdue = True
        self._all_enter("evaluate")
        self.ledger.move(UNDECIDED, "tokens/unused", self.ledger.counts.get(UNDECIDED, 0))
        if waiting.stopped:
            return Outcome("interrupted", waiting.reason)
        policy = self._serving.policy
        found = (await waiting.unless_stopped(self._look_at_end(policy)) if policy else None) or (None, None)
        if waiting.stopped:
            return Outcome("interrupted", waiting.reason, *found)
        if self._config.budget.updates is not None and self.updates >= self._config.budget.updates:
            return Outcome("completed", f"{self.updates} updates were asked for", *found)
        if self._production.drought.solved:
            return Outcome("completed", "every sample of the last groups is right: nothing is left to learn", *found)
        reason = "the last update did not finish in time and is lost" if self._lost else "no further update fits"
        return Outcome("budget_exhausted", reason, *found)

    async def _look_at_end(self, policy: AdapterRef) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The final evaluation and, beside it, what the learner sees, unless that is busy with a lost step."""
        if self._overdue:
            return await self._judging.final(policy), None
        return await asyncio.gather(self._judging.final(policy), self._plasticity.measure(policy.version))

    async def _conclude(self) -> None:
        """Save the last version, and have the canary vouch for it before it is judged.

        If the learner is lost, the last checkpoint's version takes its place.
        """
        if self._serving.policy is not None and not self._overdue:
            try:
                if self.updates != self._saved:
                    await self._save()
                if not self._waiting.stopped:
                    await self._waiting.unless_stopped(self._serving.ask_canary())
            except LearnerDied as death:
                self._note_death(death)
                await self._abandon(Setback(self._saved, died=True))
        if self._serving.policy is None and self._checkpoint is not None and not self._waiting.stopped:
            adapter = AdapterRef(self._saved, self._folder.next_incarnation(), str(self._checkpoint / "adapter"))
            await self._waiting.unless_stopped(self._serving.adopt(adapter))

    async def _watch(self) -> None:
        while True:
            self._folder.write_spent(self._budget.spent, self.ledger.record)
            await self._waiting.notify()
            await self._clock.sleep(TICK_S)

    async def _busy(self, activity: str, work: Awaitable[T]) -> T:
        """The result of work that the learner does or waits for, within the grace."""
        self.ledger.enter("learner", activity)
        return await self._waiting.within_grace(work)

    def _check_fault(self, batch: Batch, fault: str) -> None:
        """Count an update that was skipped and keep all its samples; Halted after several in a row."""
        self._faults = self._faults + 1 if fault else 0
        if not fault:
            return
        self.ledger.count("updates/skipped")
        self._folder.write_samples(f"skipped-{batch.version + 1:06d}", batch.groups)
        if self._faults == FAULTS:
            raise Halted(f"{FAULTS} updates in a row were skipped: {fault}; their samples are in samples/skipped-*")

    def _note_death(self, death: LearnerDied) -> None:
        self.ledger.count("deaths/learner")
        self._note("learner died", str(death))

    def _note(self, event: str, detail: str) -> None:
        """Write down what a person should know of, and show it."""
        self._folder.append_event(self.updates, event, detail)
        self._notice = f"{event}: {detail}"

    def _all_enter(self, activity: str) -> None:
        for actor in ("rollouts", "rewards", "learner"):
            self.ledger.enter(actor, activity)

    def _enter_phase(self, phase: str) -> None:
        self._phase = phase
        self.ledger.enter("run", phase)
