"""The run: produce groups, train on them, watch the budget.

`Coordinator` knows no Ray: it drives an Engine, a Learner and a Verifier through their protocols. Read `run` first.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from actors.budget import FINISH_MARGIN_S, Budget
from actors.canary import Canary, Finding, Judgement
from actors.evaluation import evaluate
from actors.ledger import Ledger
from actors.messages import AdapterRef, Batch, Group, Sampling, Status
from actors.protocols import Clock, Engine, Learner, Verifier
from actors.run_folder import RunFolder
from actors.seeds import request_seed
from actors.staleness import Cursor, Pacing
from conf.schema import Config
from rewards.problems import ProblemOrder, ProblemSet

LAST_MOMENT_S = 2.0
"""Seconds before the end of the budget at which everything but the summary is given up."""

TICK_S = 1.0
"""How often the time spent is written down and the budget looked at."""

BARREN_BATCHES = 4
"""So many batches' worth of groups in a row without any difference in reward, and nothing can be learned."""

FAULTS = 3
"""Updates in a row without a finite loss and gradient: one may be a freak of its batch, three are the weights."""

T = TypeVar("T")


class Halted(Exception):
    """The run must not go on: its text says what was found."""


class Interrupted(Exception):
    """The run was told to stop and a step could not finish within the grace."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `status` and `reason` as in summary.json, evaluations as `Evaluation.summary` has them."""

    status: str
    reason: str
    final: dict[str, Any] | None = None


@dataclass(frozen=True)
class Progress:
    """What a watcher sees while a run goes on. `latest` is the last row of metrics.jsonl."""

    phase: str
    updates: int
    spent: float
    left: float
    updates_left: int | None
    latest: dict[str, float] = field(default_factory=dict)


class Coordinator:
    """One run from the first adapter to the final evaluation."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        learner: Learner,
        verifier: Verifier,
        problems: ProblemSet,
        folder: RunFolder,
        budget: Budget,
        clock: Clock,
        max_running: int,
        resume_from: Path | None = None,
    ) -> None:
        """max_running: groups the engines take at once. resume_from: a checkpoint folder of this run."""
        self._config = config
        self._engine = engine
        self._learner = learner
        self._verifier = verifier
        self._problems = problems
        self._folder = folder
        self._budget = budget
        self._clock = clock
        self._max_running = max_running
        self._resume_from = resume_from
        self._order = ProblemOrder(problems.train, config.run.seed)
        self._cursor = Cursor()
        self._pacing = Pacing(config.learner.problems_per_update, config.learner.max_staleness, max_running)
        self._canary = Canary(config.canary.noise_floor)
        self._ledger = Ledger(clock)
        self._policy: AdapterRef
        self._probe: asyncio.Task[tuple[Group, ...]] | None = None
        self._judgement: Judgement
        self.base: dict[str, Any] | None = None
        self._generate_s: dict[int, float] = {}
        self._verify_s: dict[int, float] = {}
        self._barren = 0
        self._all_right = False
        self._faults = 0
        self._solved = False
        self._checkpointed: int | None = None
        self._outdated: list[AdapterRef] = []
        self._overdue = False
        self._stop_reason = ""
        self._grace_end = float("inf")
        self._phase = "starting"
        self._latest: dict[str, float] = {}
        self._sampled = 0
        self._last_look = (clock.now(), 0)
        self._changed = asyncio.Condition()
        self._stopping = asyncio.Event()

    @property
    def progress(self) -> Progress:
        expected = self._budget.expected("turn") or self._budget.expected("update")
        return Progress(
            phase=self._phase,
            updates=int(self._latest.get("update", self._checkpointed or 0)),
            spent=self._budget.spent,
            left=self._budget.left,
            updates_left=int(max(self._budget.left - self._budget.reserve, 0) / expected) if expected else None,
            latest=self._latest,
        )

    @property
    def ledger(self) -> Ledger:
        return self._ledger

    @property
    def updates(self) -> int:
        return self._pacing.version

    def stop(self, reason: str) -> None:
        """End the run gracefully: finish the running update within the grace, save, leave."""
        self._stop_reason = reason
        self._grace_end = self._clock.now() + self._config.budget.grace_s
        self._stopping.set()

    async def run(self) -> Outcome:
        """The whole run. Raises Halted when it must not go on, and whatever an actor raises."""
        async with asyncio.TaskGroup() as tasks:
            watcher = tasks.create_task(self._watch())
            try:
                async with asyncio.timeout(self._budget.left - FINISH_MARGIN_S):
                    await self._start()
            except TimeoutError:
                outcome = Outcome("budget_exhausted", "the budget ended while the run was starting")
            else:
                if not self._stopping.is_set():
                    await self._train()
                outcome = await self._finish()
            finally:
                if self._probe is not None:
                    self._probe.cancel()
            watcher.cancel()
        return outcome

    async def _start(self) -> None:
        """Measure the base model while the learner comes up, publish the first version, ask the canary."""
        self._enter_phase("starting")
        self._ledger.enter("learner", "start")
        self._ledger.enter("rollouts", "start")
        base = asyncio.create_task(self._evaluate_base())
        try:
            if self._resume_from:
                await self._unless_stopped(self._restore(self._resume_from))
            adapter = await self._unless_stopped(self._learner.publish())
            self.base = await self._unless_stopped(base)
            if adapter is not None and not self._stopping.is_set():
                await self._unless_stopped(self._adopt(adapter))
                await self._unless_stopped(self._ask_canary())
        finally:
            base.cancel()

    async def _evaluate_base(self) -> dict[str, Any] | None:
        """Held-out pass@1 of the base model, once in a run; at most a third of the time is spent on it."""
        await self._engine.ready()
        known = self._folder.evaluation("base")
        if known is not None:
            self._budget.expect("evaluate", known["seconds"])
            return known
        return await self._evaluate("base", None, self._budget.left / 3)

    async def _restore(self, checkpoint: Path) -> None:
        state = json.loads((checkpoint / "coordinator.json").read_text())
        await self._learner.restore(str(checkpoint), self._folder.next_incarnation())
        self._cursor = Cursor(state["next_unused"], tuple(state["used"]))
        self._pacing = Pacing(
            self._config.learner.problems_per_update,
            self._config.learner.max_staleness,
            self._max_running,
            state["version"],
        )
        self._canary = Canary(self._config.canary.noise_floor, state["noise"])
        self._checkpointed = state["version"]

    async def _train(self) -> None:
        self._enter_phase("training")
        async with asyncio.TaskGroup() as tasks:
            producer = tasks.create_task(self._produce())
            self._ledger.enter("learner", "wait_rollouts")
            turn_began = self._clock.now()
            self._last_look = (turn_began, self._sampled)
            while (batch := await self._next_batch()) is not None:
                started = self._clock.now()
                try:
                    async with asyncio.timeout(self._budget.left - self._budget.evaluation_reserve - FINISH_MARGIN_S):
                        await self._update(batch)
                        self._budget.expect("update", self._clock.now() - started)
                        if self._pacing.version % self._config.checkpoint.every == 0:
                            await self._checkpoint()
                except TimeoutError:
                    self._overdue = True
                    break
                self._budget.expect("turn", self._clock.now() - turn_began)
                turn_began = self._clock.now()
            producer.cancel()

    async def _produce(self) -> None:
        """Start groups as fast as staleness and the engines allow."""
        async with asyncio.TaskGroup() as groups:
            while True:
                await self._until(lambda: self._pacing.capacity > 0 or None)
                index = self._cursor.admit()
                self._pacing.admit(index)
                groups.create_task(self._produce_group(index, self._policy))
                self._note_rollouts()

    async def _produce_group(self, index: int, policy: AdapterRef) -> None:
        problem = self._order.problem(index)
        rollout = self._config.rollout
        started = self._clock.now()
        group = await self._engine.generate(
            index,
            problem,
            policy,
            Sampling(
                samples=rollout.samples_per_problem,
                max_tokens=rollout.max_response_tokens,
                temperature=rollout.temperature,
                top_p=1.0,
                seed=request_seed(self._config.run.seed, "rollout", index),
            ),
        )
        generated = self._clock.now()
        group = await self._verifier.score(group)
        self._generate_s[index] = generated - started
        self._verify_s[index] = self._clock.now() - generated
        self._count_tokens(group)
        self._pacing.accept(group)
        self._note_rollouts()
        self._check_barren(group)
        await self._retire_idle()
        await self._notify()

    async def _retire_idle(self) -> None:
        """Give up outdated versions that no group needs any more; not before, since calls of an actor may overtake."""
        idle = [adapter for adapter in self._outdated if not self._pacing.runs(adapter.version)]
        self._outdated = [adapter for adapter in self._outdated if adapter not in idle]
        for adapter in idle:
            await self._engine.retire(adapter)

    async def _next_batch(self) -> Batch | None:
        """The groups of the next update, or None when the run is to end."""

        def ready() -> tuple[Group, ...] | None:
            return () if self._ended() else self._pacing.take_batch()

        groups = await self._until(ready)
        return Batch(self._pacing.version, groups) if groups else None

    def _ended(self) -> bool:
        limit = self._config.budget.updates
        done = limit is not None and self._pacing.version >= limit
        return done or self._solved or self._stopping.is_set() or not self._budget.allows("update")

    async def _update(self, batch: Batch) -> None:
        """What the learner makes of a batch, and the swap of its adapter into the engines.

        The canary answers while the learner computes the gradient, and no step is taken before its word: never are
        weights made from groups of a version that was not vouched for.
        """
        started = self._clock.now()
        self._ledger.enter("learner", "update")
        await self._within_grace(self._learner.accumulate(batch))
        accumulated = self._clock.now()
        self._ledger.enter("learner", "canary")
        judgement = await self._within_grace(self._ask_canary())
        judged = self._clock.now()
        self._ledger.enter("learner", "update")
        stats = await self._within_grace(self._learner.step(self._budget.progress))
        stepped = self._clock.now()
        self._check_fault(batch, stats.fault)
        previous = self._policy
        self._cursor.use(batch.groups)
        self._ledger.enter("learner", "sync")
        await self._within_grace(self._adopt(stats.adapter))
        self._outdated.append(previous)
        await self._retire_idle()
        self._folder.drop_adapters(keep=(previous, stats.adapter))
        self._ledger.enter("learner", "wait_rollouts")
        row = {
            **describe_canary(judgement),
            **stats.metrics,
            **self._describe(batch),
            **{f"verify/{name}": count for name, count in (await self._verifier.health()).items()},
            "rollout/tokens_per_second": self._speed(),
            "time/learn": accumulated - started + stepped - judged,
            "time/sync": self._clock.now() - stepped,
            "time/canary": judged - accumulated,
            "budget/spent_s": self._budget.spent,
            "budget/left_s": self._budget.left,
        }
        self._latest = self._folder.append_metrics(self._pacing.version, row)
        self._folder.write_samples(f"update-{self._pacing.version:06d}", batch.groups)

    async def _adopt(self, adapter: AdapterRef) -> None:
        """Make a version the one new groups are sampled from, the canary's probes first."""
        await self._engine.load(adapter)
        self._policy = adapter
        self._probe = asyncio.create_task(self._sample_probe(adapter))
        while self._pacing.version < adapter.version:
            self._pacing.advance()
        await self._notify()

    async def _ask_canary(self) -> Judgement:
        """Compare engine and learner on the policy's version, once; Halted if it is not served faithfully."""
        if self._probe is not None:
            groups = await self._probe
            self._judgement = self._canary.judge(groups, await self._learner.score(groups))
            self._probe = None
        if self._judgement.finding is Finding.DISAGREES:
            raise Halted(f"canary: {self._judgement.diagnosis}")
        return self._judgement

    async def _sample_probe(self, adapter: AdapterRef) -> tuple[Group, ...]:
        settings = self._config.canary
        groups = await asyncio.gather(
            *(
                self._engine.generate(
                    -1 - number,
                    problem,
                    adapter,
                    Sampling(
                        samples=1,
                        max_tokens=settings.tokens,
                        temperature=self._config.rollout.temperature,
                        top_p=1.0,
                        seed=request_seed(self._config.run.seed, "canary", number),
                    ),
                )
                for number, problem in enumerate(self._problems.train[: settings.problems])
            )
        )
        return tuple(groups)

    async def _checkpoint(self) -> None:
        started = self._clock.now()
        self._ledger.enter("learner", "checkpoint")
        with self._folder.new_checkpoint(self._pacing.version) as folder:
            await self._learner.save(str(folder))
            state = {
                "version": self._pacing.version,
                "next_unused": self._cursor.next_unused,
                "used": self._cursor.used,
                "noise": self._canary.noise,
            }
            (folder / "coordinator.json").write_text(json.dumps(state))
        self._checkpointed = self._pacing.version
        self._budget.expect("checkpoint", self._clock.now() - started)
        self._ledger.enter("learner", "wait_rollouts")

    async def _finish(self) -> Outcome:
        """The last checkpoint, the final evaluation, the verdict on the run."""
        self._enter_phase("finishing")
        if not self._overdue and self._pacing.version not in (self._checkpointed, 0):
            try:
                async with asyncio.timeout(self._budget.left - LAST_MOMENT_S):
                    await self._within_grace(self._checkpoint())
            except TimeoutError:
                self._overdue = True
        self._ledger.enter("learner", "evaluate")
        self._ledger.enter("rollouts", "evaluate")
        if self._stopping.is_set():
            return Outcome("interrupted", self._stop_reason)
        if not self._overdue:
            await self._unless_stopped(self._ask_canary())
        final = await self._unless_stopped(self._evaluate("final", self._policy, self._budget.left - LAST_MOMENT_S))
        if self._stopping.is_set():
            return Outcome("interrupted", self._stop_reason, final)
        if self._config.budget.updates is not None and self._pacing.version >= self._config.budget.updates:
            return Outcome("completed", f"{self._pacing.version} updates were asked for", final)
        if self._solved:
            return Outcome("completed", "every sample of the last groups is right: nothing is left to learn", final)
        reason = "the last step did not finish in time and is lost" if self._overdue else "no further update fits"
        return Outcome("budget_exhausted", reason, final)

    async def _evaluate(self, name: str, adapter: AdapterRef | None, seconds: float) -> dict[str, Any] | None:
        """`Evaluation.summary`, or None if nothing is held out or not even one round fits into `seconds`."""
        if not self._problems.heldout:
            return None
        evaluation = await evaluate(
            self._config,
            self._engine,
            self._verifier,
            self._problems.heldout,
            adapter,
            self._clock,
            deadline=self._clock.now() + seconds,
        )
        if evaluation is None:
            self._budget.expect("evaluate", seconds)
            return None
        self._budget.expect("evaluate", evaluation.seconds)
        self._folder.write_samples(f"eval-{name}", evaluation.groups)
        return self._folder.write_evaluation(name, self._pacing.version, evaluation.summary())

    async def _watch(self) -> None:
        while True:
            self._folder.write_spent(self._budget.spent)
            await self._notify()
            await self._clock.sleep(TICK_S)

    def _describe(self, batch: Batch) -> dict[str, float]:
        """The batch's part of a metrics row."""
        samples = [sample for group in batch.groups for sample in group.samples]
        rewards = [reward for group in batch.groups for reward in group.rewards]
        judged = [reward for reward in rewards if not reward.masked]
        indices = [group.index for group in batch.groups]
        parts = {name: fmean(r.parts[name] for r in judged) for name in judged[0].parts} if judged else {}
        return {
            "reward/mean": fmean(r.total for r in judged) if judged else 0.0,
            **{f"reward/{name}": value for name, value in parts.items()},
            "completion/mean_length": fmean(len(sample.token_ids) for sample in samples),
            "completion/truncated": fmean(sample.truncated for sample in samples),
            "groups/zero_variance": fmean(group.zero_variance for group in batch.groups),
            "groups/running": self._pacing.running,
            "groups/waiting": self._pacing.waiting,
            **{f"verify/{status}": sum(r.verdict.status == status for r in rewards) for status in Status},
            "tokens/generated": sum(len(sample.token_ids) for sample in samples),
            "time/generate": fmean(self._generate_s.pop(index) for index in indices),
            "time/verify": fmean(self._verify_s.pop(index) for index in indices),
        }

    def _speed(self) -> float:
        """Tokens the engines have generated per second since the last look."""
        (then, before), self._last_look = self._last_look, (self._clock.now(), self._sampled)
        return (self._sampled - before) / max(self._clock.now() - then, 1e-9)

    def _count_tokens(self, group: Group) -> None:
        self._sampled += sum(len(sample.token_ids) for sample in group.samples)
        for sample, reward in zip(group.samples, group.rewards, strict=True):
            if group.zero_variance:
                kind = "zero_variance"
            elif reward.masked:
                kind = "failed"
            elif sample.truncated:
                kind = "truncated"
            else:
                kind = "useful"
            self._ledger.count(f"tokens/{kind}", len(sample.token_ids))
            self._ledger.count(f"verify/{reward.verdict.status}")

    def _check_barren(self, group: Group) -> None:
        """Notice when rewards no longer differ: the end if every answer is right, a halt otherwise."""
        right = all(reward.verdict.score == 1.0 for reward in group.rewards)
        self._all_right = right and (self._all_right or self._barren == 0)
        self._barren = self._barren + 1 if group.zero_variance else 0
        limit = BARREN_BATCHES * self._config.learner.problems_per_update
        if self._barren < limit:
            return
        if self._all_right:
            self._solved = True
            return
        raise Halted(
            f"nothing can be learned: in the last {limit} groups all samples of a problem earned the same; "
            f"a problem reads {group.problem.prompt!r}, gold {group.problem.gold!r}, "
            f"an answer {group.samples[0].text!r}"
        )

    def _check_fault(self, batch: Batch, fault: str) -> None:
        """Count an update that was skipped and keep all its samples; Halted after several in a row."""
        self._faults = self._faults + 1 if fault else 0
        if not fault:
            return
        self._ledger.count("updates/skipped")
        self._folder.write_samples(f"skipped-{batch.version + 1:06d}", batch.groups)
        if self._faults == FAULTS:
            raise Halted(f"{FAULTS} updates in a row were skipped: {fault}; their samples are in samples/skipped-*")

    def _note_rollouts(self) -> None:
        self._ledger.enter("rollouts", "generate" if self._pacing.running else "idle")

    def _enter_phase(self, phase: str) -> None:
        self._phase = phase
        self._ledger.enter("run", phase)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, ready: Callable[[], T | None]) -> T:
        """Wait until `ready` returns something; it is asked again after every change and every tick."""
        async with self._changed:
            while (result := ready()) is None:
                await self._changed.wait()
        return result

    async def _unless_stopped(self, work: Awaitable[T]) -> T | None:
        """The result of `work`, or None, and the work cancelled, if the run is told to stop first."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            stopped.cancel()

    async def _within_grace(self, work: Awaitable[T]) -> T:
        """The result of `work`; Interrupted if it takes longer than the grace after the run was told to stop."""
        task = asyncio.ensure_future(work)
        expiry = asyncio.create_task(self._grace_over())
        try:
            await asyncio.wait({task, expiry}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Interrupted(self._stop_reason)
            return task.result()
        finally:
            task.cancel()
            expiry.cancel()

    async def _grace_over(self) -> None:
        await self._stopping.wait()
        await self._clock.sleep(max(self._grace_end - self._clock.now(), 0.0))


def describe_canary(judgement: Judgement) -> dict[str, float]:
    """The canary's part of a metrics row; `canary/decided` is 0 while the policy has not moved enough to tell."""
    return {
        "canary/disagreement": judgement.disagreement,
        "canary/movement": judgement.movement,
        "canary/decided": float(judgement.finding is Finding.AGREES),
        "policy/kl_to_base": judgement.kl_to_base,
    }


def root_cause(error: BaseException) -> BaseException:
    """The first single error in a group of errors, as asyncio's task groups raise them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
