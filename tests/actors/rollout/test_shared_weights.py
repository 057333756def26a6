"""The life of the process that holds the base model, without Ray and vLLM."""

import asyncio
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.model_executor.model_loader.weight_cache.protocol import get_socket_path

from microbudget_rl.actors.errors import ActorDied
from microbudget_rl.actors.rollout import shared_weights
from microbudget_rl.actors.rollout.shared_weights import SharedWeights, WeightsActor
from microbudget_rl.actors.rollout.vllm_engine import EngineThread, RolloutEngine, memory_faults
from microbudget_rl.actors.rollout.vllm_settings import SMALL_SHARE, gpu_settings
from microbudget_rl.actors.runtime.placement import Mapped, Placement, Share
from microbudget_rl.actors.runtime.ray_session import clear_session, make_temporary
from microbudget_rl.actors.storage.documents import EventKind
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from tests.virtual_time import VirtualClock, run_virtually, virtually

EXTERNAL = 0.3
DIED = ActorDied("weights died: it was killed by signal 9")


class Holder:
    """A stand-in for the RemoteActor of a WeightsActor; `end` ends its present process."""

    def __init__(self, *_: Any) -> None:
        self.name = "weights"
        self.start()

    def start(self) -> None:
        self.starts = getattr(self, "starts", 0) + 1
        self.ended = asyncio.Event()

    async def revive(self) -> None:
        self.start()
        await self.call("alive")

    def kill(self) -> None:
        self.ended.set()

    async def call(self, method: str) -> Any:
        if method == "serve":
            await self.ended.wait()
        if self.ended.is_set():
            raise DIED
        return {"alive": None, "fraction": EXTERNAL, "handles": b"life %d" % self.starts}[method]


PLACEMENT = Placement("cuda", (Share(memory=0.4),), (), 1)


Make = Callable[..., SharedWeights]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make weights in an actor of this kind."""

    def make(actor: Any = Holder, record: Any = lambda *_: None) -> SharedWeights:
        monkeypatch.setattr(shared_weights, "RemoteActor", actor)
        return SharedWeights(Config(), "", Share(), VirtualClock(), record)

    return make


@virtually
async def test_when_it_ends_its_users_are_killed_once_and_map_the_next_one(make: Make):
    events, kills = list[EventKind](), (list[str](), list[str]())
    weights = make(record=lambda _, kind, __: events.append(kind))
    weights.users += (SimpleNamespace(kill=each.append) for each in kills)
    placement = await weights.mapped_by(PLACEMENT)
    assert placement.rollouts[0].mapped == Mapped(weights._folder.name, EXTERNAL)
    assert await weights.handles() == b"life 1"
    weights.actor.kill()
    assert await weights.handles() == b"life 2"  # waits for the restart
    await asyncio.sleep(1.0)
    await weights.close()
    assert [len(each) for each in kills] == [1, 1]
    assert events == [EventKind.DIED, EventKind.RESTARTED]


def test_the_daemons_socket_can_be_bound_wherever_temporary_files_are(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Those of the doctor are in the user's folder, those of a run's actors in a folder in it."""

    async def bind(place: Path) -> None:
        monkeypatch.setattr(tempfile, "tempdir", str(place))
        weights = make()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(get_socket_path("GPU-a", weights._folder.name))
        await weights.close()

    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        for length in range(1, 50):
            root = Path(short, "x" * length)
            root.mkdir(mode=0o700)
            run_virtually(bind(root))
            run_virtually(bind(make_temporary(tmp_path)))
            clear_session(tmp_path)


@virtually
async def test_weights_that_never_load_name_their_setting(make: Make):
    class Stillborn(Holder):
        async def call(self, method: str) -> Any:
            raise DIED

    weights = make(Stillborn)
    with pytest.raises(BadInput, match="shared_weights=off"):
        await weights.mapped_by(PLACEMENT)
    await weights.close()


@pytest.mark.parametrize(("kind", "on_cpu"), [(WeightsActor, False), (RolloutEngine, False), (RolloutEngine, True)])
def test_it_ends_with_its_context_on_the_gpu(kind: Any, on_cpu: bool, monkeypatch: pytest.MonkeyPatch):
    """An engine too, which may wait for a learner that MPS refuses while the engine lives."""

    def lost() -> None:
        raise RuntimeError("CUDA error: the MPS client has been terminated")

    actor = SimpleNamespace(_thread=EngineThread(lambda: None), _on_cpu=on_cpu)  # type: ignore[arg-type, return-value]
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    asyncio.run(kind.alive(actor))
    monkeypatch.setattr("torch.cuda.synchronize", lost)
    monkeypatch.setattr("os._exit", sys.exit)
    with nullcontext() if on_cpu else pytest.raises(SystemExit):
        asyncio.run(kind.alive(actor))


@pytest.mark.parametrize(("first", "kind"), [(True, BadInput), (False, ValueError)])
def test_too_little_memory_at_a_first_start_is_bad_input(first: bool, kind: type[Exception]):
    for fault, said in ("Free memory on device", r"\(Free .*nvidia-smi"), ("No memory for the cache", "samples=128"):
        with pytest.raises(kind, match=said if first else fault), memory_faults(Config(), first):
            raise ValueError(fault)


def test_an_engine_is_given_what_another_process_holds_in_addition_to_its_share():
    """vLLM subtracts the weights again, also after a restart, when its own share is close to zero."""
    share = Share(gpus=0.4, memory=0.4, mapped=Mapped("/tmp/weights", EXTERNAL))
    first, again = gpu_settings(share, None), gpu_settings(share, 5000)
    assert first["gpu_memory_utilization"] == pytest.approx(0.4 + EXTERNAL)
    assert again["gpu_memory_utilization"] == pytest.approx(SMALL_SHARE + EXTERNAL)
    assert first["load_format"] == again["load_format"] == "ipc_cache"
    assert first["model_loader_extra_config"] == {"socket_dir": "/tmp/weights", "fallback": False}
