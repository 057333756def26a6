"""Evaluates policies by n responses to each of their problems, in rounds of one response to every problem.

It is the only way to an accuracy: before, during and after a run, and in launch/evaluate.py. The seed of a sample
follows from run.seed, its problem and its number alone: all policies and commands share it.
"""

from collections import deque
from collections.abc import Callable
from pathlib import Path

from microbudget_rl.actors.attempt import Attempt, Attempts, evaluation_sampling
from microbudget_rl.actors.evaluation.statistics import Alike, Samples, scores
from microbudget_rl.actors.messages import AdapterRef, Group, Problem, Request
from microbudget_rl.actors.storage.documents import EvaluatedSample, PolicyScores
from microbudget_rl.actors.storage.files import append_row, read_rows
from microbudget_rl.actors.storage.run_folder import sample_row
from microbudget_rl.actors.worker import Worker
from microbudget_rl.conf.errors import BadInput

AMPLE, PART = 3.0, 0.25
"""Number of rounds that must fit for all problems to be sampled at once, since the policy may have become slower; and
the largest part of them that is otherwise. It should take at most half of the time."""


def part_of(count: int, seconds: float, round_s: float) -> int:
    """Return how many of a number of problems to sample at once: all, or a part where time is short. round_s: seconds
    that a round is expected to take, 0 while unknown.
    """
    if seconds >= AMPLE * round_s:
        return count
    return max(1, int(count * min(PART, seconds / round_s / 2)))


class PolicySamples:
    """Samples 0 … n - 1 of each problem by one policy: in memory for a run, in a file for launch/evaluate.py.

    adapter: the policy's, None for the base model. file: keeps the samples, one per line, in the order of their
    completion; None keeps them in memory.
    """

    def __init__(
        self, problems: tuple[Problem, ...], n: int, adapter: AdapterRef | None, file: Path | None = None
    ) -> None:
        """Read the samples of an earlier process. Raises BadInput if they are damaged or belong to other problems."""
        self.problems = problems
        self.n = n
        self.adapter = adapter
        self._file = file
        self._writer = Worker("writer", strict=True)
        self._unwritten: deque[EvaluatedSample] = deque()
        self._rows: dict[tuple[str, int], EvaluatedSample] = {}
        known = {problem.id: problem for problem in problems}
        for number, row in enumerate(read_rows(file, EvaluatedSample) if file else (), start=1):
            problem = known.get(row.problem)
            if problem and (row.prompt, row.gold) != (problem.prompt, problem.gold):
                raise BadInput(
                    f"{file}: line {number} has another prompt or answer of problem {row.problem} than now: restore "
                    "the data, or give run.name=OTHER or run.overwrite=true"
                )
            if problem and row.sample < n:
                self._keep(row)

    def missing(self, number: int) -> list[int]:
        """Return the indices of the problems that lack the sample of this number."""
        return [index for index, problem in enumerate(self.problems) if (problem.id, number) not in self._rows]

    @property
    def sampled(self) -> int:
        """Number of samples so far, of all problems."""
        return len(self._rows)

    @property
    def rounds(self) -> int:
        """Number of samples that every problem has."""
        return next((number for number in range(self.n) if self.missing(number)), self.n)

    def of_rounds(self, rounds: int) -> list[list[EvaluatedSample]]:
        """Return the first `rounds` samples of each problem."""
        return [[self._rows[problem.id, number] for number in range(rounds)] for problem in self.problems]

    def counted(self, at_once: int) -> list[list[EvaluatedSample]]:
        """Return the samples that count: those of the complete rounds, or without one the first samples of the first
        problems: whole parts of so many, since the short ones among those that began together end first, or without a
        part those before the first that is missing.
        """
        if self.rounds:
            return self.of_rounds(self.rounds)
        part, ended = min(at_once, max(1, int(len(self.problems) * PART))), self.missing(0)[0]
        return [[self._rows[problem.id, 0]] for problem in self.problems[: ended // part * part or ended]]

    def scores(self, samples: Samples, alike: Alike | None = None) -> PolicyScores:
        """Return the scores over some of the samples, with the cost of all of them."""
        rows = self._rows.values()
        tokens, seconds = sum(row.tokens for row in rows), sum(row.seconds for row in rows)
        cost = {"tokens": tokens, "seconds": seconds, "round_seconds": seconds * len(samples) / len(rows)}
        return scores(samples, alike).model_copy(update=cost)

    def add(self, number: int, group: Group, seconds: float) -> None:
        """Keep sample `number` of a problem, and have it written. seconds: since the sample before, of any policy."""
        extra = {"sample": number, "format": group.rewards[0].parts["format"], "seconds": round(seconds, 4)}
        row = EvaluatedSample.model_validate(sample_row(group, 0).content | extra)
        if self._file:
            self._unwritten.append(row)
            self._writer.put(self._write, self._file)  # with all that have come by then
        self._keep(row)

    async def flush(self) -> None:
        """Return once all samples are on disk. Raises the error of a write that has failed."""
        if self._file:
            await self._writer.in_turn(self._writer.check)

    def _write(self, file: Path) -> None:
        if rows := [self._unwritten.popleft() for _ in range(len(self._unwritten))]:
            file.parent.mkdir(parents=True, exist_ok=True)
            append_row(file, *rows)

    def _keep(self, row: EvaluatedSample) -> None:
        """Keep a sample, without the texts if they are in a file: no score needs them."""
        self._rows[row.problem, row.sample] = row.model_copy(
            update={"prompt": "", "response": ""} if self._file else {}
        )


async def complete_samples(
    attempts: Attempts,
    *policies: PolicySamples,
    at_once: int,
    seconds: float | None = None,
    on_sample: Callable[[], None] = lambda: None,
) -> None:
    """Add the missing samples of policies, `at_once` at a time, until all are complete or the time is over.

    Each is kept with the seconds since the sample before. A round begins as soon as an engine is free, not when the
    round before has ended. Wherever it ends, the complete rounds are an unbiased estimate.
    """
    missing = [
        (policy, number, index)
        for number in range(max(policy.n for policy in policies))
        for policy in policies
        for index in policy.missing(number)
    ]
    last_s = attempts.clock.now()

    def request(policy: PolicySamples, number: int, index: int) -> Request:
        problem, place = policy.problems[index], number * len(policy.problems) + index
        sampling = evaluation_sampling(attempts.config, f"evaluate/{problem.id}", number)
        return Request(place, problem, policy.adapter, sampling)

    def add(place: int, attempt: Attempt) -> None:
        nonlocal last_s
        policy, number, _ = missing[place]
        before_s, last_s = last_s, attempts.clock.now()
        policy.add(number, attempt.group, last_s - before_s)
        on_sample()

    try:
        await attempts.make_all((request(*sample) for sample in missing), at_once, add, seconds)
    finally:
        for policy in policies:
            await policy.flush()
