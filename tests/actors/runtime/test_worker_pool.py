import asyncio
import random
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.worker_pool import Supervised, WorkerPool
from launch.plan.virtual_time import VirtualClock, run_virtually


class Member:
    """Counts how often its load is looked at."""

    def __init__(self, number: int) -> None:
        self.name = f"member-{number}"
        self.number = number

    async def revive(self) -> None: ...


class CountedPost(Supervised[Member]):
    looks = 0

    @property
    def well(self) -> bool:
        CountedPost.looks += 1
        return super().well


def crew_of(count: int) -> WorkerPool[Member]:
    return WorkerPool([CountedPost(Member(n), VirtualClock(), lambda name, text: None) for n in range(count)])


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(1, 9), st.integers(1, 50)), max_size=60))
def test_work_goes_to_the_first_of_those_with_the_least_load(members: int, jobs: list[tuple[int, int]]) -> None:
    async def scenario() -> None:
        crew = crew_of(members)

        async def work(seconds: int, member: Member) -> int:
            await asyncio.sleep(seconds)
            return member.number

        tasks = []
        for weight, seconds in jobs:
            before = [post.load for post in crew.posts]
            expected = before.index(min(before))
            tasks.append(asyncio.create_task(crew.anyone(partial(work, seconds), weight)))
            await asyncio.sleep(0)
            after = [post.load for post in crew.posts]
            assert after[expected] == before[expected] + weight
            await asyncio.sleep(random.Random(seconds).random() * 20)
        await asyncio.gather(*tasks)
        assert [post.load for post in crew.posts] == [0] * members

    run_virtually(scenario())


def test_a_larger_crew_is_not_looked_through() -> None:
    async def looks(members: int) -> float:
        crew = crew_of(members)
        CountedPost.looks = 0

        async def work(member: Member) -> None:
            await asyncio.sleep(1.0 + member.number % 7)

        jobs = 20 * members
        running = [asyncio.create_task(crew.anyone(work, 8)) for _ in range(jobs)]
        await asyncio.gather(*running)
        return CountedPost.looks / jobs

    assert run_virtually(looks(400)) < 1.5 * run_virtually(looks(4))
