"""Groups from their admission to the buffer that batches are taken from."""

import asyncio
from collections.abc import Awaitable, Callable
from statistics import fmean

from actors.coordinator.budget import Budget
from actors.coordinator.curriculum import Curriculum
from actors.coordinator.data_order import DataCursor, ProblemOrder
from actors.coordinator.drought import Drought
from actors.coordinator.ledger import UNDECIDED, Ledger
from actors.coordinator.publisher import PolicyPublisher
from actors.coordinator.staleness import StalenessManager
from actors.coordinator.stopping import StopController
from actors.messages import AdapterRef, Batch, Group, Sampling
from actors.protocols import Clock, Engine, Verifier
from actors.seeds import request_seed
from conf.schema import Config


class RolloutProducer:
    """Generates and verifies groups as fast as staleness and the engines allow, for one incarnation of the policy."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        verifier: Verifier,
        order: ProblemOrder,
        serving: PolicyPublisher,
        pacing: StalenessManager,
        cursor: DataCursor,
        curriculum: Curriculum,
        waiting: StopController,
        ledger: Ledger,
        clock: Clock,
        budget: Budget,
        on_group: Callable[[], Awaitable[None]],
        draw: int,
    ) -> None:
        """on_group: called after every verified group. draw: another number draws other samples of the same groups."""
        self.pacing = pacing
        self.cursor = cursor
        self.curriculum = curriculum
        self.drought = Drought(config.learner.problems_per_update)
        self._config = config
        self._engine = engine
        self._verifier = verifier
        self._order = order
        self._serving = serving
        self._waiting = waiting
        self._ledger = ledger
        self._clock = clock
        self._budget = budget
        self._on_group = on_group
        self._purpose = f"rollout-{draw}" if draw else "rollout"
        self._generate_s: dict[int, float] = {}
        self._verify_s: dict[int, float] = {}
        self._verifying = 0
        self._dropped = 0
        self._sampled = 0
        self._last_look = (clock.now(), 0)

    async def run(self) -> None:
        """Start groups until cancelled; those under way are cancelled with it."""
        self._last_look = (self._clock.now(), self._sampled)
        async with asyncio.TaskGroup() as groups:
            while True:
                await self._waiting.until(lambda: (self.pacing.capacity > 0 and self._worth_starting) or None)
                index = self._next_index()
                self.pacing.admit(index)
                assert self._serving.policy is not None
                groups.create_task(self._produce(index, self._serving.policy))
                self._note_activity()

    @property
    def stranded(self) -> bool:
        """Whether no further batch will come together in time."""
        return self.pacing.running == 0 and not self._worth_starting

    @property
    def _worth_starting(self) -> bool:
        """Whether a group that starts now may still become part of an update."""
        return self._budget.may_hold("group", "update")

    def take_batch(self) -> Batch | None:
        """The groups of the next update; None while it has to wait."""
        groups = self.pacing.take_batch()
        return Batch(self.pacing.version, groups) if groups else None

    def use(self, batch: Batch) -> dict[str, float]:
        """Count a batch as behind the adapter; how it came about, for its row of metrics."""
        self.cursor.use(batch.groups)
        for group in batch.groups:
            self._settle(group)
        indices = [group.index for group in batch.groups]
        dropped, self._dropped = self._dropped, 0
        return {
            "groups/dropped": dropped,
            "groups/running": self.pacing.running,
            "groups/waiting": self.pacing.waiting,
            "time/generate": fmean([self._generate_s.pop(index) for index in indices]),
            "time/verify": fmean([self._verify_s.pop(index) for index in indices]),
            "rollout/tokens_per_second": self._speed(),
        }

    def _next_index(self) -> int:
        """The next group to start; problems that rest are passed over."""
        while True:
            index = self.cursor.admit()
            if not self.curriculum.rests(self._order.problem(index), self._epoch(index)):
                return index
            self.cursor.pass_over(index)
            self._ledger.count("groups/rested")

    def _epoch(self, index: int) -> int:
        return index // len(self._order.problems)

    async def _produce(self, index: int, policy: AdapterRef) -> None:
        rollout = self._config.rollout
        started = self._clock.now()
        group = await self._engine.generate(
            index,
            self._order.problem(index),
            policy,
            Sampling(
                samples=rollout.samples_per_problem,
                max_tokens=rollout.max_response_tokens,
                temperature=rollout.temperature,
                top_p=1.0,
                seed=request_seed(self._config.run.seed, self._purpose, index),
            ),
        )
        generated = self._clock.now()
        self._sampled += group.tokens
        self._verifying += 1
        self._note_activity()
        group = await self._verifier.score(group)
        self._verifying -= 1
        self._budget.expect("group", self._clock.now() - started)
        if group.failed or (self._config.learner.refill and group.zero_variance):
            self._drop(group)
        else:
            self._generate_s[index] = generated - started
            self._verify_s[index] = self._clock.now() - generated
            self.pacing.accept(group)
        self._note_activity()
        self.drought.see(group)
        await self._on_group()

    def _drop(self, group: Group) -> None:
        """Another group takes the place of one that has nothing to learn from."""
        self.pacing.give_back(group.index)
        self.cursor.pass_over(group.index)
        self._settle(group)
        self._ledger.count("groups/failed" if group.failed else "groups/refilled")
        self._dropped += 1

    def _speed(self) -> float:
        """Tokens the engines have generated per second since the last look."""
        (then, before), self._last_look = self._last_look, (self._clock.now(), self._sampled)
        return (self._sampled - before) / max(self._clock.now() - then, 1e-9)

    def _settle(self, group: Group) -> None:
        """Count a group and what became of its tokens, once it is used or dropped: one that is neither comes again."""
        self.curriculum.see(group, self._epoch(group.index))
        for sample, reward in zip(group.samples, group.rewards, strict=True):
            if reward.masked:
                kind = "failed"
            elif group.zero_variance:
                kind = "zero_variance"
            elif sample.truncated:
                kind = "truncated"
            else:
                kind = "useful"
            self._ledger.move(UNDECIDED, f"tokens/{kind}", len(sample.token_ids))

    def _note_activity(self) -> None:
        generating = self.pacing.running > self._verifying
        self._ledger.enter("rollouts", "generate" if generating else "wait_learner")
        self._ledger.enter("rewards", "verify" if self._verifying else "wait_rollouts")
