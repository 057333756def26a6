"""Verifies answers in processes that can be killed: an answer that hangs costs its deadline, not a worker."""

import asyncio
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from hashlib import blake2b
from itertools import islice, product
from typing import Any, Self, TypeVar

from actors.messages import Group, Problem, Reward, Sample, Status, Verdict
from conf.errors import BadInput
from conf.schema import RewardConfig
from rewards.functions import COMPARE, IMPORT, READABLE, REASONING_GYM, BadReward, number
from rewards.generators import EXACT, NUMBER, VALUE, same_text, same_values
from rewards.killable_worker import Crashed, Failed, Hung, Limits, NoResult, Worker
from rewards.verify import decide, verdict
from rewards.verify.text.extraction import BOX, boxed, extract
from rewards.verify.text.spelling import plain
from rewards.weighted_sum import RewardFunction

T = TypeVar("T")

VERDICTS_AHEAD = 64
"""Verifications requested at once, per worker, to keep it busy."""

REMEMBERED = 65_536
"""Number of results kept: samples of a problem often give the same answer, and a policy the same adversarial one."""

HANGS = object()
"""The remembered result of a call that computed until its deadline, as it would again."""

WALLS = ("raised PermissionError", "raised BlockingIOError")
"""Errors of functions that do something the walls forbid."""

MIB = 2**20

SHOWN = 120
"""Number of characters of a row and a response that an error message shows."""

TRIED = 8
"""Number of problems, first and last among them, with which a user's function is tried before a run."""


class VerifierPool:
    """Verifies answers in parallel. Callers wait for a free worker, so nothing queues up inside one.

    Use the pool as a context manager, or close it. Raises BadInput for a user's function that cannot be imported. A
    script that makes a pool must guard its `__main__`, as always with multiprocessing.
    """

    def __init__(self, reward: RewardFunction, workers: int) -> None:
        config = reward.config
        self._reward = reward
        self._ahead = VERDICTS_AHEAD * workers
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="verdict")
        self._workers = list(self._threads.map(Worker, [limits_of(config)] * workers))
        self._custom: list[Worker] = []  # for the user's functions, which never share a process with the verifier
        if config.custom:
            theirs = limits_of(config, *(part.function for part in config.custom))
            try:
                self._custom = list(self._threads.map(worker_for_functions, [theirs] * workers))
            except BadInput:
                self._close()
                raise
        self._free: dict[bool, queue.SimpleQueue[Worker]] = {True: queue.SimpleQueue(), False: queue.SimpleQueue()}
        for worker in (*self._workers, *self._custom):
            self._free[worker in self._custom].put(worker)
        self._known: dict[bytes, Any] = {}  # the oldest first
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    @property
    def absent_walls(self) -> list[str]:
        """Walls of `rewards.isolation` that this machine's kernel lacks, each a sentence."""
        return self._workers[0].absent

    @property
    def health(self) -> dict[str, int]:
        """Counts since the start: worker calls, remembered results, hung and crashed calls, workers replaced."""
        counts = {name: self._counts[name] for name in ("calls", "remembered", "hung", "crashed")}
        return {**counts, "restarts": sum(worker.restarts for worker in (*self._workers, *self._custom))}

    def verify(self, gold: str, response: str, grader: str = "") -> Verdict:
        """Verify one response. Blocks; safe from any thread. grader: see `actors.messages.Problem`."""
        start = time.perf_counter()
        answer = extract(response, self._reward.config.after_thinking)
        status = self._verify_entry(gold, answer, grader) if grader else decide(gold, answer, self._compare)
        return verdict(status, answer, start)

    def rewards_all(self, answered: Iterable[tuple[Problem, Sample]]) -> Iterator[Reward]:
        """Reward samples, in order."""
        return self._map(self._reward_of, answered)

    async def score(self, group: Group) -> Group:
        """Return the group with one reward per sample. If cancelled, running verifications end by their deadline."""
        futures = [self._threads.submit(self._reward_of, group.problem, sample) for sample in group.samples]
        return replace(group, rewards=tuple(await asyncio.gather(*map(asyncio.wrap_future, futures))))

    def check_golds(self, golds: Iterable[tuple[str, str]]) -> list[bool]:
        r"""Return for each (gold answer, grader) whether it parses and verifies against its own `\boxed{}` form."""
        return list(self._map(self._check_gold, golds))

    def _map(self, work: Callable[..., T], items: Iterable[tuple[Any, ...]]) -> Iterator[T]:
        """Do work on items in parallel, and yield its results in order."""
        rest = iter(items)
        while ahead := list(islice(rest, self._ahead)):
            yield from self._threads.map(lambda item: work(*item), ahead)

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _reward_of(self, problem: Problem, sample: Sample) -> Reward:
        verdict = self.verify(problem.gold, sample.text, problem.grader)
        custom: dict[str, float] = {}
        failure, complaint = None, ""
        for part in self._reward.config.custom:
            try:
                custom[part.name] = self.call(part.function, problem, sample.text)
            except NoResult as error:
                failure = error.status
                complaint = f"'{part.function}' {error}, on problem {problem.id}"
                custom[part.name] = 0.0
        return self._reward(sample, verdict, custom, failure, complaint)

    def call(self, function: str, problem: Problem, response: str) -> float:
        """Call a user's function. Raises NoResult, whose text continues a sentence after its name."""
        try:
            value = self._call(IMPORT + function, problem.prompt, response, problem.gold, problem.columns)
            return number(value)  # also here: the function may have written a reply to the pipe itself
        except BadReward as error:
            raise Failed(str(error)) from error

    def _compare(self, gold: str, answer: str) -> Status:
        try:
            return Status(self._call(COMPARE, gold, answer))
        except NoResult as error:
            return error.status
        except ValueError:
            return Status.CRASH

    def _verify_entry(self, gold: str, answer: str | None, grader: str) -> Status:
        """Verify an answer to an entry of a generator by the rules of `rewards.generators`."""
        given = (answer or "").strip().strip("$").strip()
        if not given:
            return Status.UNPARSABLE
        if gold and (same_text(gold, given) or (grader == VALUE and same_values(gold, given))):
            return Status.CORRECT
        if grader == EXACT and NUMBER.fullmatch(gold):
            return decide(gold, given, self._compare)
        if grader in (EXACT, VALUE):
            return Status.WRONG
        try:
            return Status.CORRECT if self._call(REASONING_GYM, grader, given) is True else Status.WRONG
        except NoResult as error:
            return error.status

    def _check_gold(self, gold: str, grader: str) -> bool:
        if grader:
            if not gold:
                return grader not in (EXACT, VALUE)  # only the library knows the right answers
            return self.verify(gold, f"{BOX}{{{gold}}}", grader).status is Status.CORRECT
        answer = plain(gold)
        if answer.removeprefix("-").isdecimal():
            return True
        if not answer or boxed(f"{BOX}{{{answer}}}") != answer:
            return False
        try:
            return self._call(READABLE, answer)
        except NoResult:
            return False

    def _call(self, name: str, *arguments: str) -> Any:
        """Run a function in a free worker and remember its result, except a user's. Raises NoResult."""
        key = blake2b(repr((name, *arguments)).encode(), digest_size=16).digest()
        remember = not name.startswith(IMPORT)
        with self._lock:
            if key in self._known:
                self._counts["remembered"] += 1
                if self._known[key] is HANGS:
                    raise Hung(busy=True)
                return self._known[key]
            self._counts["calls"] += 1
        free = self._free[name.startswith(IMPORT)]
        worker = free.get()
        try:
            result = worker.run(name, *arguments)
        except NoResult as error:
            with self._lock:
                self._counts["hung" if isinstance(error, Hung) else "crashed"] += 1
            if isinstance(error, Hung) and error.busy and remember:
                self._remember(key, HANGS)
            raise
        finally:
            free.put(worker)
        if remember:
            self._remember(key, result)
        return result

    def _remember(self, key: bytes, result: Any) -> None:
        with self._lock:
            self._known[key] = result
            if len(self._known) > REMEMBERED:
                del self._known[next(iter(self._known))]

    def _close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        for worker in (*self._workers, *self._custom):
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


def limits_of(config: RewardConfig, *functions: str) -> Limits:
    """Return the limits of a worker for a user's functions or, without one, for the verifier."""
    enclosed = config.sandbox or not functions
    return Limits(config.deadline_s, config.memory_mib * MIB, enclosed, tuple(IMPORT + name for name in functions))


def worker_for_functions(limits: Limits) -> Worker:
    """Start a worker for the user's functions. Raises BadInput for one that it cannot import or call as a reward."""
    try:
        return Worker(limits)
    except Failed as error:
        raise BadInput(str(error)) from None
    except (EOFError, OSError, Crashed) as error:
        names = ", ".join(name.removeprefix(IMPORT) for name in limits.functions)
        ended = f"cannot be imported, which ends its worker process: raise reward.memory_mib={limits.memory // MIB}, or"
        what = f"{error}:" if isinstance(error, Crashed) else ended
        raise BadInput(f"reward.custom: '{names}' {what} let its module do less at import") from error


@cache
def _check_import(limits: Limits) -> None:
    worker_for_functions(limits).close()


def check_functions(reward: RewardConfig) -> None:
    """Raise BadInput for a user's function that a worker cannot import, or call as a part of the reward."""
    for part in reward.custom:
        _check_import(limits_of(reward, part.function))


def check_reward_functions(reward: RewardFunction, problems: Sequence[Problem]) -> list[str]:
    """Call the user's functions with the gold answers of TRIED problems. Return the walls that are absent here.

    Raises BadInput for a function that does not return a reward, and says what it did instead.
    """
    chosen = sorted({number * (len(problems) - 1) // (TRIED - 1) for number in range(TRIED if problems else 0)})
    with VerifierPool(reward, workers=1) as pool:
        for part, problem in product(reward.config.custom, map(problems.__getitem__, chosen)):
            response = f"{BOX}{{{problem.gold}}}"
            try:
                pool.call(part.function, problem, response)
            except NoResult as error:
                where = f"(response {response[-SHOWN:]!r}, row {problem.columns[:SHOWN]})"
                raise BadInput(f"reward.custom: '{part.function}' {error} {where}{_remedy(error)}") from error
        return pool.absent_walls


def _remedy(error: NoResult) -> str:
    """Return the remedy for an error of a user's function, if its text has none."""
    if isinstance(error, Hung):
        return ": raise the limit, or make it faster"
    if not str(error).startswith(WALLS):
        return ""
    return (
        ": functions run without network, other processes or writable files; do such work at import, or "
        "give reward.sandbox=false if you would run code that a model writes"
    )
