"""Produces groups in the order of the data, from their admission to the batch that takes them."""

import asyncio
from statistics import fmean

from microbudget_rl.actors.attempt import rollout_sampling
from microbudget_rl.actors.coordinator.context import RunContext
from microbudget_rl.actors.coordinator.ledger import UNDECIDED
from microbudget_rl.actors.coordinator.publisher import PolicyPublisher
from microbudget_rl.actors.coordinator.rules.learning import FruitlessStreak
from microbudget_rl.actors.coordinator.rules.order import DataCursor, Mixture
from microbudget_rl.actors.coordinator.rules.staleness import StalenessManager
from microbudget_rl.actors.messages import AdapterRef, Batch, Group, Problem, Request
from microbudget_rl.actors.storage.documents import CoordinatorState, EventKind

MOST_KINDS = 20
"""Most events on reward functions: what a response makes one raise may have any name."""


class RolloutProducer:
    """Generates and verifies groups as fast as staleness and engines allow, for one incarnation of the policy."""

    def __init__(
        self,
        run: RunContext,
        publisher: PolicyPublisher,
        state: CoordinatorState,
        fruitless: FruitlessStreak,
        rollbacks: int,
        one_batch: bool = False,
    ) -> None:
        """state: the checkpoint's, empty at the start. rollbacks: their number; each gives other samples. one_batch:
        whether only the groups of the next batch start until `open_admission`.
        """
        config, next_version = run.config, state.version + 1
        self.staleness = StalenessManager(
            problems_per_update=config.learner.problems_per_update,
            max_staleness=config.learner.max_staleness,
            max_running=run.max_running,
            version=state.version,
            updates=config.budget.updates,
        )
        if one_batch:
            self.staleness.limit(min(next_version, config.budget.updates or next_version))
        self.cursor = DataCursor(state.next_unused, state.used)
        self._mixture = Mixture(run.problems.train, config.data.weights, config.run.seed)
        self._fruitless = fruitless
        self._run = run
        self._publisher = publisher
        self._attempts = run.attempts("waiting")
        self._purpose = f"rollout-{rollbacks}" if rollbacks else "rollout"
        self._seconds: dict[int, tuple[float, float]] = {}  # by index, of generation and of verification
        self._verifying = 0
        self._complained = set[str]()  # kinds of complaints
        self._dropped, self._dropped_tokens = state.dropped, state.dropped_tokens
        self._sampled = 0
        self._last_measured = (run.clock.now(), 0)

    @property
    def state(self) -> CoordinatorState:
        """The producer's part of a checkpoint."""
        return CoordinatorState(
            version=self.staleness.version,
            next_unused=self.cursor.next_unused,
            used=list(self.cursor.used),
            dropped=self._dropped,
            dropped_tokens=self._dropped_tokens,
        )

    async def run(self) -> None:
        """Start groups until cancelled, which cancels the running groups too."""
        self._last_measured = (self._run.clock.now(), self._sampled)
        previous: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as groups:
            while True:
                await self._run.stopping.until(lambda: (self.staleness.capacity > 0 and self._worth_starting) or None)
                index = self.cursor.admit()
                self.staleness.admit(index)
                assert self._publisher.policy is not None
                problem = self._mixture.at(index)
                group = groups.create_task(self._produce(index, problem, self._publisher.policy, previous))
                previous = group if self._run.config.run.deterministic else None
                self._note_activity()

    async def open_admission(self) -> None:
        """Let groups of all batches start."""
        self.staleness.limit(self._run.config.budget.updates)
        await self._run.stopping.notify()

    @property
    def idle(self) -> bool:
        """Whether no group is running and none may start."""
        return self.staleness.running == 0 and not (self.staleness.capacity > 0 and self._worth_starting)

    def wait_name(self, otherwise: str) -> str:
        """Return what is waited for: the rewards if groups are running, and the engines have generated all of them."""
        return "wait_rewards" if 0 < self.staleness.running == self._verifying else otherwise

    @property
    def out_of_time(self) -> bool:
        """Whether no further batch can be completed in time."""
        return self.staleness.running == 0 and not self._worth_starting

    @property
    def _worth_starting(self) -> bool:
        """Whether a group that starts now may still become part of an update."""
        return not self._fruitless.end_reason and self._run.budget.may_hold("group", "update")

    def take_batch(self) -> Batch | None:
        """Return the groups of the next update; None while it has to wait."""
        groups = self.staleness.take_batch()
        return Batch(self.staleness.version, groups) if groups else None

    def use(self, batch: Batch) -> dict[str, float]:
        """Count a batch as used for the next version. Return its metrics."""
        self.staleness.advance()
        self.cursor.use(group.index for group in batch.groups)
        self._fruitless.settle(batch.groups)
        useful = sum(map(self._close, batch.groups))
        generated, verified = zip(*(self._seconds.pop(group.index) for group in batch.groups), strict=True)
        dropped, self._dropped = self._dropped, 0
        tokens, self._dropped_tokens = self._dropped_tokens + sum(group.tokens for group in batch.groups), 0
        (then, sampled_before), self._last_measured = self._last_measured, (self._run.clock.now(), self._sampled)
        return {
            "groups/dropped": dropped,
            "tokens/useful_fraction": useful / max(tokens, 1),
            "groups/running": self.staleness.running,
            "groups/waiting": self.staleness.waiting,
            "time/generate": fmean(generated),
            "time/verify": fmean(verified),
            "rollout/tokens_per_second": (self._sampled - sampled_before) / max(self._run.clock.now() - then, 1e-9),
        }

    async def _produce(
        self, index: int, problem: Problem, policy: AdapterRef, previous: asyncio.Task[None] | None
    ) -> None:
        """Have a group generated and verified, then count it, in a deterministic run after the group `previous`."""
        run, started = self._run, self._run.clock.now()
        request = Request(index, problem, policy, rollout_sampling(run.config, self._purpose, index))
        attempt = await self._attempts.make(request, self._note_generated)
        group = attempt.group
        self._verifying -= 1
        self._complain(group)
        if previous:
            await asyncio.wait({previous})
        run.budget.expect("group", run.clock.now() - started)
        dropped = group.failed or (run.config.learner.dynamic_sampling and not group.learnable)
        if dropped:
            self._drop(group)
        else:
            self._seconds[index] = attempt.generate_s, attempt.verify_s
            self.staleness.accept(group)
        self._note_activity()
        self._fruitless.add(group, learned=run.ledger.counts.get("tokens/useful", 0) > 0, settled=dropped)
        await run.stopping.notify()

    def _note_generated(self, group: Group) -> None:
        self._sampled += group.tokens
        self._verifying += 1
        self._note_activity()

    def _complain(self, group: Group) -> None:
        """Count samples without a reward. Record the first complaint of each kind, up to MOST_KINDS, as an event."""
        self._run.ledger.count("rewards/failed", sum(bool(reward.complaints) for reward in group.rewards))
        for kind, complaint in group.complaints.items():
            if kind not in self._complained and len(self._complained) < MOST_KINDS:
                self._complained.add(kind)
                detail = f"{complaint}, on problem {group.problem.id}"
                self._run.folder.append_event(self.staleness.version, EventKind.REWARD_FAILED, detail)

    def _drop(self, group: Group) -> None:
        """Drop a group that nothing can be learned from, so that another takes its place."""
        self.staleness.give_back(group.index)
        self.cursor.use([group.index])
        self._close(group)
        self._run.ledger.count("groups/failed" if group.failed else "groups/refilled")
        self._dropped += 1
        self._dropped_tokens += group.tokens

    def _close(self, group: Group) -> int:
        """Count the tokens of a used or dropped group by kind. Return the useful ones."""
        useful = 0
        for sample, reward, advantage in zip(group.samples, group.rewards, group.advantages, strict=True):
            if reward.masked:
                kind = "failed"
            elif group.zero_variance:
                kind = "zero_variance"
            else:
                kind = "truncated" if advantage is None else "useful"
            self._run.ledger.move(UNDECIDED, f"tokens/{kind}", sample.sampled_tokens)
            useful += sample.sampled_tokens * (kind == "useful")
        return useful

    def _note_activity(self) -> None:
        generating = self.staleness.running > self._verifying
        self._run.ledger.enter("rollouts", "generate" if generating else self.wait_name("wait_learner"))
        self._run.ledger.enter("rewards", "verify" if self._verifying else "wait_rollouts")
