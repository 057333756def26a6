"""The one evaluator: samples of problems by one policy, in rounds of one sample of every problem.

Wherever it ends, the rounds that are complete are an unbiased estimate. `evaluate` is for held-out problems and
validation in a run: it keeps to a deadline and stays in memory. `complete` is for benchmarks: it keeps every sample.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from actors.evaluation.protocol import response_limit
from actors.evaluation.samples import SampleFile
from actors.evaluation.statistics import PASS_KS, pass_values, share_interval
from actors.messages import AdapterRef, Group, Problem, Sampling
from actors.protocols import Clock, Sampler, Verifier
from actors.seeds import request_seed
from actors.storage.documents import Heldout
from conf.schema import Config

AMPLE = 3.0
"""With time for so many rounds, the first one is drawn at once; the trained policy may be slower than expected."""

FIRST_PART, PART = 0.25, 0.5
"""Otherwise its first part is at most so much of it, from which the pace is learned, and each part is meant to take so
much of the time left: small parts take longer than their share."""


@dataclass(frozen=True)
class Evaluation:
    """What a policy did on the first `problems` held-out problems, `n` samples each.

    pass_at: pass@k by k.
    ci95: 95 % interval of pass@1 over problems.
    round_seconds: of its quickest round; the first one may have been held up by the engine's first steps.
    """

    pass_at: dict[int, float]
    n: int
    problems: int
    ci95: list[float]
    mean_length: float
    truncated: float
    seconds: float
    round_seconds: float
    groups: tuple[Group, ...]

    def heldout(self, more: Mapping[str, float]) -> Heldout:
        """Return the evaluation as summary.json has it. more: further figures."""
        own = {name: value for name, value in vars(self).items() if name not in ("pass_at", "groups")}
        return Heldout.model_validate({f"pass@{k}": value for k, value in self.pass_at.items()} | own | dict(more))


class Evaluator:
    """Draws samples as the settings in `eval` say and has them verified."""

    def __init__(self, config: Config, engine: Sampler, verifier: Verifier, clock: Clock) -> None:
        self._config = config
        self._engine = engine
        self._verifier = verifier
        self._clock = clock

    async def evaluate(
        self, problems: tuple[Problem, ...], adapter: AdapterRef | None, n: int, seconds: float, round_s: float = 0.0
    ) -> Evaluation | None:
        """Draw `n` rounds; None if not even one problem fits. adapter: None for the base model.

        seconds: time for it. A round that does not finish within is dropped whole.
        round_s: seconds that a round is expected to take, 0 while unknown. Where time is short, the problems of the
        first round are drawn in parts, in their (random) order, and the estimate may be from fewer of them.
        Base and trained policy see the same problems, seeds and limits.
        """
        started = self._clock.now()
        deadline = started + seconds
        rounds: list[list[Group]] = []
        times: list[float] = []
        whole = True
        while whole and len(rounds) < n:
            began = self._clock.now()
            if not rounds and round_s and deadline - began < AMPLE * round_s:
                drawn = await self._first_round(problems, adapter, deadline, round_s)
            else:
                drawn = await self._round(problems, adapter, len(rounds), range(len(problems)), deadline)
            if not drawn:
                break
            rounds.append(drawn)
            times.append((self._clock.now() - began) * len(problems) / len(drawn))
            whole = len(drawn) == len(problems)
        return estimate(rounds, times, self._clock.now() - started) if rounds else None

    async def complete(
        self, sample_files: Sequence[SampleFile], at_once: int, on_sample: Callable[[], None] = lambda: None
    ) -> None:
        """Draw what is missing in sample files, `at_once` samples at a time, and keep each as it comes.

        The seed of a sample follows from problem and number alone, whatever else is asked or was drawn before; base
        model and adapter share it. A round begins as soon as there is a free place, not when the one before has ended.
        """
        time = SharedTime(self._clock)
        places = asyncio.Semaphore(at_once)

        async def draw(sample_file: SampleFile, number: int, index: int) -> None:
            problem = sample_file.problems[index]
            seed = request_seed(self._config.run.seed, f"evaluate/{problem.id}", number)
            begun = time.begin()
            group = await self._sample(number * len(sample_file.problems) + index, problem, sample_file.adapter, seed)
            sample_file.append(number, group, time.end(begun))
            places.release()
            on_sample()

        async with asyncio.TaskGroup() as tasks:
            for sample_file, number, index in missing(sample_files):
                await places.acquire()
                tasks.create_task(draw(sample_file, number, index))

    async def _first_round(
        self, problems: tuple[Problem, ...], adapter: AdapterRef | None, deadline: float, round_s: float
    ) -> list[Group]:
        """Draw as much of the first round as there is time for, in parts of which each is to end in time."""
        started = self._clock.now()
        drawn: list[Group] = []
        size = len(problems) * min(FIRST_PART, PART * (deadline - started) / round_s)
        while len(drawn) < len(problems):
            indices = range(len(drawn), min(len(drawn) + max(1, int(size)), len(problems)))
            part = await self._round(problems, adapter, 0, indices, deadline)
            if not part:
                break
            drawn += part
            now = self._clock.now()
            size = len(drawn) * PART * (deadline - now) / max(now - started, 1e-9)
        return drawn

    async def _round(
        self, problems: tuple[Problem, ...], adapter: AdapterRef | None, number: int, indices: range, deadline: float
    ) -> list[Group]:
        """Draw one sample of these problems; none if they are not all there by the deadline."""
        seeds = [request_seed(self._config.run.seed, "eval", number * len(problems) + index) for index in indices]
        try:
            async with asyncio.timeout(max(deadline - self._clock.now(), 0.0)), asyncio.TaskGroup() as tasks:
                drawn = [
                    tasks.create_task(self._sample(index, problems[index], adapter, seed))
                    for index, seed in zip(indices, seeds, strict=True)
                ]
        except TimeoutError:
            return []
        return [task.result() for task in drawn]

    async def _sample(self, index: int, problem: Problem, adapter: AdapterRef | None, seed: int) -> Group:
        settings = self._config.eval
        sampling = Sampling(1, response_limit(self._config), settings.temperature, settings.top_p, seed)
        return await self._verifier.score(await self._engine.generate(index, problem, adapter, sampling))


class SharedTime:
    """Divides time equally among what is under way: the parts add up to the time in which anything was."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._running = 0
        self._each = 0.0
        self._counted_to = clock.now()

    def begin(self) -> float:
        """Count something more as under way. Return what `end` needs to know."""
        self._count()
        self._running += 1
        return self._each

    def end(self, begun: float) -> float:
        """Count it no longer. Return its seconds."""
        self._count()
        self._running -= 1
        return self._each - begun

    def _count(self) -> None:
        now = self._clock.now()
        if self._running:
            self._each += (now - self._counted_to) / self._running
        self._counted_to = now


def missing(sample_files: Sequence[SampleFile]) -> Iterator[tuple[SampleFile, int, int]]:
    """Yield all samples still to be drawn, in rounds over all files: file, number, index of the problem."""
    for number in range(max(sample_file.n for sample_file in sample_files)):
        for sample_file in sample_files:
            for index in sample_file.missing(number):
                yield sample_file, number, index


def estimate(rounds: list[list[Group]], times: list[float], seconds: float) -> Evaluation:
    """Make figures of rounds. times: seconds that a round of all problems took, each."""
    n = len(rounds)
    groups = [group for drawn in rounds for group in drawn]
    samples = [group.samples[0] for group in groups]
    correct = [
        sum(group.rewards[0].verdict.score == 1.0 for group in of_problem) for of_problem in zip(*rounds, strict=True)
    ]
    return Evaluation(
        pass_at={k: fmean(pass_values(correct, n, k)) for k in sorted({*PASS_KS, n}) if k <= n},
        n=n,
        problems=len(correct),
        ci95=list(share_interval([c / n for c in correct])),
        mean_length=sum(len(sample.token_ids) for sample in samples) / len(samples),
        truncated=sum(sample.truncated for sample in samples) / len(samples),
        seconds=seconds,
        round_seconds=min(times),
        groups=tuple(groups),
    )
