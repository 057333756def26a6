"""Verdicts from killable worker processes: a hung or hostile answer costs its deadline, never a worker."""

import asyncio
import contextlib
import multiprocessing
import queue
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Self

from actors.messages import Group, Status, Verdict
from conf.schema import RewardConfig
from rewards.recipe import LengthPenalty, reward
from rewards.verify import compare, verify
from rewards.verify.answers import BOX, boxed, plain
from rewards.verify.matching import INTEGER

ATTEMPTS = 2
"""A worker that dies under an answer may have died of something else (the OOM killer, a stray signal): one retry."""

ORPHAN_S = 1.0
"""Seconds after its deadline at which a stuck worker ends itself: later than its judge would have killed it."""

VERDICTS_AHEAD = 64
"""Verdicts requested ahead of the one being read, per worker: enough to keep it busy, small against any memory."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["rewards.verify"])


def work(pipe: Connection, deadline_s: float) -> None:
    """A worker process: says that it is ready, then answers each (gold, answer) with a status.

    It ends with the process that owns it: idle, by reading the end of the pipe; stuck in an answer, by an alarm whose
    default action needs neither parent nor interpreter (the power of two large integers does not give back the latter).
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    compare(r"\frac{1}{2}", "0.5")  # pays math-verify's first-use costs outside any deadline
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send(None)
        while True:
            gold, answer = pipe.recv()
            signal.setitimer(signal.ITIMER_REAL, deadline_s + ORPHAN_S)
            status = compare(gold, answer)
            signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send(status)


class Judge:
    """One worker process, replaced when an answer takes it down. For one thread at a time.

    The fork server imports math-verify once, so that a worker starts in a fraction of a second.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._process: BaseProcess | None = None
        self._start()

    def compare(self, gold: str, answer: str) -> Status:
        """`rewards.verify.compare` within the deadline; TIMEOUT beyond it, CRASH if the worker dies each time."""
        for _ in range(ATTEMPTS):
            try:
                if self._process is None:
                    self._start()
                self._pipe.send((gold, answer))
                if self._pipe.poll(self._deadline_s):
                    return self._pipe.recv()
            except (EOFError, OSError):
                self.close()
                continue
            self.close()
            return Status.TIMEOUT
        return Status.CRASH

    def close(self) -> None:
        """End the worker; the next answer gets a new one."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None
            self._pipe.close()

    def _start(self) -> None:
        self._pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=work, args=(theirs, self._deadline_s), name="judge", daemon=True)
        self._process.start()
        theirs.close()
        self._pipe.recv()


class VerifierPool:
    """Judges behind one door. Callers wait for a free one, so nothing queues up in the workers.

    workers: how many; `config.workers` is a wish that placement may have the last word on. penalty: on long responses,
    if any. Use the pool as a context manager, or close it. As always with multiprocessing, a script that makes one
    guards its `__main__`.
    """

    def __init__(self, config: RewardConfig, workers: int, penalty: LengthPenalty | None = None) -> None:
        self._penalty = penalty
        self._ahead = VERDICTS_AHEAD * workers
        self._config = config
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="verdict")
        self._judges = list(self._threads.map(Judge, [config.deadline_s] * workers))
        self._free: queue.SimpleQueue[Judge] = queue.SimpleQueue()
        for judge in self._judges:
            self._free.put(judge)

    def judge(self, gold: str, response: str) -> Verdict:
        """The verdict on one response; blocks while it is found. Safe from any thread."""
        return verify(gold, response, self._compare)

    def judge_all(self, pairs: Iterable[tuple[str, str]]) -> Iterator[Verdict]:
        """Verdicts on (gold, response) pairs, in order."""
        pending: deque[Future[Verdict]] = deque()
        for gold, response in pairs:
            pending.append(self._threads.submit(self.judge, gold, response))
            if len(pending) > self._ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def sound(self, golds: Iterable[str]) -> list[bool]:
        r"""Whether each gold answer is one: it parses, and verifies against its own `\boxed{}` form."""
        return list(self._threads.map(self._sound, golds))

    async def score(self, group: Group) -> Group:
        """The group with one reward per sample. When cancelled, running verdicts end by their deadline, unread."""
        futures = [self._threads.submit(self.judge, group.problem.gold, sample.text) for sample in group.samples]
        verdicts = await asyncio.gather(*map(asyncio.wrap_future, futures))
        rewards = (
            reward(sample.text, verdict, self._config, self._penalty(len(sample.token_ids)) if self._penalty else None)
            for sample, verdict in zip(group.samples, verdicts, strict=True)
        )
        return replace(group, rewards=tuple(rewards))

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _compare(self, gold: str, answer: str) -> Status:
        judge = self._free.get()
        try:
            return judge.compare(gold, answer)
        finally:
            self._free.put(judge)

    def _sound(self, gold: str) -> bool:
        answer = plain(gold)
        if INTEGER.fullmatch(answer):
            return True
        return boxed(f"{BOX}{{{answer}}}") == answer != "" and self._compare(answer, answer) is Status.CORRECT

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
