import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from microbudget_rl.actors.messages import Group, Problem, Status
from microbudget_rl.conf.schema import CustomRewardConfig, RewardConfig
from microbudget_rl.conf.schema.reward import RemoteConfig
from microbudget_rl.rewards.pool import VerifierPool, limits_of
from microbudget_rl.rewards.weighted_sum import RewardFunction
from tests.rewards.corpus import sample

GOLD = "x^2+2x+1"
NORMAL = r"\boxed{(x+1)^2}"
HANGS = r"\boxed{" + r"\sin(" * 50 + "x" + ")" * 50 + "}"
NUMBERS = count(1)


def normal() -> str:
    """Return a new right answer."""
    return rf"\boxed{{(x+1)^2 + {(n := next(NUMBERS))} - {n}}}"


def hanging() -> str:
    """Return a new answer whose algebra takes minutes."""
    return HANGS.replace("(x)", f"(x + {next(NUMBERS)})")


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(RewardFunction(RewardConfig(deadline_s=1.0)), workers=1) as pool:
        yield pool


def process_of(pool: VerifierPool) -> BaseProcess:
    """Return the process of a pool's only worker."""
    process = pool._verifiers.workers[0]._process
    assert process is not None
    return process


def running_in_session(session: int) -> list[int]:
    """Return the ids of a session's processes, without zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state != "Z":
                found.append(int(stat.parent.name))
    return found


def group(*responses: str) -> Group:
    return Group(3, Problem("id", "prompt", (1,), GOLD), None, tuple(map(sample, responses)))


def test_killed_idle_worker_is_replaced(pool: VerifierPool):
    pool.verify(GOLD, normal())
    process_of(pool).kill()
    assert pool.verify(GOLD, normal()).status is Status.CORRECT


def test_worker_killed_in_every_attempt_is_a_crash(pool: VerifierPool):
    statuses: list[Status] = []
    thread = threading.Thread(target=lambda: statuses.append(pool.verify(GOLD, hanging()).status))
    thread.start()
    while thread.is_alive():
        with contextlib.suppress(AssertionError, AttributeError, ValueError):  # none runs at the moment
            process_of(pool).kill()
        time.sleep(0.05)
    assert statuses == [Status.CRASH]
    assert pool.verify(GOLD, normal()).status is Status.CORRECT


def test_score_fills_in_rewards_in_order(pool: VerifierPool):
    asked = group(normal(), r"<think>?</think>\boxed{3}", "no answer", hanging())
    scored = asyncio.run(pool.score(asked))
    statuses = [reward.verdict.status for reward in scored.rewards]
    assert statuses == [Status.CORRECT, Status.WRONG, Status.UNPARSABLE, Status.TIMEOUT]
    assert [reward.total for reward in scored.rewards] == pytest.approx([1.0, 0.2, 0.0, 0.0])
    assert [reward.masked for reward in scored.rewards] == [False, False, False, True]
    assert scored.rewards[3].verdict.milliseconds >= 1000
    assert (scored.index, scored.problem, scored.samples) == (asked.index, asked.problem, asked.samples)


def test_a_long_stream_keeps_its_order(pool: VerifierPool):
    pairs = ((Problem("id", "", (), str(number)), sample(f"\\boxed{{{number - number % 2}}}")) for number in range(300))
    assert [reward.status for reward in pool.rewards_all(pairs)] == [Status.CORRECT, Status.WRONG] * 150


def test_a_cancelled_group_leaves_a_working_pool(pool: VerifierPool):
    async def cancel_one_then_score_another() -> Group:
        stuck = group(*[hanging() for _ in range(50)])
        task = asyncio.create_task(pool.score(stuck))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await asyncio.wait_for(pool.score(group(normal())), timeout=240)

    scored = asyncio.run(cancel_one_then_score_another())
    assert scored.rewards[0].verdict.status is Status.CORRECT


def test_golds_verify_against_themselves(pool: VerifierPool):
    golds = ["12", r"$\frac{1}{2}$", "(1,2]", r"\text{even}", "", "}{", "see above: {"]
    assert pool.check_golds((gold, "") for gold in golds) == [True, True, True, True, False, False, False]


ORPHAN = """
import sys, threading
from microbudget_rl.conf.schema import RewardConfig
from microbudget_rl.rewards.pool import VerifierPool
from microbudget_rl.rewards.weighted_sum import RewardFunction
pool = VerifierPool(RewardFunction(RewardConfig(deadline_s=1.0)), workers=2)
threading.Thread(target=pool.verify, args=["x^2+2x+1", sys.argv[1]], daemon=True).start()
print("ready", flush=True)
threading.Event().wait()
"""


def test_ctrl_c_in_the_terminal_does_not_interrupt_the_imports_of_the_fork_server(pool: VerifierPool):
    status = Path(f"/proc/{forkserver._forkserver._forkserver_pid}/status").read_text()  # type: ignore[attr-defined]
    assert int(status.partition("SigBlk:")[2].split()[0], 16) & 1 << (signal.SIGINT - 1)


def test_workers_share_all_calls_at_a_time():
    config, part = RewardConfig(remote=RemoteConfig(concurrency=16)), CustomRewardConfig("mine:judge", network=True)
    shares = [limits.remote for n in range(6) if (limits := limits_of(config, part, share=(n, 6))).remote]
    assert [share.concurrency for share in shares] == [3, 3, 3, 3, 2, 2]
    assert sum(share.per_minute for share in shares) == pytest.approx(config.remote.per_minute)


@pytest.mark.long
@pytest.mark.parametrize("response", [NORMAL, HANGS])
def test_no_process_outlives_a_killed_parent(response: str):
    command = [sys.executable, "-c", ORPHAN, response]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        assert len(running_in_session(parent.pid)) > 2
        parent.kill()
        end = time.monotonic() + 240
        while running_in_session(parent.pid) and time.monotonic() < end:
            time.sleep(0.02)
        assert not running_in_session(parent.pid)
