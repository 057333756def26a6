import asyncio
from types import SimpleNamespace

import pytest

from microbudget_rl.conf.schema.reward import RemoteConfig
from microbudget_rl.rewards.user_function import BadReward, Calls, most_seconds
from tests.virtual_time import run_virtually


class Refused(Exception):
    def __init__(self, status: int, **headers: str) -> None:
        self.response = SimpleNamespace(status_code=status, headers=headers)


def made(
    limits: RemoteConfig, *, count: int = 1, seconds: float = 2.0, errors: list[Exception]
) -> tuple[list[float], float]:
    """Make calls, of which the first attempts fail. Return when each attempt began, and when all were over."""
    starts, left = list[float](), [*errors]

    async def call() -> None:
        starts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(seconds)
        if left:
            raise left.pop(0)

    async def all_of_them() -> float:
        calls = Calls(limits)
        for result in await asyncio.gather(*(calls.run(call) for _ in range(count)), return_exceptions=True):
            if result:
                starts.append(-1.0)
        return asyncio.get_running_loop().time()

    return starts, run_virtually(all_of_them())


@pytest.mark.parametrize(
    ("limits", "starts"),
    [
        (RemoteConfig(concurrency=3), [0, 0, 0, 2, 2, 2, 4]),
        (RemoteConfig(per_minute=30), [0, 2, 4, 6, 8, 10, 12]),
    ],
)
def test_calls_keep_to_their_number(limits: RemoteConfig, starts: list[float]):
    found, end = made(limits, count=7, errors=[])
    assert found == pytest.approx(starts, abs=0.1)
    assert end <= most_seconds(limits, 7)


@pytest.mark.parametrize(
    ("errors", "starts"),
    [
        ([Refused(503), ConnectionError()], [0, 1, 3]),
        ([Refused(429, **{"retry-after": "9"})], [0, 9]),
        ([Refused(429, **{"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"})], [0, 1]),
        ([Refused(429)] * 4, [0, 1, 3, 7, -1]),
        ([Refused(400)], [0, -1]),
        ([TimeoutError()], [0, 1]),
        ([KeyError("colour")], [0, -1]),
        ([BadReward("has no column")], [0, -1]),
        ([Refused(429, **{"retry-after": "60"})], [0, -1]),
    ],
)
def test_what_may_pass_is_repeated_until_the_deadline(errors: list[Exception], starts: list[float]):
    found, end = made(RemoteConfig(deadline_s=15.0), seconds=0.0, errors=errors)
    assert (found, end <= 15.0) == (pytest.approx(starts), True)
