"""Simulates a run: the real coordinator and engine pool over modelled engines, learner and verifier, under virtual
time.
"""

import asyncio
import copy
import heapq
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from actors.adapter_check.startup_check import PROMPT_TOKENS
from actors.coordinator.budget import Budget
from actors.coordinator.context import RunContext
from actors.coordinator.coordinator import Coordinator
from actors.coordinator.ledger import Ledger
from actors.coordinator.stopping import StopController
from actors.messages import (
    AdapterRef,
    Batch,
    Group,
    Inspection,
    Problem,
    ProblemSet,
    Reward,
    Sample,
    Sampling,
    Scores,
    Status,
    UpdateStats,
    Verdict,
)
from actors.protocols import FAITHFUL, Engine
from actors.rollout.adapter_slots import AdapterSlots
from actors.rollout.pool import EnginePool
from actors.runtime.placement import Placement
from actors.storage.checkpoints import Checkpoints
from actors.storage.run_folder import RunFolder
from conf.schema import Config
from conf.sizes import ADAPTER_SLOTS, groups_at_once
from launch.plan.time import Costs, Workload
from launch.plan.virtual_time import Processor, VirtualClock, run_virtually

PROBLEMS = 10_000
"""Training problems of a modelled run."""

LOOKS = 50
"""Looks at the budget while an answer is drawn, if that makes them more than a second apart. Where an answer takes
hours, one look a second would be most of the simulation's work."""

LOGPROB = (-1.0,)
"""Of every modelled token, by engine and learner alike."""

MISTAKES = 13
"""Views of the learner, the true one included, that an engine's first answers are compared with; a score has two."""


@dataclass(frozen=True)
class Simulation:
    """What a simulated run has done.

    rows: of metrics.jsonl, with `engines/busy_s`, the mean seconds so far that an engine decoded.
    ledger: as in summary.json.
    spent_s: of the budget.
    cpu_s: of this processor for all of it, an upper bound of the coordinator's part.
    """

    rows: tuple[dict[str, float], ...]
    ledger: dict[str, Any]
    updates: int
    spent_s: float
    cpu_s: float


def simulate(
    config: Config,
    costs: Costs,
    workload: Workload,
    placement: Placement,
    at_once: int,
    seed: int = 0,
    together: float = 1.0,
) -> Simulation:
    """Simulate the run that a configuration describes, with its budget, evaluations and checkpoints.

    at_once: samples that an engine decodes at once. together: what engine and learner do of their work on one processor
    at the same time, over what one of them alone would do.
    """
    began = time.process_time()
    config = copy.deepcopy(config)
    config.guard.action = "warn"  # modelled rewards vary without a cause
    with TemporaryDirectory() as folder:
        result = run_virtually(_run(config, costs, workload, placement, at_once, seed, together, Path(folder)))
    return replace(result, cpu_s=time.process_time() - began)


async def _run(
    config: Config,
    costs: Costs,
    workload: Workload,
    placement: Placement,
    at_once: int,
    seed: int,
    together: float,
    path: Path,
) -> Simulation:
    clock = VirtualClock(least_sleep_s=workload.response * costs.step_s / LOOKS)
    rng = random.Random(seed)
    shared = Processor(together) if placement.shared else None
    engines = [
        ModelledEngine(f"rollout-{number}", costs, workload, at_once, shared or Processor(), rng)
        for number in range(len(placement.rollouts))
    ]
    prompt = tuple(range(max(round(workload.prompt), 1)))
    train, heldout = (
        tuple(Problem(f"{use}-{number}", "", prompt, "") for number in range(count))
        for use, count in (("train", PROBLEMS), ("heldout", config.eval.problems))
    )
    run = RunContext(
        config=config,
        problems=ProblemSet(train, heldout, {}),
        engine=EnginePool(engines, clock, lambda name, text: None),
        learner=ModelledLearner(
            config, costs, workload, len(placement.learners), shared or Processor(), placement.device
        ),
        verifier=ModelledVerifier(config, costs, workload, placement.reward_workers, rng),
        folder=FolderInMemory(path, lambda: sum(engine.busy_s for engine in engines) / len(engines)),
        budget=Budget(config.budget.seconds, 0.0, clock),
        ledger=Ledger(clock),
        clock=clock,
        stopping=StopController(clock),
        max_running=groups_at_once(config, placement.device) * len(engines),
    )
    coordinator = Coordinator(run)
    await coordinator.run()
    return Simulation(tuple(run.folder.rows()), run.ledger.record, coordinator.updates, run.budget.spent, 0.0)


async def started(costs: Costs) -> None:
    """Wait until actors that were made when virtual time began take their first request."""
    await asyncio.sleep(max(costs.start_s - asyncio.get_running_loop().time(), 0.0))


class ModelledEngine:
    """A `RestartableEngine` that never dies: continuous batching of samples of random length, all of which gain a token
    in each step. Samples beyond `at_once` wait for their turn.
    """

    def __init__(
        self, name: str, costs: Costs, workload: Workload, at_once: int, processor: Processor, rng: random.Random
    ) -> None:
        self.name = name
        self.busy_s = 0.0
        self._costs = costs
        self._workload = workload
        self._at_once = at_once
        self._processor = processor
        self._rng = rng
        self._adapters = AdapterSlots(ADAPTER_SLOTS)
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._running: list[tuple[float, int, asyncio.Future[None]]] = []  # by the step at which each sample ends
        self._number = 0
        self._steps = 0.0
        self._prefill = 0.0
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        processor.listen(self._catch_up, self._schedule)

    async def ready(self) -> None:
        await started(self._costs)

    async def at_start(self, work: Callable[[str, Engine], Awaitable[None]]) -> None:
        await work(self.name, self)

    async def revive(self) -> None:
        raise NotImplementedError("modelled engines do not die")

    async def load(self, adapter: AdapterRef) -> None:
        await self._adapters.occupy(adapter)
        await asyncio.sleep(self._costs.swap_s)

    async def retire(self, adapter: AdapterRef) -> None:
        await self._adapters.retire(adapter)

    async def generate(self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling) -> Group:
        lengths = [self._length(sampling.max_tokens) for _ in range(sampling.samples)]
        async with self._adapters.request(adapter):
            await self._decode(lengths)
        compared = index < 0  # a probe; else nobody looks at a probability
        samples = tuple(_sample(length, length == sampling.max_tokens, compared) for length in lengths)
        return Group(index, problem, adapter, samples)

    async def probe(
        self, index: int, problem: Problem, adapter: AdapterRef | None, sampling: Sampling
    ) -> tuple[Group, ...]:
        return (await self.generate(index, problem, adapter, sampling),)

    async def close(self) -> None: ...

    def _length(self, limit: int) -> int:
        """Draw the length of one response: a gamma distribution, cut at the limit."""
        mean, spread = self._workload.response, self._workload.spread
        drawn = self._rng.gammavariate(spread**-2, mean * spread**2) if spread else mean
        return max(1, min(round(drawn), limit))

    async def _decode(self, lengths: list[int]) -> None:
        self._catch_up()
        if not self._running:
            self._processor.change(+1)
        self._prefill += self._workload.fresh * self._costs.prefill_s
        loop = asyncio.get_running_loop()
        ends = [loop.create_future() for _ in lengths]
        self._queue.extend(zip(lengths, ends, strict=True))
        self._schedule()
        await asyncio.wait(ends)

    def _catch_up(self) -> None:
        """Take the steps that there was time for since the last look."""
        now = asyncio.get_running_loop().time()
        passed, self._since = now - self._since, now
        if not self._running:
            return
        self.busy_s += passed
        elapsed = passed * self._processor.speed
        prefill = min(self._prefill, elapsed)
        self._prefill -= prefill
        self._steps += (elapsed - prefill) / self._costs.decode_s(len(self._running))

    def _schedule(self) -> None:
        """Start and end samples, and come back when the next one ends."""
        while self._running and self._running[0][0] <= self._steps + 1e-6:
            heapq.heappop(self._running)[2].set_result(None)
        while self._queue and len(self._running) < self._at_once:
            length, end = self._queue.popleft()
            self._number += 1
            heapq.heappush(self._running, (self._steps + length, self._number, end))
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if self._running:
            steps = self._running[0][0] - self._steps
            seconds = self._prefill + max(steps, 0.0) * self._costs.decode_s(len(self._running))
            self._timer = asyncio.get_running_loop().call_later(seconds / self._processor.speed, self._wake)

    def _wake(self) -> None:
        self._catch_up()
        self._schedule()
        if not self._running:
            self._prefill = 0.0
            self._processor.change(-1)


class ModelledLearner:
    """Ranks that share a batch evenly; only samples of groups with variance are computed."""

    def __init__(
        self, config: Config, costs: Costs, workload: Workload, ranks: int, processor: Processor, device: str
    ) -> None:
        self._on_host = device == "cuda" and config.learner.offload == "cpu"
        self._algorithm = config.algorithm
        self._costs = costs
        self._workload = workload
        self._ranks = ranks
        self._processor = processor
        self._version = 0
        self._age = self._trained = 0
        self._pass_s = 0.0

    async def revive(self) -> None:
        raise NotImplementedError("modelled learners do not die")

    async def publish_synthetic(self) -> tuple[AdapterRef, ...]:
        await started(self._costs)
        return tuple(AdapterRef(-number, 0, "") for number in range(1, ADAPTER_SLOTS + 1))

    async def publish(self) -> AdapterRef:
        await started(self._costs)
        return AdapterRef(self._version, 0, "")

    async def accumulate(self, batch: Batch) -> None:
        self._age = max(batch.version - group.version for group in batch.groups)
        groups = [group for group in batch.groups if self._algorithm.regularised or not group.zero_variance]
        self._trained = sum(group.tokens for group in groups)
        tokens = self._trained + len(groups) * self._workload.fresh
        self._pass_s = tokens * self._costs.learn_s / self._ranks / self._algorithm.steps_per_batch
        await self._processor.compute(self._pass_s)

    async def step(self, progress: float) -> UpdateStats:
        await self._processor.compute((self._algorithm.steps_per_batch - 1) * self._pass_s)
        if self._on_host:  # the card meanwhile works for the engine alone
            await asyncio.sleep(self._costs.update_s)
        else:
            await self._processor.compute(self._costs.update_s)
        self._version += 1
        metrics = {"policy/entropy": 1.0, "staleness/max": self._age, "tokens/trained": self._trained}
        return UpdateStats(AdapterRef(self._version, 0, ""), metrics)

    async def score(self, groups: tuple[Group, ...]) -> tuple[tuple[Scores, ...], ...]:
        prompts = len({group.problem.id for group in groups})
        tokens = prompts * self._workload.fresh + sum(group.tokens for group in groups)
        await self._processor.compute(tokens * self._costs.score_s)
        return tuple(
            tuple(Scores(tuple(sample.logprobs), tuple(sample.logprobs)) for sample in group.samples)
            for group in groups
        )

    async def explain(self, groups: tuple[Group, ...]) -> dict[str, tuple[float, ...]]:
        tokens = sum(group.tokens for group in groups)
        await self._processor.compute((len(groups) * PROMPT_TOKENS + tokens) * self._costs.score_s * MISTAKES / 2)
        return {FAITHFUL: LOGPROB * tokens, "no adapter is applied": (-9.0,) * tokens}

    async def inspect(self, groups: tuple[Group, ...]) -> Inspection:
        await self.score(groups)
        return Inspection(self._version, 1.0, 1.0, 0.0, {}, {})

    async def save(self, folder: str) -> None:
        await asyncio.sleep(self._costs.checkpoint_s)

    async def restore(self, folder: str | None, incarnation: int) -> None: ...

    async def close(self) -> None: ...


class ModelledVerifier:
    """Workers that take a fixed time for an answer.

    Of a group with variance every other sample is right, of the others none. There are never so many of the latter in a
    row that the run would halt.
    """

    def __init__(self, config: Config, costs: Costs, workload: Workload, workers: int, rng: random.Random) -> None:
        self._most_fruitless = config.learner.problems_per_update
        self._fruitless = 0
        self._costs = costs
        self._workload = workload
        self._free = asyncio.Semaphore(workers)
        self._rng = rng

    async def score(self, group: Group) -> Group:
        async with self._free:
            await asyncio.sleep(self._costs.verify_s * len(group.samples))
        varied = self._fruitless == self._most_fruitless or self._rng.random() < self._workload.varied
        self._fruitless = 0 if varied else self._fruitless + 1
        return replace(group, rewards=tuple(_reward(varied and i % 2 == 0) for i in range(len(group.samples))))

    async def health(self) -> dict[str, int]:
        return {}

    async def close(self) -> None: ...


@cache
def _sample(length: int, truncated: bool, compared: bool) -> Sample:
    return Sample(range(length), LOGPROB * length if compared else (), "", "length" if truncated else "stop")


@cache
def _reward(right: bool) -> Reward:
    verdict = Verdict(float(right), Status.CORRECT if right else Status.WRONG, None, 0.0)
    return Reward(float(right), {"accuracy": float(right)}, verdict)


class FolderInMemory(RunFolder):
    """A folder that keeps the rows of metrics in memory, and of the rest only what is small and rarely written."""

    def __init__(self, path: Path, busy_s: Callable[[], float]) -> None:
        super().__init__(path)
        self.checkpoints = UnkeptCheckpoints(path)
        self._busy_s = busy_s
        self._rows: list[dict[str, float]] = []

    def rows(self) -> list[dict[str, float]]:
        return self._rows

    def append_metrics(self, update: int, row: dict[str, float]) -> dict[str, float]:
        self._rows.append({"update": update, **row, "engines/busy_s": self._busy_s()})
        return self._rows[-1]

    def flush(self) -> None: ...

    def write_evaluation(self, name: str, version: int, summary: dict[str, Any]) -> dict[str, Any]:
        return summary

    def drop_adapters(self, keep: tuple[AdapterRef, ...]) -> None: ...

    def write_spent(self, seconds: float, ledger: dict[str, Any] | None = None) -> None: ...

    def write_samples(self, name: str, groups: tuple[Group, ...]) -> None: ...


class UnkeptCheckpoints(Checkpoints):
    """Checkpoints that are written and forgotten."""

    @asynccontextmanager
    async def new(self, version: int, keep_last: int, passing: bool = False) -> AsyncIterator[Path]:
        yield self.folder
