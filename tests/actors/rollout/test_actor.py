"""An engine on a node that does not see the adapters that the learner writes."""

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from microbudget_rl.actors.messages import AdapterRef
from microbudget_rl.actors.rollout.actor import (
    SLOWEST_ANSWER_S,
    SLOWEST_TOKEN_S,
    AdapterCopies,
    AdapterTransfer,
    RemoteEngine,
    RolloutActor,
)
from microbudget_rl.actors.rollout.vllm_engine import RolloutEngine
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.actors.storage.folders import mark
from tests.fakes import make_request


def make_adapter(folder: Path, version: int = 1) -> AdapterRef:
    adapter = AdapterRef(version, 0, str(folder / f"policy-v{version}-r0"))
    Path(adapter.path).mkdir(parents=True)
    Path(adapter.path, "adapter_model.safetensors").write_bytes(b"weights %d" % version)
    Path(adapter.path, "adapter_config.json").write_text("{}")
    return adapter


@pytest.fixture(autouse=True)
def put(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, bytes]]:
    """Replace vLLM and Ray; return the list of contents in the object store."""
    contents: list[dict[str, bytes]] = []

    async def load(self: Actor, adapter: AdapterRef) -> None:
        self.loaded.append((adapter.path, Path(adapter.path, "adapter_model.safetensors").read_bytes()))

    async def retire(self: Actor, adapter: AdapterRef) -> None: ...

    monkeypatch.setattr("ray.put", lambda files: contents.append(files) or len(contents))
    monkeypatch.setattr("ray.get", lambda number: contents[number - 1])
    monkeypatch.setattr(RolloutEngine, "load", load)
    monkeypatch.setattr(RolloutEngine, "retire", retire)
    return contents


def test_store_keeps_latest_adapters_once(tmp_path: Path, put: list[dict[str, bytes]]):
    transfer = AdapterTransfer(2)
    adapters = [make_adapter(tmp_path, version) for version in range(3)]

    async def store(*numbers: int) -> list[Any]:
        return await asyncio.gather(*(transfer.store(adapters[number]) for number in numbers))

    assert asyncio.run(store(0, 0, 1, 0, 2, 1)) == [1, 1, 2, 1, 3, 2]
    assert asyncio.run(store(0)) == [4]
    assert put[0] == {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights 0"}


class Actor(RolloutActor):
    """Without an engine: notes where adapters are loaded from, and what is there then."""

    def __init__(self, folder: Path) -> None:
        self._copies = AdapterCopies(folder / "copies" / str(os.getpid()))
        self.loaded: list[tuple[str, bytes]] = []

    async def cache_blocks(self) -> int:
        return 5000


class Local(RemoteEngine):
    """An engine whose actor is in this process. sees: whether it has the learner's files where they are.

    starts: the arguments of each start.
    """

    def __init__(self, actor: RolloutActor, sees: bool = True, **options: Any) -> None:
        self.actor, self.sees, self.starts = actor, sees, list[tuple[Any, ...]]()
        super().__init__(AdapterTransfer(2), RolloutActor, "rollout-0", Share(), **options)

    def start(self, *more: Any) -> None:
        self.starts.append(more)

    def call(self, method: str, *arguments: Any, deadline_s: float | None = None) -> Coroutine[Any, Any, Any]:
        if method == "load_if_same" and not self.sees:
            arguments = (arguments[0], (0, 0))
        return getattr(self.actor, method)(*arguments)


@pytest.mark.parametrize("sees", [True, False])
def test_engine_loads_copy_of_unseen_adapter(tmp_path: Path, sees: bool):
    adapter, actor = make_adapter(tmp_path), Actor(tmp_path)
    copy = tmp_path / "copies" / str(os.getpid()) / adapter.name
    left = copy.parent.with_name(str(2**22 + 1))
    for folder in (copy, left):  # an older adapter of that name, and a copy that an ended process has left
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("old")
    mark(left, "temporary")
    engine = Local(actor, sees)
    actor._copies.clear_left()
    assert not left.exists()
    asyncio.run(engine.load(adapter))
    assert actor.loaded == [(adapter.path if sees else str(copy), b"weights 1")]
    assert (copy / "adapter_config.json").read_text() == ("old" if sees else "{}")
    asyncio.run(engine.retire(adapter))
    assert (copy.exists(), Path(adapter.path).exists()) == (False, True)


def test_successor_gets_cache_of_first(tmp_path: Path):
    engine = Local(Actor(tmp_path))
    asyncio.run(engine.revive())
    asyncio.run(engine.revive())
    assert engine.starts == [(), (None,), (5000,)]


async def test_short_request_has_the_time_of_the_long_ones_before_it(monkeypatch: pytest.MonkeyPatch):
    allowed: list[float] = []

    async def call(_: Any, *request: Any, deadline_s: float) -> None:
        allowed.append((deadline_s - SLOWEST_ANSWER_S) / SLOWEST_TOKEN_S)
        await asyncio.sleep(0)

    async def ask(*limits: int) -> None:
        await asyncio.gather(*(engine.generate(make_request(tokens=most)) for most in limits))

    monkeypatch.setattr(Local, "call", call)
    engine = Local(Actor(Path("nowhere")), concurrent_samples=4)
    await ask(1000, 1000, 10)
    await ask(10)
    assert allowed == [2000, 3000, 2020, 20]
