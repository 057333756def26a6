import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from microbudget_rl.actors.coordinator.ledger import HISTORY, Ledger, MeteredSampler
from microbudget_rl.actors.storage.documents import LedgerRecord
from tests.actors.coordinator.test_budget import HandClock
from tests.fakes import FakeEngine, FakeGame, make_request
from tests.virtual_time import VirtualClock, run_virtually


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.floats(0, 1000)), min_size=1))
def test_seconds_of_every_actor_add_up_to_the_time_spent(steps: list[tuple[str, str, float]]):
    """Over any first activity, and over a process that was killed a while after its last record."""
    clock = HandClock()
    ledger = Ledger(clock, spent=20.0)
    for actor, activity, seconds in steps:
        ledger.enter(actor, activity)
        clock.time += seconds
    spent = clock.time - 100.0 + 20.0
    for activities in ledger.seconds.values():
        assert abs(sum(activities.values()) - spent) < 1e-6
    resumed = Ledger(clock, spent + 0.5, ledger.record)
    clock.time += 2.0
    resumed.enter("a", "x")
    clock.time += 3.0
    assert abs(sum(resumed.seconds["a"].values()) - (spent + 5.5)) < 1e-6


def test_the_longest_start_is_kept_and_not_the_sum():
    clock, record = HandClock(), LedgerRecord()
    for seconds in (40.0, 90.0, 10.0):  # the last one is stopped before it has ended
        ledger = Ledger(clock, spent=200.0, carried=record, since=195.0)
        clock.time += seconds - 5.0
        ledger.note_start()
        clock.time += 1000.0
        record = ledger.record
    assert record.start_s == 90.0


def test_rounding_makes_no_second_negative():
    """Otherwise the ledger would be refused when it is read back."""
    carried = LedgerRecord(seconds={"run": {"start": 0.0, "training": 0.1 + 0.2}})
    resumed = Ledger(HandClock(), spent=0.3, carried=carried)
    resumed.enter("run", "start")
    assert min(resumed.seconds["run"].values()) == 0.0


@given(st.lists(st.tuples(st.sampled_from(HISTORY), st.integers(0, 99))), st.lists(st.sampled_from(HISTORY)))
def test_abandoned_history_changes_the_class_of_tokens_and_not_their_sum(kept: list[tuple[str, int]], lost: list[str]):
    ledger = Ledger(HandClock())
    for name, amount in kept:
        ledger.count(name, amount)
    then = ledger.counts
    ledger.count("tokens/waiting", 10 * len(lost))
    for name in lost:
        ledger.move("tokens/waiting", name, 7)
    total = sum(ledger.counts.values())
    ledger.go_back(then)
    counts = ledger.counts
    assert counts.pop("tokens/abandoned", 0) == 10 * len(lost)
    assert counts == then
    assert sum(ledger.counts.values()) == total


def test_looking_changes_nothing_and_figures_are_flat():
    clock = HandClock()
    ledger = Ledger(clock)
    ledger.enter("learner", "update")
    ledger.count("tokens/eval", 2)
    for seconds in (3.0, 7.0):
        clock.time = 100.0 + seconds
        assert ledger.seconds == {"learner": {"start": 0.0, "update": seconds}}
    ledger.count("tokens/eval", 3)
    assert ledger.figures == {"ledger/learner/start": 0.0, "ledger/learner/update": 7.0, "ledger/tokens/eval": 5.0}


def test_tokens_that_an_environment_gave_are_counted_apart():
    async def scenario() -> dict[str, int]:
        ledger = Ledger(VirtualClock())
        await MeteredSampler(FakeGame(), "waiting", ledger).generate(make_request())
        return ledger.counts

    assert run_virtually(scenario()) == {"tokens/waiting": 8, "tokens/given": 4}


def test_cancelled_requests_count_what_their_time_was_enough_for():
    """A token takes a second; the adapter check's requests and groups alike."""

    async def cancel(work: Coroutine[Any, Any, Any], after: float) -> None:
        task = asyncio.create_task(work)
        await asyncio.sleep(after)
        task.cancel()
        await asyncio.wait({task})

    async def scenario() -> dict[str, int]:
        ledger, fake = Ledger(VirtualClock()), FakeEngine(seconds=1.0)
        engine = MeteredSampler(fake, "waiting", ledger)
        await engine.generate(make_request())
        fake.seconds = 100.0
        await cancel(engine.generate(make_request(1)), 3.5)
        await cancel(engine.generate_on_each(make_request(-1)), 50.0)
        return ledger.counts

    assert run_virtually(scenario()) == {"tokens/waiting": 4, "tokens/cancelled": 14 + 4 * 8}
