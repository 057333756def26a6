import asyncio
import threading

import pytest

from actors.storage.writer import Writer


def test_writes_keep_their_order_in_a_thread_of_their_own() -> None:
    done: list[tuple[int, threading.Thread]] = []

    async def scenario() -> int:
        writer = Writer()
        for number in range(100):
            writer.put(lambda number: done.append((number, threading.current_thread())), number)
        return await writer.in_turn(lambda: len(done))

    assert asyncio.run(scenario()) == 100
    assert [number for number, _ in done] == list(range(100))
    assert threading.main_thread() not in {thread for _, thread in done}


def test_without_an_event_loop_a_write_is_done_at_once() -> None:
    done: list[int] = []
    writer = Writer()
    writer.put(done.append, 1)
    assert (done, writer.idle) == ([1], True)


def test_nothing_is_written_after_a_failure_and_every_call_raises_it() -> None:
    """Otherwise a row might be missing in the middle of a history."""
    done: list[int] = []

    def fail(_: object) -> None:
        raise OSError(28, "No space left on device", "rows.jsonl")

    async def scenario() -> None:
        writer = Writer()
        writer.put(fail, None)
        assert await writer.in_turn(lambda: "done") == "done"
        for call in (writer.check, lambda: writer.put(done.append, 2)):
            with pytest.raises(OSError, match="rows"):
                call()

    asyncio.run(scenario())
    assert done == []
