"""The warm start: right responses are gathered and imitated before the first version is published."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice
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
from actors.messages import Demonstration, Group, Sampling
from actors.seeds import request_seed
from actors.storage.checkpoints import read_state
from actors.storage.documents import CandidateRow, EventKind
from actors.storage.run_folder import sample_row
from actors.storage.state import CoordinatorState
from conf.schema.warm_start import PASSES, SAMPLING_SHARE

AHEAD = 2
"""Candidates under way per group in the engines: the others are verified, or wait for their turn in a deterministic
run, where they count in their order."""

NAMED = 3
"""Number of candidates without a right response that a message names. warm-start.jsonl has all."""

SHOWN_GROUPS = 8
"""Groups of the model's own responses that samples/warm-start.jsonl has."""


class WarmStart:
    """Gathers demonstrations, and has the learner imitate them. A checkpoint of version 0 keeps its progress.

    imitated: number of its updates. over: whether it has ended. imitating_s: seconds of its updates, without those that
    a crash has lost.
    """

    def __init__(
        self, run: RunContext, saving: Saving, standing: Standing, measure_base: Callable[[], Awaitable[None]]
    ) -> None:
        """measure_base: measures the base model, while the learner imitates."""
        self.imitated, self.imitating_s, self.over = 0, 0.0, False
        self._run, self._saving, self._standing = run, saving, standing
        self._measure_base = measure_base
        self._settings = run.config.warm_start
        self._skipped = SkippedStreak("warm-start.jsonl has the responses")

    @property
    def state(self) -> dict[str, Any]:
        """Its part of a checkpoint."""
        return {"imitated": self.imitated, "imitating_s": self.imitating_s, "warm_start_over": self.over}

    async def due(self) -> bool:
        """Return to the newest checkpoint, as the learner does, and whether something is left to do."""
        if not self._settings.source:
            return False
        await self._run.folder.flush()
        latest = self._run.folder.checkpoints.latest
        state = read_state(latest) if latest else CoordinatorState()
        if self.imitated > state.imitated:
            self._run.folder.cut_metrics()
        self.imitated, self.imitating_s, self.over = state.imitated, state.imitating_s, state.warm_start_over
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
                await self._imitate(given, measuring)
                await self._saving.save(0)
                run.ledger.enter("learner", "wait_rollouts")
                await run.stopping.unless_stopped(measuring)
            finally:
                measuring.cancel()
                await asyncio.wait({measuring})
        finally:
            self._standing.enter("starting")
            run.ledger.enter_all("start")

    @property
    def _left_s(self) -> float:
        """Seconds left for it, of its fraction and before the budget's reserve; without end in a deterministic run."""
        run, budget = self._run, self._run.budget
        if run.config.run.deterministic:
            return inf
        spent = run.ledger.seconds.get("rollouts", {}).get(WARM_START, 0.0) + self.imitating_s
        return min(self._settings.fraction * budget.total - spent, budget.left - budget.reserve)

    async def _gather(self) -> list[Demonstration]:
        """Return the demonstrations: as the run folder has them, once a step was taken on them, else with more
        candidates; none if the run is told to stop. Raises Halted if no response is right.
        """
        run, settings, problems = self._run, self._settings, self._run.problems
        rows = run.folder.candidates()
        if not self.imitated:
            own = "the base model answers" if settings.from_itself else "solutions are verified"
            self._standing.doing = f"{own} for the warm start"
            await run.stopping.unless_stopped(self._take_candidates(rows))
            if run.stopping.stopped:
                return []
            await run.folder.flush()
        learned = {each.id: each for each in (problems.train if settings.from_itself else problems.candidates)}
        found = [Demonstration(learned[row.problem], ids) for row in rows for ids in row.responses]
        if not found:
            remedy = "give warm_start.solution_field or warm_start.response"
            if settings.from_itself:
                remedy = "show examples by warm_start.few_shot, or give a warm_start.source with solutions"
            raise Halted(f"warm_start.source={settings.source}: {_without_right(rows)}; {remedy}")
        return found[: settings.demonstrations]

    def _sampling_s(self, rows: list[CandidateRow]) -> float:
        """Return seconds left for candidates: no end for the first, none with enough, all up to a right response."""
        found = sum(len(row.responses) for row in rows)
        if not rows or found >= self._settings.demonstrations:
            return 0.0 if rows else inf
        learning_s = (1 - SAMPLING_SHARE) * self._settings.fraction * self._run.budget.total
        return self._left_s - bool(found) * learning_s

    async def _take_candidates(self, rows: list[CandidateRow]) -> None:
        """Add the rows of further candidates as they end, in their order in a deterministic run, if there is time."""
        run, count, known = self._run, len(self._run.problems.candidates), {row.place for row in rows}
        order = Random(f"{run.config.run.seed}/warm_start").sample(range(count), count)
        places = (place for place in range(count) if place not in known)
        free, under_way = asyncio.Semaphore(run.max_running), list[asyncio.Task[Group]]()
        for actor, activity in (("rollouts", WARM_START), ("rewards", "verify"), ("learner", "wait_rollouts")):
            run.ledger.enter(actor, activity)
        async with asyncio.TaskGroup() as tasks:
            while (left := self._sampling_s(rows)) > 0:
                for place in islice(places, AHEAD * run.max_running - len(under_way)):
                    under_way.append(tasks.create_task(self._verified(place, order[place], free)))
                if not under_way:
                    break
                next_ones = under_way[:1] if run.config.run.deterministic else under_way
                wait_s = None if left == inf else left
                ended, _ = await asyncio.wait(next_ones, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                if not ended:
                    break
                rows += [self._keep(task.result()) for task in under_way if task in ended]
                under_way = [task for task in under_way if task not in ended]
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
        responses = worth_learning(group, self._settings, run.config.run.seed)
        unused = "" if responses else f"{found[0]}, {samples[0].extracted!r:.60} instead of {group.problem.gold!r:.60}"
        row = CandidateRow(place=group.index, problem=group.problem.id, responses=responses, unused=unused)
        shown = group.index < SHOWN_GROUPS if self._settings.from_itself else unused
        run.folder.append_candidate(row, samples if shown else ())
        return row

    async def _imitate(self, given: list[Demonstration], measuring: asyncio.Future[None]) -> None:
        """Have the learner take steps, unless there is an error in `measuring`, until all passes are made, the time is
        over, or the run is told to stop.
        """
        run, stopping, per_update = self._run, self._run.stopping, self._settings.demonstrations_per_update
        one_pass = updates_per_pass(len(given), per_update)
        planned = min(self._settings.updates or PASSES * one_pass, PASSES * one_pass)
        while self.imitated < planned and not stopping.stopped:
            if measuring.done():
                measuring.result()
            left = max(self._left_s, 1e-9)
            if self.imitated and left <= run.budget.expected("imitate"):
                break
            progress = max(self.imitated / planned, self.imitating_s / (self.imitating_s + left))
            run.ledger.enter("learner", WARM_START)
            started, batch = run.clock.now(), lesson(given, per_update, run.config.run.seed, self.imitated)
            stats = await stopping.within_grace(run.learner.imitate(batch, progress))
            took = run.clock.now() - started
            run.budget.expect("imitate", took)
            self.imitated, self.imitating_s = self.imitated + 1, self.imitating_s + took
            tokens = sum(len(each.token_ids) for each in batch)
            run.folder.append_warm_start(self.imitated, {**stats.metrics, "tokens": tokens})
            loss = stats.metrics.get("loss", inf)
            self._standing.doing = f"update {self.imitated} of at most {planned}, loss {loss:.3f}"
            run.ledger.count("updates/skipped", bool(stats.fault))
            self._skipped.see(stats.fault)
            if self._saving.overdue:
                await self._saving.save(0)
        if not stopping.stopped:
            await self._conclude(
                given, planned, short=len(given) < per_update or self.imitated < min(one_pass, planned)
            )

    async def _conclude(self, given: list[Demonstration], planned: int, short: bool) -> None:
        """Have the learner end the warm start, and record what it has taught. Raises Halted if that is nothing."""
        run = self._run
        await run.folder.flush()
        rows, key = run.folder.warm_start_rows(), "warm_start/loss"
        if not (losses := [row.metrics[key] for row in rows if key in row.metrics]):
            raise Halted(f"all {self.imitated} updates were skipped; warm-start.jsonl has the responses")
        await run.learner.end_warm_start()
        self.over = True
        kind = EventKind.IMITATED_LITTLE if short else EventKind.IMITATED
        problems = len({each.problem.id for each in given})
        said = f"{self.imitated} of {planned} updates on {len(given)} responses to {problems} problems, loss"
        missed = _without_right(run.folder.candidates())
        run.folder.append_event(0, kind, f"{said} {losses[0]:.3f} → {losses[-1]:.3f}; {missed}")


def _without_right(rows: list[CandidateRow]) -> str:
    """Say how many candidates have no right response."""
    unused = [f"{row.problem} ({row.unused})" for row in rows if row.unused]
    named = f", such as {'; '.join(unused[:NAMED])}" if unused else ""
    return f"{len(unused)} of {len(rows)} candidates have no right response{named}"
