"""The warm start: right responses are gathered and imitated before the first version is published."""

import asyncio
from itertools import chain, islice
from math import ceil
from random import Random

from microbudget_rl.actors.attempt import rollout_sampling
from microbudget_rl.actors.coordinator.context import RunContext
from microbudget_rl.actors.coordinator.ledger import WARM_START
from microbudget_rl.actors.coordinator.metrics import RunState
from microbudget_rl.actors.coordinator.saving import Saving
from microbudget_rl.actors.errors import Halted
from microbudget_rl.actors.messages import Group, Request, Sample, Status
from microbudget_rl.actors.storage.checkpoints import read_state
from microbudget_rl.actors.storage.documents import CoordinatorState, EventKind, SampleRow
from microbudget_rl.actors.storage.run_folder import sample_row
from microbudget_rl.conf.schema.warm_start import PASSES, SAMPLING_SHARE


class WarmStart:
    """Gathers right responses, and has the learner imitate them. losses: of its steps. ended: whether it has."""

    def __init__(self, run: RunContext, saving: Saving, run_state: RunState) -> None:
        self.losses, self.ended = list[float](), False
        self._run, self._saving, self._run_state = run, saving, run_state
        self._settings = run.config.warm_start

    async def due(self) -> bool:
        """Return to the newest checkpoint, as the learner does, and whether something is left to do."""
        if not self._settings.source:
            return False
        await self._run.folder.flush()
        latest = self._run.folder.checkpoints.latest
        state = read_state(latest) if latest else CoordinatorState()
        self.losses, self.ended = [*state.imitated], state.warm_start_over
        return not self.ended and not self._run.stopping.stopped

    async def carry_out(self) -> None:
        """Do what is left, as far as there is time and no stop. Raises Halted if there is nothing right to learn."""
        run, rows = self._run, self._run.folder.samples("warm-start")
        self._run_state.enter(WARM_START, "right responses are gathered")
        try:
            if not self.losses:
                await run.stopping.unless_stopped(self._sample(rows))
            if not run.stopping.stopped:
                await self._imitate(rows)
                await self._saving.save(0)
        finally:
            self._run_state.enter("starting")
            run.ledger.enter_all("start")

    @property
    def _left_s(self) -> float:
        """Seconds left for it, of its fraction and before the budget's reserve."""
        budget, spent = self._run.budget, self._run.ledger.seconds["run"][WARM_START]
        return min(self._settings.fraction * budget.total - spent, budget.left - budget.reserve)

    async def _sample(self, rows: list[SampleRow]) -> None:
        """Add the samples of further candidates to rows, until enough are right or it is time to learn.

        Without a right one, sampling goes on as long as the warm start may take. It comes in rounds, at least one.
        """
        run, settings, candidates = self._run, self._settings, self._run.problems.candidates
        known, timed = {row.problem for row in rows}, not run.config.run.deterministic
        order = Random(f"{run.config.run.seed}/warm_start").sample(range(len(candidates)), len(candidates))
        places = (place for place in order if candidates[place].id not in known)
        learning_s = (1 - SAMPLING_SHARE) * settings.fraction * run.budget.total
        for actor, activity in (("rollouts", WARM_START), ("rewards", "verify"), ("learner", "wait_rollouts")):
            run.ledger.enter(actor, activity)
        while (right := sum(bool(row.token_ids) for row in rows)) < settings.demonstrations:
            time_is_up = timed and rows and self._left_s <= (learning_s if right else 0.0)
            if time_is_up or not (batch := [*islice(places, run.max_running)]):
                return
            new_rows = [*chain(*await asyncio.gather(*map(self._verified, batch)))]
            run.folder.append_candidates(new_rows)
            rows += new_rows

    async def _verified(self, place: int) -> list[SampleRow]:
        """Return the verified responses to a candidate, with the tokens of those to learn: of the right ones those with
        the largest reward, and of these the shortest, each once.
        """
        run, problem = self._run, self._run.problems.candidates[place]
        if run.problems.solutions:
            group = await run.verifier.score(Group(place, problem, None, (run.problems.solutions[place],)))
        else:
            request = Request(place, problem, None, rollout_sampling(run.config, WARM_START, place))
            group = (await run.attempts(WARM_START).make(request)).group
        rows, right = [sample_row(group, number) for number in range(len(group.samples))], dict[tuple[int, ...], int]()
        for number, (sample, reward) in enumerate(zip(group.samples, group.rewards, strict=True)):
            if reward.status == Status.CORRECT and not sample.truncated:
                right.setdefault(tuple(sample.token_ids), number)
        ranked = sorted(right, key=lambda ids: (-group.rewards[right[ids]].total, len(ids)))
        for ids in ranked[: self._settings.per_problem]:
            rows[right[ids]] = rows[right[ids]].model_copy(update={"token_ids": [*ids]})
        return rows

    async def _imitate(self, rows: list[SampleRow]) -> None:
        """Have the learner take steps until all passes are made, the time is over, or the run is told to stop. Raises
        Halted if there is nothing to learn, or if a step's loss or gradient is not finite.
        """
        run, settings, stopping = self._run, self._settings, self._run.stopping
        problems = {one.id: one for one in (run.problems.train if settings.from_itself else run.problems.candidates)}
        learned = [row for row in rows if row.token_ids and row.problem in problems][: settings.demonstrations]
        samples = [(problems[row.problem], _demonstration(row)) for row in learned]
        groups = [Group(0, problem, None, (sample,)) for problem, sample in samples]
        tried, right = {row.problem for row in rows}, {row.problem for row in rows if row.token_ids}
        missed = f"{len(tried - right)} of {len(tried)} problems have no right response in samples/warm-start.jsonl"
        if not groups:
            remedy = "few_shot, or a source with solutions" if settings.from_itself else "solution_field"
            raise Halted(f"warm_start.source={settings.source}: {missed}; give warm_start.{remedy}")
        for actor, activity in (("rollouts", "wait_learner"), ("rewards", "wait_rollouts")):
            run.ledger.enter(actor, activity)
        while not stopping.stopped and len(self.losses) + 1 <= (steps := self._steps(len(groups))):
            made = len(self.losses)
            places = step_order(len(groups), settings.demonstrations_per_update, run.config.run.seed, made)
            run.ledger.enter("learner", WARM_START)
            started, batch = run.clock.now(), tuple(groups[place] for place in places)
            loss, fault = await stopping.within_grace(run.learner.imitate(batch, made / steps))
            if fault:
                raise Halted(f"{fault}; run.overwrite=true with a lower warm_start.learning_rate starts it again")
            run.budget.expect("imitate", run.clock.now() - started)
            self.losses.append(loss)
            self._run_state.doing = f"update {made + 1} of at most {int(steps)}, loss {loss:.3f}"
            if self._saving.overdue:
                await self._saving.save(0)
        if not stopping.stopped:
            self.ended = True
            said = f"{len(self.losses)} updates on {len(groups)} responses, loss {self.losses[0]:.3f}"
            run.folder.append_event(0, EventKind.IMITATED, f"{said} → {self.losses[-1]:.3f}; {missed}")

    def _steps(self, count: int) -> float:
        """Return the number of all steps on so many responses: of all passes, or that there is time for; at least 1."""
        passes = PASSES * ceil(count / self._settings.demonstrations_per_update)
        if self._run.config.run.deterministic or not (expected := self._run.budget.expected("imitate")):
            return passes
        return max(1.0, min(passes, len(self.losses) + self._left_s / expected))


def _demonstration(row: SampleRow) -> Sample:
    return Sample(tuple(row.token_ids), (), "", "stop", tuple((start, end) for start, end in row.given))


def step_order(count: int, per_update: int, seed: int, step: int) -> list[int]:
    """Return the places of a step's responses, counted from 0. Each pass has its own order, in equal parts."""
    parts = ceil(count / per_update)
    number, part = divmod(step, parts)
    order = Random(f"{seed}/warm_start/{number}").sample(range(count), count)
    return order[count * part // parts : count * (part + 1) // parts]
