"""A learner of two processes, in Ray actors over gloo, against one alone in this process."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import ray
import torch
from safetensors.torch import load_file

from microbudget_rl.actors.clock import WallClock
from microbudget_rl.actors.errors import ActorDied, LearnerDied
from microbudget_rl.actors.messages import Batch, UpdateStats
from microbudget_rl.actors.runtime.placement import Share
from microbudget_rl.actors.runtime.remote_actor import RemoteActor
from microbudget_rl.conf.errors import BadInput
from microbudget_rl.conf.schema import Config
from microbudget_rl.conf.settings import changed
from microbudget_rl.learner.actor import LearnerActor, RemoteLearner
from microbudget_rl.learner.distributed import use_interface
from microbudget_rl.learner.learner import LoraLearner
from tests.conftest import build_group
from tests.learner.helpers import sampled_by, spoil, two_and_three_turns
from tests.learner.helpers import update as update_one

T = TypeVar("T")

RATE = 1e-2
WORLD_SIZE = 2


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Awaitable[T]], T]]:
    """Run coroutines to their end in one event loop, beside a Ray of its own."""
    ray.init("local", num_cpus=WORLD_SIZE, include_dashboard=False, object_store_memory=80 * 2**20)
    with asyncio.Runner() as runner:

        async def finish(work: Awaitable[T]) -> T:
            return await work

        yield lambda work: runner.run(finish(work))
    ray.shutdown()


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> Config:
    """Return settings with every part of the loss that takes passes of its own."""
    return changed(
        tiny_config,
        {
            "learner.max_kl": 0.03,
            "learner.tokens_per_microbatch": 100,
            "algorithm.steps_per_batch": 2,
            "algorithm.clip_low": 0.2,
            "algorithm.clip_high": 0.2,
            "algorithm.kl": 0.1,
            "warm_start.source": "self",
            "warm_start.learning_rate": 1e-2,
        },
    )


class FarLearner(LearnerActor):
    """Only the first process sees the checkpoints."""

    def restore(self, folder: str | None, incarnation: int) -> None:
        super().restore(folder and (folder if self.rank == 0 else "/on another node"), incarnation)


@pytest.fixture(scope="module")
def two(config: Config, run: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteLearner]:
    folder = tmp_path_factory.mktemp("two")
    share = Share(threads=1)

    async def start() -> RemoteLearner:
        arguments = (config, config.model.path, share, str(folder / "adapters"))
        processes = [
            RemoteActor(FarLearner, f"rank-{rank}", share, *arguments, rank, WORLD_SIZE, asynchronous=False)
            for rank in range(WORLD_SIZE)
        ]
        return RemoteLearner(processes, WallClock(), print)

    learner = run(start())
    yield learner
    run(learner.close())


@pytest.fixture(scope="module")
def start(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint of version 0."""
    folder = tmp_path_factory.mktemp("start")
    LoraLearner(config, config.model.path, folder).save(folder)
    return folder


@pytest.fixture
def one(config: Config, tmp_path: Path) -> LoraLearner:
    return LoraLearner(config, config.model.path, tmp_path / "adapters")


async def update(learner: RemoteLearner, batch: Batch) -> UpdateStats:
    await learner.accumulate(batch)
    return await learner.step(RATE)


def batches() -> list[Batch]:
    """Return batches with long and short prompts, a timeout and a group without variance; with many short samples and a
    long one; and with a single sample that has tokens, so that one process has nothing to do.
    """
    lonely = build_group(9, (1.0, 0.0))
    lonely = replace(lonely, samples=(lonely.samples[0], replace(lonely.samples[1], token_ids=(), logprobs=())))
    return [
        sampled_by(
            0,
            build_group(1),
            build_group(2, (1.0, None, 0.0), prompt_tokens=40),
            build_group(3, (0.0, 0.0)),
            build_group(4),
            two_and_three_turns(7),
        ),
        sampled_by(
            1, build_group(5, (1.0, 0.5, 0.0)), build_group(6, (1.0, 0.0), prompt_tokens=5, response_tokens=(60, 60))
        ),
        replace(sampled_by(1, lonely), version=2),
    ]


def state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "learner.safetensors")


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    """Compare weights, first and second moments, each relative to their own size."""
    assert found.keys() == expected.keys()
    for part in ("master", "exp_avg", "exp_avg_sq"):
        names = [name for name in expected if name.endswith(f".{part}")]
        scale = torch.stack([expected[name].norm() for name in names]).norm()
        error = torch.stack([(found[name] - expected[name]).norm() for name in names]).norm()
        assert scale > 0
        assert error <= tolerance * scale, part


def test_two_processes_make_the_updates_of_one(
    two: RemoteLearner, one: LoraLearner, start: Path, run: Any, tmp_path: Path
):
    """Compare weights, moments and metrics. One process makes the last update, too, after a resume."""
    run(two.restore(str(start), 0))
    for number, batch in enumerate(batches()):
        expected, found = update_one(one, batch), run(update(two, batch))
        assert found.adapter.name == expected.adapter.name
        assert found.metrics.keys() == expected.metrics.keys()
        for name in found.metrics.keys() - {"learner/peak_memory", "learner/tokens_per_second", "time/publish"}:
            if name != "learner/padding":
                assert found.metrics[name] == pytest.approx(expected.metrics[name], rel=1e-4, abs=1e-6), name
        folders = [tmp_path / f"{who}-{number}" for who in ("one", "two")]
        for folder in folders:
            folder.mkdir()
        one.save(folders[0])
        run(two.save(str(folders[1])))
        assert_close(state(folders[1]), state(folders[0]), 1e-5)
        published = [load_file(Path(a.path) / "adapter_model.safetensors") for a in (found.adapter, run(two.publish()))]
        assert all(torch.equal(published[0][name], published[1][name]) for name in published[0])
    again, resumed = LoraLearner(one.config, one.config.model.path, tmp_path / "again"), tmp_path / "resumed"
    again.restore(tmp_path / "two-1", 0)
    assert again.version == 2
    update_one(again, batches()[2])
    resumed.mkdir()
    again.save(resumed)
    assert_close(state(resumed), state(tmp_path / "one-2"), 1e-5)
    groups = (build_group(7), build_group(8, (1.0,)))
    for ours, theirs in zip(run(two.score(groups)), one.score(groups), strict=True):
        for found_scores, expected_scores in zip(ours, theirs, strict=True):
            assert found_scores.policy == pytest.approx(expected_scores.policy, abs=1e-4)


def test_two_processes_imitate_as_one(two: RemoteLearner, one: LoraLearner, start: Path, run: Any):
    """Compare losses, the last of a single response, and later updates with a KL term to the reference."""
    run(two.restore(str(start), 0))
    last = build_group(3)
    for number, each in enumerate((build_group(1), build_group(2), replace(last, samples=last.samples[:1]))):
        expected, found = one.imitate((each,), number / 3), run(two.imitate((each,), number / 3))
        assert found == (pytest.approx(expected[0], rel=1e-4), "")
    one.publish()
    run(two.publish())
    for batch in batches()[:2]:
        first, second = update_one(one, batch).metrics, run(update(two, batch)).metrics
        assert all(
            second[name] == pytest.approx(first[name], rel=1e-4, abs=1e-6) for name in ("loss", "policy/kl_to_base")
        )
    assert first["policy/kl_to_base"] > 1e-3


@pytest.mark.parametrize("group", [0, 3])
def test_a_nan_loss_in_one_process_skips_the_update_in_all(
    two: RemoteLearner, one: LoraLearner, start: Path, run: Any, tmp_path: Path, group: int
):
    run(two.restore(str(start), 0))
    groups = list(batches()[0].groups)
    groups[group] = spoil(groups[group])
    stats = run(update(two, Batch(0, tuple(groups))))
    assert f"group {groups[group].index} sample 1" in stats.fault
    assert "loss of update 1 is nan" in stats.fault
    assert (stats.adapter.version, bool(stats.fault)) == (1, True)
    run(two.save(str(tmp_path)))
    before = state(start)
    assert all(torch.equal(value, before[name]) for name, value in state(tmp_path).items())
    one.version = 1
    following = batches()[1]
    expected, found = update_one(one, following), run(update(two, following))
    assert found.fault == ""
    assert found.metrics["grad_norm"] == pytest.approx(expected.metrics["grad_norm"], rel=1e-5)


def test_all_processes_refuse_an_unreadable_checkpoint(two: RemoteLearner, run: Any):
    with pytest.raises(BadInput, match=r"/nowhere/learner\.json cannot be read"):
        run(two.restore("/nowhere", 0))
    assert run(two.publish())


class WaitingProcess:
    def __init__(self, crashes: bool) -> None:
        self._crashes = crashes

    def address(self) -> str:
        return "127.0.0.1"

    def start_store(self, host: str) -> int:
        return 1

    def open(self, host: str, port: int) -> list[str]:
        return []

    def accumulate(self, batch: Batch) -> None:
        if self._crashes:
            os._exit(9)
        time.sleep(600)  # as in a collective

    def publish(self) -> str:
        return "alive"


def test_one_crashed_process_ends_all(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("microbudget_rl.learner.actor.CRASH_NOTICE_S", 0.1)

    async def work() -> None:
        processes = [
            RemoteActor(WaitingProcess, f"waiting-{crashes}", Share(), crashes, asynchronous=False)
            for crashes in (False, True)
        ]
        learner = RemoteLearner(processes, WallClock(), print)
        assert await learner.publish() == "alive"
        with pytest.raises(LearnerDied, match="waiting-True died"):
            await learner.accumulate(Batch(0, ()))
        for process in processes:
            with pytest.raises(ActorDied):
                await process.call("publish")

    run(work())


ALONE = """
import psutil, torch
from microbudget_rl.learner.distributed import World
world = World()
world.join("gloo")
group = torch.distributed.new_group([0])
tensor = torch.arange(4.0)
torch.distributed.all_reduce(tensor, group=group)
torch.distributed.broadcast(tensor, 0)
assert tensor.tolist() == [0, 1, 2, 3]
assert world.gather("mine") == ["mine"]
print([each.laddr for each in psutil.Process().net_connections() if each.status == "LISTEN"])
"""


def test_a_single_process_opens_no_port():
    ended = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


def test_both_backends_use_the_interface_of_an_address_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch):
    (name, addresses), *_ = psutil.net_if_addrs().items()
    for environment in ({}, {"NCCL_SOCKET_IFNAME": "ib0"}):
        monkeypatch.setattr(os, "environ", dict(environment))
        use_interface(addresses[0].address)
        wanted = {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": f"={name}"} | environment
        assert os.environ == wanted
