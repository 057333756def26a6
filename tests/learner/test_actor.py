"""Time limits of a learner's calls."""

import asyncio
from typing import Any

import pytest

from actors.messages import Batch
from actors.runtime.clock import WallClock
from actors.runtime.remote_actor import START_S
from learner.actor import HANG_S, RemoteLearner
from tests.fakes import make_group


def test_empty_batches_do_not_tighten_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.put", lambda batch: batch)
    allowed: list[float] = []

    class Rank:
        async def call(self, method: str, *arguments: Any, deadline_s: float) -> None:
            if method in ("accumulate", "step"):
                allowed.append(deadline_s)

    async def learn() -> None:
        learner = RemoteLearner([Rank()], WallClock())  # type: ignore[list-item]
        for scores in ((0.0, 0.0), (0.0, 0.0), (1.0, 0.0), (0.0, 0.0)):
            await learner.accumulate(Batch(0, (make_group(0, scores=scores),)))
            await learner.step(0.0)

    asyncio.run(learn())
    assert allowed[:6] == [START_S] * 6
    assert allowed[6:] == pytest.approx([HANG_S] * 2, abs=1.0)
