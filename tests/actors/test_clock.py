import asyncio
import itertools
import threading
import time

import pytest

from microbudget_rl.actors import clock
from microbudget_rl.actors.clock import in_thread, within


@pytest.mark.parametrize("seconds", [1.0, None])
def test_answer_in_time_is_returned_and_its_error_raised(seconds: float | None):
    async def complain() -> None:
        raise KeyError("a")

    assert asyncio.run(within(seconds, asyncio.sleep(0.0, "answer"))) == "answer"
    with pytest.raises(KeyError):
        asyncio.run(within(seconds, complain()))
    assert in_thread(seconds, lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        in_thread(seconds, lambda: 1 / 0)


async def test_work_that_takes_longer_is_cancelled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clock, "STEP_S", 0.01)

    work = asyncio.ensure_future(asyncio.sleep(600))
    with pytest.raises(TimeoutError):
        await within(0.03, work)
    await asyncio.wait({work})
    assert work.cancelled()


def test_time_in_which_this_process_was_stopped_does_not_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clock, "STEP_S", 0.02)

    async def scenario(deadline_s: float) -> str:
        asyncio.get_running_loop().call_later(0.01, time.sleep, 0.3)  # nothing in this process happens meanwhile
        return await within(deadline_s, asyncio.sleep(0.32, "answer"))

    assert asyncio.run(scenario(0.1)) == "answer"
    assert asyncio.run(scenario(0.02)) == "answer"  # after a stop there is always one more step


def test_thread_that_never_ends_is_left():
    forever = threading.Event()
    for setting, said in (("", r"within 0\.02 s"), ("patience_s", r"patience_s=0\.02")):
        with pytest.raises(TimeoutError, match=said):
            in_thread(0.02, forever.wait, setting)
    moves = itertools.chain(range(9), itertools.repeat(9))
    with pytest.raises(TimeoutError):
        in_thread(0.02, forever.wait, moved=lambda: next(moves))
    assert next(moves) == 9  # it was left once nothing moved
    forever.set()
