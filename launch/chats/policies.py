"""Base and trained model in one engine of this process, answering the same at the same time."""

import asyncio
from collections.abc import Callable
from typing import Any

from actors.messages import AdapterRef, Problem, Sampling
from actors.rollout.vllm_engine import RolloutEngine
from actors.runtime.placement import Share
from launch.trained.policy import Trained

Show = Callable[[dict[str, str]], None]
"""Called with what both have said so far."""


class Policies:
    """`base` and `trained`, by these names."""

    def __init__(self, engine: Any, adapter: AdapterRef) -> None:
        self._engine = engine
        self._policies = {"base": None, "trained": adapter}

    @classmethod
    async def start(cls, trained: Trained, share: Share) -> "Policies":
        """Start an engine and load the adapter."""
        engine = RolloutEngine(trained.config, trained.model_path, share)
        adapter = AdapterRef(0, 0, str(trained.adapter))
        await engine.load(adapter)
        return cls(engine, adapter)

    async def answer(self, problems: dict[str, Problem], sampling: Sampling, show: Show) -> dict[str, str]:
        """Return the answer of each policy to its problem, and show how they come."""
        texts = dict.fromkeys(self._policies, "")

        async def stream(name: str, adapter: AdapterRef | None) -> None:
            async for text in self._engine.stream(problems[name], adapter, sampling):
                texts[name] += text
                show(texts)

        async with asyncio.TaskGroup() as tasks:
            for name, adapter in self._policies.items():
                tasks.create_task(stream(name, adapter))
        return texts

    async def close(self) -> None:
        await self._engine.close()
