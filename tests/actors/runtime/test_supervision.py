import asyncio
import gc
import random
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.errors import ENDED_WITH_WEIGHTS, ActorDied
from microbudget_rl.actors.runtime.supervision import (
    DEATHS_IN_A_ROW,
    DEATHS_LATELY,
    FIRST_PAUSE_S,
    LATELY_S,
    Lost,
    RestartLimit,
    Supervised,
    WorkerPool,
)
from tests.virtual_time import VirtualClock, run_virtually

DEATH = ActorDied("rollout-0 died: it was killed by signal 9")


def test_first_death_costs_no_pause_and_those_in_a_row_more_and_more():
    limit = RestartLimit("rollout-0")
    assert limit.pause(0.0, DEATH) == 0.0
    assert limit.pause(1.0, DEATH) == FIRST_PAUSE_S
    with pytest.raises(ActorDied, match=f"rollout-0 died {DEATHS_IN_A_ROW} times in a row, .*signal 9"):
        limit.pause(2.0, DEATH)


@pytest.mark.parametrize(("pause_s", "forgotten"), [(60.0, False), (LATELY_S / (DEATHS_LATELY - 1), True)])
def test_an_answer_begins_a_new_row_and_too_many_of_late_end_it(pause_s: float, forgotten: bool):
    limit = RestartLimit("rollout-0")
    for time in range(DEATHS_LATELY - 1):
        assert limit.pause(pause_s * time, DEATH) == 0.0
        limit.answered()
    if forgotten:
        limit.pause(pause_s * (DEATHS_LATELY - 1), DEATH)
        return
    with pytest.raises(ActorDied, match=f"rollout-0 died {DEATHS_LATELY} times in 5 minutes, .*signal 9"):
        limit.pause(pause_s * (DEATHS_LATELY - 1), DEATH)


def test_a_crash_with_the_weights_is_one_with_those_just_before():
    limit, caused = RestartLimit("rollout-0"), ActorDied(f"rollout-0 died: {ENDED_WITH_WEIGHTS}")
    for time in range(DEATHS_LATELY - 1):
        assert limit.pause(60.0 * time, DEATH) == 0.0
        assert limit.pause(60.0 * time, caused) == 0.0
        assert limit.attempt.startswith("attempt 1 ")
        limit.answered()
    with pytest.raises(ActorDied, match=f"{DEATHS_LATELY} times in"):
        limit.pause(60.0 * DEATHS_LATELY, caused)


class Worker:
    def __init__(self, number: int) -> None:
        self.name = f"worker-{number}"
        self.number = number

    async def revive(self) -> None: ...

    async def close(self) -> None: ...


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(1, 9), st.integers(1, 50)), max_size=60))
def test_work_goes_to_the_first_of_those_with_the_least_load(count: int, jobs: list[tuple[int, int]]):
    async def scenario() -> None:
        pool = WorkerPool([Supervised(Worker(n), VirtualClock(), lambda *_: None) for n in range(count)])

        async def work(seconds: int, worker: Worker) -> int:
            await asyncio.sleep(seconds)
            return worker.number

        tasks = []
        for weight, seconds in jobs:
            before = [worker.load for worker in pool.workers]
            expected = before.index(min(before))
            tasks.append(asyncio.create_task(pool.run(partial(work, seconds), weight)))
            await asyncio.sleep(0)
            after = [worker.load for worker in pool.workers]
            assert after[expected] == before[expected] + weight
            await asyncio.sleep(random.Random(seconds).random() * 20)
        await asyncio.gather(*tasks)
        assert [worker.load for worker in pool.workers] == [0] * count

    run_virtually(scenario())


def test_restart_that_nobody_waits_for_is_no_unhandled_error():
    unhandled: list[dict[str, object]] = []

    class Dead(Worker):
        async def revive(self) -> None:
            raise ActorDied("a death of its own: the traceback of DEATH would hold the task")

    async def give_up() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        supervised = Supervised(Dead(0), VirtualClock(), lambda *_: None)
        with pytest.raises(Lost):
            await supervised.attempt(Dead.revive)
        await asyncio.sleep(10 * FIRST_PAUSE_S)
        assert supervised.given_up

    run_virtually(give_up())
    gc.collect()
    assert unhandled == []
