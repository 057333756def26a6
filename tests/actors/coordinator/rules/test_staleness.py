import random

from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.coordinator.rules.staleness import StalenessManager
from tests.fakes import make_group


@given(
    per_update=st.integers(1, 4),
    staleness=st.integers(0, 3),
    max_running=st.integers(1, 12),
    seed=st.integers(0, 10_000),
    start=st.integers(0, 5),
)
def test_no_schedule_of_finishes_and_failures_makes_a_group_too_old(
    per_update: int, staleness: int, max_running: int, seed: int, start: int
):
    """Groups finish in any order and some fail: every batch is young enough and the loop never stops. In a synchronous
    run no group starts beyond the batch.
    """
    rng = random.Random(seed)
    manager = StalenessManager(
        problems_per_update=per_update, max_staleness=staleness, max_running=max_running, version=start
    )
    running: dict[int, int] = {}
    index = 0
    updates = 0
    for _ in range(200):
        while manager.capacity > 0 and rng.random() < 0.8:
            manager.admit(index)
            running[index] = manager.version
            index += 1
            assert manager.running <= max_running
            assert staleness or manager.running + manager.waiting <= per_update
        if running and rng.random() < 0.9:
            chosen = rng.choice(list(running))
            version = running.pop(chosen)
            if rng.random() < 0.2:
                manager.give_back(chosen)
            else:
                manager.accept(make_group(chosen, version))
        if (batch := manager.take_batch()) is not None:
            assert len(batch) == per_update
            assert all(0 <= manager.version - group.version <= staleness for group in batch)
            versions = [group.version for group in batch]
            assert versions == sorted(versions)
            manager.advance()
            updates += 1
        assert running or manager.capacity > 0, "deadlock"
    assert updates > 0
