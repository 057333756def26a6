import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.messages import AdapterRef
from actors.rollout import adapter_transfer as parcels
from actors.rollout.actor import RemoteEngine, RolloutActor
from actors.rollout.adapter_transfer import AdapterTransfer, stamp, unpack


def make_adapter(folder: Path, version: int = 1) -> AdapterRef:
    adapter = AdapterRef(version, 0, str(folder / f"policy-v{version}-r0"))
    Path(adapter.path).mkdir(parents=True)
    Path(adapter.path, "adapter_model.safetensors").write_bytes(b"weights %d" % version)
    Path(adapter.path, "adapter_config.json").write_text("{}")
    return adapter


def test_copy_has_the_files_and_replaces_what_was_there(tmp_path: Path) -> None:
    files = {"adapter_model.safetensors": b"weights", "../adapter_config.json": b"{}"}
    copy = tmp_path / "node" / "policy-v1-r0"
    copy.mkdir(parents=True)
    (copy / "old").touch()
    unpack(files, copy)
    assert sorted(path.name for path in copy.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_folder_of_an_earlier_run_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    ours, theirs = make_adapter(tmp_path / "here"), make_adapter(tmp_path / "there", 2)
    assert stamp(ours.path) == stamp(ours.path) != stamp(theirs.path)
    assert stamp(str(tmp_path / "nowhere")) is None


def test_adapter_is_put_into_the_store_once_and_forgotten_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put: list[dict[str, bytes]] = []
    monkeypatch.setattr(parcels.ray, "put", lambda files: put.append(files) or len(put))
    store = AdapterTransfer(kept=2)
    adapters = [make_adapter(tmp_path, version) for version in range(3)]
    assert [store.of(adapters[number]) for number in (0, 0, 1, 0, 2, 1)] == [1, 1, 2, 1, 3, 2]
    assert store.of(adapters[0]) == 4
    assert put[0] == {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights 0"}


class Engine:
    """Notes where adapters are loaded from, and what is there then."""

    def __init__(self) -> None:
        self.loaded: list[tuple[str, bytes]] = []

    async def load(self, adapter: AdapterRef) -> None:
        self.loaded.append((adapter.path, Path(adapter.path, "adapter_model.safetensors").read_bytes()))

    async def retire(self, adapter: AdapterRef) -> None: ...


class Elsewhere:
    """A RolloutActor as a RemoteActor on a node whose file system has other things where the run's folder is."""

    def __init__(self, folder: Path, sees: bool) -> None:
        self.name = "rollout-0"
        self.sees = sees
        self.actor = RolloutActor.__new__(RolloutActor)
        self.actor._copies = folder / "copies"
        self.actor._engine = Engine()  # type: ignore[assignment]

    async def call(self, method: str, adapter: AdapterRef, *arguments: Any) -> Any:
        if method == "load" and not self.sees:
            arguments = ((0, 0), *arguments[1:])
        return await getattr(self.actor, method)(adapter, *arguments)


@pytest.mark.parametrize("sees", [True, False])
def test_engine_loads_a_copy_where_it_does_not_see_the_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sees: bool
) -> None:
    monkeypatch.setattr(parcels.ray, "put", lambda files: files)
    adapter, elsewhere = make_adapter(tmp_path), Elsewhere(tmp_path, sees)
    engine = RemoteEngine(elsewhere, 8)  # type: ignore[arg-type]
    asyncio.run(engine.load(adapter))
    copy = tmp_path / "copies" / adapter.name
    expected = adapter.path if sees else str(copy)
    assert elsewhere.actor._engine.loaded == [(expected, b"weights 1")]  # type: ignore[attr-defined]
    assert copy.exists() != sees
    asyncio.run(engine.retire(adapter))
    assert not copy.exists()
    assert Path(adapter.path).exists()
