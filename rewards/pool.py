"""Verifies answers in processes that can be killed: an answer that hangs costs its deadline, not a worker."""

import asyncio
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from hashlib import blake2b
from itertools import chain, islice, product
from typing import Any, Self, TypeVar

from microbudget_rl.actors.messages import Complaint, Group, Problem, Reward, Sample, Status, Verdict
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import CustomRewardConfig, RewardConfig
from microbudget_rl.rewards import user_function
from microbudget_rl.rewards.generators import EXACT, NUMBER, same_text, score_entry
from microbudget_rl.rewards.killable_worker import Crashed, Failed, Hung, KillableWorker, Limits, NoResult
from microbudget_rl.rewards.verify import decide, verdict
from microbudget_rl.rewards.verify.comparison import compare, readable
from microbudget_rl.rewards.verify.text.extraction import BOX, boxed, extract
from microbudget_rl.rewards.verify.text.spelling import plain
from microbudget_rl.rewards.weighted_sum import RewardFunction

T = TypeVar("T")

VERDICTS_AHEAD = 64
"""Verifications requested at once, per worker, to keep it busy."""

REMEMBERED = 65_536
"""Number of results kept: samples of a problem often give the same answer, and a policy the same adversarial one."""

HANGS = object()
"""The remembered result of a call that computed until its deadline, as it would again."""

MIB = 2**20

SHOWN = 120
"""Number of characters of a row and a response that an error message shows."""

PAIR = 2
"""Responses per problem in such a trial: a function of a whole group may compare two of them."""

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
        self._verifiers = WorkerSet(KillableWorker, [limits_of(config)] * workers)
        self._theirs: dict[str, WorkerSet] = {}  # by function: those of users never share a process with the verifier
        try:
            for network in (False, True):
                parts = [part for part in config.custom if part.network is network]
                if parts:
                    count = min(workers, config.remote.concurrency) if network else workers
                    limits = [limits_of(config, *parts, share=(number, count)) for number in range(count)]
                    theirs = WorkerSet(worker_for_functions, limits)
                    self._theirs |= dict.fromkeys((part.function for part in parts), theirs)
        except BadInput:
            self._close()
            raise
        self._known: dict[bytes, Any] = {}  # the oldest first
        self._lock = threading.Lock()

    @property
    def absent_walls(self) -> list[str]:
        """Walls of `rewards.isolation` that this machine's kernel lacks, each a sentence."""
        return self._verifiers.workers[0].absent

    @property
    def _ranks(self) -> bool:
        """Whether a part of the reward is of all responses to a problem."""
        names = [part.function for part in self._reward.config.custom if part.weight]
        return any(self._theirs[name].batched.get(name, False) for name in names)

    def verify(self, gold: str, response: str, grader: str = "") -> Verdict:
        """Verify one response. Blocks; safe from any thread. grader: see `actors.messages.Problem`."""
        start = time.perf_counter()
        answer = extract(response, self._reward.config.after_thinking)
        status = self._verify_entry(gold, answer, grader) if grader else decide(gold, answer, self._compare)
        return verdict(status, answer, start)

    def rewards_all(self, answered: Iterable[tuple[Problem, Sample]]) -> Iterator[Reward]:
        """Reward samples, in order, each as a group of its own."""
        rest = iter(answered)
        with asyncio.Runner() as runner:
            while ahead := [self._rewards(problem, [sample]) for problem, sample in islice(rest, self._ahead)]:
                yield from chain.from_iterable(runner.run(together(ahead)))

    async def score(self, group: Group) -> Group:
        """Return the group with one reward per sample. If cancelled, running verifications end by their deadline."""
        return replace(group, rewards=tuple(await self._rewards(group.problem, group.samples)))

    def check_golds(self, golds: Iterable[tuple[str, str]]) -> list[bool]:
        r"""Return for each (gold answer, grader) whether it parses and verifies against its own `\boxed{}` form."""
        return list(self._verifiers.threads.map(lambda item: self._check_gold(*item), golds))

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    async def _rewards(self, problem: Problem, samples: Sequence[Sample]) -> list[Reward]:
        """Reward the samples of a problem; verifier and users' functions work at the same time."""
        texts, custom, verifier = [sample.text for sample in samples], self._reward.config.custom, self._verifiers
        verdicts, scores = await asyncio.gather(
            together(verifier.do(self.verify, problem.gold, text, problem.grader) for text in texts),
            together(self.scores(part.function, problem, texts) for part in custom),
        )
        partial, rewards = self._ranks and len(texts) == 1, list[Reward]()
        for sample, judged, *values in zip(samples, verdicts, *scores, strict=True):
            parts, failure, complaints = dict[str, float](), None, list[Complaint]()
            for part, value in zip(custom, values, strict=True):
                if isinstance(value, NoResult):
                    failure = value.status
                    complaints.append(Complaint(part.function, str(value)))
                else:
                    parts[part.name] = value
            reward = self._reward(sample, judged, parts, failure, tuple(complaints))
            rewards.append(replace(reward, partial=partial))
        return rewards

    async def scores(self, function: str, problem: Problem, responses: Sequence[str]) -> list[float | NoResult]:
        """Call a user's function for the responses to a problem. A NoResult continues a sentence after its name."""
        theirs = self._theirs[function]
        parts = [responses] if function in theirs.batched else [[text] for text in responses]
        calls = (theirs.do(self._attempt, theirs, function, problem, part) for part in parts)
        return [*chain.from_iterable(await together(calls))]

    def _attempt(
        self, theirs: "WorkerSet", function: str, problem: Problem, responses: Sequence[str]
    ) -> list[float | NoResult]:
        arguments = problem.prompt, [*responses], problem.gold, problem.columns
        try:
            results = theirs.run(user_function.call, function, *arguments)
            return [checked(results[place]) for place in range(len(responses))]
        except NoResult as error:
            return [error] * len(responses)
        except (TypeError, LookupError):  # the function has written a reply to the pipe itself
            return [Failed("has spoilt its reply")] * len(responses)

    def _compare(self, gold: str, answer: str) -> Status:
        try:
            return Status(self._call(compared, gold, answer))
        except NoResult as error:
            return error.status
        except ValueError:
            return Status.CRASH

    def _verify_entry(self, gold: str, answer: str | None, grader: str) -> Status:
        """Verify an answer to an entry of a generator by the rules of `rewards.generators`."""
        given = (answer or "").strip().strip("$").strip()
        if not given:
            return Status.UNPARSABLE
        if gold and same_text(gold, given):
            return Status.CORRECT
        if grader == EXACT:
            return decide(gold, given, self._compare) if NUMBER.fullmatch(gold) else Status.WRONG
        try:
            full = self._call(score_entry, grader, given, needs="reasoning_gym") is True
            return Status.CORRECT if full else Status.WRONG
        except NoResult as error:
            return error.status

    def _check_gold(self, gold: str, grader: str) -> bool:
        if grader:
            if not gold:
                return grader != EXACT  # only the library knows the right answers
            return self.verify(gold, f"{BOX}{{{gold}}}", grader).status is Status.CORRECT
        answer = plain(gold)
        if answer.removeprefix("-").isdecimal():
            return True
        if not answer or boxed(f"{BOX}{{{answer}}}") != answer:
            return False
        try:
            return self._call(readable, answer)
        except NoResult:
            return False

    def _call(self, function: Callable[..., Any], *arguments: Any, **needs: str) -> Any:
        """Call a function in a free worker of the verifier, and remember its result. Raises NoResult."""
        key = blake2b(repr((function.__name__, *arguments)).encode(), digest_size=16).digest()
        with self._lock:
            result = self._known.get(key)
        if result is None:
            try:
                result = self._verifiers.run(function, *arguments, **needs)
            except Hung as error:
                if not error.busy:
                    raise
                result = HANGS
            with self._lock:
                self._known[key] = result
                if len(self._known) > REMEMBERED:
                    del self._known[next(iter(self._known))]
        if result is HANGS:
            raise Hung(busy=True)
        return result

    def _close(self) -> None:
        for workers in {self._verifiers, *self._theirs.values()}:
            workers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()


class WorkerSet:
    """Workers of the same functions, and a thread for each. batched: see `KillableWorker`."""

    def __init__(self, start: Callable[[Limits], KillableWorker], limits: Sequence[Limits]) -> None:
        self.threads = ThreadPoolExecutor(len(limits), thread_name_prefix="verdict")
        self.workers = list(self.threads.map(start, limits))
        self.batched = self.workers[0].batched
        self.free: queue.SimpleQueue[KillableWorker] = queue.SimpleQueue()
        for worker in self.workers:
            self.free.put(worker)

    async def do(self, work: Callable[..., T], *arguments: Any) -> T:
        """Do some work in a thread."""
        return await asyncio.wrap_future(self.threads.submit(work, *arguments))

    def run(self, function: Callable[..., Any], *arguments: Any, **needs: str) -> Any:
        """Call a function in a free worker. needs: see `KillableWorker.run`."""
        worker = self.free.get()
        try:
            return worker.run(function, *arguments, **needs)
        finally:
            self.free.put(worker)

    def close(self) -> None:
        self.threads.shutdown(cancel_futures=True)
        for worker in self.workers:
            worker.close()


async def together(work: Iterable[Awaitable[T]]) -> list[T]:
    return await asyncio.gather(*work)


def compared(gold: str, answer: str) -> Status:
    """Return the status of an answer: wrong if a library raises, so that no policy learns to make it raise."""
    try:
        return compare(gold, answer)
    except MemoryError:
        raise
    except Exception:
        return Status.WRONG


def checked(result: Any) -> float | NoResult:
    """Return a reward from a worker's reply, which a user's function may have written itself, or why it is none."""
    if result is None:
        return Hung(busy=False, limit="reward.remote.deadline_s")
    try:
        return Failed(result) if isinstance(result, str) else user_function.number(result)
    except user_function.BadReward as error:
        return Failed(str(error))


def limits_of(config: RewardConfig, *parts: CustomRewardConfig, share: tuple[int, int] = (0, 1)) -> Limits:
    """Return the limits of a worker for users' functions, all with the network or none, or without one for the
    verifier. share: the worker's number among so many that share the limits of calls.
    """
    remote = None
    if any(part.network for part in parts):
        number, count = share
        at_once = (config.remote.concurrency + count - 1 - number) // count  # the first ones have the remainder
        remote = replace(config.remote, concurrency=at_once, per_minute=config.remote.per_minute / count)
    functions = tuple(part.function for part in parts)
    return Limits(config.deadline_s, config.memory_mib * MIB, config.sandbox or not parts, functions, remote)


def worker_for_functions(limits: Limits) -> KillableWorker:
    """Start a worker for the user's functions. Raises BadInput for one that it cannot import or call as a reward."""
    try:
        return KillableWorker(limits)
    except Failed as error:
        raise BadInput(str(error)) from None
    except (EOFError, OSError, Crashed) as error:
        cause = str(error) if isinstance(error, Crashed) else "ended its worker process at import"
        raise BadInput(
            f"reward.custom: '{', '.join(limits.functions)}' {cause}: let its module do less at import, or raise "
            f"reward.memory_mib={limits.memory // MIB}"
        ) from error


@cache
def _check_import(limits: Limits) -> None:
    worker_for_functions(limits).close()


def check_functions(reward: RewardConfig) -> None:
    """Raise BadInput for a user's function that a worker cannot import, or call as a part of the reward."""
    for part in reward.custom:
        _check_import(limits_of(reward, part))


def check_reward_functions(reward: RewardFunction, problems: Sequence[Problem]) -> list[str]:
    """Try the user's functions on gold answers; return absent walls. Raises BadInput for what is no reward."""
    chosen = sorted({number * (len(problems) - 1) // (TRIED - 1) for number in range(TRIED if problems else 0)})
    with VerifierPool(reward, workers=1) as pool:
        for part, problem in product(reward.config.custom, map(problems.__getitem__, chosen)):
            response = f"{BOX}{{{problem.gold}}}"
            for error in asyncio.run(pool.scores(part.function, problem, [response] * PAIR)):
                if isinstance(error, NoResult):
                    where = f"(response {response[-SHOWN:]!r}, row {problem.columns[:SHOWN]})"
                    raise BadInput(f"reward.custom: '{part.function}' {error} {where}") from error
        return pool.absent_walls
