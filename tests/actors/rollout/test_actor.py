"""An engine on a node that does not see the adapters that the learner writes."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.messages import AdapterRef, Sampling
from actors.rollout.actor import RolloutActor
from actors.rollout.adapter_transfer import AdapterCopies, AdapterTransfer, fingerprint, write_copy
from actors.rollout.remote_engine import SLOWEST_ANSWER_S, SLOWEST_TOKEN_S, RemoteEngine
from actors.rollout.vllm_engine import RolloutEngine
from tests.fakes import make_problem


def make_adapter(folder: Path, version: int = 1) -> AdapterRef:
    adapter = AdapterRef(version, 0, str(folder / f"policy-v{version}-r0"))
    Path(adapter.path).mkdir(parents=True)
    Path(adapter.path, "adapter_model.safetensors").write_bytes(b"weights %d" % version)
    Path(adapter.path, "adapter_config.json").write_text("{}")
    return adapter


def test_copy_replaces_older_folder(tmp_path: Path) -> None:
    files = {"adapter_model.safetensors": b"weights", "../adapter_config.json": b"{}"}
    copy = tmp_path / "node" / "policy-v1-r0"
    copy.mkdir(parents=True)
    (copy / "adapter_config.json").write_text("old")
    write_copy(files, copy, (7, 1234567890123))
    assert sorted(path.name for path in copy.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    assert fingerprint(str(copy)) == (7, 1234567890123)


def test_store_keeps_latest_adapters_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[dict[str, bytes]] = []
    monkeypatch.setattr("ray.put", lambda files: put.append(files) or len(put))
    transfer = AdapterTransfer(2)
    adapters = [make_adapter(tmp_path, version) for version in range(3)]

    async def store(*numbers: int) -> list[Any]:
        return await asyncio.gather(*(transfer.store(adapters[number]) for number in numbers))

    assert asyncio.run(store(0, 0, 1, 0, 2, 1)) == [1, 1, 2, 1, 3, 2]
    assert asyncio.run(store(0)) == [4]
    assert put[0] == {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights 0"}


class Actor(RolloutActor):
    """Without an engine: notes where adapters are loaded from, and what is there then."""

    def __init__(self, folder: Path, number: int = 1) -> None:
        self._copies = AdapterCopies(folder / "copies" / str(number))
        self.loaded: list[tuple[str, bytes]] = []


class Elsewhere:
    """A RolloutActor as a RemoteActor on a node whose file system has other things where the run's folder is."""

    def __init__(self, actor: RolloutActor, sees: bool) -> None:
        self.name = "rollout-0"
        self.actor = actor
        self.sees = sees

    async def call(self, method: str, adapter: AdapterRef, *arguments: Any) -> Any:
        if method == "load_if_same" and not self.sees:
            arguments = ((0, 0),)
        return await getattr(self.actor, method)(adapter, *arguments)


@pytest.fixture(autouse=True)
def stored(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace vLLM and Ray; return the list of contents read from the object store."""
    got: list[Any] = []

    async def load(self: Actor, adapter: AdapterRef) -> None:
        self.loaded.append((adapter.path, Path(adapter.path, "adapter_model.safetensors").read_bytes()))

    async def retire(self: Actor, adapter: AdapterRef) -> None: ...

    monkeypatch.setattr("ray.put", lambda files: files)
    monkeypatch.setattr("ray.get", lambda files: got.append(files) or files)
    monkeypatch.setattr(RolloutEngine, "load", load)
    monkeypatch.setattr(RolloutEngine, "retire", retire)
    return got


@pytest.mark.parametrize("sees", [True, False])
def test_engine_loads_copy_of_unseen_adapter(tmp_path: Path, sees: bool) -> None:
    adapter, actor = make_adapter(tmp_path), Actor(tmp_path)
    engine = RemoteEngine(Elsewhere(actor, sees), 8, AdapterTransfer(2))  # type: ignore[arg-type]
    asyncio.run(engine.load(adapter))
    copy = tmp_path / "copies" / "1" / adapter.name
    assert actor.loaded == [(adapter.path if sees else str(copy), b"weights 1")]
    assert copy.exists() != sees
    asyncio.run(engine.retire(adapter))
    assert not copy.exists()
    assert Path(adapter.path).exists()


def test_a_node_gets_and_holds_each_adapter_once(tmp_path: Path, stored: list[Any]) -> None:
    adapter, transfer = make_adapter(tmp_path / "run"), AdapterTransfer(2)
    # A run of the same name, which is on another adapter:
    other_run = Actor(tmp_path, 4)._copies.folder / adapter.name
    other_run.mkdir(parents=True)
    write_copy({"adapter_model.safetensors": b"weights 9"}, other_run, (9, 1))
    actors = [Actor(tmp_path, number) for number in (1, 2, 3)]
    engines = [RemoteEngine(Elsewhere(actor, False), 8, transfer) for actor in actors]  # type: ignore[arg-type]

    async def load() -> None:
        await asyncio.gather(*(engine.load(adapter) for engine in engines))

    asyncio.run(load())
    assert len(stored) == 1
    copies = [actor._copies.folder / adapter.name / "adapter_model.safetensors" for actor in actors]
    assert [copy.read_bytes() for copy in copies] == [b"weights 1"] * 3
    assert {copy.stat().st_nlink for copy in copies} == {3}
    for engine in engines[:2]:
        asyncio.run(engine.retire(adapter))
    assert [copy.exists() for copy in copies] == [False, False, True]
    assert copies[2].read_bytes() == b"weights 1"


def test_successor_gets_cache_of_first() -> None:
    """It starts beside a learner at work, in whose presence free memory says little."""
    starts = []

    class Process:
        name = "rollout-0"

        def start(self, cache_blocks: int | None) -> None:
            starts.append(cache_blocks)

        async def call(self, method: str) -> int:
            return {"cache_blocks": 5000}[method]

    engine = RemoteEngine(Process(), 8, AdapterTransfer(2))  # type: ignore[arg-type]
    asyncio.run(engine.revive())
    asyncio.run(engine.revive())
    assert starts == [None, 5000]


def test_short_request_has_the_time_of_the_long_ones_before_it() -> None:
    """They are admitted in their order, and an adapter check comes behind an evaluation."""
    allowed = []

    class Process:
        name = "rollout-0"

        async def call(self, *_: Any, deadline_s: float) -> None:
            allowed.append(deadline_s)
            await asyncio.sleep(0)

    async def ask(*limits: int) -> None:
        samplings = [Sampling(1, most, 1.0, 1.0, 0) for most in limits]
        await asyncio.gather(*(engine.generate(0, make_problem(0), None, sampling) for sampling in samplings))

    async def ask_twice() -> None:
        await ask(*[1000] * 7, 10)
        await ask(10)

    engine = RemoteEngine(Process(), 4, AdapterTransfer(2))  # type: ignore[arg-type]
    asyncio.run(ask_twice())
    of_tokens = [(deadline_s - SLOWEST_ANSWER_S) / SLOWEST_TOKEN_S["cpu"] for deadline_s in allowed]
    assert of_tokens == [1000] * 4 + [2000] * 4 + [10]
