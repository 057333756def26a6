import asyncio

import pytest

from actors.storage.writer import Writer


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
