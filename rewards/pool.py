"""Verdicts from killable worker processes: a hung or hostile answer costs its deadline, never a worker."""

import asyncio
import queue
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar

from actors.messages import Group, Problem, Reward, Sample, Status, Verdict
from rewards.functions import find
from rewards.graders import COMPARE, IMPORT, READABLE, REASONING_GYM
from rewards.problems.sources import EXACT
from rewards.reward import Recipe
from rewards.verify import decide, extract, verdict
from rewards.verify.answers import BOX, boxed, plain
from rewards.verify.matching import INTEGER, settle
from rewards.worker import Died, Failed, Hung, Judge, Limits

VERDICTS_AHEAD = 64
"""Verdicts requested ahead of the one being read, per worker: enough to keep it busy, small against any memory."""

REMEMBERED = 65_536
"""Results kept: the samples of a problem often give the same answer, and a policy the same hostile one."""

HANGS = object()
"""Remembered of a call that computed until its deadline: it would do so again."""

MIB = 2**20

T = TypeVar("T")


class VerifierPool:
    """Judges behind one door. Callers wait for a free one, so nothing queues up in the workers.

    workers: how many; `config.workers` is a wish that placement may have the last word on. Use the pool as a context
    manager, or close it. Raises BadInput for a user's function that cannot be imported. As always with
    multiprocessing, a script that makes one guards its `__main__`.
    """

    def __init__(self, recipe: Recipe, workers: int) -> None:
        config = recipe.config
        for part in config.custom:
            find("reward.custom", part.function)
        self._recipe = recipe
        self._ahead = VERDICTS_AHEAD * workers
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="verdict")
        limits = Limits(config.deadline_s, config.memory_mib * MIB)
        self._judges = list(self._threads.map(Judge, [limits] * workers))
        self._free: queue.SimpleQueue[Judge] = queue.SimpleQueue()
        for judge in self._judges:
            self._free.put(judge)
        self._known: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    @property
    def health(self) -> dict[str, int]:
        """Since the start: calls of workers, results remembered, hung and crashed calls, workers replaced."""
        counts = {name: self._counts[name] for name in ("calls", "remembered", "hung", "crashed")}
        return {**counts, "restarts": sum(judge.restarts for judge in self._judges)}

    def judge(self, gold: str, response: str, grader: str = "") -> Verdict:
        """The verdict on one response; blocks while it is found. Safe from any thread. grader: see Problem."""
        start = time.perf_counter()
        answer = extract(response, self._recipe.config.after_thinking)
        status = self._grade(gold, answer, grader) if grader else decide(gold, answer, self._compare)
        return verdict(status, answer, start)

    def judge_all(self, pairs: Iterable[tuple[str, str]]) -> Iterator[Verdict]:
        """Verdicts on (gold, response) pairs, in order."""
        return self._in_order(self.judge, pairs)

    def reward_all(self, pairs: Iterable[tuple[Problem, Sample]]) -> Iterator[Reward]:
        """Rewards of samples, in order."""
        return self._in_order(self._earn, pairs)

    def _in_order(self, work: Callable[..., T], pairs: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        pending: deque[Future[T]] = deque()
        for pair in pairs:
            pending.append(self._threads.submit(work, *pair))
            if len(pending) > self._ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def sound(self, golds: Iterable[tuple[str, str]]) -> list[bool]:
        r"""Whether each (gold answer, grader) is one: it parses, and verifies against its own `\boxed{}` form."""
        return list(self._threads.map(lambda pair: self._sound(*pair), golds))

    async def score(self, group: Group) -> Group:
        """The group with one reward per sample. When cancelled, running verdicts end by their deadline, unread."""
        futures = [self._threads.submit(self._earn, group.problem, sample) for sample in group.samples]
        return replace(group, rewards=tuple(await asyncio.gather(*map(asyncio.wrap_future, futures))))

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _earn(self, problem: Problem, sample: Sample) -> Reward:
        verdict = self.judge(problem.gold, sample.text, problem.grader)
        custom: dict[str, float] = {}
        for part in self._recipe.config.custom:
            try:
                value = self._call(IMPORT + part.function, problem.prompt, sample.text, problem.gold)
                custom[part.name] = float(value)
            except (Hung, Died, Failed, TypeError, ValueError) as error:
                status = Status.TIMEOUT if isinstance(error, Hung) else Status.CRASH
                verdict = replace(verdict, score=0.0, status=status)
                custom[part.name] = 0.0
        return self._recipe.reward(sample, verdict, custom)

    def _compare(self, gold: str, answer: str) -> Status:
        try:
            return self._call(COMPARE, gold, answer)
        except Hung:
            return Status.TIMEOUT
        except (Died, Failed):
            return Status.CRASH

    def _grade(self, gold: str, answer: str | None, grader: str) -> Status:
        """By a generator's own scoring; integers and its very own answer need none."""
        given = (answer or "").strip().strip("$").strip()
        if not given:
            return Status.UNPARSABLE
        if gold and (given == gold or (INTEGER.fullmatch(gold) and settle(gold, plain(given)) is Status.CORRECT)):
            return Status.CORRECT
        if grader == EXACT:
            return Status.WRONG
        try:
            return Status.CORRECT if self._call(REASONING_GYM, grader, given) else Status.WRONG
        except Hung:
            return Status.TIMEOUT
        except (Died, Failed):
            return Status.CRASH

    def _call(self, name: str, *arguments: str) -> Any:
        """The result of a grader, which is remembered unless it is the user's. Raises Hung, Died or Failed."""
        key = (name, *arguments)
        remember = not name.startswith(IMPORT)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                self._counts["remembered"] += 1
                known = self._known[key]
                if known is HANGS:
                    raise Hung(busy=True)
                return known
            self._counts["calls"] += 1
        judge = self._free.get()
        try:
            result = judge.run(name, *arguments)
        except Hung as hung:
            self._count("hung")
            if hung.busy and remember:
                self._remember(key, HANGS)
            raise
        except (Died, Failed):
            self._count("crashed")
            raise
        finally:
            self._free.put(judge)
        if remember:
            self._remember(key, result)
        return result

    def _remember(self, key: Hashable, result: Any) -> None:
        with self._lock:
            self._known[key] = result
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)

    def _count(self, name: str) -> None:
        with self._lock:
            self._counts[name] += 1

    def _sound(self, gold: str, grader: str) -> bool:
        if grader:
            return not gold or self._grade(gold, gold, grader) is Status.CORRECT
        answer = plain(gold)
        if INTEGER.fullmatch(answer):
            return True
        if not answer or boxed(f"{BOX}{{{answer}}}") != answer:
            return False
        try:
            return self._call(READABLE, answer)
        except (Hung, Died, Failed):
            return False

    def _close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for judge in self._judges:
            judge.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
