import threading

import pytest

from microbudget_rl.actors.worker import Worker


def test_without_an_event_loop_a_strict_worker_does_a_call_at_once():
    done: list[int] = []
    worker = Worker("writer", strict=True)
    worker.put(done.append, 1)
    assert (done, worker.idle) == ([1], True)


async def test_strict_worker_does_nothing_after_a_failure_and_every_call_raises_it():
    """Otherwise a row might be missing in the middle of a history."""
    done: list[int] = []

    def fail(_: object) -> None:
        raise OSError(28, "No space left on device", "rows.jsonl")

    worker = Worker("writer", strict=True)
    worker.put(fail, None)
    assert await worker.in_turn(lambda: "done") == "done"
    for call in (worker.check, lambda: worker.put(done.append, 2)):
        with pytest.raises(OSError, match="rows"):
            call()
    assert done == []


def test_losses_are_counted_and_a_reason_is_said_once():
    released, done = threading.Event(), list[int]()
    worker = Worker("logger", most=2)
    worker.put(released.wait)
    for number in range(4):
        worker.put(done.append, number)
    assert worker.losses() == (3, "it is 2 calls behind")
    worker.put(done.append, 9, due=True)
    released.set()
    worker.wait(60)
    for reason in ("ZeroDivisionError", ""):
        worker.put(lambda: 1 // 0)
        worker.wait(60)
        lost, said = worker.losses()
        assert (lost, said.startswith(reason), bool(said)) == (1, True, bool(reason))
    assert (done, worker.idle, worker.losses()) == ([0, 9], True, (0, ""))


def test_call_that_hangs_is_one_loss():
    """The process ends even so, as would not be the case if its thread were no daemon."""
    begun, released = threading.Event(), threading.Event()
    worker = Worker("logger", patience_s=0.0)
    worker.put(lambda: (begun.set(), released.wait()))
    assert begun.wait(60)
    lost, reason = worker.losses()
    assert (lost, bool(reason), worker.losses()) == (1, True, (0, ""))
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "logger")
    released.set()
