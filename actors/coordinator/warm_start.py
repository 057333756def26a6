"""The warm start: right responses are gathered and imitated before the first version is published."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from random import Random
from typing import Any

from actors.coordinator.context import RunContext
from actors.coordinator.ledger import WARM_START
from actors.coordinator.metrics import Standing
from actors.coordinator.rules.demonstrations import lesson, statuses, updates_per_pass, worth_learning
from actors.coordinator.rules.streaks import SkippedStreak
from actors.coordinator.saving import Saving
from actors.errors import Halted
from actors.messages import Demonstration, Group, Sampling, Status
from actors.seeds import request_seed
from actors.storage.checkpoints import read_state
from actors.storage.documents import CandidateRow, CoordinatorState, EventKind
from actors.storage.run_folder import sample_row
from conf.schema.warm_start import PASSES, SAMPLING_SHARE

AHEAD = 2
"""Candidates under way per group in the engines: they count in their order, and a long response would hold it up."""

NAMED = 3
"""Number of unused solutions that an event names. samples/warm-start.jsonl has all."""

SHOWN_GROUPS = 8
"""Groups of the model's own responses that samples/warm-start.jsonl has."""


class WarmStart:
    """Gathers demonstrations, and has the learner imitate them. A checkpoint of version 0 keeps its progress.

    imitated: number of its updates. over: whether it has ended.
    """

    def __init__(
        self, run: RunContext, saving: Saving, standing: Standing, measure_base: Callable[[], Awaitable[None]]
    ) -> None:
        """measure_base: measures the base model, while the learner imitates."""
        self.imitated, self.over = 0, False
        self._run, self._saving, self._standing = run, saving, standing
        self._measure_base = measure_base
        self._settings = run.config.warm_start
        self._skipped = SkippedStreak("warm-start.jsonl has the responses")

    @property
    def state(self) -> dict[str, Any]:
        """Its part of a checkpoint."""
        return {"imitated": self.imitated, "warm_start_over": self.over}

    async def due(self) -> bool:
        """Return to the newest checkpoint, as the learner does, and whether something is left to do."""
        if not self._settings.source:
            return False
        await self._run.folder.flush()
        latest = self._run.folder.checkpoints.latest
        state = read_state(latest) if latest else CoordinatorState()
        if self.imitated > state.imitated:
            self._run.folder.cut_metrics()
        self.imitated, self.over = state.imitated, state.warm_start_over
        return not self.over and not self._run.stopping.stopped

    async def carry_out(self) -> None:
        """Do what is left, as far as there is time and no stop. Raises Halted if there is nothing right to learn."""
        run = self._run
        self._standing.enter(WARM_START)
        try:
            if not (given := await self._gather()):
                return
            for actor, activity in (("rollouts", "wait_learner"), ("rewards", "wait_rollouts")):
                run.ledger.enter(actor, activity)
            measuring = asyncio.ensure_future(self._measure_base())
            try:
                await self._imitate(given)
                run.ledger.enter("learner", "wait_rollouts")
                await run.stopping.unless_stopped(measuring)
            finally:
                measuring.cancel()
                await asyncio.wait({measuring})
            if not run.stopping.stopped:
                await run.learner.end_warm_start()
                self.over = True
            await self._saving.save(0)
        finally:
            self._standing.enter("starting")
            run.ledger.enter_all("start")

    @property
    def _left_s(self) -> float:
        """Seconds left for it, of its fraction and before the budget's reserve; without end in a deterministic run."""
        budget = self._run.budget
        if self._run.config.run.deterministic:
            return inf
        return min(self._settings.fraction * budget.total - self._seconds("run"), budget.left - budget.reserve)

    def _seconds(self, actor: str) -> float:
        return self._run.ledger.seconds.get(actor, {}).get(WARM_START, 0.0)

    async def _gather(self) -> list[Demonstration]:
        """Return the demonstrations: as the run folder has them, once a step was taken on them, else with more
        candidates. None if the run is told to stop. Raises Halted if there are none.
        """
        run, problems = self._run, self._run.problems
        rows = run.folder.candidates()
        if not self.imitated:
            own = "the base model answers" if self._settings.from_itself else "solutions are verified"
            self._standing.doing = f"{own} for the warm start"
            gathering_s = self._left_s - (1 - SAMPLING_SHARE) * self._settings.fraction * run.budget.total
            with suppress(TimeoutError):
                async with asyncio.timeout(None if gathering_s == inf else gathering_s):
                    await run.stopping.unless_stopped(self._take_candidates(rows))
            if run.stopping.stopped:
                return []
            self._report(rows)
            await run.folder.flush()
        learned = {each.id: each for each in (problems.train if self._settings.from_itself else problems.candidates)}
        found = [Demonstration(learned[row.problem], ids) for row in rows for ids in row.responses]
        if not found:
            raise Halted(self._nothing_right(rows))
        return found[: self._settings.demonstrations]

    async def _take_candidates(self, rows: list[CandidateRow]) -> None:
        """Add the rows of further candidates, in their order, until there are enough demonstrations."""
        run, count = self._run, len(self._run.problems.candidates)
        order = Random(f"{run.config.run.seed}/warm_start").sample(range(count), count)
        kept, begun = sum(len(row.responses) for row in rows), len(rows)
        free, under_way = asyncio.Semaphore(run.max_running), deque[asyncio.Task[Group]]()
        for actor, activity in (("rollouts", WARM_START), ("rewards", "verify"), ("learner", "wait_rollouts")):
            run.ledger.enter(actor, activity)
        async with asyncio.TaskGroup() as tasks:
            while kept < self._settings.demonstrations:
                while begun < count and len(under_way) < AHEAD * run.max_running:
                    under_way.append(tasks.create_task(self._verified(begun, order[begun], free)))
                    begun += 1
                if not under_way:
                    break
                rows.append(self._keep(await under_way.popleft()))
                kept += len(rows[-1].responses)
            for task in under_way:
                task.cancel()

    async def _verified(self, place: int, index: int, free: asyncio.Semaphore) -> Group:
        """Return a candidate's responses, verified. place: its number in the order."""
        run, rollout = self._run, self._run.config.rollout
        problem = run.problems.candidates[index]
        if run.problems.solutions:
            return await run.verifier.score(Group(place, problem, None, (run.problems.solutions[index],)))
        seed = request_seed(run.config.run.seed, WARM_START, place)
        limit, temperature = rollout.max_response_tokens, rollout.temperature
        sampling = Sampling(rollout.samples_per_problem, limit, temperature, top_p=1.0, seed=seed)
        async with free:
            group = await run.metered(WARM_START).generate(place, problem, None, sampling)
        return await run.verifier.score(group)

    def _keep(self, group: Group) -> CandidateRow:
        """Return the row of a candidate, which is written, as are its samples if a person should see them."""
        run, found = self._run, statuses(group)
        for status in found:
            run.ledger.count(f"demonstrations/{status}")
        samples = [sample_row(group, number) for number in range(len(found))]
        unused = ""
        if not self._settings.from_itself and found != [Status.CORRECT]:
            given, seen = group.problem.gold, samples[0].extracted
            unused = f"{group.problem.id} is {found[0]}, with the answer {given!r:.60} and {seen!r:.60} in its solution"
        responses = worth_learning(group, self._settings, run.config.run.seed)
        row = CandidateRow(problem=group.problem.id, responses=responses, unused=unused)
        run.folder.append_candidate(row, samples if unused or group.index < SHOWN_GROUPS else ())
        return row

    def _report(self, rows: list[CandidateRow]) -> None:
        """Record an event of the solutions that are not learned."""
        if unused := [row.unused for row in rows if row.unused]:
            named = "; ".join(unused[:NAMED])
            text = f"{len(unused)} of {len(rows)} solutions of {self._settings.source} are not learned, such as {named}"
            self._run.folder.append_event(0, EventKind.UNUSED, text)

    def _nothing_right(self, rows: list[CandidateRow]) -> str:
        source, count = self._settings.source, len(rows)
        if self._settings.from_itself:
            return (
                f"warm_start.source={source}: no response to {count} problems is right: show examples by"
                " warm_start.few_shot, give a warm_start.source with solutions, or take easier data or a larger model"
            )
        first = next((row.unused for row in rows), "none could be verified in time")
        return (
            f"warm_start.source={source}: none of {count} solutions gives its answer ({first}): give"
            " warm_start.solution_field or warm_start.response"
        )

    async def _imitate(self, given: list[Demonstration]) -> None:
        """Have the learner take steps until all passes are made, the time is over, or the run is told to stop."""
        run, settings, stopping = self._run, self._settings, self._run.stopping
        per_update, seed = settings.demonstrations_per_update, run.config.run.seed
        planned = PASSES * updates_per_pass(len(given), per_update)
        planned = min(settings.updates or planned, planned)
        while self.imitated < planned and not stopping.stopped:
            taken, left = self._seconds("learner"), max(self._left_s, 1e-9)
            if self.imitated and left <= run.budget.expected("imitate"):
                break
            progress = max(self.imitated / planned, taken / (taken + left))
            run.ledger.enter("learner", WARM_START)
            started, batch = run.clock.now(), lesson(given, per_update, seed, self.imitated)
            stats = await stopping.within_grace(run.learner.imitate(batch, progress))
            run.budget.expect("imitate", run.clock.now() - started)
            self.imitated += 1
            tokens = sum(len(each.token_ids) for each in batch)
            run.folder.append_warm_start(self.imitated, {**stats.metrics, "tokens": tokens})
            loss = stats.metrics.get("loss", inf)
            self._standing.doing = f"update {self.imitated} of at most {planned}, loss {loss:.3f}"
            run.ledger.count("updates/skipped", bool(stats.fault))
            self._skipped.see(stats.fault)
            if self._saving.overdue:
                await self._saving.save(0)
